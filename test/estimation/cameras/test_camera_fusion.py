"""Several cameras together know more than each: modes are weighed, numbers stay."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from streams import HALF_TURN, estimate, noisy, orbit, pose
from uns_pose_ros.core.geometry import angle_between
from uns_pose_ros.core.types import PoseEstimate, PoseMode
from uns_pose_ros.estimation.cameras.camera_fusion import (
    CameraFusion,
    CameraFusionConfig,
    CameraView,
)

WORLD = pose((0.0, 0.0, 40.0), (0.03, -0.02, 0.05))  # fixed_from_canon
CAMERAS = orbit(3, 100.0)  # cam_from_fixed
MILLISECOND = 10**6


def view(
    camera: int, *seen: PoseEstimate, stamp: int = 0, tracks: tuple[int, ...] = ()
) -> CameraView:
    fixed_from_cam = torch.linalg.inv(CAMERAS[camera])
    return CameraView(
        f"cam{camera}", stamp, fixed_from_cam, seen, tracks or tuple(range(len(seen)))
    )


def seen_by(camera: int, fixed_from_canon: Tensor, score: float = 0.6) -> PoseEstimate:
    return estimate(CAMERAS[camera] @ fixed_from_canon, score)


def degrees_off(found: PoseEstimate, truth: Tensor) -> float:
    return float(angle_between(found.cam_from_canon[:3, :3], truth[:3, :3]))


def test_a_handle_that_one_camera_cannot_see_is_decided_by_another() -> None:
    flipped = CAMERAS[0] @ WORLD @ HALF_TURN
    unsure = estimate(flipped, 0.5, (PoseMode(CAMERAS[0] @ WORLD, -0.1),))
    sure = seen_by(1, WORLD, 0.9)
    (alone,) = CameraFusion().update([view(0, unsure)])
    assert degrees_off(alone.estimate, WORLD) > 170
    assert alone.estimate.score == pytest.approx(0.5, abs=1e-3)
    for views in ([view(0, unsure), view(1, sure)], [view(1, sure), view(0, unsure)]):
        (both,) = CameraFusion().update(views)
        assert degrees_off(both.estimate, WORLD) < 1
        assert torch.allclose(both.estimate.cam_from_canon, WORLD, atol=1e-3)
        assert both.cameras == ("cam0", "cam1")
        assert 0.5 < both.estimate.score < 0.9


def test_three_cameras_err_less_than_one_and_the_covariance_says_so() -> None:
    generator = torch.Generator().manual_seed(0)
    single, fused, sigma = [], [], []
    for _ in range(30):
        views = [view(k, estimate(noisy(CAMERAS[k] @ WORLD, generator))) for k in range(3)]
        ones = [CameraFusion().update([each])[0].estimate for each in views]
        (all_three,) = CameraFusion().update(views)
        single.append(sum(degrees_off(one, WORLD) ** 2 for one in ones) / 3)
        fused.append(degrees_off(all_three.estimate, WORLD) ** 2)
        assert all_three.estimate.covariance is not None
        sigma.append(float(all_three.estimate.covariance[3:, 3:].trace()))
    assert (sum(fused) / sum(single)) ** 0.5 == pytest.approx(3**-0.5, abs=0.15)
    # the share that the images have in common is in the covariance
    assert math.radians((sum(fused) / 30) ** 0.5) < (sum(sigma) / 30) ** 0.5


def test_the_box_of_the_surest_camera_is_that_of_the_object() -> None:
    def boxed(camera: int, score: float, side: float) -> PoseEstimate:
        sides = torch.full((3,), side, dtype=torch.float64)
        return replace(seen_by(camera, WORLD, score), size=sides, center=sides / 10)

    (both,) = CameraFusion().update(
        [view(0, boxed(0, 0.9, 0.3)), view(1, boxed(1, 0.5, 0.4))]
    )
    assert both.estimate.center is not None
    assert both.estimate.size.tolist() == [0.3] * 3
    assert both.estimate.center.tolist() == pytest.approx([0.03] * 3)


def test_cameras_that_contradict_each_other_give_a_low_score() -> None:
    (one,) = CameraFusion().update(
        [view(0, seen_by(0, WORLD, 0.8)), view(1, seen_by(1, WORLD @ HALF_TURN, 0.8))]
    )
    assert one.estimate.score < 0.6
    assert len(one.estimate.alternatives) == 1


def test_objects_keep_their_numbers_in_any_order_and_through_the_outage_of_a_camera() -> (
    None
):
    places = [pose((0.0, 0.0, 0.0), (x, 0.0, 0.0)) for x in (-0.5, 0.0, 0.5)]
    fusion = CameraFusion()

    def look(cameras: tuple[int, ...], stamp: int) -> list[tuple[int, float, int]]:
        views = []
        for k in cameras:
            order = places[::-1] if k % 2 else places
            seen = [seen_by(k, place) for place in order]
            views.append(view(k, *seen, stamp=stamp))
        return [
            (each.number, round(float(each.estimate.cam_from_canon[0, 3]), 2), count)
            for each in fusion.update(views)
            for count in [len(each.cameras)]
        ]

    assert look((0, 1, 2), 0) == [(0, -0.5, 3), (1, 0.0, 3), (2, 0.5, 3)]
    assert look((1,), 100 * MILLISECOND) == [(0, -0.5, 1), (1, 0.0, 1), (2, 0.5, 1)]
    assert look((0, 1, 2), 200 * MILLISECOND) == [(0, -0.5, 3), (1, 0.0, 3), (2, 0.5, 3)]
    assert fusion.update([]) == []
    late = 10**10
    assert [number for number, _, _ in look((0,), late)] == [3, 4, 5]
    fusion.reset()
    assert [number for number, _, _ in look((0,), late)] == [0, 1, 2]


def test_categories_do_not_mix_and_far_poses_are_two_objects() -> None:
    near = pose((0.0, 0.0, 0.0), (0.05, 0.0, 0.0))
    far = pose((0.0, 0.0, 0.0), (0.7, 0.0, 0.0))
    mug = replace(seen_by(1, WORLD), category="mug")
    found = CameraFusion().update([view(0, seen_by(0, WORLD)), view(1, mug)])
    assert [each.estimate.category for each in found] == ["car", "mug"]
    origin = pose((0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    for place, count in ((near, 1), (far, 2)):
        views = [view(0, seen_by(0, origin)), view(1, seen_by(1, place))]
        assert len(CameraFusion().update(views)) == count
    config = CameraFusionConfig(match_distance=10.0)
    assert len(CameraFusion(config).update(views)) == 1


def test_a_covariance_that_no_camera_gives_is_unknown_in_the_fused_pose() -> None:
    bare = [replace(seen_by(k, WORLD), covariance=None) for k in range(2)]
    (one,) = CameraFusion().update([view(k, bare[k]) for k in range(2)])
    assert one.estimate.covariance is None
    assert torch.allclose(one.estimate.cam_from_canon, WORLD, atol=1e-6)
