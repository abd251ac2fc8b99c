"""The named frames of one image as JSON: what the estimator sends and the fusion node reads."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uns_pose_ros.core.geometry import invert, nearest_rotation
from uns_pose_ros.core.named_frames import (
    MAX_EQUIVALENTS,
    NAME_PATTERN,
    NamedFrame,
    PlacedFrame,
)
from uns_pose_ros.core.types import PoseEstimate

_MOST = 32 * MAX_EQUIVALENTS  # frames of an object
_FAR = 1e6  # m: more is no place


def frame_list(stamp: int, estimates: Sequence[PoseEstimate], tracks: Sequence[int]) -> str:
    """Write the frames of the objects of an image.

    Args:
        stamp: Of the image, ns.
        estimates: In meters.
        tracks: Their numbers.
    """
    objects = {
        str(track): [
            {
                "name": placed.name,
                "pose": placed.cam_from_frame.tolist(),
                "covariance": None
                if placed.covariance is None
                else placed.covariance.tolist(),
                "width": placed.width,
                "seen": placed.seen,
            }
            for placed in estimate.frames
        ]
        for estimate, track in zip(estimates, tracks, strict=True)
        if estimate.frames
    }
    return json.dumps({"stamp": stamp, "objects": objects})


def read_frame_list(text: str) -> tuple[int, dict[int, list[dict[str, Any]]]]:
    """Read what `frame_list` has written; returns the stamp, ns, and the frames by track.

    Raises:
        ValueError: It is not such a list.
    """
    try:
        record = json.loads(text)
        objects = {
            int(track): [_checked(entry) for entry in entries[:_MOST]]
            for track, entries in record["objects"].items()
        }
        return int(record["stamp"]), objects
    except (KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise ValueError(f"no list of frames: {error}") from None


def place_frame(entry: dict[str, Any], estimate: PoseEstimate) -> PlacedFrame:
    """A frame of the list on the object of its estimate, whose scale is 1: all in meters."""
    pose, name = entry["pose"], entry["name"]
    canon_from_frame = invert(estimate.cam_from_canon) @ pose
    origin = torch.zeros(3, dtype=torch.float64)
    definition = NamedFrame(name.split("/")[0], origin, canon_from_frame[:3, :3])
    return PlacedFrame(
        definition,
        name,
        canon_from_frame,
        pose,
        entry["covariance"],
        entry["seen"],
        entry["width"],
    )


def _checked(entry: dict[str, Any]) -> dict[str, Any]:
    width, covariance = entry["width"], entry["covariance"]
    pose = _matrix(entry["pose"], 4)
    pose[:3, :3] = nearest_rotation(pose[:3, :3])
    pose[3] = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    if width is not None and not 0 < float(width) < _FAR:
        raise ValueError("no width")
    name = str(entry["name"])
    if not re.fullmatch(NAME_PATTERN + r"(/\d{1,2})?", name):
        raise ValueError(f"name {name[:80]!r}")
    return {
        "name": name,
        "pose": pose,
        "covariance": None if covariance is None else _matrix(covariance, 3),
        "width": None if width is None else float(width),
        "seen": bool(entry["seen"]),
    }


def _matrix(rows: Any, size: int) -> Tensor:
    values = np.array(rows, dtype=np.float64)
    if values.shape != (size, size) or not (np.abs(values) < _FAR).all():
        raise ValueError(f"no matrix of {size} x {size} finite numbers")
    return torch.from_numpy(values)
