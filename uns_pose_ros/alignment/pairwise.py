"""Align two feature meshes: the modes of the pose of one in the other.

Source: Sommer et al., "Unsupervised Learning of Category-Level 3D Pose from Object-Centric Videos",
CVPR 2024, section 3. Changed: vertices keep clustered views, hypotheses are scored through
nearest-vertex tables and screened on fewer vertices, and the result is not one winner but the modes
of the good hypotheses.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from uns_pose_ros.alignment.mesh_batch import MeshBatch
from uns_pose_ros.alignment.pairs.correspondences import (
    cycle_weights,
    draw_hypotheses,
    feature_distances,
)
from uns_pose_ros.alignment.pairs.hypothesis_energy import energies
from uns_pose_ros.alignment.pairs.pair_config import PairConfig
from uns_pose_ros.alignment.pairs.pose_modes import find_modes
from uns_pose_ros.alignment.pairs.view_likeness import view_likeness


@dataclass(frozen=True, eq=False)
class PairModes:
    """The possible poses of B pairs of meshes: K modes for each pair, best first."""

    # (B, K, 4, 4) float64, similarities between the shape frames of each pair's meshes
    b_from_a: Tensor
    energy: Tensor  # (B, K) float64, of the mode's best hypothesis; inf: no such mode
    # (B, K) float64 in [-1, 1]: mean cosine of corresponding features seen from corresponding sides
    likeness: Tensor
    # (B, K) float64 in [0, 1]: share of the views that have views from corresponding sides
    overlap: Tensor


def align_pairs(
    shapes: MeshBatch, pairs: Tensor, config: PairConfig, seed: int = 0
) -> PairModes:
    """Align pairs (B, 2) of meshes: the modes of b_from_a for each pair (a, b), on the CPU.

    All pairs share the same random numbers, so the result of a pair does not depend on the others.
    """
    device = shapes.points.device
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(config.hypotheses, 4, generator=generator, dtype=torch.float64).to(
        device
    )
    chunks = pairs.to(device).split(1 if device.type == "cpu" else 16)
    parts = [
        _align_chunk(shapes.take(chunk[:, 0]), shapes.take(chunk[:, 1]), uniform, config)
        for chunk in chunks
    ]
    return PairModes(*(torch.cat(column).cpu() for column in zip(*parts, strict=True)))


def _align_chunk(
    a: MeshBatch, b: MeshBatch, uniform: Tensor, config: PairConfig
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    distances = feature_distances(a, b)
    to_b, to_a, weight_a, weight_b = cycle_weights(
        distances, a.points, b.points, config.tau
    )
    weights = (weight_a, weight_b)
    finite = distances.isfinite()
    mean = distances.masked_fill(~finite, 0).sum((1, 2)) / finite.sum((1, 2))
    distances = torch.where(finite, distances, mean[:, None, None])
    drawn = draw_hypotheses(a.points, b.points, to_b, to_a, weight_a, weight_b, uniform)
    rough = energies(drawn, a, b, distances, weights, config, config.screening)
    best = rough.topk(min(config.kept, len(uniform)), largest=False).indices
    drawn = torch.take_along_dim(drawn, best[..., None, None], 1)
    turns = [drawn]
    for signs in ((1.0, -1.0, -1.0, 1.0), (-1.0, 1.0, -1.0, 1.0), (-1.0, -1.0, 1.0, 1.0)):
        turns.append(drawn[:, : config.turned] * torch.tensor(signs, device=drawn.device))
    drawn = torch.cat(turns, 1)
    modes, energy = find_modes(
        drawn, energies(drawn, a, b, distances, weights, config), config
    )
    return modes, energy, *view_likeness(modes, a, b, config.view_width)
