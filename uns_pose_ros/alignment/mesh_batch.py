"""Feature meshes of one category in a common, frame-free form: what alignment computes on."""

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

    # features kept a vertex: spherical k-means over the views that see it
    clusters: int = 4
    cells: int = 48  # along each side of the nearest-vertex table
    margin: float = 0.25  # of the diameter, by which the table reaches beyond the mesh


@dataclass(frozen=True, eq=False)
class MeshBatch:
    """N meshes padded to V vertices, each in its own shape frame, with K features of C channels a
    vertex.

    Each of a vertex's K features stands for the views from one direction: what a part looks like
    depends on both.

    The shape frame is made from the mesh alone: origin at the mean vertex, largest distance of two
    vertices 1, principal axes. It does not depend on the obj frame, so nothing that is computed in
    it does. Memory: N * (4 K V C + 4 * cells**3) bytes, 3.5 MB a mesh of 500 vertices with the
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
    # (N, cells**3) int32, index of the vertex nearest to each cell's centre
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
        """The shapes of the given indices (B,), in that order."""
        return MeshBatch(**{name: tensor[index] for name, tensor in vars(self).items()})

    def to(self, device: torch.device) -> MeshBatch:
        """The same shapes on another device."""
        return MeshBatch(**{name: tensor.to(device) for name, tensor in vars(self).items()})


def content_key(mesh: FeatureMesh) -> str:
    """A name made from what the mesh looks like: the same for any obj frame and any video name."""
    digest = hashlib.sha256()
    for tensor in (mesh.features, mesh.vertex_index, mesh.view_index, mesh.triangles):
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def reflect(mesh: FeatureMesh) -> FeatureMesh:
    """What the video would have given had the world been reflected in the plane x = 0 of its obj
    frame.
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
    """Shapes of the meshes, in the mapping's order.

    Raises InvalidInput for a mesh without extent or without features.

    The mean of all features is taken away first: it is what everything has in common and tells no
    part from another.
    """
    size = max(len(mesh.vertices) for mesh in meshes.values())
    views = sum(len(mesh.features) for mesh in meshes.values())
    mean = torch.stack([mesh.features.double().sum(0) for mesh in meshes.values()]).sum(
        0
    ) / max(views, 1)
    shapes = [
        _prepare_one(name, mesh, mean.float(), size, config)
        for name, mesh in meshes.items()
    ]
    return MeshBatch(*(torch.stack(column) for column in zip(*shapes, strict=True)))


def _prepare_one(
    name: str, mesh: FeatureMesh, mean: Tensor, size: int, config: ShapeConfig
) -> tuple[Tensor, ...]:
    """The fields of one mesh's shape, in the order of `Shapes`."""
    seen = len(torch.unique(mesh.vertex_index))
    if len(mesh.vertices) < 4 or mesh.diameter <= 0 or seen < 4:
        raise InvalidInput(
            f"{name}: {len(mesh.vertices)} vertices over {mesh.diameter:g} units, {seen} of "
            "them with features; "
            "4 and a size above zero are needed"
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


def shape_frame(vertices: Tensor) -> Tensor:
    """shape_from_obj (4, 4) float64 of vertices (V, 3).

    Mean vertex at 0, diameter 1, principal axes skewed to their + side.
    """
    vertices = vertices.double()
    mean = vertices.mean(0)
    centred = (vertices - mean) / torch.cdist(vertices, vertices).max()
    axes = torch.linalg.eigh(centred.T @ centred).eigenvectors.flip(1)
    axes = axes * torch.where((centred @ axes).pow(3).sum(0) < 0, -1.0, 1.0)
    axes[:, 2] = torch.linalg.cross(axes[:, 0], axes[:, 1])
    scale = 1 / torch.cdist(vertices, vertices).max()
    return from_parts(axes.T, -scale * (axes.T @ mean), scale)


def cluster_views(
    features: Tensor,
    direction: Tensor,
    vertex_index: Tensor,
    count: int,
    clusters: int,
    steps: int = 6,
) -> tuple[Tensor, Tensor, Tensor]:
    """Spherical k-means over the directions that each vertex is seen from.

    Vertices with few views keep every view.

    Unit features (M, C) with their unit directions (M, 3) and vertices (M,), ascending. Returns the
    clusters' mean features (count, K, C) and directions (count, K, 3), unit length, and the
    fraction of the views in each (count, K). A cluster without views repeats the vertex's fullest
    one; all is zero where no view sees the vertex. Starts from the view nearest to the mean
    direction, then takes the farthest each time.
    """
    views = torch.bincount(vertex_index, minlength=count)
    slot = torch.arange(len(features)) - (views.cumsum(0) - views)[vertex_index]
    padded = direction.new_zeros(count, max(int(views.max()), clusters), 3)
    padded[vertex_index, slot] = direction
    real = torch.arange(padded.shape[1]) < views[:, None]
    likeness = padded @ padded.mT
    chosen = [
        (padded @ normalize(padded.sum(1), dim=-1)[..., None])[..., 0]
        .masked_fill(~real, -2)
        .argmax(1)
    ]
    best = likeness[torch.arange(count), chosen[0]]
    for _ in range(clusters - 1):
        chosen.append(best.masked_fill(~real, 2).argmin(1))
        best = torch.maximum(best, likeness[torch.arange(count), chosen[-1]])
    centres = torch.take_along_dim(padded, torch.stack(chosen, 1)[..., None], 1)
    used = torch.arange(clusters) < views.clamp(max=clusters)[:, None]
    member = padded.new_zeros(count, clusters, padded.shape[1])
    for _ in range(steps):
        nearest = (padded @ centres.mT).masked_fill(~used[:, None], -2).argmax(-1)
        member = (one_hot(nearest, clusters) * real[..., None]).to(padded).mT
        centres = normalize(member @ padded, dim=-1)
    cluster = vertex_index * clusters + nearest[vertex_index, slot]
    total = features.new_zeros(count * clusters, features.shape[1]).index_add_(
        0, cluster, features
    )
    share = member.sum(-1) / views.clamp(min=1)[:, None]
    fullest = share.argmax(1, keepdim=True).expand(-1, clusters)
    stands = torch.where(share > 0, torch.arange(clusters), fullest)[..., None]
    means = torch.take_along_dim(
        normalize(total, dim=-1).view(count, clusters, -1), stands, 1
    )
    return means, torch.take_along_dim(centres, stands, 1), share


def nearest_table(points: Tensor, config: ShapeConfig) -> tuple[Tensor, Tensor, Tensor]:
    """The vertex of (V, 3) nearest to each cell's centre (cells**3,), int32.

    The table's corner (3,) and cell size (3,).
    """
    low = points.amin(0) - config.margin
    cell = (points.amax(0) + config.margin - low) / config.cells
    axes = [low[k] + (torch.arange(config.cells) + 0.5) * cell[k] for k in range(3)]
    centres = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    return (
        torch.cat(
            [torch.cdist(part, points).argmin(1) for part in centres.split(8192)]
        ).int(),
        low,
        cell,
    )
