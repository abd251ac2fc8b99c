"""Find the symmetry of a category: rotations under which its aligned meshes stay alike.

A rotation is a symmetry if one video's turned mesh lies on another video's mesh as near in space,
and as alike in features seen from corresponding sides, as without the turn. A mesh is not compared
with itself, because that comparison is perfect only without a turn.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from uns_pose_ros.alignment.mesh_batch import MeshBatch
from uns_pose_ros.alignment.pairs.view_likeness import view_likeness
from uns_pose_ros.core.geometry import (
    from_parts,
    golden_spiral,
    invert,
    rotation_from_vector,
    symmetry_rotations,
    transform,
)
from uns_pose_ros.core.types import Symmetry


@dataclass(frozen=True)
class SymmetryConfig:
    """Conditions under which a rotation counts as a symmetry."""

    orders: tuple[int, ...] = (
        6,
        5,
        4,
        3,
        2,
    )  # in this order; the first that holds is taken
    # share of the videos' likeness without a turn that a symmetry keeps, at least
    likeness: float = 0.92
    # distance between the surfaces under a symmetry over that without a turn, at most
    gap: float = 1.25
    pairs: int = 12  # pairs of videos that are compared, at most
    # directions over the half sphere that are tried as an axis of continuous symmetry, besides x,
    # y and z
    axes: int = 40
    turns: tuple[float, ...] = (
        25.0,
        50.0,
        77.0,
        103.0,
        130.0,
        155.0,
        180.0,
    )  # degrees about an axis of continuous symmetry


def find_symmetry(
    shapes: MeshBatch,
    canon_from_shape: Tensor,
    view_width: float,
    config: SymmetryConfig = SymmetryConfig(),
) -> Symmetry:
    """Find the symmetry of N >= 2 aligned meshes.

    A continuous symmetry comes before an n-fold one, and a higher order before a lower one. An
    n-fold axis is a principal axis of the shape, so only x, y and z are tried for n-fold
    symmetries. The axis of a shape that is round all over may be any direction.

    Args:
        shapes: The meshes; only the first N are used.
        canon_from_shape: Poses (N, 4, 4) of the meshes.
        view_width: Degrees, as `PairConfig.view_width`.
        config: Settings.
    """
    pairs = compared_pairs(len(canon_from_shape), config.pairs)
    scorer = _Scorer(shapes, canon_from_shape, pairs, view_width, config)
    height = (torch.arange(config.axes, dtype=torch.float64) + 0.5) / config.axes
    half_sphere = golden_spiral(height)
    axes = torch.cat([torch.eye(3, dtype=torch.float64).flip(0), half_sphere])
    radians = torch.deg2rad(torch.tensor(config.turns, dtype=torch.float64))
    continuous_axes = [
        axis for axis in axes if scorer.fits(rotation_from_vector(radians[:, None] * axis))
    ]
    candidates = [
        (0, axis, rotation_from_vector(radians[:, None] * axis)) for axis in continuous_axes
    ]
    for order in config.orders:
        candidates += [
            (order, axis, symmetry_rotations(order, axis)[1 : order // 2 + 1])
            for axis in axes[:3]
        ]
    best: dict[int, tuple[float, Tensor]] = {}
    for order, axis, turns in candidates:
        if best and order not in best:
            break  # a group that comes earlier holds
        if order == 0 or scorer.fits(turns):
            kept = scorer.kept_likeness(turns)
            if kept >= max(config.likeness, best.get(order, (0.0, axis))[0]):
                best[order] = (kept, axis)
    if not best:
        return Symmetry()
    order, (_, axis) = best.popitem()
    return Symmetry(order, axis)


def compared_pairs(count: int, most: int) -> Tensor:
    """Choose at most `most` pairs (P, 2) of `count` videos, every video in about as many pairs.

    The videos stand in a circle. Neighbors come first, then pairs two steps apart, and so on.
    """

    def distance_and_start(pair: tuple[int, int]) -> tuple[int, int]:
        first, second = pair
        apart = second - first
        around = count - apart
        return (apart, first) if apart <= around else (around, second)

    pairs = sorted(combinations(range(count), 2), key=distance_and_start)
    return torch.tensor(pairs[:most])


class _Scorer:
    """Compares pairs of aligned meshes, the first of each turned about the canonical origin."""

    def __init__(
        self,
        shapes: MeshBatch,
        canon_from_shape: Tensor,
        pairs: Tensor,
        view_width: float,
        config: SymmetryConfig,
    ) -> None:
        self.config, self.width = config, view_width
        device = shapes.points.device
        self.shapes = [
            (shapes.take(a.to(device)), shapes.take(b.to(device)))
            for a, b in pairs[:, :, None]
        ]
        self.poses = [(canon_from_shape[a], canon_from_shape[b]) for a, b in pairs.tolist()]
        still = torch.eye(3, dtype=torch.float64)[None]
        self.gap = max(float(self.gaps(still)), self._sampling())
        self.likeness = self._likeness(still)

    def fits(self, turns: Tensor) -> bool:
        """Whether the surfaces coincide under all turns (T, 3, 3)."""
        return bool((self.gaps(turns) <= self.gap * self.config.gap).all())

    def gaps(self, turns: Tensor) -> Tensor:
        """Mean distance (T,) in diameters between the surfaces, in both directions."""
        total = torch.zeros(len(turns), dtype=torch.float64)
        for (a, b), (canon_from_a, canon_from_b) in zip(
            self.shapes, self.poses, strict=True
        ):
            first = transform(canon_from_a, a.points[0, a.valid[0]].double().cpu())
            second = transform(canon_from_b, b.points[0, b.valid[0]].double().cpu()).float()
            distance = torch.cdist(
                (first @ turns.mT).float(), second.expand(len(turns), -1, -1)
            )
            total += (distance.amin(2).mean(1) + distance.amin(1).mean(1)) / 2
        return total / len(self.shapes)

    def _sampling(self) -> float:
        """Distance in diameters of two samplings of one surface: half of that to a neighbor."""
        distances = []
        for (a, _), (canon_from_a, _) in zip(self.shapes, self.poses, strict=True):
            points = transform(canon_from_a, a.points[0, a.valid[0]].double().cpu())
            distances.append(
                torch.cdist(points, points).fill_diagonal_(torch.inf).amin(1).mean()
            )
        return float(torch.stack(distances).mean()) / 2

    def kept_likeness(self, turns: Tensor) -> float:
        """The least share of the likeness that any of the turns (T, 3, 3) keeps."""
        return float((self._likeness(turns) / self.likeness.clamp_min(1e-6)).min())

    def _likeness(self, turns: Tensor) -> Tensor:
        """Likeness (T,) over all pairs under turns (T, 3, 3), weighted by the overlap."""
        turn = from_parts(turns, torch.zeros(len(turns), 3, dtype=torch.float64))
        total, weight = torch.zeros(2, len(turns), dtype=torch.float64)
        for (a, b), (canon_from_a, canon_from_b) in zip(
            self.shapes, self.poses, strict=True
        ):
            b_from_a = (invert(canon_from_b) @ turn @ canon_from_a)[None].to(
                a.points.device
            )
            likeness, overlap = (
                x[0].cpu() for x in view_likeness(b_from_a, a, b, self.width)
            )
            total += likeness * overlap
            weight += overlap
        return total / weight.clamp_min(1e-9)
