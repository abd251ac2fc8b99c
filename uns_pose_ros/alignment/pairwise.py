"""Alignment of two feature meshes.

Cycle-consistent correspondences, hypotheses, their energy, and the modes they form.

Source: Sommer et al., "Unsupervised Learning of Category-Level 3D Pose from Object-Centric Videos",
CVPR 2024, section 3. Changed: vertices keep clustered views, hypotheses are scored through
nearest-vertex tables and screened on fewer vertices, and the answer is not one winner but the modes
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
    # of these that are tried again after a half turn about each principal axis
    turned: int = 50
    # degrees between two views' directions at which they count as views of one side no more
    view_width: float = 30.0
    # energy; a hypothesis this far above the best weighs 1/e in the mean of its mode
    temperature: float = 0.01
    mode_width: float = 15.0  # degrees, kernel of a mode
    mode_distance: float = 45.0  # degrees between two modes, at least
    modes: int = 6  # a pair, at most


@dataclass(frozen=True, eq=False)
class PairModes:
    """The poses that B pairs of shapes may have, best first. K modes a pair."""

    # (B, K, 4, 4) float64, similarities between the shape frames of each pair's meshes
    b_from_a: Tensor
    energy: Tensor  # (B, K) float64, of the mode's best hypothesis; inf: no such mode
    # (B, K) float64 in [-1, 1]: mean cosine of corresponding features seen from corresponding sides
    likeness: Tensor
    # (B, K) float64 in [0, 1]: how much of what is seen is seen from corresponding sides
    overlap: Tensor


def feature_distances(a: MeshBatch, b: MeshBatch) -> Tensor:
    """Distances (B, V, W) of all vertices of B pairs of shapes.

    Mean over one's views of the distance to the other's nearest view, averaged over both
    directions; inf where either vertex has no view.

    Memory: 4 * B * (V K)**2 bytes, 16 MB a pair with the defaults.
    """
    ours, theirs = (
        one.features.transpose(1, 2) for one in (a, b)
    )  # (B, K, V, C): over what is not last, maxima are fast
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
    """The distances (V, W) of `feature_distances` from every single view.

    Slow, 4 * M * (M + V + W) bytes.
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
    """Correspondences and weights of points a (B, V, 3) and b (B, W, 3), diameter 1, under feature
    distances (B, V, W).

    Returns each point's nearest by feature, (B, V) into b and (B, W) into a, and how well the way
    there and back closes, (B, V) and (B, W), mean 1 over the points that have features and 0
    elsewhere.
    """
    to_b, to_a = distances.argmin(2), distances.argmin(1)
    weights = []
    for points, there, back, axis in ((a, to_b, to_a, 2), (b, to_a, to_b, 1)):
        returned = torch.take_along_dim(points, back.gather(1, there)[..., None], 1)
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
    """Similarities b_from_a (B, H, 4, 4) through four correspondences each, drawn with the weights
    by uniform numbers (H, 4).

    The first half starts from vertices of a, the second from vertices of b.
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
    """Energy (B, H) of similarities (B, H, 4, 4) of B pairs, both directions averaged, through the
    nearest-vertex tables.

    (1 - alpha) * D_geo + alpha * D_app: weighted means over the vertices of their distance, in
    diameters of the other mesh, to its nearest vertex there, and of the feature distance to that
    vertex. Feature distances (B, V, W) must be finite; weights are (B, V) and (B, W). `vertices`:
    only so many of each mesh, evenly spread over their order.
    """
    there = _one_way(b_from_a, a.points, b, distances, weights[0], config.alpha, vertices)
    return (
        there
        + _one_way(
            invert(b_from_a), b.points, a, distances.mT, weights[1], config.alpha, vertices
        )
    ) / 2


def _one_way(
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
        nearest = _nearest(moved, b)
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


def _nearest(moved: Tensor, b: MeshBatch) -> Tensor:
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
    """The energy (H,) of similarities (H, 4, 4) with true nearest vertices of points a (V, 3) and
    b (W, 3): slow, the oracle.

    Feature distances (V, W) must be finite. Memory: 8 * H * V * W bytes.
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
    """How near rotations a (..., 3, 3) are to b (..., 3, 3).

    1 where equal, 1/2 at `width` degrees (a Cauchy kernel).
    """
    return closeness_of_traces((a * b).sum((-2, -1)), width)


def closeness_of_traces(trace: Tensor, width: float) -> Tensor:
    """The closeness of rotations a and b whose trace(a.T b) is given."""
    sine = (3 - trace).clamp_min(0) / 4  # squared sine of half the angle
    return 1 / (1 + sine / math.sin(math.radians(width) / 2) ** 2)


def find_modes(
    b_from_a: Tensor, energy: Tensor, config: PairConfig
) -> tuple[Tensor, Tensor]:
    """Modes (B, K, 4, 4) float64 of hypotheses (B, H, 4, 4) with energies (B, H), and their
    energies (B, K), inf for no mode.

    The best hypothesis with the weighted mean of those around it, then the best of those farther
    than `mode_distance` from every mode so far, and so on.
    """
    rotation, translation, scale = split_similarity(b_from_a.double())
    energy = energy.double()
    free = torch.ones_like(energy, dtype=torch.bool)
    found, lowest = [], []
    for _ in range(config.modes):
        least, best = energy.masked_fill(~free, torch.inf).min(1)
        weight = torch.exp((least[:, None] - energy) / config.temperature).clamp_max(1)
        centre = torch.take_along_dim(rotation, best[:, None, None, None], 1)[:, 0]
        for _ in range(5):
            share = closeness(rotation, centre[:, None], config.mode_width) ** 2 * weight
            share = share / share.sum(1, keepdim=True)
            centre = nearest_rotation((share[..., None, None] * rotation).sum(1))
        found.append(
            from_parts(
                centre,
                (share[..., None] * translation).sum(1),
                (share * scale.log()).sum(1).exp(),
            )
        )
        lowest.append(least)
        free = free & (closeness(rotation, centre[:, None], config.mode_distance) < 0.5)
    return torch.stack(found, 1), torch.stack(lowest, 1)


def view_likeness(
    b_from_a: Tensor, a: MeshBatch, b: MeshBatch, width: float
) -> tuple[Tensor, Tensor]:
    """How alike what both meshes show from the same side is under similarities (B, K, 4, 4), and
    how much that is; (B, K) each.

    Each feature of a vertex is compared with those of the nearest vertex of the other mesh that
    were seen from about the same direction, `width` degrees. Where the other has none, nothing is
    said: a pose is not better because unlike sides meet.
    """
    there = _one_way_likeness(b_from_a, a, b, width)
    back = _one_way_likeness(invert(b_from_a), b, a, width)
    return (there[0] + back[0]) / 2, (there[1] + back[1]) / 2


def _one_way_likeness(
    b_from_a: Tensor, a: MeshBatch, b: MeshBatch, width: float
) -> tuple[Tensor, Tensor]:
    rotation = split_similarity(b_from_a)[0].float()
    nearest = _nearest(transform(b_from_a.float(), a.points[:, None]).mT, b)  # (B, K, V)
    first = torch.arange(len(rotation), device=rotation.device)[:, None] * b.points.shape[1]
    result = []
    for k in range(b_from_a.shape[1]):
        rows = (nearest[:, k] + first).flatten()
        there = [
            t.flatten(0, 1).index_select(0, rows).view(len(first), -1, *t.shape[2:])
            for t in (b.features, b.direction, b.share)
        ]
        same = (a.direction @ rotation[:, None, k].mT) @ there[
            1
        ].mT  # (B, V, K, K) cosine between directions
        kernel = (
            torch.exp((same - 1) / math.radians(width) ** 2) * (there[2] > 0)[:, :, None]
        )
        weighted = kernel * there[2][:, :, None]
        likeness = (weighted * (a.features @ there[0].mT)).sum(3) / weighted.sum(
            3
        ).clamp_min(1e-9)
        said = kernel.amax(3) * a.share
        total = said.sum((1, 2))
        result.append(
            torch.stack(
                [
                    (said * likeness).sum((1, 2)) / total.clamp_min(1e-9),
                    total / a.share.sum((1, 2)),
                ]
            )
        )
    likeness, overlap = torch.stack(result, -1).double()
    return likeness, overlap


def align_pairs(
    shapes: MeshBatch, pairs: Tensor, config: PairConfig, seed: int = 0
) -> PairModes:
    """Modes of the poses of pairs (B, 2) of shapes, b_from_a for each pair (a, b).

    Results are on the CPU.

    All pairs share the same random numbers, so the answer for a pair does not depend on its
    company.
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
    known = distances.isfinite()
    mean = distances.masked_fill(~known, 0).sum((1, 2)) / known.sum((1, 2))
    distances = torch.where(known, distances, mean[:, None, None])
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
