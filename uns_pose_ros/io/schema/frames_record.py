"""frames.yaml in a model's folder: named frames, which a person or a command defines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import torch
import yaml
from msgspec import Meta, Struct
from torch import Tensor

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import quaternion_to_matrix
from uns_pose_ros.core.named_frames import SURFACE, NamedFrame, axes_from
from uns_pose_ros.io.given_files import path_inside
from uns_pose_ros.io.schema.constraints import Quadruple, Triple
from uns_pose_ros.io.schema.decoding import describe, read_file
from uns_pose_ros.io.schema.plain_yaml import parse_yaml
from uns_pose_ros.io.writing.replacement import atomic_write

FRAMES = "frames.yaml"
MAX_FRAMES = 32
_MAX_BYTES = 64 * 2**10
_WHAT = "list of frames"
_HEADER = """\
# Named frames of this category, in the canonical frame of the model (x front, y left, z up).
# All lengths are in object diameters (canonical units): 0.1 is a tenth of the object.
#
# name      one part of a TF frame: the node publishes CATEGORY_0/NAME
# position  x y z
# x_axis, z_axis, or quaternion (x y z w): the axes; a gripper comes along x and closes along y
# width     opening of a gripper: makes the frame a grasp
# follow    surface: it snaps to the surface of each instance; rigid: it keeps its place in the pose
# prefer    x y z in the camera's frame (z forward): of the frames that a symmetry makes equal, only
#           the one that lies farthest in this direction is published
"""


class NamedFrameRecord(Struct, frozen=True, forbid_unknown_fields=True):
    """One frame of frames.yaml."""

    name: str
    position: Triple
    x_axis: Triple | None = None
    z_axis: Triple | None = None
    quaternion: Quadruple | None = None  # x y z w
    width: float | None = None
    follow: str = SURFACE
    prefer: Triple | None = None

    def to_frame(self) -> NamedFrame:
        """The frame; ValueError where it is not valid."""
        if self.quaternion is None:
            try:
                rotation = axes_from(_vector(self.x_axis), _vector(self.z_axis))
            except ValueError as error:
                raise ValueError(f"{self.name[:80]}: {error}") from None
        elif self.x_axis is not None or self.z_axis is not None:
            raise ValueError(
                f"{self.name[:80]}: a quaternion and axes; one of both is valid"
            )
        else:
            x, y, z, w = self.quaternion
            quaternion = torch.tensor([w, x, y, z], dtype=torch.float64)
            if not 1e-6 < float(quaternion.norm()) < 1e6:
                raise ValueError(f"{self.name[:80]}: the quaternion is zero")
            rotation = quaternion_to_matrix(quaternion)
        position = torch.tensor(self.position, dtype=torch.float64)
        return NamedFrame(
            self.name, position, rotation, self.width, self.follow, _vector(self.prefer)
        )


class FramesRecord(Struct, frozen=True, forbid_unknown_fields=True):
    """The content of frames.yaml."""

    frames: Annotated[list[NamedFrameRecord], Meta(max_length=MAX_FRAMES)] = []


def read_frames(folder: Path) -> tuple[NamedFrame, ...]:
    """The named frames in a model's folder; none without a file.

    Raises:
        InvalidInput: The file is not valid, or leads out of the folder.
    """
    path = path_inside(folder, FRAMES)
    if not path.exists():
        return ()
    return parse_frames(read_file(path, _WHAT, _MAX_BYTES), path)


def parse_frames(data: bytes, path: Path) -> tuple[NamedFrame, ...]:
    """The named frames in the bytes of frames.yaml; InvalidInput names `path` and the fault."""
    try:
        value = parse_yaml(data, path, _WHAT)
        record = msgspec.convert(value if value is not None else {}, FramesRecord)
        frames = tuple(frame.to_frame() for frame in record.frames)
        check_names(frames)
    except InvalidInput:
        raise
    except (msgspec.MsgspecError, ValueError) as error:
        raise InvalidInput(f"{path}: not a valid {_WHAT} ({describe(error)})") from None
    return frames


def check_names(frames: Sequence[NamedFrame]) -> None:
    """ValueError where two frames have one name, or there are too many."""
    names = [frame.name for frame in frames]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"two frames are named {twice[0]}")
    if len(names) > MAX_FRAMES:
        raise ValueError(f"{len(names)} frames, at most {MAX_FRAMES} are valid")


def write_frames(frames: Sequence[NamedFrame], path: Path) -> None:
    """Write named frames as frames.yaml, whole or not at all."""
    records = [_entry(frame) for frame in frames]
    text = yaml.safe_dump({"frames": records}, sort_keys=False, default_flow_style=None)
    with atomic_write(path) as temporary:
        temporary.write_text(_HEADER + text, encoding="utf-8")


def _entry(frame: NamedFrame) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": frame.name,
        "position": _rounded(frame.position),
        "x_axis": _rounded(frame.rotation[:, 0]),
        "z_axis": _rounded(frame.rotation[:, 2]),
    }
    if frame.width is not None:
        entry["width"] = float(f"{frame.width:.6g}")
    entry["follow"] = frame.follow
    if frame.prefer is not None:
        entry["prefer"] = _rounded(frame.prefer)
    return entry


def _rounded(vector: Tensor) -> list[float]:
    return [round(value, 6) + 0.0 for value in vector.tolist()]


def _vector(values: Sequence[float] | None) -> Tensor | None:
    return None if values is None else torch.tensor(values, dtype=torch.float64)
