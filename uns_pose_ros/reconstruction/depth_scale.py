"""Scale of a reconstruction from depth images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from uns_pose_ros.io.depth_images import Depth

_AGREE = 0.02  # relative difference of two ratios that agree
_LEAST = 30  # points that must agree
_FRAMES = 3  # images with points that must agree
_SHARE = 0.4  # part of all points that must agree


@dataclass(frozen=True)
class Metres:
    """Length of a unit of the poses, and the support for it."""

    unit_m: float | None  # m; None: too little depth, or no agreement
    observations: int  # of points, with a measured depth
    agreeing: int  # observations that support `unit_m`
    frames: int  # images with such an observation


def metres_per_unit(seen: Iterable[tuple[NDArray[np.float64], Depth]]) -> Metres:
    """The length of a unit of the poses, from points and depth in images.

    Each observation gives one ratio. The ratio with the most support within `_AGREE` holds, so
    that depth beside an edge, of a reflection or of a wrong point is an outlier.

    `seen` has for each image the points that it sees (N, 3), u v px and z in units, and its depth
    (H, W).
    """
    ratios: list[NDArray[np.float64]] = []
    frames: list[NDArray[np.int64]] = []
    for number, (points, depth) in enumerate(seen):
        column, row = np.rint(points[:, :2]).astype(int).T
        inside = (
            (column >= 0)
            & (row >= 0)
            & (column < depth.shape[1])
            & (row < depth.shape[0])
            & (points[:, 2] > 0)
        )
        measured = depth[row[inside], column[inside]] / 1000
        ratios.append((measured / points[inside, 2])[measured > 0])
        frames.append(np.full(len(ratios[-1]), number))
    pooled = np.concatenate(ratios) if ratios else np.zeros(0)
    order = np.argsort(pooled)
    ordered = pooled[order]
    if not len(ordered):
        return Metres(None, 0, 0, 0)
    ends = np.searchsorted(ordered, ordered * (1 + 2 * _AGREE), side="right")
    first = int((ends - np.arange(len(ordered))).argmax())
    shared = slice(first, int(ends[first]))
    agreeing = shared.stop - shared.start
    count = len(np.unique(np.concatenate(frames)[order][shared]))
    good = agreeing >= max(_LEAST, _SHARE * len(ordered)) and count >= _FRAMES
    unit_m = float(np.median(ordered[shared])) if good else None
    return Metres(unit_m, len(ordered), agreeing, count)
