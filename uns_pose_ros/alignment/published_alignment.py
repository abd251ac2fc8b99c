"""The published alignment: every video goes to one reference by itself, without a consensus.

Source: Sommer et al., "Unsupervised Learning of Category-Level 3D Pose from Object-Centric Videos",
CVPR 2024 (arXiv 2407.04384), section 3. Where the paper leaves a choice, this follows the authors'
released code: hypotheses start from the reference, and all distances are measured in the video's
space. A vertex that no view sees is never drawn; it has no weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from uns_pose_ros.alignment.mesh_batch import shape_frame
from uns_pose_ros.core.device import choose_device
from uns_pose_ros.core.errors import InvalidInput, shorten
from uns_pose_ros.core.geometry import (
    fit_similarity,
    from_parts,
    invert,
    split_similarity,
    transform,
)
from uns_pose_ros.core.settings import check_ranges, setting
from uns_pose_ros.core.types import Alignment, FeatureMesh, Progress

_VIEWS = 1024  # features of one mesh that are compared at a time
_CELLS = 2**21  # distances at a time: 8 MB stay in the cache
_BETAS = (0.4, 0.6)  # of Adam, as released


@dataclass(frozen=True)
class PublishedConfig:
    """Settings of the published alignment."""

    alpha: float = setting(
        0.2, "weight of partners by features against nearest vertices", low=0.0, high=1.0
    )
    tau: float = setting(
        0.9,
        "length over which a broken cycle loses its weight",
        unit="diameters",
        low=1e-3,
        high=1e6,
    )
    hypotheses: int = setting(
        1000, "similarities through four correspondences", low=1, high=10**6
    )
    steps: int = setting(
        0, "steps of Adam on se(3) that refine the best (20 in the paper)", low=0, high=1000
    )
    learning_rate: float = setting(0.02, "of these steps", low=1e-6, high=1.0)

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True, eq=False)
class Partners:
    """Correspondences of two meshes by nearest feature, and the weights of their cycles."""

    to_b: Tensor  # (V,) int64, the partner of each vertex of a
    to_a: Tensor  # (W,) int64, the partner of each vertex of b
    weight_a: Tensor  # (V,); 0: no view sees the vertex
    weight_b: Tensor  # (W,); the mean over both meshes is 1


def align_to_reference(
    meshes: Mapping[str, FeatureMesh],
    reference: str,
    config: PublishedConfig = PublishedConfig(),
    seed: int = 0,
    progress: Progress | None = None,
    device: str = "auto",
) -> Alignment:
    """Align every video to the reference, whose frame becomes the canonical one.

    The published method has no confidence and leaves no video out: all are kept with confidence 1
    and residual 0. A pose does not depend on the other videos.

    Args:
        meshes: Feature mesh of each video, by name.
        reference: Name of the reference.
        config: Settings.
        seed: Seed of the random hypotheses.
        progress: Receives the number of aligned videos.
        device: Device for the pairs.

    Raises:
        InvalidInput: The reference is none of the videos, or a mesh is too small.
    """
    if reference not in meshes:
        raise InvalidInput(
            f"--reference {reference}: no such video here; {shorten(meshes)} are valid"
        )
    for name, mesh in meshes.items():
        _check_mesh(name, mesh)
    chosen = choose_device(device)
    canon_from_reference = _middle_frame(meshes[reference].vertices)
    poses = []
    for done, (name, mesh) in enumerate(meshes.items(), 1):
        video_from_reference = torch.eye(4, dtype=torch.float64)
        if name != reference:
            video_from_reference = align_published(
                meshes[reference], mesh, config, seed, chosen
            )
        poses.append(canon_from_reference @ invert(video_from_reference))
        if progress is not None:
            progress("videos", done, len(meshes))
    ones = torch.ones(len(meshes), dtype=torch.float64)
    return Alignment(
        videos=tuple(meshes),
        canon_from_obj=torch.stack(poses),
        confidence=ones,
        kept=ones.bool(),
        residual=0 * ones,
        reference=reference,
    )


def align_published(
    a: FeatureMesh,
    b: FeatureMesh,
    config: PublishedConfig = PublishedConfig(),
    seed: int = 0,
    device: torch.device = torch.device("cpu"),
) -> Tensor:
    """Align two meshes: the similarity b_from_a (4, 4) float64 of least energy."""
    unit_from_a, unit_from_b = shape_frame(a.vertices), shape_frame(b.vertices)
    points_a = transform(unit_from_a, a.vertices.double()).float().to(device)
    points_b = transform(unit_from_b, b.vertices.double()).float().to(device)
    distances = all_view_distances(a, b, device)
    partners = find_partners(distances, points_a, points_b, config.tau)
    drawn = draw_uniformly(points_a, points_b, partners, config.hypotheses, seed)
    energy = published_energies(drawn, points_a, points_b, partners, config.alpha)
    best = drawn[energy.argmin()]
    if config.steps:
        best = descend_on_se3(best, points_a, points_b, partners, config)
    return invert(unit_from_b) @ best.double().cpu() @ unit_from_a


def all_view_distances(
    a: FeatureMesh, b: FeatureMesh, device: torch.device = torch.device("cpu")
) -> Tensor:
    """Feature distances (V, W) of all vertices: no view is left out.

    The distance is the mean over the views of one vertex of the distance to the nearest view of the
    other, averaged over both directions. It is inf if either vertex has no view.

    Memory: 4 * M * (V + 2048) bytes.
    """
    count_a, count_b = len(a.vertices), len(b.vertices)
    index_a, index_b = a.vertex_index.to(device), b.vertex_index.to(device)
    features_a, features_b = (
        normalize(mesh.features.to(device).float(), dim=-1) for mesh in (a, b)
    )
    nearest_in_a = features_a.new_full((count_a, len(features_b)), -torch.inf)
    to_b = features_a.new_zeros(count_a, count_b)
    for rows in torch.arange(len(features_a), device=device).split(_VIEWS):
        likeness = features_b @ features_a[rows].T  # (M of b, rows)
        nearest_in_b = likeness.new_full((count_b, len(rows)), -torch.inf)
        nearest_in_b.scatter_reduce_(
            0, index_b[:, None].expand_as(likeness), likeness, "amax"
        )
        to_b.index_add_(0, index_a[rows], _distance(nearest_in_b.T))
        likeness = likeness.T.contiguous()
        nearest_in_a.scatter_reduce_(
            0, index_a[rows, None].expand_as(likeness), likeness, "amax"
        )
    to_a = features_a.new_zeros(count_b, count_a)
    to_a.index_add_(0, index_b, _distance(nearest_in_a.T))
    views_a = torch.bincount(index_a, minlength=count_a)[:, None]
    views_b = torch.bincount(index_b, minlength=count_b)[:, None]
    total = to_b / views_a.clamp_min(1) + (to_a / views_b.clamp_min(1)).T
    return (total / 2).masked_fill(~((views_a > 0) & (views_b > 0).T), torch.inf)


def _distance(cosine: Tensor) -> Tensor:
    """Distance of unit vectors from their cosine."""
    return (2 - 2 * cosine).clamp_min(0).sqrt()


def find_partners(distances: Tensor, a: Tensor, b: Tensor, tau: float) -> Partners:
    """Partners by nearest feature, weighted by how well each closes its cycle.

    Args:
        distances: Feature distances (V, W), inf for a vertex without views.
        a: Points (V, 3) of the first mesh, diameter 1.
        b: Points (W, 3) of the second mesh, diameter 1.
        tau: Diameters, the distance at which a weight is 1/e.
    """
    to_b, to_a = distances.argmin(1), distances.argmin(0)
    weight_a = torch.exp(-(a - a[to_a[to_b]]).norm(dim=1) / tau)
    weight_b = torch.exp(-(b - b[to_b[to_a]]).norm(dim=1) / tau)
    weight_a = weight_a * distances.amin(1).isfinite()
    weight_b = weight_b * distances.amin(0).isfinite()
    mean = torch.cat([weight_a, weight_b]).mean().clamp_min(1e-12)
    return Partners(to_b, to_a, weight_a / mean, weight_b / mean)


def draw_uniformly(
    a: Tensor, b: Tensor, partners: Partners, count: int, seed: int
) -> Tensor:
    """Draw hypotheses b_from_a (count, 4, 4): four vertices of a each, and their partners in b.

    The four are different, and all sets of four are equally likely. If their partners are one
    vertex, the hypothesis is the shift of the origin to it.

    Args:
        a: Points (V, 3) of the first mesh.
        b: Points (W, 3) of the second mesh.
        partners: Their correspondences.
        count: Number of hypotheses.
        seed: Seed of the random numbers, drawn on the CPU on every device.
    """
    generator = torch.Generator().manual_seed(seed)
    chance = (partners.weight_a.cpu() > 0).float().expand(count, -1)
    picked = torch.multinomial(chance, 4, generator=generator).to(a.device)
    drawn = fit_similarity(a[picked], b[partners.to_b[picked]])
    collapsed = split_similarity(drawn)[2] < 1e-6
    shift = from_parts(torch.eye(3, device=a.device), drawn[:, :3, 3])
    return torch.where(collapsed[:, None, None], shift, drawn)


def published_energies(
    b_from_a: Tensor, a: Tensor, b: Tensor, partners: Partners, alpha: float
) -> Tensor:
    """Energy (H,) of hypotheses: (1 - alpha) * D_geo + alpha * D_app, in diameters of b.

    Both terms are weighted means over the vertices of both meshes of distances in the space of b.
    D_geo: to the nearest vertex of the other mesh. D_app: to the partner, which is fixed.

    Args:
        b_from_a: Hypotheses (H, 4, 4).
        a: Points (V, 3) of the first mesh.
        b: Points (W, 3) of the second mesh, diameter 1.
        partners: Their correspondences and weights.
        alpha: Weight of D_app.
    """
    weight = torch.cat([partners.weight_a, partners.weight_b]) / (len(a) + len(b))
    energies = []
    for part in b_from_a.split(max(1, _CELLS // (len(a) * len(b)))):
        moved = transform(part, a)  # (h, V, 3)
        with torch.no_grad():
            gap = torch.cdist(moved, b.expand(len(part), -1, -1))
            nearest_b, nearest_a = gap.argmin(2), gap.argmin(1)
        back = torch.take_along_dim(moved, nearest_a[..., None], 1)
        near = torch.cat([moved - b[nearest_b], back - b], 1).norm(dim=2)
        apart = torch.cat([moved - b[partners.to_b], moved[:, partners.to_a] - b], 1)
        energies.append(((1 - alpha) * near + alpha * apart.norm(dim=2)) @ weight)
    return torch.cat(energies)


def descend_on_se3(
    b_from_a: Tensor, a: Tensor, b: Tensor, partners: Partners, config: PublishedConfig
) -> Tensor:
    """Refine one hypothesis b_from_a (4, 4) by `config.steps` of Adam on se(3).

    Args:
        b_from_a: The hypothesis; its scale stays.
        a: Points (V, 3) of the first mesh.
        b: Points (W, 3) of the second mesh, diameter 1.
        partners: Their correspondences and weights.
        config: Settings.
    """
    twist = torch.zeros(6, device=a.device, requires_grad=True)
    optimizer = torch.optim.Adam([twist], lr=config.learning_rate, betas=_BETAS)
    for _ in range(config.steps):
        pose = b_from_a @ rigid_exponential(twist)
        published_energies(pose[None], a, b, partners, config.alpha).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():  # the next step starts at the new pose
            b_from_a = b_from_a @ rigid_exponential(twist)
            twist.zero_()
    return b_from_a


def rigid_exponential(twist: Tensor) -> Tensor:
    """Rigid motion (4, 4) of a twist (6,): rotation vector, radians, then translation."""
    x, y, z, u, v, w = twist.unbind()
    zero = torch.zeros_like(x)
    rows = [zero, -z, y, u, z, zero, -x, v, -y, x, zero, w, zero, zero, zero, zero]
    return torch.linalg.matrix_exp(torch.stack(rows).view(4, 4))


def _middle_frame(vertices: Tensor) -> Tensor:
    """Similarity (4, 4) that brings vertices (V, 3) to principal axes, middle 0, diagonal 1."""
    shape_from_obj = shape_frame(vertices)
    points = transform(shape_from_obj, vertices.double())
    low, high = points.amin(0), points.amax(0)
    scale = 1 / (high - low).norm()
    turn = torch.eye(3, dtype=torch.float64)
    return from_parts(turn, -scale * (low + high) / 2, scale) @ shape_from_obj


def _check_mesh(name: str, mesh: FeatureMesh) -> None:
    seen = len(torch.unique(mesh.vertex_index))
    if len(mesh.vertices) < 4 or mesh.diameter <= 0 or seen < 4:
        raise InvalidInput(
            f"{name}: {len(mesh.vertices)} vertices over {mesh.diameter:g} units, {seen} of "
            "them with features; 4 and a size above zero are needed"
        )
