"""Which object is which.

Tracks over images, each with a number, a state, and the pose fused over all that showed it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from uns_pose_ros.core.settings import check_ranges, setting
from uns_pose_ros.core.types import PoseEstimate
from uns_pose_ros.estimation import pose_fusion
from uns_pose_ros.estimation.metric_scale import to_metres
from uns_pose_ros.estimation.pose_fusion import FusionConfig, PoseModes

_IMPOSSIBLE = 1e6  # cost of a pair that may not be matched


class TrackState(Enum):
    """How well an object is known."""

    # seen now, but not often enough to be sure that there is something
    TENTATIVE = "tentative"
    TRACKED = "tracked"  # seen now
    # not in the newest image; comes back with the same number within the tracker's memory
    LOST = "lost"


@dataclass(frozen=True)
class TrackerConfig:
    """How objects are followed."""

    fuse: bool = setting(
        True,
        "true: the pose is fused over all images, which reduces noise and outvotes flips; false: "
        "each image's own pose is given",
        group="tracking",
    )
    max_age: float = setting(
        2.0,
        "time for which an object that is not seen keeps its track id",
        unit="s",
        low=0.0,
        high=3600.0,
        group="tracking",
        deprecated="tracking.memory",
    )
    min_hits: int = setting(
        2,
        "number of images that must show an object before it counts as tracked",
        unit="images",
        low=1,
        high=1000,
        group="tracking",
        deprecated="tracking.confirm",
    )
    gate: float = setting(
        1.0,
        "largest motion of an object from image to image, in apparent diameters",
        low=0.0,
        high=100.0,
        group="tracking",
    )

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True, eq=False)
class Track:
    """One object at the newest image's time."""

    number: int  # unique over all categories
    state: TrackState
    # fused, in the newest image's camera; predicted where it is LOST
    estimate: PoseEstimate
    sightings: int
    seen: int  # ns, stamp of the last image with it


class Tracker:
    """Follows the objects that an Estimator finds in a stream of images of one camera.

    An object is found again by where it stands in the picture, in apparent diameters, which a wrong
    monocular depth does not upset; the known motion of the camera says where to look. An object
    whose size has once been measured keeps it where an image does not show it; what was known of
    its pose in units of its size is dropped when its size becomes known.
    """

    def __init__(
        self,
        config: TrackerConfig = TrackerConfig(),
        filtering: FusionConfig = FusionConfig(),
    ) -> None:
        self._config, self._fusion = config, filtering
        self.reset()

    def reset(self) -> None:
        """Forget every object; numbers start at 0 again."""
        self._followed: list[_FollowedObject] = []
        self._next = 0
        self._stamp: int | None = None

    @property
    def tracks(self) -> list[Track]:
        """Every object known, also those LOST, whose poses are predicted."""
        return [self._track(one) for one in self._followed]

    def update(
        self, estimates: Sequence[PoseEstimate], stamp: int, motion: Tensor | None = None
    ) -> list[Track]:
        """One track for each estimate of the image at `stamp` (ns), in the same order.

        A stamp that goes back resets.

        motion: (4, 4) cam_now_from_cam_before, rigid, m, since the last image given here; None: not
        known.
        """
        if self._stamp is not None and stamp < self._stamp:
            self.reset()
        if self._stamp is not None:
            for one in self._followed:
                one.modes = pose_fusion.predict(
                    one.modes,
                    motion,
                    (stamp - self._stamp) / 1e9,
                    one.newest.metric,
                    self._fusion,
                )
        self._stamp = stamp
        self._followed = [
            one for one in self._followed if stamp - one.seen <= self._config.max_age * 1e9
        ]
        chosen = []
        for estimate, match in zip(estimates, self._match(estimates), strict=True):
            chosen.append(
                self._start(estimate) if match is None else self._continue(match, estimate)
            )
        return [self._track(one) for one in chosen]

    def _match(self, estimates: Sequence[PoseEstimate]) -> list[_FollowedObject | None]:
        """The object that each estimate shows, None for a new one.

        Least total distance over all pairs within the gate.
        """
        cost = np.full((len(estimates), len(self._followed)), _IMPOSSIBLE)
        for i, estimate in enumerate(estimates):
            for j, one in enumerate(self._followed):
                if one.newest.category == estimate.category:
                    away = apparent_distance(one.modes.pose[0, :3, 3], one.newest, estimate)
                    cost[i, j] = away if away <= self._config.gate else _IMPOSSIBLE
        pairs = {
            i: j
            for i, j in zip(*linear_sum_assignment(cost), strict=True)
            if cost[i, j] < _IMPOSSIBLE
        }
        return [
            self._followed[pairs[i]] if i in pairs else None for i in range(len(estimates))
        ]

    def _start(self, estimate: PoseEstimate) -> _FollowedObject:
        assert self._stamp is not None
        one = _FollowedObject(
            self._next,
            pose_fusion.observe(estimate, self._fusion),
            estimate,
            estimate,
            1,
            self._stamp,
        )
        self._next += 1
        self._followed.append(one)
        return one

    def _continue(self, one: _FollowedObject, estimate: PoseEstimate) -> _FollowedObject:
        assert self._stamp is not None
        if one.newest.metric and not estimate.metric:
            estimate = to_metres(estimate, one.newest.scale / estimate.scale)
        seen = pose_fusion.observe(estimate, self._fusion)
        together = self._config.fuse and estimate.metric == one.newest.metric
        one.modes = (
            pose_fusion.update(one.modes, seen, estimate.symmetry, self._fusion)
            if together
            else seen
        )
        one.newest, one.sightings, one.seen = estimate, one.sightings + 1, self._stamp
        one.answer = (
            pose_fusion.conclude(one.modes, estimate) if self._config.fuse else estimate
        )
        return one

    def _track(self, one: _FollowedObject) -> Track:
        if one.seen != self._stamp:
            return Track(
                one.number,
                TrackState.LOST,
                replace(one.answer, cam_from_canon=one.modes.pose[0]),
                one.sightings,
                one.seen,
            )
        state = (
            TrackState.TRACKED
            if one.sightings >= self._config.min_hits
            else TrackState.TENTATIVE
        )
        return Track(one.number, state, one.answer, one.sightings, one.seen)


@dataclass
class _FollowedObject:
    """What the tracker keeps of an object."""

    number: int
    modes: PoseModes
    newest: PoseEstimate  # of one image
    answer: PoseEstimate  # of all images
    sightings: int
    seen: int  # ns


def apparent_distance(position: Tensor, before: PoseEstimate, now: PoseEstimate) -> float:
    """Angle from where the object `before` is expected, position (3,) in the camera, to `now`,
    over the apparent diameter.
    """
    here = now.cam_from_canon[:3, 3]
    far, near = float(position.norm()), float(here.norm())
    angle = math.atan2(
        float(torch.linalg.cross(position, here).norm()), float(position @ here)
    )
    diameter = max(
        2 * math.atan2(float(one.size.norm()) / 2, distance)
        for one, distance in ((before, far), (now, near))
    )
    return angle / max(diameter, 1e-6)
