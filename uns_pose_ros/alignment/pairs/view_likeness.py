"""How alike two feature meshes look where both were seen from the same side."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from uns_pose_ros.alignment.mesh_batch import MeshBatch, nearest_vertices
from uns_pose_ros.core.geometry import invert, split_similarity, transform


def view_likeness(
    b_from_a: Tensor, a: MeshBatch, b: MeshBatch, width: float
) -> tuple[Tensor, Tensor]:
    """Likeness of the features that both meshes show from the same side.

    Each feature of a vertex is compared with the features of the nearest vertex of the other mesh
    that were seen from about the same direction. A feature without such a counterpart does not
    count: a pose is not better because unlike sides meet.

    Args:
        b_from_a: Similarities (B, K, 4, 4).
        a: The first meshes.
        b: The second meshes.
        width: Degrees between two directions that count as the same side.

    Returns:
        The mean cosine (B, K) of corresponding features, and their share (B, K) of all features.
    """
    forward = _one_way_likeness(b_from_a, a, b, width)
    backward = _one_way_likeness(invert(b_from_a), b, a, width)
    return (forward[0] + backward[0]) / 2, (forward[1] + backward[1]) / 2


def _one_way_likeness(
    b_from_a: Tensor, a: MeshBatch, b: MeshBatch, width: float
) -> tuple[Tensor, Tensor]:
    rotation = split_similarity(b_from_a)[0].float()
    nearest = nearest_vertices(
        transform(b_from_a.float(), a.points[:, None]).mT, b
    )  # (B, K, V)
    first = torch.arange(len(rotation), device=rotation.device)[:, None] * b.points.shape[1]
    result = []
    for k in range(b_from_a.shape[1]):
        rows = (nearest[:, k] + first).flatten()
        facing = [
            t.flatten(0, 1).index_select(0, rows).view(len(first), -1, *t.shape[2:])
            for t in (b.features, b.direction, b.share)
        ]
        same = (a.direction @ rotation[:, None, k].mT) @ facing[
            1
        ].mT  # (B, V, K, K) cosine between directions
        kernel = (
            torch.exp((same - 1) / math.radians(width) ** 2) * (facing[2] > 0)[:, :, None]
        )
        weighted = kernel * facing[2][:, :, None]
        likeness = (weighted * (a.features @ facing[0].mT)).sum(3) / weighted.sum(
            3
        ).clamp_min(1e-9)
        compared = kernel.amax(3) * a.share
        total = compared.sum((1, 2))
        result.append(
            torch.stack(
                [
                    (compared * likeness).sum((1, 2)) / total.clamp_min(1e-9),
                    total / a.share.sum((1, 2)),
                ]
            )
        )
    likeness, overlap = torch.stack(result, -1).double()
    return likeness, overlap
