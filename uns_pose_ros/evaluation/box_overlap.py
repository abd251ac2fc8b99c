"""Overlap of boxes in space, and average precision over detections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError
from torch import Tensor

_CORNERS = np.array(list(product((-0.5, 0.5), repeat=3)))  # (8, 3)
# pairs of corners that differ in one coordinate
_EDGES = np.array(
    [(i, j) for i in range(8) for j in range(i + 1, 8) if (i ^ j) in (1, 2, 4)]
)
_TOUCHING = 1e-9  # sides


@dataclass(frozen=True, eq=False)
class OrientedBox:
    """A box in a camera's frame."""

    rotation: Tensor  # (3, 3) float64, from the box's axes
    center: Tensor  # (3,) float64
    extents: Tensor  # (3,) float64, along the box's axes

    @property
    def volume(self) -> float:
        """Product of the sides."""
        return float(self.extents.prod())


def box_iou_3d(a: OrientedBox, b: OrientedBox) -> float:
    """Intersection over union of two boxes in space, exact.

    A corner of the intersection is a corner of one box inside the other, or a point where an edge
    of one box passes a side of the other.
    """
    points = np.concatenate([_corners_of_overlap(a, b), _corners_of_overlap(b, a)])
    if len(points) < 4:
        return 0.0
    try:
        shared = float(ConvexHull(points).volume)
    except QhullError:  # the boxes only touch
        return 0.0
    return shared / max(a.volume + b.volume - shared, 1e-30)


def _corners_of_overlap(a: OrientedBox, b: OrientedBox) -> NDArray[np.float64]:
    """Corners of a in b, and points where edges of a pass sides of b: (N, 3), camera frame."""
    turn, center = b.rotation.numpy(), b.center.numpy()
    corners = _CORNERS * a.extents.numpy() @ a.rotation.numpy().T + a.center.numpy()
    # in units of b's sides: b is the cube from -0.5 to 0.5
    local = (corners - center) @ turn / b.extents.numpy()
    start, end = local[_EDGES[:, 0]], local[_EDGES[:, 1]]
    along = end - start
    crossings = [local]
    for axis, side in product(range(3), (-0.5, 0.5)):
        with np.errstate(divide="ignore", invalid="ignore"):
            at = (side - start[:, axis]) / along[:, axis]
        passes = np.isfinite(at) & (at >= 0) & (at <= 1)
        crossings.append(start[passes] + at[passes, None] * along[passes])
    points = np.concatenate(crossings)
    inside = (np.abs(points) <= 0.5 + _TOUCHING).all(1)
    shared: NDArray[np.float64] = points[inside] * b.extents.numpy() @ turn.T + center
    return shared


def average_precision(scored: Sequence[tuple[float, bool]], truths: int) -> float | None:
    """Area under the curve of precision over recall, percent.

    The precision at a recall is the best one at this or any higher recall, as in PASCAL VOC.

    Args:
        scored: Score and whether it is right, for each detection.
        truths: Number of true objects; 0 has no precision.
    """
    if not truths:
        return None
    order = sorted(scored, key=lambda item: -item[0])
    right = torch.tensor([float(hit) for _, hit in order], dtype=torch.float64)
    hits = right.cumsum(0)
    precision = hits / torch.arange(1, len(order) + 1, dtype=torch.float64)
    best = precision.flip(0).cummax(0).values.flip(0) if len(order) else precision
    return 100 * float((best * right).sum()) / truths
