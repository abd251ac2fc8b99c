"""Whether the poses of a model fit its points, or would if they were read in another convention.

Programs write quaternions as x y z w, poses from the camera to the object, or cameras whose y axis
points up. Nothing in a model says so; only the points do, that its images see.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from uns_pose_ros.core.geometry import (
    from_parts,
    matrix_to_quaternion,
    project,
    quaternion_to_matrix,
)
from uns_pose_ros.core.types import Camera
from uns_pose_ros.io.colmap_model.image_row import Observed

_IMAGES = 50  # of a model, that are looked at, at most
_FEWEST = 30  # observations by which something can be said
# median distance between a point and where it was seen, as a share of the image's diagonal: more is
# no fit, less is one
_NO_FIT, _FIT = 0.05, 0.02


class PosedPoints(NamedTuple):
    """An image with the points that it sees."""

    camera: Camera  # in whose pixels the points were seen
    cam_from_obj: Tensor  # (4, 4) float64
    observed: Observed


def _read_xyzw(pose: Tensor) -> Tensor:
    quaternion = matrix_to_quaternion(pose[:3, :3])  # x y z w under the names w x y z
    return from_parts(quaternion_to_matrix(quaternion.roll(1, -1)), pose[:3, 3])


def _turn_upright(pose: Tensor) -> Tensor:
    """Axes of OpenGL, y up and z backward, as those of OpenCV."""
    return torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=pose.dtype)) @ pose


_CONVENTIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "with quaternions x y z w": _read_xyzw,
    "from the camera to the object": torch.linalg.inv,
    "from the camera to the object, with quaternions x y z w": lambda pose: (
        torch.linalg.inv(_read_xyzw(pose))
    ),
    "with the y axis up": _turn_upright,
    "from the camera to the object, with the y axis up": lambda pose: _turn_upright(
        torch.linalg.inv(pose)
    ),
}


def doubt_poses(images: Sequence[PosedPoints], points: Mapping[int, Tensor]) -> str:
    """Say how far the poses of a model are from its points, and what would fit.

    Args:
        images: The images of the model.
        points: Positions (3,) float64 of its points by number, obj frame.

    Returns:
        A description; empty where the poses fit, or where too few points were seen.
    """
    images = images[:: -(-len(images) // _IMAGES) or 1]
    seen = [[item for item in image.observed if item[2] in points] for image in images]
    if sum(map(len, seen)) < _FEWEST:
        return ""
    miss = _median_miss(images, seen, points, lambda pose: pose)
    if miss < _NO_FIT:
        return ""
    misses = {
        name: _median_miss(images, seen, points, read)
        for name, read in _CONVENTIONS.items()
    }
    best = min(misses, key=lambda name: misses[name])
    text = (
        f"points lie {min(miss, 1):.0%} of the image's diagonal from where they were seen"
    )
    return f"{text}; they fit poses {best}" if misses[best] < _FIT else text


def _median_miss(
    images: Sequence[PosedPoints],
    seen: Sequence[Sequence[tuple[float, float, int]]],
    points: Mapping[int, Tensor],
    read: Callable[[Tensor], Tensor],
) -> float:
    """Median distance of points from where they were seen, in diagonals of the image."""
    misses = []
    for (camera, pose, _), observed in zip(images, seen, strict=True):
        if not observed:
            continue
        cam_from_obj = read(pose)
        positions = torch.stack([points[number] for _, _, number in observed])
        in_camera = positions @ cam_from_obj[:3, :3].mT + cam_from_obj[:3, 3]
        target = torch.tensor([item[:2] for item in observed], dtype=torch.float64)
        miss = (project(camera.matrix, in_camera) - target).norm(dim=-1)
        miss[in_camera[:, 2] <= 0] = torch.inf
        misses.append(miss / (camera.width**2 + camera.height**2) ** 0.5)
    return float(torch.cat(misses).nan_to_num(torch.inf, torch.inf).median())
