"""The energy of pose hypotheses of two feature meshes, in geometry and in appearance."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from uns_pose_ros.alignment.mesh_batch import MeshBatch, nearest_vertices
from uns_pose_ros.alignment.pairs.pair_config import PairConfig
from uns_pose_ros.core.geometry import invert, transform


def energies(
    b_from_a: Tensor,
    a: MeshBatch,
    b: MeshBatch,
    distances: Tensor,
    weights: Sequence[Tensor],
    config: PairConfig,
    vertices: int | None = None,
) -> Tensor:
    """Energy (B, H) of the hypotheses of B pairs, averaged over both directions.

    The energy is (1 - alpha) * D_geo + alpha * D_app. D_geo is the weighted mean over the vertices
    of the distance to the nearest vertex of the other mesh, in its diameters. D_app is that of the
    feature distance to the same vertex. The nearest vertices come from the tables.

    Args:
        b_from_a: Hypotheses (B, H, 4, 4).
        a: The first meshes.
        b: The second meshes.
        distances: Feature distances (B, V, W), finite.
        weights: Weights (B, V) and (B, W) of the vertices.
        config: Settings.
        vertices: Number of vertices of each mesh to use, evenly spread over their order; None: all.
    """
    alpha = config.alpha
    forward = _one_way_energy(b_from_a, a.points, b, distances, weights[0], alpha, vertices)
    a_from_b = invert(b_from_a)
    backward = _one_way_energy(
        a_from_b, b.points, a, distances.mT, weights[1], alpha, vertices
    )
    return (forward + backward) / 2


def _one_way_energy(
    b_from_a: Tensor,
    points: Tensor,
    b: MeshBatch,
    distances: Tensor,
    weight: Tensor,
    alpha: float,
    vertices: int | None,
) -> Tensor:
    if vertices is not None and vertices < points.shape[1]:
        chosen = (
            torch.linspace(0, points.shape[1] - 1, vertices, device=points.device)
            .round()
            .long()
        )
        points, weight, distances = (
            points[:, chosen],
            weight[:, chosen],
            distances[:, chosen],
        )
    pairs, count, size = distances.shape
    weight = weight / weight.sum(1, keepdim=True).clamp_min(1e-9)
    first = torch.arange(pairs, device=points.device)[:, None, None]
    rows, row = (
        distances.reshape(-1),
        (first * count + torch.arange(count, device=points.device)) * size,
    )
    planes = b.points.permute(2, 0, 1).reshape(3, -1)
    result = []
    for part in b_from_a.split(
        max(1, 2**19 // (pairs * count)), 1
    ):  # some MB a buffer: they stay in the cache
        moved = (
            part[..., :3, :3] @ points.mT[:, None] + part[..., :3, 3:]
        )  # (B, H, 3, count)
        nearest = nearest_vertices(moved, b)
        vertex = (nearest + first * size).view(-1)
        square = sum(
            (
                moved[:, :, k] - planes[k].index_select(0, vertex).view(nearest.shape)
            ).square_()
            for k in range(3)
        )
        unlike = rows.index_select(0, (nearest + row).view(-1)).view(nearest.shape)
        cost = torch.add(unlike * alpha, torch.as_tensor(square).sqrt(), alpha=1 - alpha)
        result.append((cost @ weight[..., None])[..., 0])
    return torch.cat(result, 1)


def exact_energies(
    b_from_a: Tensor,
    a: Tensor,
    b: Tensor,
    distances: Tensor,
    weights: Sequence[Tensor],
    alpha: float,
) -> Tensor:
    """Energy (H,) as `energies`, with the true nearest vertices: slow, the reference for tests.

    Memory: 8 * H * V * W bytes.

    Args:
        b_from_a: Hypotheses (H, 4, 4) of one pair.
        a: Points (V, 3) of the first mesh.
        b: Points (W, 3) of the second mesh.
        distances: Feature distances (V, W), finite.
        weights: Weights (V,) and (W,) of the vertices.
        alpha: Weight of the features.
    """
    total = torch.zeros(len(b_from_a), dtype=a.dtype)
    ways = (
        (b_from_a, a, b, distances, weights[0]),
        (invert(b_from_a), b, a, distances.T, weights[1]),
    )
    for matrix, source, target, table, weight in ways:
        gap, nearest = torch.cdist(
            transform(matrix, source), target.expand(len(matrix), -1, -1)
        ).min(2)
        cost = (1 - alpha) * gap + alpha * table.gather(1, nearest.T).T
        total += cost @ (weight / weight.sum()) / 2
    return total
