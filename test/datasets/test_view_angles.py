"""The pose convention of PASCAL3D+ against numbers that were computed by hand."""

from __future__ import annotations

import pytest
import torch

from mini_views import AXES, VIEWS
from uns_pose_ros.core.geometry import angle_between
from uns_pose_ros.datasets.view_angles import (
    OURS_FROM_PASCAL,
    pose_from_angles,
    with_our_axes,
)


@pytest.mark.parametrize(("view", "rows"), VIEWS)
def test_angles_give_the_rotation_of_the_convention(
    view: tuple[float, float, float, float], rows: list[list[float]]
) -> None:
    pose = pose_from_angles(*view)
    torch.testing.assert_close(
        pose[:3, :3], torch.tensor(rows, dtype=torch.float64), atol=6e-5, rtol=0
    )
    assert pose[:3, 3].tolist() == [0, 0, view[3]]


def test_the_camera_stands_where_azimuth_and_elevation_say() -> None:
    pose = pose_from_angles(90, 30, 0, 2)
    camera = -pose[:3, :3].T @ pose[:3, 3]
    expected = torch.tensor([2 * 0.75**0.5, 0, 1], dtype=torch.float64)
    torch.testing.assert_close(camera, expected)


@pytest.mark.parametrize(
    "wrong", [(-30, 20, 5, 4), (30, -20, 5, 4), (30, 20, -5, 4), (210, 20, 5, 4)]
)
def test_a_mirrored_angle_gives_another_rotation(
    wrong: tuple[float, float, float, float],
) -> None:
    right = torch.tensor(VIEWS[3][1], dtype=torch.float64)
    assert angle_between(pose_from_angles(*wrong)[:3, :3], right) > 9


def test_our_axes_are_forward_left_and_up_of_the_object() -> None:
    pose = torch.eye(4, dtype=torch.float64)
    columns = with_our_axes(pose, OURS_FROM_PASCAL)[:3, :3].T
    assert columns.tolist() == [list(map(float, axis)) for axis in AXES]
