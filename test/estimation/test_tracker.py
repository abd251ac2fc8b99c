"""Objects keep their number and their pose from image to image."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from streams import HALF_TURN, estimate, motions, noisy, orbit, pose
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import angle_between
from uns_pose_ros.core.types import PoseEstimate
from uns_pose_ros.estimation.tracker import (
    Tracker,
    TrackerConfig,
    TrackState,
    apparent_distance,
)

TENTH = 10**8  # ns


def car(x: float, depth: float = 1.0, category: str = "car") -> PoseEstimate:
    return estimate(pose((0.0, 0.0, 0.0), (x * depth, 0.0, depth)), category=category)


def numbers(tracker: Tracker, seen: list[PoseEstimate], stamp: int) -> list[int]:
    return [track.number for track in tracker.update(seen, stamp)]


def test_objects_that_are_given_in_another_order_keep_their_numbers() -> None:
    tracker = Tracker()
    cars = [car(-0.5), car(0.0), car(0.5)]
    assert numbers(tracker, cars, 0) == [0, 1, 2]
    assert numbers(tracker, cars[::-1], TENTH) == [2, 1, 0]
    assert numbers(tracker, cars[1:2], 2 * TENTH) == [1]
    assert numbers(tracker, [cars[2], cars[0]], 3 * TENTH) == [2, 0]


def test_categories_do_not_share_tracks_and_numbers_are_unique_over_all() -> None:
    tracker = Tracker()
    assert numbers(tracker, [car(0.0), car(0.0, category="mug")], 0) == [0, 1]
    assert numbers(tracker, [car(0.0, category="mug"), car(0.0)], TENTH) == [1, 0]
    assert numbers(tracker, [car(0.0, category="shoe")], TENTH * 2) == [2]


def test_a_wrong_depth_does_not_cost_the_number() -> None:
    tracker = Tracker()
    assert numbers(tracker, [car(0.1), car(0.5)], 0) == [0, 1]
    assert numbers(tracker, [car(0.5, depth=1.4), car(0.1, depth=0.7)], TENTH) == [1, 0]


def test_an_object_is_tentative_then_tracked_then_lost_and_comes_back_with_its_number() -> (
    None
):
    tracker = Tracker(TrackerConfig(max_age=1.0, min_hits=2))
    assert [track.state for track in tracker.update([car(0.0)], 0)] == [
        TrackState.TENTATIVE
    ]
    assert [track.state for track in tracker.update([car(0.0)], TENTH)] == [
        TrackState.TRACKED
    ]
    assert tracker.update([], 2 * TENTH) == []
    assert [(track.state, track.number, track.seen) for track in tracker.tracks] == [
        (TrackState.LOST, 0, TENTH)
    ]
    (back,) = tracker.update([car(0.01)], 9 * TENTH)
    assert (back.number, back.state, back.sightings) == (0, TrackState.TRACKED, 3)
    assert numbers(tracker, [car(0.0)], 20 * TENTH) == [
        1
    ]  # out of sight for longer than max_age
    assert len(tracker.tracks) == 1


def test_a_size_that_depth_has_shown_once_is_kept_where_an_image_does_not_show_it() -> None:
    tracker = Tracker()
    unknown = estimate(
        pose((0.0, 0.0, 0.0), (0.0, 0.0, 5.0)), size=1.0, metric=False
    )  # five diameters away
    measured = estimate(pose((0.0, 0.0, 0.0), (0.0, 0.0, 1.0)), size=0.2)
    found = [
        tracker.update([seen], k * TENTH)[0]
        for k, seen in enumerate([unknown, measured, unknown, unknown])
    ]
    assert [track.number for track in found] == [0, 0, 0, 0]
    assert [track.estimate.metric for track in found] == [False, True, True, True]
    assert [float(track.estimate.cam_from_canon[2, 3]) for track in found] == pytest.approx(
        [5, 1, 1, 1], rel=1e-6
    )
    assert [float(track.estimate.size.norm()) for track in found] == pytest.approx(
        [1, 0.2, 0.2, 0.2]
    )


def test_a_lost_object_is_expected_where_the_cameras_motion_brings_it() -> None:
    cameras = [
        pose((0.0, 5.0 * k, 0.0), (0.0, 0.0, 0.0)) for k in range(6)
    ]  # turning on the spot
    left, right = (
        pose((0.0, 0.0, 0.0), (-0.45, 0.0, 1.0)),
        pose((0.0, 0.0, 0.0), (0.0, 0.0, 1.0)),
    )
    tracker = Tracker()
    assert [t.number for t in tracker.update([estimate(left), estimate(right)], 0)] == [
        0,
        1,
    ]
    for k in range(1, 5):
        tracker.update([], k * TENTH, motions(cameras)[k - 1])
    expected = cameras[4] @ left
    assert torch.allclose(tracker.tracks[0].estimate.cam_from_canon, expected, atol=1e-9)
    (back,) = tracker.update([estimate(cameras[5] @ left)], 5 * TENTH, motions(cameras)[4])
    assert back.number == 0  # it stands where the other one was at first
    assert abs(float((cameras[5] @ left)[0, 3])) < 0.1


def test_stamps_that_go_back_and_a_reset_start_anew() -> None:
    tracker = Tracker()
    assert numbers(tracker, [car(0.0), car(0.5)], 50 * TENTH) == [0, 1]
    assert numbers(tracker, [car(0.5)], 10 * TENTH) == [0]
    tracker.reset()
    assert tracker.tracks == []
    assert numbers(tracker, [car(0.0)], 0) == [0]


def test_a_stream_with_flips_is_answered_without_them_and_with_less_noise() -> None:
    generator = torch.Generator().manual_seed(3)
    cameras = orbit(40, 5.0)
    step = motions(cameras)
    tracker, alone, fused = Tracker(), [], []
    for k, camera in enumerate(cameras):
        seen = noisy(camera @ HALF_TURN if k % 5 == 3 else camera, generator)
        (track,) = tracker.update([estimate(seen)], k * TENTH, step[k - 1] if k else None)
        alone.append(float(angle_between(seen[:3, :3], camera[:3, :3])))
        fused.append(
            float(angle_between(track.estimate.cam_from_canon[:3, :3], camera[:3, :3]))
        )
    assert sum(error > 90 for error in alone) == 8
    assert max(fused[1:]) < 25
    assert sorted(fused)[20] < 0.7 * sorted(alone)[20]


def test_the_box_of_an_object_is_the_mean_over_its_images_and_without_fusion_the_newest() -> (
    None
):
    place = pose((0.0, 0.0, 0.0), (0.0, 0.0, 1.0))
    sides = [torch.full((3,), side, dtype=torch.float64) for side in (0.1, 0.13, 0.16)]
    boxed = [
        replace(estimate(place), size=one, center=0.1 * one, size_sigma=0.1 + 0 * one)
        for one in sides
    ]
    for fuse, expected in ((True, 0.13), (False, 0.16)):
        tracker = Tracker(TrackerConfig(fuse=fuse))
        for k, one in enumerate(boxed):
            (track,) = tracker.update([one], k * 10**8)
        assert track.estimate.size.tolist() == pytest.approx([expected] * 3)
        assert track.estimate.center is not None
        assert track.estimate.center.tolist() == pytest.approx([0.1 * expected] * 3)


def test_without_fusion_each_image_is_answered_as_it_is() -> None:
    tracker = Tracker(TrackerConfig(fuse=False))
    for k in range(4):
        one = estimate(pose((0.0, 0.0, 30.0 * k), (0.0, 0.0, 1.0)))
        (track,) = tracker.update([one], k * TENTH)
        assert track.estimate is one
        assert track.number == 0


def test_the_first_image_of_an_object_is_answered_as_it_is() -> None:
    one = car(0.0)
    assert Tracker().update([one], 0)[0].estimate is one


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(InvalidInput, match="max_age -1.0: 0.5 to 3600 is valid"):
        TrackerConfig(max_age=-1.0)


@pytest.mark.parametrize(
    ("depth", "move", "same"),
    [(1.0, 0.9, True), (1.0, 1.1, False), (3.0, 0.9, True), (3.0, 1.1, False)],
)
def test_an_object_may_move_by_its_apparent_diameter_and_no_further(
    depth: float, move: float, same: bool
) -> None:
    """A car of 0.2 m at a depth covers twice the angle whose tangent is 0.1 m over the depth."""
    angle = move * 2 * math.atan(0.1 / depth)
    there = estimate(
        pose((0.0, 0.0, 0.0), (depth * math.sin(angle), 0.0, depth * math.cos(angle)))
    )
    before = car(0.0, depth)
    expected = before.cam_from_canon[:3, 3]
    assert apparent_distance(expected, before, there) == pytest.approx(move, rel=1e-6)
    tracker = Tracker(TrackerConfig(gate=1.0))
    assert numbers(tracker, [before], 0) == [0]
    assert numbers(tracker, [there], TENTH) == [0 if same else 1]
