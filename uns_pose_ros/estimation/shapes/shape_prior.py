"""What the training instances tell of the box of an instance that was never seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from uns_pose_ros.core.types import CategoryModel

Floats = NDArray[np.float64]
_MOST = 24  # instances whose shapes are used, evenly chosen
# as if so many instances of independent sides were seen beside the training's, with this standard
# deviation (canonical units): a few instances do not tell how much a category varies
_ASSUMED, _SPREAD = 4.0, 0.1
# standard deviation of the length of all sides together against the distance of the pose
_COMMON = 0.1


@dataclass(frozen=True, eq=False)
class ShapePrior:
    """Outlines of N instances within their boxes, and a Gaussian of the boxes' sides.

    Sides are the coordinates x y z of the lower corner, then those of the upper one, canonical
    units.
    """

    outlines: (
        Floats  # (N, K, 3), 0 at the lower corner of the instance's box, 1 at the upper one
    )
    mean: Floats  # (6,) sides
    covariance: Floats  # (6, 6) of the sides

    @staticmethod
    def of(model: CategoryModel) -> ShapePrior | None:
        """The prior of a model; None: its training recorded no instances."""
        points = [shape.numpy() for shape in model.instances.values()]
        if not points:
            return None
        count = min(len(points), _MOST)
        points = [points[k * len(points) // count] for k in range(count)]
        longest = max(map(len, points))
        # the first point stands in for those that a shape lacks
        padded = np.stack([one[np.arange(longest) % len(one)] for one in points])
        low, high = padded.min(1), padded.max(1)  # (N, 3)
        size = np.maximum(high - low, 1e-6)
        mean = model.bounds.numpy().ravel()
        off = np.concatenate([low, high], 1) - mean
        covariance = (off.T @ off + _ASSUMED * _SPREAD**2 * np.eye(6)) / (count + _ASSUMED)
        middle = (mean[:3] + mean[3:]) / 2
        growth = mean - np.concatenate([middle, middle])
        return ShapePrior(
            (padded - low[:, None]) / size[:, None],
            mean,
            covariance + _COMMON**2 * np.outer(growth, growth),
        )
