"""Tracks of objects over images, each with a number, a state and a fused pose."""

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
from uns_pose_ros.estimation.frame_placement import carry_frames
from uns_pose_ros.estimation.fusion import mode_update, pose_fusion, pose_modes
from uns_pose_ros.estimation.fusion.fusion_config import FusionConfig
from uns_pose_ros.estimation.fusion.pose_modes import PoseModes
from uns_pose_ros.estimation.metric_scale import to_metres
from uns_pose_ros.estimation.shapes.box_fusion import fuse_box
from uns_pose_ros.estimation.stream import object_motion
from uns_pose_ros.estimation.stream.object_motion import ObjectMotion

_IMPOSSIBLE = 1e6  # cost of a pair that may not be matched


class TrackState(Enum):
    """How certain it is that an object exists and is visible."""

    # seen now, but in fewer images than min_hits
    TENTATIVE = "tentative"
    TRACKED = "tracked"  # seen now
    # not in the newest image; keeps its number for max_age
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
        low=0.5,
        high=3600.0,
        group="tracking",
        deprecated="tracking.memory",
    )
    min_hits: int = setting(
        2,
        "number of images that must show an object before it counts as tracked",
        unit="images",
        low=1,
        high=100,
        group="tracking",
        deprecated="tracking.confirm",
    )
    gate: float = setting(
        1.0,
        "largest motion of an object from image to image, in apparent diameters",
        low=0.1,
        high=100.0,
        group="tracking",
    )

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True, eq=False)
class Track:
    """One object at the time of the newest image."""

    number: int  # unique over all categories
    state: TrackState
    # fused, in the newest image's camera; predicted where it is LOST
    estimate: PoseEstimate
    sightings: int
    seen: int  # ns, stamp of the last image with it


class Tracker:
    """Tracks the objects that an Estimator finds in a stream of images of one camera.

    An object is matched by its position in the image, in apparent diameters: a wrong monocular
    depth does not matter then. The known motion of the camera predicts the position, and the
    object's own velocity where images show that it moves in the fixed frame. An object keeps its
    size once it was measured. Poses in units of the unknown size are dropped when the size becomes
    known.
    """

    def __init__(
        self,
        config: TrackerConfig = TrackerConfig(),
        filtering: FusionConfig = FusionConfig(),
    ) -> None:
        self._config, self._fusion = config, filtering
        self.reset()

    def configure(self, config: TrackerConfig, filtering: FusionConfig) -> None:
        """Use other settings from the next image on; the tracks stay."""
        self._config, self._fusion = config, filtering

    def reset(self) -> None:
        """Delete all tracks; numbers start at 0 again."""
        self._followed: list[_FollowedObject] = []
        self._next = 0
        self._stamp: int | None = None

    @property
    def tracks(self) -> list[Track]:
        """All tracks; the poses of LOST ones are predicted."""
        return [self._track(entry) for entry in self._followed]

    def expect(self, stamp: int, motion: Tensor | None = None) -> list[Track]:
        """Predict the tracks at the time of the next image; the tracks stay as they are.

        Args:
            stamp: Time of the image, ns.
            motion: See `update`.

        Returns:
            The tracks with their states of the newest image; none if the stamp goes back.
        """
        if self._stamp is None or stamp < self._stamp:
            return []
        seconds = (stamp - self._stamp) / 1e9
        expected = []
        for track, entry in zip(self.tracks, self._followed, strict=True):
            modes, _ = self._predicted(entry, motion, seconds)
            expected.append(
                replace(
                    track, estimate=replace(track.estimate, cam_from_canon=modes.pose[0])
                )
            )
        return expected

    def update(
        self, estimates: Sequence[PoseEstimate], stamp: int, motion: Tensor | None = None
    ) -> list[Track]:
        """Match the estimates of one image to tracks; a stamp that goes back resets the tracker.

        Args:
            estimates: The estimates of the image.
            stamp: Time of the image, ns.
            motion: (4, 4) cam_now_from_cam_before, rigid, m, since the image before; None: unknown.

        Returns:
            One track for each estimate, in the same order.
        """
        if self._stamp is not None and stamp < self._stamp:
            self.reset()
        if self._stamp is not None:
            for entry in self._followed:
                entry.modes, entry.motion = self._predicted(
                    entry, motion, (stamp - self._stamp) / 1e9
                )
        self._stamp = stamp
        self._followed = [
            entry
            for entry in self._followed
            if stamp - entry.seen <= self._config.max_age * 1e9
        ]
        chosen = []
        for estimate, match in zip(estimates, self._match(estimates), strict=True):
            chosen.append(
                self._start(estimate) if match is None else self._continue(match, estimate)
            )
        return [self._track(entry) for entry in chosen]

    def _predicted(
        self, entry: _FollowedObject, motion: Tensor | None, seconds: float
    ) -> tuple[PoseModes, ObjectMotion | None]:
        """Modes and motion of an object in a later image; no motion if the camera's is unknown."""
        metric = entry.newest.metric
        modes = mode_update.predict(entry.modes, motion, seconds, metric, self._fusion)
        if motion is None or entry.motion is None or self._fusion.motion_evidence == 0:
            return modes, None
        distance = float(modes.pose[0, :3, 3].norm())
        state = object_motion.predict_motion(
            entry.motion, motion, seconds, metric, distance, self._fusion
        )
        followed = object_motion.follow_motion(
            modes, state, entry.newest.symmetry, self._fusion
        )
        return (modes, None) if followed is None else (followed, state)

    def _match(self, estimates: Sequence[PoseEstimate]) -> list[_FollowedObject | None]:
        """Return the object of each estimate, None for a new object.

        The assignment minimizes the total distance of all pairs within the gate. An object that
        moves may also have stopped.
        """
        cost = np.full((len(estimates), len(self._followed)), _IMPOSSIBLE)
        for i, estimate in enumerate(estimates):
            for j, entry in enumerate(self._followed):
                if entry.newest.category == estimate.category:
                    away = min(
                        apparent_distance(place, entry.newest, estimate)
                        for place in entry.places
                    )
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
        entry = _FollowedObject(
            self._next,
            pose_modes.observe(estimate, self._fusion),
            estimate,
            estimate,
            1,
            self._stamp,
        )
        entry.motion = self._motion_of(entry)
        self._next += 1
        self._followed.append(entry)
        return entry

    def _motion_of(self, entry: _FollowedObject) -> ObjectMotion | None:
        """The motion of an object that is at rest for all that is known; None: not wanted."""
        if not self._config.fuse or self._fusion.motion_evidence == 0:
            return None
        distance = float(entry.modes.pose[0, :3, 3].norm())
        return object_motion.start_motion(entry.modes, entry.newest.metric, distance)

    def _continue(self, entry: _FollowedObject, estimate: PoseEstimate) -> _FollowedObject:
        assert self._stamp is not None
        if entry.newest.metric and not estimate.metric:
            estimate = to_metres(estimate, entry.newest.scale / estimate.scale)
        seen = pose_modes.observe(estimate, self._fusion)
        if self._config.fuse and estimate.metric == entry.newest.metric:
            entry.modes = mode_update.update(
                entry.modes, seen, estimate.symmetry, self._fusion
            )
            self._follow(entry, seen)
        else:
            entry.modes, entry.motion = seen, None
        entry.newest, entry.sightings, entry.seen = (
            estimate,
            entry.sightings + 1,
            self._stamp,
        )
        if entry.motion is None:
            entry.motion = self._motion_of(entry)
        if self._config.fuse:
            answer = pose_fusion.conclude(entry.modes, estimate)
            entry.answer = fuse_box(entry.answer, answer, entry.sightings - 1)
        else:
            entry.answer = estimate
        return entry

    def _follow(self, entry: _FollowedObject, seen: PoseModes) -> None:
        """Update the motion of an object with its modes in an image, and move its modes with it."""
        if entry.motion is None:
            return
        symmetry = entry.newest.symmetry
        entry.motion = object_motion.update_motion(
            entry.motion, seen, symmetry, self._fusion
        )
        followed = object_motion.follow_motion(
            entry.modes, entry.motion, symmetry, self._fusion
        )
        if followed is None:
            entry.motion = None
        else:
            entry.modes = followed

    def _track(self, entry: _FollowedObject) -> Track:
        if entry.seen != self._stamp:
            return Track(
                entry.number,
                TrackState.LOST,
                _predict(entry.answer, entry.modes.pose[0]),
                entry.sightings,
                entry.seen,
            )
        state = (
            TrackState.TRACKED
            if entry.sightings >= self._config.min_hits
            else TrackState.TENTATIVE
        )
        return Track(entry.number, state, entry.answer, entry.sightings, entry.seen)


@dataclass
class _FollowedObject:
    """State of one tracked object."""

    number: int
    modes: PoseModes
    newest: PoseEstimate  # of one image
    answer: PoseEstimate  # of all images
    sightings: int
    seen: int  # ns
    motion: ObjectMotion | None = None  # None: nothing is known of it

    @property
    def places(self) -> list[Tensor]:
        """Positions (3,) in the camera at which the object is expected."""
        expected = [self.modes.pose[0, :3, 3]]
        if self.motion is not None and self.motion.is_moving:
            expected.append(self.motion.last_pose[:3, 3])
        return expected


def _predict(answer: PoseEstimate, pose: Tensor) -> PoseEstimate:
    """An estimate at a pose (4, 4) at which no image has seen it."""
    names = {placed.frame.name: placed.frame for placed in answer.frames}
    predicted = replace(answer, cam_from_canon=pose)
    return replace(predicted, frames=tuple(carry_frames(predicted, list(names.values()))))


def apparent_distance(position: Tensor, before: PoseEstimate, now: PoseEstimate) -> float:
    """Compute the distance of two estimates in the image, in apparent diameters.

    Args:
        position: (3,) expected position of the object in the camera.
        before: The earlier estimate.
        now: The new estimate.
    """
    here = now.cam_from_canon[:3, 3]
    far, near = float(position.norm()), float(here.norm())
    angle = math.atan2(
        float(torch.linalg.cross(position, here).norm()), float(position @ here)
    )
    diameter = max(
        2 * math.atan2(float(entry.size.norm()) / 2, distance)
        for entry, distance in ((before, far), (now, near))
    )
    return angle / max(diameter, 1e-6)
