"""The best half turn of each video about the canonical axes, by what all pairs show."""

from __future__ import annotations

import torch
from torch import Tensor

from uns_pose_ros.alignment.category.align_config import AlignConfig
from uns_pose_ros.alignment.category.pair_votes import edges_of
from uns_pose_ros.alignment.category.video_pairs import Pairs
from uns_pose_ros.alignment.half_turns import (
    relative_turn,
    resolve_half_turns,
    swap_mirror_axis,
    turn_evidence,
    turn_matrices,
)
from uns_pose_ros.alignment.mesh_batch import MeshBatch
from uns_pose_ros.alignment.pairs.view_likeness import view_likeness
from uns_pose_ros.alignment.rotation_synchronization import (
    Consensus,
    agreement_shares,
    settle,
)
from uns_pose_ros.core.geometry import invert, split_similarity, transform


def correct_turns(
    canon_from_shape: Tensor, shapes: MeshBatch, pairs: Pairs, config: AlignConfig
) -> tuple[Consensus, Tensor]:
    """Put every video into the best of its half turns about the canonical axes.

    All pairs are compared in their poses under the consensus, so what two videos show counts
    wherever they meet, and nothing counts where they show different sides.

    Args:
        canon_from_shape: Poses (N, 4, 4) under the consensus.
        shapes: The meshes and their mirrored twins.
        pairs: The pairs with their modes.
        config: Settings.

    Returns:
        The corrected consensus, and confidences (N,): the share of a video's votes that agree,
        times its likeness to the others where that is below the median.
    """
    frame = torch.eye(4, dtype=torch.float64)
    frame[:3, :3] = rotation_about_mirror_normal(canon_from_shape, shapes)
    canon_from_shape = frame @ canon_from_shape
    poses = _turned_poses(canon_from_shape, pairs)
    likeness, overlap = _compare_pairs(poses, shapes, pairs, config)
    evidence = turn_evidence(likeness, overlap)
    turns = resolve_half_turns(pairs.count, pairs.a, pairs.b, pairs.mirrored, evidence)
    rotation = split_similarity(turn_matrices()[turns.video] @ canon_from_shape)[0]
    rotation = swap_mirror_axis(rotation, turns.mirror)
    edges = edges_of(pairs, config)
    consensus = settle(edges, rotation, config.consensus)
    chosen = relative_turn(turns.video[pairs.a], turns.video[pairs.b])[:, None]
    fit = mean_likeness(
        pairs,
        ~pairs.mirrored,
        likeness.gather(1, chosen)[:, 0],
        overlap.gather(1, chosen)[:, 0],
    )
    relative_fit = (fit / fit.median().clamp_min(1e-6)).clamp(0, 1)
    return consensus, agreement_shares(edges, consensus) * relative_fit


def _turned_poses(canon_from_shape: Tensor, pairs: Pairs) -> Tensor:
    """Poses b_from_a (P, 4, 4, 4) of each pair's meshes, one for each relative half turn.

    The poses canon_from_shape (N, 4, 4) are those of the consensus.
    """
    twin_from_shape = torch.linalg.inv(pairs.twin_from_shape)
    canon_from_twin = canonical_reflection() @ canon_from_shape @ twin_from_shape
    canon_from_b = torch.where(
        pairs.mirrored[:, None, None], canon_from_twin[pairs.b], canon_from_shape[pairs.b]
    )
    canon_from_a = canon_from_shape[pairs.a, None]
    return invert(canon_from_b)[:, None] @ turn_matrices() @ canon_from_a


def _compare_pairs(
    poses: Tensor, shapes: MeshBatch, pairs: Pairs, config: AlignConfig
) -> tuple[Tensor, Tensor]:
    """Likeness and overlap (P, T) of P pairs under T poses b_from_a (P, T, 4, 4) each."""
    second = pairs.b + pairs.mirrored * pairs.count
    device = shapes.points.device
    likeness, overlap = torch.empty(2, *poses.shape[:2], dtype=torch.float64)
    for k in range(len(poses)):
        a = shapes.take(pairs.a[k : k + 1].to(device))
        b = shapes.take(second[k : k + 1].to(device))
        b_from_a = poses[k : k + 1].to(device)
        alike, seen = view_likeness(b_from_a, a, b, config.pair.view_width)
        likeness[k] = alike[0].cpu()
        overlap[k] = seen[0].cpu()
    return likeness, overlap


def mean_likeness(
    pairs: Pairs, chosen: Tensor, likeness: Tensor, overlap: Tensor
) -> Tensor:
    """Mean likeness (N,) of each video to the others in its chosen pairs, weighted by the overlap.

    Args:
        pairs: The P pairs.
        chosen: (P,) bool, the pairs that count.
        likeness: Likeness (P,) of the pair's videos.
        overlap: Overlap (P,) of the pair's videos.
    """
    total, weight = torch.zeros(2, pairs.count, dtype=torch.float64)
    for end in (pairs.a[chosen], pairs.b[chosen]):
        total.index_add_(0, end, (likeness * overlap)[chosen])
        weight.index_add_(0, end, overlap[chosen])
    return total / weight.clamp_min(1e-9)


def canonical_reflection() -> Tensor:
    """Reflection (4, 4) in the canonical frame's plane y = 0."""
    return torch.diag(torch.tensor([1.0, -1.0, 1.0, 1.0], dtype=torch.float64))


def rotation_about_mirror_normal(canon_from_shape: Tensor, shapes: MeshBatch) -> Tensor:
    """Rotation (3, 3) of the canonical frame about y that makes x the longest axis across y.

    The axis is the first principal axis of all vertices, projected to the mirror plane y = 0.
    """
    count = len(canon_from_shape)
    points = transform(canon_from_shape, shapes.points[:count].cpu().double())
    flat = points[shapes.valid[:count].cpu()]
    flat = flat - flat.mean(0)
    flat[:, 1] = 0
    longest = torch.linalg.eigh(flat.T @ flat).eigenvectors[:, 2]
    y = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    return torch.stack([longest, y, torch.linalg.cross(longest, y)])
