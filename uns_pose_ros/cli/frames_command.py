"""The command `frames`: named frames of a model, such as a handle or a grasp."""

from __future__ import annotations

import contextlib
import logging
import time
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor
from tyro.conf import Positional, arg

from uns_pose_ros.cli.arguments import Host, Json, Port
from uns_pose_ros.cli.console import emit, table
from uns_pose_ros.core.errors import InvalidInput, shorten
from uns_pose_ros.core.named_frames import MAX_GAP, SURFACE, NamedFrame, axes_from
from uns_pose_ros.core.types import CategoryModel
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.schema.frames_record import (
    FRAMES,
    check_names,
    read_frames,
    write_frames,
)
from uns_pose_ros.io.writing.target_lock import lock_target
from uns_pose_ros.pipeline.aligned_videos import find_aligned_videos
from uns_pose_ros.visualization.frames_editor import FramesEditor

_log = logging.getLogger(__name__)
_TIP = 0.05  # of the template's length: so near to its end are the vertices of an extreme point

Model = Annotated[
    Positional[Path], arg(metavar="MODEL", help="folder that `uns-pose train` wrote")
]
Action = Annotated[
    Positional[Literal["list", "add", "remove", "edit"]],
    arg(
        metavar="ACTION",
        help="list (without an action), add, remove, or edit: in a browser",
    ),
]
Name = Annotated[
    Positional[str], arg(metavar="NAME", help="of the frame; a part of the TF frame's name")
]
Vector = tuple[float, float, float]


def frames_command(
    model: Model,
    action: Action = "list",
    name: Name = "",
    position: Annotated[
        Vector | None,
        arg(metavar="X Y Z", help="in the canonical frame, object diameters"),
    ] = None,
    toward: Annotated[
        Vector | None,
        arg(
            metavar="X Y Z",
            help="instead of a position: where the template ends in this direction",
        ),
    ] = None,
    x_axis: Annotated[
        Vector | None,
        arg(metavar="X Y Z", help="direction of the frame's x: a gripper comes along it"),
    ] = None,
    z_axis: Annotated[
        Vector | None,
        arg(
            metavar="X Y Z",
            help="direction of the frame's z, at a right angle to x; without axes: the canonical "
            "ones",
        ),
    ] = None,
    width: Annotated[
        float | None,
        arg(
            metavar="WIDTH",
            help="opening of a gripper, object diameters: makes the frame a grasp",
        ),
    ] = None,
    follow: Annotated[
        Literal["surface", "rigid"],
        arg(
            metavar="HOW",
            help="surface: the frame snaps to the surface of each instance; rigid: it does not",
        ),
    ] = "surface",
    prefer: Annotated[
        Vector | None,
        arg(
            metavar="X Y Z",
            help="of the frames that a symmetry makes equal, publish the one that lies farthest in "
            "this direction of the camera's frame (0 0 -1: nearest to the camera); without: all",
        ),
    ] = None,
    category: Annotated[
        Path | None,
        arg(
            metavar="CATEGORY",
            help="with edit: folder of the videos that the model was trained on; without: the "
            "folder that the model is in",
        ),
    ] = None,
    json: Json = None,
    host: Host = "127.0.0.1",
    port: Port = 8080,
) -> None:
    """List, add or remove the named frames of a model; frames.yaml in its folder holds them.

    `add` replaces a frame of the same name. `edit` shows the template and the images of the
    aligned videos in a browser; a click places a frame. The frames are found on every instance
    that the model estimates: in the JSON of `estimate`, and by the node as TF frames
    CATEGORY_0/NAME.
    """
    folder = artifacts.model_folder(model)
    given = (position, toward, x_axis, z_axis, width, prefer)
    if action != "add" and any(value is not None for value in given):
        raise InvalidInput(f"frames {action}: options of a frame are valid with add only")
    if action != "edit" and category is not None:
        raise InvalidInput(f"frames {action}: --category is valid with edit only")
    if action in ("add", "remove") and not name:
        raise InvalidInput(f"frames {action}: the name of a frame is needed")
    if action in ("list", "edit") and name:
        raise InvalidInput(f"frames {action}: {name!r} is too much; it is for all frames")
    loaded = artifacts.load_model(folder)
    if action == "edit":
        _edit(folder, loaded, category, host, port)
        return
    if action == "list":
        text = f"{_text(loaded.frames)}\n{_box_text(loaded)}"
        emit(_record(loaded.frames), text, json)
        return
    if action == "remove":
        kept = remove_frame(folder, name)
    else:
        if (position is None) == (toward is None):
            raise InvalidInput("frames add: --position or --toward is needed, not both")
        try:
            axes = axes_from(_vector(x_axis), _vector(z_axis))
            place = _vector(position)
            if place is None:
                place = extreme_point(loaded, torch.tensor(toward))
            frame = NamedFrame(name, place, axes, width, follow, _vector(prefer))
        except ValueError as error:
            raise InvalidInput(f"frames add: {error}") from None
        _warn_if_far(frame, loaded)
        kept = add_frame(folder, frame)
    emit(_record(kept), _text(kept), json)


def add_frame(folder: Path, frame: NamedFrame) -> tuple[NamedFrame, ...]:
    """Add a frame to those in a model's folder, or replace that of its name; returns all of them.

    Raises:
        InvalidInput: The frames there are not valid, or too many.
    """
    with lock_target(folder):
        frames = {one.name: one for one in read_frames(folder)} | {frame.name: frame}
        kept = tuple(frames.values())
        try:
            check_names(kept)
        except ValueError as error:
            raise InvalidInput(f"{folder / FRAMES}: {error}") from None
        write_frames(kept, folder / FRAMES)
    return kept


def remove_frame(folder: Path, name: str) -> tuple[NamedFrame, ...]:
    """Remove a frame from those in a model's folder; returns the others.

    Raises:
        InvalidInput: There is no such frame, or the frames there are not valid.
    """
    with lock_target(folder):
        frames = {frame.name: frame for frame in read_frames(folder)}
        if name not in frames:
            raise InvalidInput(
                f"{folder / FRAMES}: no frame {name!r}; "
                f"{shorten(frames) if frames else 'there is none'}"
            )
        del frames[name]
        kept = tuple(frames.values())
        write_frames(kept, folder / FRAMES)
    return kept


def _edit(
    folder: Path, model: CategoryModel, category: Path | None, host: str, port: int
) -> None:
    """Serve the page on which frames are placed, until Ctrl-C."""
    videos = find_aligned_videos(category or folder.resolve().parent, model)
    if category is not None and not videos:
        raise InvalidInput(
            f"{category}: no video of the model's training; the folder with "
            f"{shorten(model.training_poses)} is needed"
        )
    editor = FramesEditor(
        model, partial(add_frame, folder), partial(remove_frame, folder), host, port, videos
    )
    with contextlib.suppress(KeyboardInterrupt):
        print(f"{editor.address}  (Ctrl-C ends)", flush=True)
        # a signal that another thread is given is seen by this one only when it runs
        while True:
            time.sleep(0.5)
    editor.close()


def extreme_point(model: CategoryModel, direction: Tensor) -> Tensor:
    """The mean (3,) float64 of the template's last vertices in a direction (3,)."""
    vertices = model.vertices.double()
    along = vertices @ direction.double()
    if not 0 < float(direction.norm()) < 1e6:
        raise ValueError("toward is no direction")
    length = along.max() - along.min()
    return vertices[along >= along.max() - _TIP * length].mean(0)


def _warn_if_far(frame: NamedFrame, model: CategoryModel) -> None:
    """Warn of a frame that should follow the surface and is far away from it."""
    gap = float((model.vertices.double() - frame.position).norm(dim=1).min())
    if frame.follow == SURFACE and gap > MAX_GAP:
        _log.warning(
            "%s is %.2f object diameters from the template, more than %g: it does not follow the "
            "surface",
            frame.name,
            gap,
            MAX_GAP,
        )


def _box_text(model: CategoryModel) -> str:
    low, high = model.vertices.amin(0).tolist(), model.vertices.amax(0).tolist()
    sides = [
        f"{axis} {a:.3f} to {b:.3f}" for axis, a, b in zip("xyz", low, high, strict=True)
    ]
    return f"the template: {', '.join(sides)} diameters"


def _vector(values: Vector | None) -> Tensor | None:
    return None if values is None else torch.tensor(values, dtype=torch.float64)


def _record(frames: tuple[NamedFrame, ...]) -> dict[str, Any]:
    return {
        "frames": [
            {
                "name": frame.name,
                "position": frame.position.tolist(),
                "rotation": frame.rotation.tolist(),
                "width": frame.width,
                "follow": frame.follow,
                "prefer": None if frame.prefer is None else frame.prefer.tolist(),
            }
            for frame in frames
        ]
    }


def _text(frames: tuple[NamedFrame, ...]) -> str:
    if not frames:
        return (
            "no named frames; `uns-pose frames MODEL add NAME --position X Y Z` defines one"
        )
    rows = [
        [
            frame.name,
            _numbers(frame.position),
            _numbers(frame.rotation[:, 0]),
            _numbers(frame.rotation[:, 2]),
            "" if frame.width is None else f"{frame.width:g}",
            frame.follow,
        ]
        for frame in frames
    ]
    head = ["name", "position (diameters)", "x axis", "z axis", "width", "follows"]
    return table(head, rows)


def _numbers(vector: Tensor) -> str:
    return " ".join(f"{value + 0.0:.3f}" for value in vector.tolist())
