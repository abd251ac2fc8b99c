"""Feature meshes of one category as one batch of padded tensors, each in its own shape frame.

Alignment computes on this batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import from_parts, transform
from uns_pose_ros.core.types import FeatureMesh


@dataclass(frozen=True)
class ShapeConfig:
    """How a feature mesh is prepared for alignment."""

    # features kept for each vertex: spherical k-means over the views that see it
    clusters: int = 4
    cells: int = 48  # along each side of the nearest-vertex table
    margin: float = 0.25  # of the diameter, by which the table reaches beyond the mesh


@dataclass(frozen=True, eq=False)
class MeshBatch:
    """N meshes, padded to V vertices, with K features of C channels for each vertex.

    Each of a vertex's K features stands for the views from one direction, because the appearance of
    a part depends on the direction.

    The shape frame is made from the mesh alone: its origin is the mean vertex, the largest distance
    of two vertices is 1, and its axes are the principal axes. It does not depend on the obj frame,
    so no result that is computed in it does.

    Memory: N * (4 K V C + 4 * cells**3) bytes, 3.5 MB for a mesh of 500 vertices with the
    defaults.
    """

    points: Tensor  # (N, V, 3) float32, shape frame
    valid: Tensor  # (N, V) bool, False: padding
    # (N, V, K, C) float32, unit length; zero where no view sees the vertex
    features: Tensor
    # (N, V, K, 3) float32, from the object to the cameras of that feature, unit length, shape frame
    direction: Tensor
    # (N, V, K) float32, fraction of the vertex's views in each feature; all zero where no view sees
    # it
    share: Tensor
    # (N, cells**3) int32, index of the vertex nearest to each cell's center
    nearest: Tensor
    low: Tensor  # (N, 3) float32, corner of the table, shape frame
    cell: Tensor  # (N, 3) float32, size of one cell
    shape_from_obj: Tensor  # (N, 4, 4) float64

    @property
    def seen(self) -> Tensor:
        """(N, V) bool: vertices that some view sees."""
        return self.share.sum(-1) > 0

    def __len__(self) -> int:
        return len(self.points)

    def take(self, index: Tensor) -> MeshBatch:
        """The meshes of the given indices (B,), in that order."""
        return MeshBatch(**{name: tensor[index] for name, tensor in vars(self).items()})

    def to(self, device: torch.device) -> MeshBatch:
        """The same meshes on another device."""
        return MeshBatch(**{name: tensor.to(device) for name, tensor in vars(self).items()})


def content_key(mesh: FeatureMesh) -> str:
    """Hash of the mesh's features and indices: it depends on neither obj frame nor video name."""
    digest = hashlib.sha256()
    for tensor in (mesh.features, mesh.vertex_index, mesh.view_index, mesh.triangles):
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def reflect(mesh: FeatureMesh) -> FeatureMesh:
    """The mesh of the video as if the world were reflected in the plane x = 0 of its obj frame.

    Raises:
        InvalidInput: The mesh has no features of the mirrored images.
    """
    if mesh.mirrored is None:
        raise InvalidInput(
            "the mesh has no features of the mirrored images; `uns-pose reconstruct` makes them"
        )
    flip = torch.tensor([-1.0, 1.0, 1.0, 1.0])
    return FeatureMesh(
        vertices=mesh.vertices * flip[:3],
        triangles=mesh.triangles.flip(1),
        features=mesh.mirrored,
        vertex_index=mesh.vertex_index,
        view_index=mesh.view_index,
        cameras_in_obj=flip[:, None] * mesh.cameras_in_obj * flip,
        mirrored=mesh.features,
    )


def build_mesh_batch(
    meshes: Mapping[str, FeatureMesh], config: ShapeConfig = ShapeConfig()
) -> MeshBatch:
    """Build the batch of the meshes, in the mapping's order.

    The mean of all features is subtracted first: it is common to all parts and distinguishes none.

    Raises:
        InvalidInput: A mesh has no extent or too few features.
    """
    size = max(len(mesh.vertices) for mesh in meshes.values())
    views = sum(len(mesh.features) for mesh in meshes.values())
    totals = [mesh.features.double().sum(0) for mesh in meshes.values()]
    mean = (torch.stack(totals).sum(0) / max(views, 1)).float()
    rows = [_prepare_mesh(name, mesh, mean, size, config) for name, mesh in meshes.items()]
    columns = zip(*rows, strict=True)
    return MeshBatch(*(torch.stack(column) for column in columns))


def _prepare_mesh(
    name: str, mesh: FeatureMesh, mean: Tensor, size: int, config: ShapeConfig
) -> tuple[Tensor, ...]:
    """Compute the fields of one mesh, in the order of `MeshBatch`.

    Args:
        name: The video's name, for error messages.
        mesh: The feature mesh.
        mean: Mean feature (C,) of all meshes.
        size: Number V of vertices after padding.
        config: Settings.
    """
    seen = len(torch.unique(mesh.vertex_index))
    if len(mesh.vertices) < 4 or mesh.diameter <= 0 or seen < 4:
        raise InvalidInput(
            f"{name}: {len(mesh.vertices)} vertices over {mesh.diameter:g} units, {seen} of "
            "them with features; 4 and a size above zero are needed"
        )
    shape_from_obj = shape_frame(mesh.vertices)
    points = transform(shape_from_obj, mesh.vertices.double()).float()
    shape_from_cam = shape_from_obj @ torch.linalg.inv(mesh.cameras_in_obj.double())
    direction = normalize(shape_from_cam[:, :3, 3], dim=-1).float()[mesh.view_index]
    features = normalize(mesh.features.float() - mean, dim=-1)
    clusters = cluster_views(
        features, direction, mesh.vertex_index, len(points), config.clusters
    )
    pad = size - len(points)
    padded = [
        torch.cat([tensor, tensor[:1].expand(pad, *tensor.shape[1:])])
        for tensor in (points, *clusters)
    ]
    padded[-1][len(points) :] = 0
    valid = torch.arange(size) < len(points)
    return (padded[0], valid, *padded[1:], *nearest_table(points, config), shape_from_obj)


def principal_axes(points: Tensor, weight: Tensor | None = None) -> Tensor:
    """Principal axes (3, 3) of points (M, 3) around their mean, one a column, longest first.

    The first two axes point to the side to which the points are skewed; the third completes a
    right-handed frame.

    Args:
        points: Points (M, 3) whose weighted mean is the origin.
        weight: Weight (M,) of each point; None: all points weigh the same.
    """
    weight = torch.ones_like(points[:, 0]) if weight is None else weight
    moment = points.T @ (weight[:, None] * points)
    axes = torch.linalg.eigh(moment).eigenvectors.flip(1)
    skewness = weight @ (points @ axes).pow(3)
    axes = axes * torch.where(skewness < 0, -1.0, 1.0)
    axes[:, 2] = torch.linalg.cross(axes[:, 0], axes[:, 1])
    return axes


def shape_frame(vertices: Tensor) -> Tensor:
    """shape_from_obj (4, 4) float64 of vertices (V, 3).

    The mean vertex lies at 0, the diameter is 1, and the axes are the principal axes.
    """
    vertices = vertices.double()
    mean = vertices.mean(0)
    diameter = torch.cdist(vertices, vertices).max()
    axes = principal_axes((vertices - mean) / diameter)
    scale = 1 / diameter
    return from_parts(axes.T, -scale * (axes.T @ mean), scale)


def cluster_views(
    features: Tensor,
    direction: Tensor,
    vertex_index: Tensor,
    count: int,
    clusters: int,
    steps: int = 6,
) -> tuple[Tensor, Tensor, Tensor]:
    """Cluster the views of each vertex by their directions (spherical k-means).

    A vertex with at most K views keeps every view. A cluster without views repeats the fullest
    cluster of its vertex. All results are zero where no view sees the vertex.

    Args:
        features: Unit features (M, C).
        direction: Unit directions (M, 3) from the object to the cameras.
        vertex_index: The vertex (M,) of each feature, ascending.
        count: Number of vertices.
        clusters: Number K of clusters for each vertex.
        steps: Steps of k-means.

    Returns:
        The mean features (count, K, C) and the mean directions (count, K, 3) of the clusters, unit
        length, and the fraction (count, K) of the vertex's views in each cluster.
    """
    views = torch.bincount(vertex_index, minlength=count)
    slot = torch.arange(len(features)) - (views.cumsum(0) - views)[vertex_index]
    padded = direction.new_zeros(count, max(int(views.max()), clusters), 3)
    padded[vertex_index, slot] = direction
    valid = torch.arange(padded.shape[1]) < views[:, None]
    used = torch.arange(clusters) < views.clamp(max=clusters)[:, None]
    centers = _farthest_directions(padded, valid, clusters)
    nearest, members = _nearest_center(padded, valid, centers, used)
    for _ in range(steps - 1):
        centers = normalize(members @ padded, dim=-1)
        nearest, members = _nearest_center(padded, valid, centers, used)
    centers = normalize(members @ padded, dim=-1)
    cluster = vertex_index * clusters + nearest[vertex_index, slot]
    total = features.new_zeros(count * clusters, features.shape[1])
    total.index_add_(0, cluster, features)
    means = normalize(total, dim=-1).view(count, clusters, -1)
    share = members.sum(-1) / views.clamp(min=1)[:, None]
    fullest = share.argmax(1, keepdim=True).expand(-1, clusters)
    source = torch.where(share > 0, torch.arange(clusters), fullest)[..., None]
    means = torch.take_along_dim(means, source, 1)
    centers = torch.take_along_dim(centers, source, 1)
    return means, centers, share


def _farthest_directions(direction: Tensor, valid: Tensor, clusters: int) -> Tensor:
    """Choose K directions (V, K, 3) of each vertex that lie far from each other.

    The first is the direction nearest to the vertex's mean direction. Each further one is the
    direction farthest from those chosen before.

    Args:
        direction: Unit directions (V, M, 3), padded.
        valid: (V, M) bool, False: padding.
        clusters: Number K of directions to choose.
    """
    vertices = torch.arange(len(direction))
    cosine = direction @ direction.mT
    mean = normalize(direction.sum(1), dim=-1)
    to_mean = (direction @ mean[..., None])[..., 0]
    chosen = [to_mean.masked_fill(~valid, -2).argmax(1)]
    nearest = cosine[vertices, chosen[0]]
    for _ in range(clusters - 1):
        chosen.append(nearest.masked_fill(~valid, 2).argmin(1))
        nearest = torch.maximum(nearest, cosine[vertices, chosen[-1]])
    return torch.take_along_dim(direction, torch.stack(chosen, 1)[..., None], 1)


def _nearest_center(
    direction: Tensor, valid: Tensor, centers: Tensor, used: Tensor
) -> tuple[Tensor, Tensor]:
    """Assign each direction to its nearest cluster.

    Args:
        direction: Unit directions (V, M, 3), padded.
        valid: (V, M) bool, False: padding.
        centers: Directions (V, K, 3) of the clusters.
        used: (V, K) bool, False: the vertex has fewer clusters.

    Returns:
        The nearest cluster (V, M) int64, and the membership (V, K, M) as 0 or 1.
    """
    nearest = (direction @ centers.mT).masked_fill(~used[:, None], -2).argmax(-1)
    members = one_hot(nearest, centers.shape[1]) * valid[..., None]
    return nearest, members.to(direction).mT


def nearest_table(points: Tensor, config: ShapeConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Table of the vertex nearest to each cell of a grid around points (V, 3).

    Returns:
        The nearest vertex (cells**3,) int32 of each cell, the corner (3,) of the table and the size
        (3,) of a cell.
    """
    low = points.amin(0) - config.margin
    cell = (points.amax(0) + config.margin - low) / config.cells
    axes = [low[k] + (torch.arange(config.cells) + 0.5) * cell[k] for k in range(3)]
    centers = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    nearest = [torch.cdist(part, points).argmin(1) for part in centers.split(8192)]
    return torch.cat(nearest).int(), low, cell


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
