"""Models whose poses are written in another convention are noticed by their points."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from synthetic import look_at
from uns_pose_ros.core.geometry import (
    from_parts,
    matrix_to_quaternion,
    project,
    quaternion_to_matrix,
)
from uns_pose_ros.core.types import Camera
from uns_pose_ros.io.colmap_model.pose_conventions import PosedPoints, doubt_poses

K = torch.tensor([[100.0, 0, 31.5], [0, 100.0, 23.5], [0, 0, 1]]).double()
TURN = torch.from_numpy(look_at(90.0, 80.0, 1.0))
UP = torch.diag(torch.tensor([1.0, -1, -1, 1])).double()


def scene() -> tuple[list[PosedPoints], dict[int, Tensor]]:
    """Images around an object, and its points by number."""
    random = np.random.default_rng(0)
    points = torch.from_numpy(random.normal(0, 0.25, (40, 3)))
    images = []
    for k in range(12):
        pose = torch.from_numpy(look_at(30.0 * k, 10.0 + k, 2.5))
        pixels = project(K, points @ pose[:3, :3].mT + pose[:3, 3]).tolist()
        observed = tuple((u + 1, v, number) for number, (u, v) in enumerate(pixels))
        images.append(PosedPoints(Camera(K, 64, 48), pose, observed))
    return images, dict(enumerate(points))


def write_xyzw(pose: Tensor) -> Tensor:
    """The pose that a file with quaternions x y z w is read as."""
    quaternion = matrix_to_quaternion(pose[:3, :3])
    return from_parts(quaternion_to_matrix(quaternion.roll(-1, -1)), pose[:3, 3])


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (write_xyzw, "they fit poses with quaternions x y z w"),
        (torch.linalg.inv, "they fit poses from the camera to the object"),
        (lambda pose: UP @ pose, "they fit poses with the y axis up"),
        (
            lambda pose: torch.linalg.inv(UP @ pose),
            "they fit poses from the camera to the object, with the y axis up",
        ),
        (
            lambda pose: write_xyzw(torch.linalg.inv(pose)),
            "they fit poses from the camera to the object, with quaternions x y z w",
        ),
        (lambda pose: pose @ TURN, "of the image's diagonal from where they were seen"),
    ],
)
def test_poses_of_another_convention_are_named(
    write: Callable[[Tensor], Tensor], said: str
) -> None:
    images, points = scene()
    wrong = [image._replace(cam_from_obj=write(image.cam_from_obj)) for image in images]
    assert doubt_poses(wrong, points).endswith(said)


def test_right_poses_are_not_doubted_and_of_few_points_nothing_is_said() -> None:
    images, points = scene()
    assert doubt_poses(images, points) == ""
    wrong = [image._replace(cam_from_obj=image.cam_from_obj @ TURN) for image in images]
    assert doubt_poses(wrong, points) != ""
    assert doubt_poses(wrong, {0: points[0]}) == ""
    assert doubt_poses([], points) == ""
