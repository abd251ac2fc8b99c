"""The modes of pairs as votes for the poses of all videos, and how well the poses meet them."""

from __future__ import annotations

import torch
from torch import Tensor

from uns_pose_ros.alignment.category.align_config import AlignConfig
from uns_pose_ros.alignment.category.video_pairs import Pairs
from uns_pose_ros.alignment.pairwise import PairModes
from uns_pose_ros.alignment.rotation_synchronization import Consensus, Edges
from uns_pose_ros.core.geometry import angle_between, from_parts, split_similarity


def edges_of(pairs: Pairs, config: AlignConfig) -> Edges:
    """The modes as votes, each weighted by its overlap and its likeness."""
    a_from_b = split_similarity(pairs.modes.b_from_a)[0].mT
    reflected = a_from_b @ pairs.twin_from_shape[pairs.b, None, :3, :3]
    source_from_target = torch.where(
        pairs.mirrored[:, None, None, None], reflected, a_from_b
    )
    return Edges(
        pairs.count,
        pairs.a,
        pairs.b,
        pairs.mirrored,
        source_from_target,
        mode_weights(pairs.modes, config),
    )


def mode_weights(modes: PairModes, config: AlignConfig) -> Tensor:
    """Weight (B, K) of each mode as a vote, at most 1; 0 for no mode."""
    exists = modes.energy.isfinite()
    best = modes.likeness[exists].max()
    return (
        (modes.overlap + 1e-6)
        * torch.exp((modes.likeness - best) / config.likeness_scale)
        * exists
    )


def similarities(consensus: Consensus, pairs: Pairs) -> Tensor:
    """Similarities canon_from_shape (N, 4, 4) with the rotations of the consensus.

    Scales and translations have the least absolute residuals over the unmirrored pairs, weighted by
    the nearness of each pair to the consensus. The origin is the mean of the shapes' origins.
    """
    rotation, plain = consensus.canon_from_video, ~pairs.mirrored
    a, b = pairs.a[plain], pairs.b[plain]
    weight = consensus.nearness[plain]
    _, translation, scale = split_similarity(
        pairs.modes.b_from_a[plain, consensus.mode[plain]]
    )
    difference = torch.zeros(len(a), pairs.count, dtype=torch.float64)
    difference[torch.arange(len(a)), a] = 1
    difference[torch.arange(len(a)), b] = -1
    log_scale = _solve_robustly(difference, scale.log()[:, None], weight)[:, 0]
    step = log_scale.exp()[b, None] * (rotation[b] @ translation[..., None])[..., 0]
    return from_parts(rotation, _solve_robustly(difference, step, weight), log_scale.exp())


def _solve_robustly(
    matrix: Tensor, value: Tensor, weight: Tensor, steps: int = 10
) -> Tensor:
    """Solve matrix @ x = value for least absolute, weighted residuals, by reweighting.

    Args:
        matrix: Coefficients (P, N).
        value: Right-hand sides (P, D).
        weight: Weight (P,) of each row.
        steps: Steps of reweighting.

    Returns:
        The solution x (N, D), the smallest one if several solve it.
    """
    reweighted = weight
    solution = matrix.new_zeros(matrix.shape[1], value.shape[1])
    for _ in range(steps):
        root = (reweighted + 1e-6).sqrt()[:, None]
        solution = torch.linalg.lstsq(root * matrix, root * value, driver="gelsd").solution
        reweighted = weight / ((matrix @ solution - value).norm(dim=1) + 0.02)
    return solution


def residuals(consensus: Consensus, pairs: Pairs) -> Tensor:
    """Median angle (N,) in degrees between a video's rotation and its plain pairs' votes."""
    plain = ~pairs.mirrored
    a, b = pairs.a[plain], pairs.b[plain]
    b_from_a = split_similarity(pairs.modes.b_from_a[plain, consensus.mode[plain]])[0]
    angle = angle_between(
        consensus.canon_from_video[b] @ b_from_a, consensus.canon_from_video[a]
    )
    return torch.stack([angle[(a == k) | (b == k)].median() for k in range(pairs.count)])
