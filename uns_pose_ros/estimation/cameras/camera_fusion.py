"""Fusion of the poses that several cameras see at one time, in a frame that does not move.

The mathematics is that of `fusion.pose_fusion`: the transform from one camera to the next takes
the place of the motion of one camera from image to image. So modes are weighed together, and a
handle that one camera cannot see is decided by another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from uns_pose_ros.core.settings import check_ranges, setting
from uns_pose_ros.core.types import PoseEstimate, PoseMode
from uns_pose_ros.estimation.cameras.fused_frames import fuse_frames
from uns_pose_ros.estimation.fusion import mode_update, pose_fusion, pose_modes
from uns_pose_ros.estimation.fusion.fusion_config import FusionConfig

_IMPOSSIBLE = 1e6  # cost of a pair that may not be matched
_SAME_TRACK = (
    0.5  # by which the cost is less where the camera's own track was matched before
)


@dataclass(frozen=True)
class CameraFusionConfig:
    """How objects are matched across cameras and kept."""

    match_distance: float = setting(
        1.0,
        "largest distance of two cameras' poses of one object, in diameters of the object",
        low=0.05,
        high=100.0,
    )
    max_difference: float = setting(
        1.0,
        "largest difference between the stamps of the images that are fused; at least the time "
        "between two results of the slowest estimator",
        unit="s",
        low=0.001,
        high=10.0,
    )
    object_memory: float = setting(
        2.0,
        "time for which an object that no camera sees keeps its number",
        unit="s",
        low=0.1,
        high=3600.0,
    )

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True, eq=False)
class CameraView:
    """What one camera sees in one image."""

    camera: str
    stamp: int  # ns
    fixed_from_cam: Tensor  # (4, 4) float64, rigid, m
    estimates: tuple[PoseEstimate, ...]  # in the camera, m
    tracks: tuple[int, ...]  # the camera's own number of each estimate


@dataclass(frozen=True, eq=False)
class FusedObject:
    """One object at the time of the newest image."""

    number: int  # unique over all categories
    estimate: PoseEstimate  # its cam_from_canon is fixed_from_canon
    cameras: tuple[str, ...]  # that see it, by name


def is_recent(stamp: int, newest: int, config: CameraFusionConfig) -> bool:
    """Whether an image is fused with the newest one; stamps in ns."""
    return newest - stamp <= config.max_difference * 1e9


class CameraFusion:
    """Matches the estimates of several cameras to objects, which keep their numbers."""

    def __init__(
        self,
        config: CameraFusionConfig = CameraFusionConfig(),
        fusion: FusionConfig = FusionConfig(),
    ) -> None:
        """Begin without objects."""
        self.configure(config, fusion)
        self.reset()

    def configure(self, config: CameraFusionConfig, fusion: FusionConfig) -> None:
        """Use other settings from now on; the objects stay."""
        self._config = config
        # what one camera sees is no older than what another sees
        self._fusion = replace(fusion, evidence_decay=1.0)

    def reset(self) -> None:
        """Forget all objects; numbers start at 0 again."""
        self._known: list[_KnownObject] = []
        self._next = 0

    def update(self, views: Sequence[CameraView]) -> list[FusedObject]:
        """Fuse what the cameras see now.

        Args:
            views: At most one for each camera, of about the same time.

        Returns:
            The objects that a camera sees, by number.
        """
        if not views:
            return []
        now = max(view.stamp for view in views)
        limit = self._config.object_memory * 1e9
        self._known = [known for known in self._known if now - known.seen <= limit]
        seen: dict[int, list[tuple[CameraView, PoseEstimate]]] = {}
        for view in sorted(views, key=lambda view: view.stamp):
            for k, known in enumerate(self._match(view)):
                entry = self._start(view, k) if known is None else known
                estimate = view.estimates[k]
                place = _in_fixed(view, estimate)
                entry.place = place if entry.seen != now else (entry.place + place) / 2
                entry.seen = now
                entry.tracks[view.camera] = view.tracks[k]
                seen.setdefault(entry.number, []).append((view, estimate))
        return [
            FusedObject(
                number,
                self._fuse(seen[number]),
                tuple(sorted(view.camera for view, _ in seen[number])),
            )
            for number in sorted(seen)
        ]

    def _match(self, view: CameraView) -> list[_KnownObject | None]:
        """Return the object of each estimate of a camera, None for a new one."""
        cost = np.full((len(view.estimates), len(self._known)), _IMPOSSIBLE)
        for i, estimate in enumerate(view.estimates):
            place = _in_fixed(view, estimate)
            for j, known in enumerate(self._known):
                if known.category != estimate.category:
                    continue
                diameter = max(known.diameter, float(estimate.size.norm()), 1e-9)
                away = float((place - known.place).norm()) / diameter
                if known.tracks.get(view.camera) == view.tracks[i]:
                    away -= _SAME_TRACK
                if away <= self._config.match_distance:
                    cost[i, j] = away
        pairs = {
            i: j
            for i, j in zip(*linear_sum_assignment(cost), strict=True)
            if cost[i, j] < _IMPOSSIBLE
        }
        return [
            self._known[pairs[i]] if i in pairs else None
            for i in range(len(view.estimates))
        ]

    def _start(self, view: CameraView, k: int) -> _KnownObject:
        estimate = view.estimates[k]
        entry = _KnownObject(
            self._next,
            estimate.category,
            float(estimate.size.norm()),
            _in_fixed(view, estimate),
            view.stamp,
            {},
        )
        self._next += 1
        self._known.append(entry)
        return entry

    def _fuse(self, seen: Sequence[tuple[CameraView, PoseEstimate]]) -> PoseEstimate:
        """Fuse the estimates of one object, in the order of their images."""
        view, estimate = seen[0]
        modes = pose_modes.observe(estimate, self._fusion)
        for later, other in seen[1:]:
            to_next = torch.linalg.inv(later.fixed_from_cam) @ view.fixed_from_cam
            seconds = (later.stamp - view.stamp) / 1e9
            modes = mode_update.predict(modes, to_next, seconds, True, self._fusion)
            image = pose_modes.observe(other, self._fusion)
            modes = mode_update.update(modes, image, other.symmetry, self._fusion)
            view, estimate = later, other
        best = max((one for _, one in seen), key=lambda one: one.score)
        fused = pose_fusion.conclude(modes, replace(estimate, doubt=None, frames=()))
        fused = replace(
            fused, size=best.size, center=best.center, size_sigma=best.size_sigma
        )
        fused = transform_estimate(fused, view.fixed_from_cam)
        pairs = [(each.fixed_from_cam, one) for each, one in seen]
        return replace(fused, frames=fuse_frames(pairs, fused))


@dataclass
class _KnownObject:
    """State of one object."""

    number: int
    category: str
    diameter: float  # m
    place: Tensor  # (3,) of the canonical origin in the fixed frame, m
    seen: int  # ns
    tracks: dict[str, int]  # the cameras' own numbers


def _in_fixed(view: CameraView, estimate: PoseEstimate) -> Tensor:
    """Position (3,) of an estimate in the fixed frame, m."""
    pose: Tensor = view.fixed_from_cam @ estimate.cam_from_canon
    return pose[:3, 3]


def transform_estimate(estimate: PoseEstimate, to_frame: Tensor) -> PoseEstimate:
    """Transform an estimate with its modes, without its named frames, into another frame.

    Args:
        estimate: The estimate, m.
        to_frame: (4, 4) rigid, from the frame of the estimate.
    """
    lift = torch.block_diag(to_frame[:3, :3], to_frame[:3, :3])

    def turned(covariance: Tensor | None) -> Tensor | None:
        return None if covariance is None else lift @ covariance @ lift.T

    others = [
        PoseMode(to_frame @ mode.cam_from_canon, mode.log_weight, turned(mode.covariance))
        for mode in estimate.alternatives
    ]
    return replace(
        estimate,
        cam_from_canon=to_frame @ estimate.cam_from_canon,
        covariance=turned(estimate.covariance),
        alternatives=tuple(others),
        frames=(),
    )
