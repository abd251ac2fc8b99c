"""Refine aligned videos: each stands as its cameras were held, and turns about up until shapes fit.

The consensus of pairs is right to about ten degrees. People hold a camera level, so the cameras of
a video tell within a degree or two where up is; what is left is the turn about it. It is found by
moving each video to the points that correspond to its vertices on the others, in space and in
features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from uns_pose_ros.alignment.canonical_axes import camera_moments, up_of
from uns_pose_ros.alignment.mesh_batch import MeshBatch
from uns_pose_ros.alignment.pairs.correspondences import feature_distances
from uns_pose_ros.core.geometry import (
    from_parts,
    rotation_from_vector,
    split_similarity,
    transform,
)
from uns_pose_ros.core.types import FeatureMesh


@dataclass(frozen=True)
class UprightConfig:
    """How aligned videos are refined."""

    steps: int = 15  # 0: no refinement
    # diameters, distance in space over which a vertex corresponds to others; about their spacing
    width: float = 0.03
    # how much a unit of feature distance counts, as the exponent of a correspondence
    appearance: float = 10.0
    # degrees, median angle between the ups of the videos above which up is not known
    most_spread: float = 10.0
    # degrees, angle from which a video does not stand as the others and stays as it is
    most_tilt: float = 20.0
    vertices: int = 500  # of each mesh, evenly spread over their order


def refine_upright(
    meshes: Sequence[FeatureMesh],
    shapes: MeshBatch,
    canon_from_shape: Tensor,
    confidence: Tensor,
    partners: Tensor,
    config: UprightConfig = UprightConfig(),
    fixed: int = 0,
) -> Tensor:
    """Refine the poses of N aligned videos.

    Args:
        meshes: N feature meshes.
        shapes: The same meshes as a batch, perhaps with more after them.
        canon_from_shape: Poses (N, 4, 4) float64 of the shape frames.
        confidence: Confidence (N,), the weight of each.
        partners: Pairs (P, 2) of meshes that are compared.
        config: Settings.
        fixed: The first so many videos keep their poses.

    Returns:
        The refined poses (N, 4, 4). They are those given where up is not known.
    """
    tilts = _tilts(meshes, shapes, canon_from_shape, confidence, config, fixed)
    if not tilts or not config.steps:
        return canon_from_shape
    up, turns = tilts
    poses = canon_from_shape.clone()
    for row, turn in turns.items():
        poses[row] = from_parts(turn, torch.zeros(3, dtype=torch.float64)) @ poses[row]
    correspondences = _Correspondences(shapes, partners, confidence, config)
    moving = list(turns)
    size = _mean_log_scale(poses[moving])
    for _ in range(config.steps):
        aims = correspondences.find(poses, moving)
        for row in moving:
            points = transform(poses[row], correspondences.points[row])
            poses[row] = _fit_upright(points, *aims[row], up) @ poses[row]
        # all together neither shrink nor grow
        factor = (size - _mean_log_scale(poses[moving])).exp()
        poses[moving] = torch.diag(factor * torch.tensor([1.0, 1, 1, 0]).double()) @ (
            poses[moving]
        ) + torch.diag(torch.tensor([0.0, 0, 0, 1]).double())
    return poses


def _tilts(
    meshes: Sequence[FeatureMesh],
    shapes: MeshBatch,
    canon_from_shape: Tensor,
    confidence: Tensor,
    config: UprightConfig,
    fixed: int,
) -> tuple[Tensor, dict[int, Tensor]] | None:
    """Up (3,) of all, and the turn (3, 3) that makes each video stand upright; None: not known."""
    canon_from_obj = canon_from_shape @ shapes.shape_from_obj[: len(meshes)].cpu()
    moments = [
        camera_moments(rotation, mesh)
        for rotation, mesh in zip(split_similarity(canon_from_obj)[0], meshes, strict=True)
    ]
    known = range(fixed) if fixed else range(len(meshes))
    weight = confidence.clamp_min(1e-6)
    across = sum(weight[k] * moments[k][0] for k in known)
    down = sum(weight[k] * moments[k][1] for k in known)
    up = up_of(torch.as_tensor(across), torch.as_tensor(down))
    ups = torch.stack([up_of(*moment) for moment in moments])
    tilt = torch.rad2deg((ups @ up).clamp(-1, 1).arccos())
    if float(tilt[list(known)].median()) > config.most_spread:
        return None
    turns = {}
    for row in range(fixed, len(meshes)):
        if float(tilt[row]) <= config.most_tilt:
            axis = normalize(torch.linalg.cross(ups[row], up), dim=0)
            turns[row] = rotation_from_vector(axis * math.radians(float(tilt[row])))
    return (up, turns) if turns else None


class _Correspondences:
    """Where the vertices of each mesh lie on the others, by nearness in space and in features."""

    def __init__(
        self,
        shapes: MeshBatch,
        partners: Tensor,
        confidence: Tensor,
        config: UprightConfig,
    ) -> None:
        self._config = config
        self._confidence = confidence
        self._chosen = [
            _spread_evenly(shapes.valid[k].cpu().nonzero()[:, 0], config.vertices)
            for k in range(len(confidence))
        ]
        #: per mesh the points (V, 3), float64, shape frame
        self.points = [
            shapes.points[k].cpu()[chosen].double() for k, chosen in enumerate(self._chosen)
        ]
        self._unlike: dict[tuple[int, int], Tensor] = {}
        for a, b in partners.tolist():
            one, other = (
                shapes.take(torch.tensor([k], device=shapes.points.device)) for k in (a, b)
            )
            table = feature_distances(one, other)[0].cpu()
            table = table[self._chosen[a]][:, self._chosen[b]]
            finite = table.isfinite()
            if not finite.any():
                continue
            table = torch.where(finite, table, table[finite].max())
            self._unlike[a, b] = table
            self._unlike[b, a] = table.mT.contiguous()

    def find(self, poses: Tensor, rows: Sequence[int]) -> dict[int, tuple[Tensor, Tensor]]:
        """The point (V, 3) that corresponds to each vertex of some meshes, and its weight (V,)."""
        points = [
            transform(pose, vertices)
            for pose, vertices in zip(poses, self.points, strict=True)
        ]
        sums = {
            row: (torch.zeros_like(points[row]), torch.zeros(len(points[row])).double())
            for row in rows
        }
        for (row, other), unlike in self._unlike.items():
            if row not in sums:
                continue
            seen = points[other].float()
            gap = torch.cdist(points[row].float(), seen).square_()
            gap.div_(2 * self._config.width**2).add_(unlike, alpha=self._config.appearance)
            # a vertex that another fits better counts less: each point is given once
            share = gap.neg_().softmax(1)
            share = share * gap.softmax(0).sum(1, keepdim=True).clamp_max(1)
            aim, weight = sums[row]
            trust = self._confidence[other]
            aim += trust * (share @ seen).double()
            weight += trust * share.sum(1).double()
        return {
            row: (aim / weight.clamp_min(1e-9)[:, None], weight)
            for row, (aim, weight) in sums.items()
        }


def _fit_upright(points: Tensor, aims: Tensor, weight: Tensor, up: Tensor) -> Tensor:
    """Similarity (4, 4) with a turn about `up` that brings points (V, 3) nearest to their aims.

    Args:
        points: Points (V, 3).
        aims: Where each should lie (V, 3).
        weight: Weight (V,) of each.
        up: Axis (3,) of the turn, unit length.
    """
    share = (weight / weight.sum().clamp_min(1e-9))[:, None]
    source, target = (share * points).sum(0), (share * aims).sum(0)
    before, after = points - source, aims - target
    flat = before - (before @ up)[:, None] * up
    sine = (share[:, 0] * (torch.linalg.cross(flat, after) @ up)).sum()
    turn = rotation_from_vector(up * torch.atan2(sine, (share * flat * after).sum()))
    scale = (share * (before @ turn.mT) * after).sum() / (share * before**2).sum()
    scale = scale.clamp(0.5, 2.0)
    return from_parts(turn, target - scale * (turn @ source), scale)


def _mean_log_scale(poses: Tensor) -> Tensor:
    return split_similarity(poses)[2].log().mean()


def _spread_evenly(index: Tensor, most: int) -> Tensor:
    """At most so many of the indices, evenly spread over their order."""
    if len(index) <= most:
        return index
    return index[torch.linspace(0, len(index) - 1, most).round().long()]
