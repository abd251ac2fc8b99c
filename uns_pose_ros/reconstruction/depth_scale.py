"""Scale of a reconstruction from depth images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from uns_pose_ros.io.depth_images import _AGREE, _FRAMES, _LEAST, _SHARE, Depth


@dataclass(frozen=True)
class Metres:
    """How long a unit of the poses is, and how far the depth agrees on it."""

    unit_m: float | None  # m; None: depth says too little, or not one thing
    observations: int  # of points, where depth was measured
    agreeing: int  # of them, on `unit_m`
    frames: int  # images that these are in


def metres_per_unit(seen: Iterable[tuple[NDArray[np.float64], Depth]]) -> Metres:
    """The length of a unit by what each image sees of the points (N, 3).

    U v px and z, units, and by its depth (H, W).

    Each observation gives one ratio. The one that most share within `_AGREE` holds: depth beside an
    edge, of a reflection or of a point that is wrong is outvoted.
    """
    ratios, frames = list[NDArray[np.float64]](), list[NDArray[np.int64]]()
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
    agreeing, count = (
        shared.stop - shared.start,
        len(np.unique(np.concatenate(frames)[order][shared])),
    )
    good = agreeing >= max(_LEAST, _SHARE * len(ordered)) and count >= _FRAMES
    return Metres(
        float(np.median(ordered[shared])) if good else None, len(ordered), agreeing, count
    )
