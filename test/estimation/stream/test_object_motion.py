"""An object that is carried or pushed is followed without lag; one at rest stays as steady."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from streams import HALF_TURN, SHIFT, estimate, motions, noisy, orbit, pose
from uns_pose_ros.core.geometry import angle_between
from uns_pose_ros.core.types import PoseEstimate, Symmetry
from uns_pose_ros.estimation.fusion.fusion_config import FusionConfig
from uns_pose_ros.estimation.tracker import Track, Tracker, TrackState

TENTH = 10**8  # ns
REST = pose((0.0, 0.0, 40.0), (0.03, -0.02, 0.05))  # world_from_canon
AT_REST = FusionConfig(motion_evidence=0.0)
Path = Callable[[float], Tensor]  # world_from_canon at a time, s


def pushed(seconds: float) -> Tensor:
    return pose((0.0, 0.0, 40.0), (0.03 + 0.2 * max(0.0, seconds - 1), -0.02, 0.05))


def turned(seconds: float) -> Tensor:
    return pose((0.0, 0.0, 40.0 + 45.0 * seconds), (0.0, 0.0, 0.05))


def follow(
    path: Path,
    config: FusionConfig = FusionConfig(),
    count: int = 40,
    seed: int = 0,
    symmetry: Symmetry | None = None,
    flips: int = 0,
    metric: bool = True,
) -> tuple[list[Track], list[Tensor]]:
    """Tracks and true poses of an object before a camera that walks around it, ten images a second.

    Every so many images are flipped, if `flips` is not 0.
    """
    generator = torch.Generator().manual_seed(seed)
    cameras = orbit(count, 3.0)
    step, tracker = motions(cameras), Tracker(filtering=config)
    tracks, truths = [], []
    for k, camera in enumerate(cameras):
        truth = camera @ path(k / 10)
        seen = noisy(truth @ HALF_TURN if flips and k % flips == 3 else truth, generator)
        image = estimate(seen, symmetry=symmetry, metric=metric)
        (track,) = tracker.update([image], k * TENTH, step[k - 1] if k else None)
        tracks.append(track)
        truths.append(truth)
    return tracks, truths


def shifts(tracks: list[Track], truths: list[Tensor]) -> Tensor:
    """Errors (n, 3) of the positions, m."""
    return torch.stack(
        [
            (track.estimate.cam_from_canon - truth)[:3, 3]
            for track, truth in zip(tracks, truths, strict=True)
        ]
    )


def angles(tracks: list[Track], truths: list[Tensor]) -> Tensor:
    """Errors (n,) of the rotations, degrees."""
    return torch.stack(
        [
            angle_between(track.estimate.cam_from_canon[:3, :3], truth[:3, :3])
            for track, truth in zip(tracks, truths, strict=True)
        ]
    )


def largest_lag(config: FusionConfig, speed: float) -> float:
    """Largest error of the position from the second second on, with images without noise, m."""
    tracker, still = Tracker(filtering=config), torch.eye(4, dtype=torch.float64)
    errors = []
    for k in range(35):
        there = pose((0.0, 0.0, 40.0), (speed * max(0.0, k / 10 - 0.5), 0.0, 1.0))
        (track,) = tracker.update([estimate(there)], k * TENTH, still if k else None)
        errors.append(float((track.estimate.cam_from_canon - there)[:3, 3].norm()))
    return max(errors[20:])


@pytest.mark.parametrize("flips", [0, 5])
def test_an_object_at_rest_is_answered_bit_by_bit_as_if_none_could_move(flips: int) -> None:
    both = [
        follow(lambda _: REST, config, flips=flips)[0]
        for config in (FusionConfig(), AT_REST)
    ]
    for moving, resting in zip(*both, strict=True):
        assert torch.equal(moving.estimate.cam_from_canon, resting.estimate.cam_from_canon)
        assert moving.estimate.score == resting.estimate.score


@pytest.mark.parametrize("speed", [0.2, 0.4])
def test_a_pushed_object_does_not_lag(speed: float) -> None:
    assert largest_lag(AT_REST, speed) > 0.15 * speed
    assert largest_lag(FusionConfig(), speed) < 0.03 * speed


def test_a_pushed_object_is_steadier_than_its_images() -> None:
    tracks, truths = follow(pushed)
    late = shifts(tracks, truths)[-15:]
    assert float(late.norm(dim=1).mean()) < 0.8 * SHIFT * math.sqrt(3)
    assert float(late.diff(dim=0).norm(dim=1).mean()) < 0.8 * SHIFT * math.sqrt(6)


def test_an_object_that_turns_on_the_spot_does_not_lag() -> None:
    errors = {
        name: float(angles(*follow(turned, config))[-15:].median())
        for name, config in (("rest", AT_REST), ("moving", FusionConfig()))
    }
    assert errors["rest"] > 9
    assert errors["moving"] < 7


def test_flips_are_outvoted_while_the_object_moves() -> None:
    tracks, truths = follow(pushed, flips=5)
    assert float(angles(tracks, truths)[5:].max()) < 30
    assert float(shifts(tracks, truths)[-10:].norm(dim=1).median()) < 0.035


def test_an_object_that_stops_is_at_rest_again() -> None:
    def stopping(seconds: float) -> Tensor:
        return pushed(min(seconds, 2.5))

    both = [follow(stopping, config, 60) for config in (FusionConfig(), AT_REST)]
    late = [shifts(*each)[-15:] for each in both]
    steps = [float(each.diff(dim=0).norm(dim=1).mean()) for each in late]
    assert steps[0] < 1.1 * steps[1]
    assert float(late[0].mean(0).norm()) < 0.015


def test_an_object_whose_size_is_unknown_is_followed_as_it_turns() -> None:
    tracks, truths = follow(turned, metric=False)
    assert float(angles(tracks, truths)[-15:].median()) < 8


@pytest.mark.parametrize("order", [0, 2])
def test_a_symmetric_object_that_is_pushed_keeps_its_pose(order: int) -> None:
    axis = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    tracks, truths = follow(pushed, symmetry=Symmetry(order, axis))
    upright = torch.stack(
        [
            torch.rad2deg(
                torch.acos(
                    (track.estimate.cam_from_canon[:3, 2] @ truth[:3, 2]).clamp(max=1)
                )
            )
            for track, truth in zip(tracks, truths, strict=True)
        ]
    )
    assert float(upright[-15:].median()) < 8
    assert float(shifts(tracks, truths)[-10:].norm(dim=1).median()) < 0.035


def carried(tracker: Tracker, count: int, speed: float = 0.4) -> list[Tensor]:
    """Show a tracker an object that passes before a camera at rest; returns the poses."""
    still = torch.eye(4, dtype=torch.float64)
    poses = [
        pose((0.0, 0.0, 0.0), (speed * (k / 10 - 1.0), 0.0, 1.0)) for k in range(count + 20)
    ]
    for k in range(count):
        tracker.update([estimate(poses[k])], k * TENTH, still if k else None)
    return poses


def see(tracker: Tracker, k: int, seen: list[PoseEstimate]) -> list[Track]:
    return tracker.update(seen, k * TENTH, torch.eye(4, dtype=torch.float64))


def test_a_carried_object_that_a_gripper_hides_is_expected_further_on_and_keeps_its_number() -> (
    None
):
    tracker, resting = Tracker(), Tracker(filtering=AT_REST)
    poses = carried(tracker, 20)
    carried(resting, 20)
    for k in range(20, 27):
        see(tracker, k, [])
        see(resting, k, [])
    (lost,) = tracker.tracks
    assert lost.state == TrackState.LOST
    assert float((lost.estimate.cam_from_canon - poses[26])[:3, 3].norm()) < 0.06
    (expected,) = tracker.expect(27 * TENTH, torch.eye(4, dtype=torch.float64))
    assert float((expected.estimate.cam_from_canon - poses[27])[:3, 3].norm()) < 0.08
    (back,) = see(tracker, 27, [estimate(poses[27])])
    assert back.number == 0
    (other,) = see(resting, 27, [estimate(poses[27])])
    assert other.number == 1  # a new object for who takes it to be at rest


def test_a_carried_object_that_stopped_while_it_was_hidden_keeps_its_number() -> None:
    tracker = Tracker()
    poses = carried(tracker, 20)
    for k in range(20, 30):
        see(tracker, k, [])
    (back,) = see(tracker, 30, [estimate(poses[20])])
    assert back.number == 0


def test_an_object_that_is_hidden_for_long_does_not_run_away() -> None:
    tracker = Tracker()
    poses = carried(tracker, 20)
    for k in range(20, 39):
        see(tracker, k, [])
    (lost,) = tracker.tracks
    assert float((lost.estimate.cam_from_canon - poses[19])[:3, 3].norm()) < 0.45


def test_without_known_motion_of_the_camera_no_velocity_is_used() -> None:
    """Then the fixed frame is not known."""
    poses = [pose((0.0, 0.0, 0.0), (0.4 * (k / 10 - 1.0), 0.0, 1.0)) for k in range(25)]
    moving, resting = Tracker(), Tracker(filtering=AT_REST)
    for k, there in enumerate(poses):
        (one,) = moving.update([estimate(there)], k * TENTH)
        (other,) = resting.update([estimate(there)], k * TENTH)
        assert torch.equal(one.estimate.cam_from_canon, other.estimate.cam_from_canon)
