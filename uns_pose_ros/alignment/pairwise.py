"""Align two feature meshes: correspondences, pose hypotheses, their energy, and their modes.

Source: Sommer et al., "Unsupervised Learning of Category-Level 3D Pose from Object-Centric Videos",
CVPR 2024, section 3. Changed: vertices keep clustered views, hypotheses are scored through
nearest-vertex tables and screened on fewer vertices, and the result is not one winner but the modes
of the good hypotheses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from uns_pose_ros.alignment.mesh_batch import MeshBatch, ShapeConfig
from uns_pose_ros.core.geometry import (
    fit_similarity,
    from_parts,
    invert,
    nearest_rotation,
    split_similarity,
    transform,
)
from uns_pose_ros.core.types import FeatureMesh


@dataclass(frozen=True)
class PairConfig:
    """How two feature meshes are aligned."""

    shapes: ShapeConfig = field(default_factory=ShapeConfig)
    alpha: float = 0.2  # weight of appearance against geometry in the energy (published)
    # diameters, length over which a broken cycle loses its weight (published)
    tau: float = 0.9
    # similarities from four correspondences each, half drawn in either direction
    hypotheses: int = 1000
    screening: int = 128  # vertices on which all hypotheses are scored first
    kept: int = 200  # hypotheses that are scored on all vertices and form the modes
    # number of these that are tried again after a half turn about each principal axis
    turned: int = 50
    # degrees between two views' directions from which they no longer show the same side
    view_width: float = 30.0
    # energy above the best hypothesis at which a hypothesis weighs 1/e in the mean of its mode
    temperature: float = 0.01
    mode_width: float = 15.0  # degrees, kernel of a mode
    mode_distance: float = 45.0  # degrees between two modes, at least
    modes: int = 6  # for each pair, at most


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


def feature_distances(a: MeshBatch, b: MeshBatch) -> Tensor:
    """Feature distances (B, V, W) of all vertices of B pairs of meshes.

    The distance is the mean over the views of one vertex of the distance to the nearest view of the
    other, averaged over both directions. It is inf if either vertex has no view.

    Memory: 4 * B * (V K)**2 bytes, 16 MB for a pair with the defaults.
    """
    # (B, K, V, C): maxima over other dimensions than the last are fast
    ours = a.features.transpose(1, 2)
    theirs = b.features.transpose(1, 2)
    likeness = ours.flatten(1, 2) @ theirs.flatten(1, 2).mT
    likeness = likeness.unflatten(2, theirs.shape[1:3]).unflatten(
        1, ours.shape[1:3]
    )  # (B, K, V, L, W)
    to_b = _chord(likeness.amax(3)).mul_(a.share.mT[..., None]).sum(1)
    to_a = _chord(likeness.amax(1)).mul_(b.share.mT[:, None]).sum(2)
    return ((to_b + to_a) / 2).masked_fill_(
        ~(a.seen[:, :, None] & b.seen[:, None]), torch.inf
    )


def exact_feature_distances(a: FeatureMesh, b: FeatureMesh) -> Tensor:
    """Distances (V, W) as `feature_distances`, from all views: slow, the reference for tests.

    Memory: 4 * M * (M + V + W) bytes.
    """
    likeness = a.features.float() @ b.features.float().T
    sums = []
    for mesh, other, matrix in ((a, b, likeness), (b, a, likeness.T)):
        best = matrix.new_full((len(matrix), len(other.vertices)), -torch.inf)
        best.scatter_reduce_(1, other.vertex_index.expand(len(matrix), -1), matrix, "amax")
        views = torch.bincount(mesh.vertex_index, minlength=len(mesh.vertices))
        total = matrix.new_zeros(len(mesh.vertices), len(other.vertices)).index_add_(
            0, mesh.vertex_index, _chord(best)
        )
        sums.append(torch.where(views[:, None] > 0, total / views[:, None], torch.inf))
    return (sums[0] + sums[1].T) / 2


def _chord(cosine: Tensor) -> Tensor:
    """Distance of unit vectors from their cosine; inf for -inf, which stands for no vector."""
    return (2 - 2 * cosine).clamp_min_(0).sqrt_()


def cycle_weights(
    distances: Tensor, a: Tensor, b: Tensor, tau: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Correspondences by nearest feature, weighted by how well each closes its cycle.

    A cycle goes from a point to its correspondence and from there back to a point of the first
    mesh. A weight decreases with the distance between the first and the last point.

    Args:
        distances: Feature distances (B, V, W).
        a: Points (B, V, 3) of the first meshes, diameter 1.
        b: Points (B, W, 3) of the second meshes, diameter 1.
        tau: Diameters, the distance at which a weight is 1/e.

    Returns:
        The correspondences (B, V) into b and (B, W) into a, and their weights (B, V) and (B, W),
        mean 1 over the points that have features and 0 elsewhere.
    """
    to_b, to_a = distances.argmin(2), distances.argmin(1)
    weights = []
    for points, forward, backward, axis in ((a, to_b, to_a, 2), (b, to_a, to_b, 1)):
        returned = torch.take_along_dim(points, backward.gather(1, forward)[..., None], 1)
        weight = torch.exp(-(points - returned).norm(dim=-1) / tau)
        weight = weight * distances.amin(axis).isfinite()
        weights.append(
            weight
            / weight.sum(1, keepdim=True).clamp_min(1e-9)
            * (weight > 0).sum(1, keepdim=True)
        )
    return to_b, to_a, weights[0], weights[1]


def draw_hypotheses(
    a: Tensor,
    b: Tensor,
    to_b: Tensor,
    to_a: Tensor,
    weight_a: Tensor,
    weight_b: Tensor,
    uniform: Tensor,
) -> Tensor:
    """Draw hypotheses b_from_a (B, H, 4, 4), each a similarity through four correspondences.

    The first half starts from vertices of a, the second half from vertices of b.

    Args:
        a: Points (B, V, 3) of the first meshes.
        b: Points (B, W, 3) of the second meshes.
        to_b: Correspondences (B, V) into b.
        to_a: Correspondences (B, W) into a.
        weight_a: Weights (B, V) with which vertices of a are drawn.
        weight_b: Weights (B, W) with which vertices of b are drawn.
        uniform: Uniform random numbers (H, 4).
    """
    half = len(uniform) // 2
    picks = []
    for weight, numbers in ((weight_a, uniform[:half]), (weight_b, uniform[half:])):
        ladder = weight.double().cumsum(1)
        wanted = numbers.reshape(1, -1).to(ladder) * ladder[:, -1:]
        picks.append(torch.searchsorted(ladder, wanted).clamp_(max=weight.shape[1] - 1))
    from_a = torch.cat([picks[0], to_a.gather(1, picks[1])], 1)
    from_b = torch.cat([to_b.gather(1, picks[0]), picks[1]], 1)
    source = torch.take_along_dim(a, from_a[..., None], 1).unflatten(1, (-1, 4))
    target = torch.take_along_dim(b, from_b[..., None], 1).unflatten(1, (-1, 4))
    return fit_similarity(source, target)


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


def nearest_vertices(moved: Tensor, b: MeshBatch) -> Tensor:
    """Vertices (B, H, N) int64 of b nearest to the cells that hold points (B, H, 3, N)."""
    cells = round(b.nearest.shape[1] ** (1 / 3))
    cell = (
        ((moved - b.low[:, None, :, None]) * (1 / b.cell)[:, None, :, None])
        .clamp_(0, cells - 1)
        .int()
    )
    first = (
        torch.arange(len(moved), device=moved.device, dtype=torch.int32)[:, None, None]
        * cells**3
    )
    flat = torch.add(cell[:, :, 2] + first, cell[:, :, 1], alpha=cells).add_(
        cell[:, :, 0], alpha=cells**2
    )
    return b.nearest.view(-1).index_select(0, flat.view(-1)).view(flat.shape).long()


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


def closeness(a: Tensor, b: Tensor, width: float) -> Tensor:
    """Closeness of rotations a (..., 3, 3) and b (..., 3, 3), a Cauchy kernel of their angle.

    It is 1 if they are equal, and 1/2 at `width` degrees.
    """
    return closeness_of_traces((a * b).sum((-2, -1)), width)


def closeness_of_traces(trace: Tensor, width: float) -> Tensor:
    """Closeness of rotations a and b, given trace(a.T b)."""
    sine = (3 - trace).clamp_min(0) / 4  # squared sine of half the angle
    return 1 / (1 + sine / math.sin(math.radians(width) / 2) ** 2)


def find_modes(
    b_from_a: Tensor, energy: Tensor, config: PairConfig
) -> tuple[Tensor, Tensor]:
    """Find the modes of the hypotheses.

    A mode is the weighted mean of the hypotheses around the best one. The next mode starts from the
    best hypothesis farther than `mode_distance` from every mode before.

    Args:
        b_from_a: Hypotheses (B, H, 4, 4).
        energy: Energy (B, H) of the hypotheses.
        config: Settings.

    Returns:
        The modes (B, K, 4, 4) float64, and the energy (B, K) of the best hypothesis of each, inf
        for no mode.
    """
    rotation, translation, scale = split_similarity(b_from_a.double())
    energy = energy.double()
    free = torch.ones_like(energy, dtype=torch.bool)
    modes = []
    lowest = []
    for _ in range(config.modes):
        least, best = energy.masked_fill(~free, torch.inf).min(1)
        weight = torch.exp((least[:, None] - energy) / config.temperature).clamp_max(1)
        center = torch.take_along_dim(rotation, best[:, None, None, None], 1)[:, 0]
        for _ in range(5):
            share = closeness(rotation, center[:, None], config.mode_width) ** 2 * weight
            share = share / share.sum(1, keepdim=True)
            center = nearest_rotation((share[..., None, None] * rotation).sum(1))
        modes.append(
            from_parts(
                center,
                (share[..., None] * translation).sum(1),
                (share * scale.log()).sum(1).exp(),
            )
        )
        lowest.append(least)
        free = free & (closeness(rotation, center[:, None], config.mode_distance) < 0.5)
    return torch.stack(modes, 1), torch.stack(lowest, 1)


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
