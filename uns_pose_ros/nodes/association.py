"""Track ids: an object keeps its number from image to image while it stays near where it was seen last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from uns_pose_ros.datatypes import PoseEstimate

GATE = 1.0  # box diagonals that an object's centre may move between two sightings


@dataclass
class _Track:
    number: int
    category: str
    box: np.ndarray  # (4,) x0 y0 x1 y1 px
    seen: int  # ns, stamp of the last image with it


class TrackIds:
    """Numbers objects by their nearest previous position in the image, which a wrong monocular depth does not upset."""

    def __init__(self, memory: float) -> None:
        """memory: s for which an object out of sight keeps its number."""
        self._memory = int(memory * 1e9)
        self._tracks: list[_Track] = []
        self._next = 0

    def assign(self, estimates: Sequence[PoseEstimate], stamp: int) -> list[int]:
        """One number for each estimate of the image at `stamp` (ns); numbers are unique over all categories."""
        self._tracks = [track for track in self._tracks if stamp - track.seen <= self._memory]
        boxes = [estimate.box.numpy() for estimate in estimates]
        cost = np.full((len(estimates), len(self._tracks)), np.inf)
        for i, estimate in enumerate(estimates):
            for j, track in enumerate(self._tracks):
                if track.category == estimate.category:
                    cost[i, j] = _distance(boxes[i], track.box)
        matched = {}
        for i, j in zip(*linear_sum_assignment(np.minimum(cost, 1e6)), strict=True):
            if cost[i, j] <= GATE:
                matched[i] = self._tracks[j]
        numbers = []
        for i, estimate in enumerate(estimates):
            track = matched.get(i) or self._start(estimate.category)
            track.box, track.seen = boxes[i], stamp
            numbers.append(track.number)
        return numbers

    def reset(self) -> None:
        """Forget every object; numbers start at 0 again."""
        self._tracks, self._next = [], 0

    def _start(self, category: str) -> _Track:
        track = _Track(self._next, category, np.zeros(4), 0)
        self._next += 1
        self._tracks.append(track)
        return track


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    """Between the centres of two boxes, in diagonals of the larger one."""
    diagonal = max(float(np.hypot(*(box[2:] - box[:2]))) for box in (a, b))
    return float(np.hypot(*((a[:2] + a[2:] - b[:2] - b[2:]) / 2))) / max(diagonal, 1.0)
