"""StreamEstimator: what is expected of the next image of a stream, and its tracks.

Node and evaluation follow objects with it. An Estimator cuts tracked objects out where they are
expected, which takes one pass of the backbone each, and searches the whole image now and then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from uns_pose_ros.core.settings import check_ranges, setting
from uns_pose_ros.core.types import PoseEstimate
from uns_pose_ros.estimation.stream.expectation import Expectation, ExpectedObject
from uns_pose_ros.estimation.tracker import Track, Tracker, TrackState

_WEAK = 0.6  # share of its usual score below which an object is weak
_HABIT = 0.9  # share of the usual score that remains one image later
_LONGEST_STEP = 2.0  # longest extrapolation, in times between the last two images


@dataclass(frozen=True)
class StreamConfig:
    """How often the images of a stream are searched."""

    every: int = setting(
        5,
        "the whole image is searched in each of so many images, and wherever an object is lost, "
        "new or in doubt; in the others, objects are looked for where they are expected; 1: "
        "every image is searched",
        unit="images",
        low=1,
        high=1000,
        group="search",
    )

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True, eq=False)
class _Habit:
    """What the last images showed of a track."""

    usual_score: float
    weak: bool  # whether the last score was weak
    stamp: int  # ns, of the last image
    tangents: Tensor  # (2,) x / z and y / z of the object
    speed: Tensor  # (2,) tangents in a ns
    step: int  # ns, between the last two images; 0: there was one


class StreamEstimator:
    """Follows the objects of one camera's stream of images.

    For each image: `expect`, an Estimator with what it returns, and `update`.
    """

    def __init__(self, tracker: Tracker, config: StreamConfig = StreamConfig()) -> None:
        """Begin with the tracks of a tracker, which is used by nobody else from now on."""
        self.tracker = tracker
        self.config = config  # holds from the next image on
        self._habits: dict[int, _Habit] = {}
        self._since_search = 0  # images
        self._asked = False

    def reset(self) -> None:
        """Forget all tracks."""
        self.tracker.reset()
        self._habits = {}
        self._since_search = 0

    def search_next(self) -> None:
        """Search the next image as a whole."""
        self._asked = True

    def expect(self, stamp: int, motion: Tensor | None = None) -> Expectation | None:
        """Predict what the next image shows.

        Args:
            stamp: Time of the image, ns.
            motion: (4, 4) cam_now_from_cam_before, rigid, m, since the image before; None: unknown.

        Returns:
            What is expected; None: the image is estimated like a single one.
        """
        if self.config.every == 1:
            return None
        tracks = self.tracker.expect(stamp, motion)
        steady = [track for track in tracks if self._is_steady(track)]
        if not steady:
            return None
        thorough = len(steady) < len(tracks)
        due = self._asked or self._since_search >= self.config.every - 1
        objects = [
            ExpectedObject(
                track.estimate if motion is not None else self._extrapolate(track, stamp),
                _WEAK * self._habits[track.number].usual_score,
            )
            for track in steady
        ]
        return Expectation(tuple(objects), due or thorough, thorough)

    def update(
        self,
        estimates: Sequence[PoseEstimate],
        expectation: Expectation | None,
        stamp: int,
        motion: Tensor | None = None,
    ) -> list[Track]:
        """Match the estimates of an image to tracks.

        Args:
            estimates: The estimates of the image.
            expectation: What was expected of it.
            stamp: Time of the image, ns.
            motion: As in `expect`.

        Returns:
            One track for each estimate, in the same order.
        """
        tracks = self.tracker.update(estimates, stamp, motion)
        searched = expectation is None or expectation.search
        self._since_search = 0 if searched else self._since_search + 1
        self._asked = self._asked and not searched
        habits = {
            track.number: self._habits[track.number]
            for track in self.tracker.tracks
            if track.number in self._habits
        }
        for estimate, track in zip(estimates, tracks, strict=True):
            habits[track.number] = _learn(habits.get(track.number), estimate, stamp)
        self._habits = habits
        return tracks

    def _is_steady(self, track: Track) -> bool:
        habit = self._habits.get(track.number)
        return track.state == TrackState.TRACKED and habit is not None and not habit.weak

    def _extrapolate(self, track: Track, stamp: int) -> PoseEstimate:
        """Move a track on in the image as it moved between the last two images."""
        habit, pose = self._habits[track.number], track.estimate.cam_from_canon.clone()
        later = stamp - habit.stamp
        if 0 < later <= _LONGEST_STEP * habit.step:
            pose[:2, 3] += pose[2, 3] * habit.speed * later
        return replace(track.estimate, cam_from_canon=pose)


def _learn(habit: _Habit | None, estimate: PoseEstimate, stamp: int) -> _Habit:
    """Update the habit of a track by the estimate of an image."""
    position = estimate.cam_from_canon[:3, 3]
    tangents = position[:2] / position[2].clamp_min(1e-9)
    if habit is None:
        return _Habit(estimate.score, False, stamp, tangents, torch.zeros(2).double(), 0)
    step = stamp - habit.stamp
    speed = (tangents - habit.tangents) / step if step > 0 else torch.zeros(2).double()
    return _Habit(
        max(estimate.score, _HABIT * habit.usual_score),
        estimate.score < _WEAK * habit.usual_score,
        stamp,
        tangents,
        speed,
        max(step, 0),
    )
