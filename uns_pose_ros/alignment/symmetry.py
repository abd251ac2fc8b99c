"""The symmetry of a category, from its aligned feature meshes.

Rotations under which the videos look no less alike.

A rotation is a symmetry where laying one video's mesh, so turned, on another's costs nothing: as
near in space and as alike in features (seen from corresponding sides) as without the turn. A mesh
is not compared with itself, which would be perfect only without a turn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from uns_pose_ros.alignment.mesh_batch import MeshBatch
from uns_pose_ros.alignment.pairwise import view_likeness
from uns_pose_ros.core.geometry import (
    from_parts,
    invert,
    rotation_from_vector,
    symmetry_rotations,
    transform,
)
from uns_pose_ros.core.types import Symmetry


@dataclass(frozen=True)
class SymmetryConfig:
    """When a rotation counts as a symmetry."""

    orders: tuple[int, ...] = (6, 5, 4, 3, 2)  # tried, the first that holds is taken
    # of the videos' likeness without a turn that a symmetry keeps, at least
    likeness: float = 0.92
    # times the distance between the videos' surfaces without a turn, at most
    gap: float = 1.25
    pairs: int = 12  # of videos that are compared, at most
    # directions over the half sphere that are tried as an axis of continuous symmetry besides x, y,
    # z
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
    """The symmetry of N >= 2 shapes under canon_from_shape (N, 4, 4).

    Only the first N shapes are looked at.

    Continuous before n-fold, higher orders before lower ones. An n-fold axis is a principal axis of
    the shape, so only x, y and z are tried for those; where the shape is round all over, its axis
    may be any.
    """
    pairs = _pairs(len(canon_from_shape), config.pairs)
    scorer = _Scorer(shapes, canon_from_shape, pairs, view_width, config)
    axes = torch.cat([torch.eye(3, dtype=torch.float64).flip(0), half_sphere(config.axes)])
    radians = torch.deg2rad(torch.tensor(config.turns, dtype=torch.float64))
    round_about = [
        axis for axis in axes if scorer.fits(rotation_from_vector(radians[:, None] * axis))
    ]
    ways = [
        (0, axis, rotation_from_vector(radians[:, None] * axis)) for axis in round_about
    ]
    for order in config.orders:
        ways += [
            (order, axis, symmetry_rotations(order, axis)[1 : order // 2 + 1])
            for axis in axes[:3]
        ]
    best: dict[int, tuple[float, Tensor]] = {}
    for order, axis, turns in ways:
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


def half_sphere(count: int) -> Tensor:
    """Unit vectors (count, 3) float64, evenly over the half sphere z > 0 (a Fibonacci lattice)."""
    step = torch.arange(count, dtype=torch.float64) + 0.5
    z, turn = step / count, step * (math.pi * (3 - math.sqrt(5)))
    return torch.stack(
        [(1 - z * z).sqrt() * turn.cos(), (1 - z * z).sqrt() * turn.sin(), z], 1
    )


def _pairs(count: int, most: int) -> Tensor:
    """At most so many pairs (P, 2) of videos, every video in about as many."""
    steps = [
        (i, (i + step) % count) for step in range(1, count // 2 + 1) for i in range(count)
    ]
    unique = sorted(
        {
            (min(i, j), max(i, j)): k for k, (i, j) in reversed(list(enumerate(steps)))
        }.items(),
        key=lambda x: x[1],
    )
    return torch.tensor([pair for pair, _ in unique[:most]])


class _Scorer:
    """Compares pairs of aligned shapes, one of each turned about the origin of the canonical
    frame.
    """

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
        """Whether all turns (T, 3, 3) lay surface on surface."""
        return bool((self.gaps(turns) <= self.gap * self.config.gap).all())

    def gaps(self, turns: Tensor) -> Tensor:
        """Mean distance (T,) in diameters between the surfaces, both ways, for each turn."""
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
        """Distance in diameters of two meshes of one surface because their vertices differ.

        Half of that to a neighbour.
        """
        distances = []
        for (a, _), (canon_from_a, _) in zip(self.shapes, self.poses, strict=True):
            points = transform(canon_from_a, a.points[0, a.valid[0]].double().cpu())
            distances.append(
                torch.cdist(points, points).fill_diagonal_(torch.inf).amin(1).mean()
            )
        return float(torch.stack(distances).mean()) / 2

    def kept_likeness(self, turns: Tensor) -> float:
        """The least part of the likeness that any of the turns (T, 3, 3) keeps."""
        return float((self._likeness(turns) / self.likeness.clamp_min(1e-6)).min())

    def _likeness(self, turns: Tensor) -> Tensor:
        """Likeness (T,) of what corresponds, over all pairs by how much that is."""
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
