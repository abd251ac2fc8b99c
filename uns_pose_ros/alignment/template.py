"""The category's mean shape: the template whose vertices the network distinguishes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt, gaussian_filter
from torch import Tensor
from torch.nn.functional import normalize

from uns_pose_ros.core.geometry import from_parts, sphere, transform
from uns_pose_ros.core.isosurface import extract_surface
from uns_pose_ros.core.types import FeatureMesh


@dataclass(frozen=True)
class TemplateConfig:
    """How the template is computed."""

    resolution: int = 48  # voxels along the longest side of the canonical box
    vertices: int = 300  # at most, after decimation
    # voxels, distance from the surface at which signed distances are clipped
    reach: float = 3.0


def mean_shape(
    meshes: Sequence[tuple[Tensor, Tensor]],
    canon_from_obj: Tensor,
    weight: Tensor,
    config: TemplateConfig = TemplateConfig(),
) -> tuple[Tensor, Tensor]:
    """Compute the weighted mean of N closed meshes.

    The signed distances are averaged, not the positions, so the shapes need no correspondences.

    Args:
        meshes: Vertices (V_i, 3), obj frame, and triangles (T_i, 3) of each mesh.
        canon_from_obj: Poses (N, 4, 4) of the meshes.
        weight: Weight (N,) of each mesh.
        config: Settings.

    Returns:
        Vertices (V, 3) float32, canon frame, and triangles (T, 3) int64.
    """
    moved = []
    for (vertices, triangles), pose in zip(meshes, canon_from_obj, strict=True):
        moved.append((transform(pose, vertices.double()), triangles))
    everything = torch.cat([vertices for vertices, _ in moved])
    low, high = everything.amin(0), everything.amax(0)
    step = float((high - low).max()) / (config.resolution - 1)
    low = low - 2 * step
    counts = ((high - low) / step).ceil().int().tolist()
    axes = [low[k] + step * torch.arange(count + 3) for k, count in enumerate(counts)]
    share = (weight / weight.sum()).tolist()
    mean = np.zeros([len(axis) for axis in axes])
    filled = 0.0
    for (vertices, triangles), part in zip(moved, share, strict=True):
        solid = inside(vertices.float(), triangles, axes)
        distance = distance_transform_edt(solid) - distance_transform_edt(~solid)
        mean += part * distance.clip(-config.reach, config.reach)
        filled += part * solid.mean()
    # voxel distances are whole numbers; where they cancel, the surface would get slivers
    mean = gaussian_filter(mean, 0.7)
    # keeps the mean volume: otherwise parts that differ among the instances would shrink
    level = np.quantile(mean, 1 - filled)
    return extract_surface(mean - level, low.numpy(), np.full(3, step), config.vertices)


def inside(vertices: Tensor, triangles: Tensor, axes: Sequence[Tensor]) -> np.ndarray:
    """Mask (len(x), len(y), len(z)) of the points of a grid that lie inside a closed mesh.

    Crossings of the surface are counted along lines parallel to z.

    Args:
        vertices: Vertices (V, 3).
        triangles: Triangles (T, 3).
        axes: Coordinates of the grid along x, y and z.
    """
    a, b, c = vertices[triangles].unbind(1)
    # off the vertices of a mesh that was made from a grid
    x, y = torch.meshgrid(axes[0].float() + 1e-6, axes[1].float() + 1e-6, indexing="ij")
    points = torch.stack([x, y], -1).reshape(-1, 1, 2)
    e1 = (b - a)[:, :2]
    e2 = (c - a)[:, :2]
    p = points - a[:, :2]
    area = e1[:, 0] * e2[:, 1] - e1[:, 1] * e2[:, 0]
    inverse = torch.where(area.abs() < 1e-12, torch.zeros_like(area), 1 / area)
    u = (p[..., 0] * e2[:, 1] - p[..., 1] * e2[:, 0]) * inverse
    v = (p[..., 1] * e1[:, 0] - p[..., 0] * e1[:, 1]) * inverse
    hit = (inverse != 0) & (u >= 0) & (v >= 0) & (u + v < 1)
    line, triangle = hit.nonzero(as_tuple=True)
    height = (
        a[triangle, 2]
        + u[line, triangle] * (b - a)[triangle, 2]
        + v[line, triangle] * (c - a)[triangle, 2]
    )
    slot = torch.searchsorted(axes[2].float().contiguous(), height.contiguous())
    flips = torch.zeros(len(points), len(axes[2]) + 1, dtype=torch.int64)
    flips.index_put_((line, slot), torch.ones_like(slot), accumulate=True)
    solid = flips[:, :-1].cumsum(1) % 2 == 1
    return solid.reshape(len(axes[0]), len(axes[1]), -1).numpy()


def find_mirror_plane(
    vertices: Tensor,
    meshes: Sequence[FeatureMesh],
    canon_from_obj: Tensor,
    tolerance: float = 0.8,
    alpha: float = 0.5,
) -> Tensor | None:
    """Find the reflection (4, 4) float64 of the canonical frame that leaves the category unchanged.

    Of all planes through the template's middle, the best one is that under which the reflected
    shape coincides with the shape, and the features of the mirrored images with those of the
    images.

    Args:
        vertices: Template vertices (V, 3).
        meshes: N feature meshes.
        canon_from_obj: Poses (N, 4, 4) of the meshes.
        tolerance: Mean distance of the reflected shape, in distances of neighboring vertices, above
            which the category has no mirror plane; no sampled shape comes nearer than about 0.6.
        alpha: Weight of the features against the shape.

    Returns:
        The reflection, or None if the shapes are too far apart, the features are unlike, or a mesh
        has no mirrored features.
    """
    if any(mesh.mirrored is None for mesh in meshes):
        return None
    plain, mirrored = _template_features(vertices, meshes, canon_from_obj)
    scorer = _ReflectionScorer(vertices, plain, mirrored, alpha)
    normal = search_on_sphere(scorer.cost)
    gap, feature_gap = scorer.gaps(normal[None])
    # features: 1 is the mean over any two points of the object
    if float(gap) > tolerance * scorer.spacing or float(feature_gap) > 0.5:
        return None
    normal = normal.double()
    return from_parts(
        torch.eye(3, dtype=torch.float64) - 2 * normal[:, None] * normal,
        2 * (scorer.center.double() @ normal) * normal,
    )


def _template_features(
    vertices: Tensor, meshes: Sequence[FeatureMesh], canon_from_obj: Tensor
) -> Tensor:
    """Sums (2, V, C) of the features, and of the mirrored features, nearest to each vertex.

    Args:
        vertices: Template vertices (V, 3).
        meshes: N feature meshes with mirrored features.
        canon_from_obj: Poses (N, 4, 4) of the meshes.
    """
    totals = torch.zeros(2, len(vertices), meshes[0].features.shape[1])
    for mesh, pose in zip(meshes, canon_from_obj, strict=True):
        assert mesh.mirrored is not None
        points = transform(pose, mesh.vertices.double()).float()
        nearest = torch.cdist(points, vertices).argmin(1)[mesh.vertex_index]
        totals[0].index_add_(0, nearest, mesh.features.float())
        totals[1].index_add_(0, nearest, mesh.mirrored.float())
    return totals


class _ReflectionScorer:
    """Rates reflections in planes through the template's middle."""

    def __init__(
        self, vertices: Tensor, plain: Tensor, mirrored: Tensor, alpha: float
    ) -> None:
        """Prepare the comparison of the template with its reflections.

        Args:
            vertices: Template vertices (V, 3).
            plain: Features (V, C) of the images; zero where no view sees the vertex.
            mirrored: Features (V, C) of the mirrored images.
            alpha: Weight of the features against the shape.
        """
        self.alpha = alpha
        self.seen = plain.abs().sum(1) > 0
        plain = normalize(plain - plain[self.seen].mean(0), dim=-1)
        mirrored = normalize(mirrored - mirrored[self.seen].mean(0), dim=-1)
        self.likeness = mirrored @ plain.T
        self.center = (vertices.amin(0) + vertices.amax(0)) / 2
        self.points = vertices - self.center
        distances = torch.cdist(self.points, self.points).fill_diagonal_(torch.inf)
        self.spacing = float(distances.amin(1).mean())  # mean distance to the next vertex

    def gaps(self, normals: Tensor) -> tuple[Tensor, Tensor]:
        """Distances between template and reflection in the planes with normals (N, 3).

        Returns:
            The mean distance (N,) of the shapes in canonical units, and of the features as
            1 - cosine.
        """
        count = len(normals)
        height = (self.points @ normals.T).T
        reflected = self.points - 2 * height[..., None] * normals[:, None]
        gap, nearest = torch.cdist(reflected, self.points.expand(count, -1, -1)).min(2)
        likeness = self.likeness.expand(count, -1, -1).gather(2, nearest[..., None])[..., 0]
        return gap[:, self.seen].mean(1), (1 - likeness)[:, self.seen].mean(1)

    def cost(self, normals: Tensor) -> Tensor:
        """Cost (N,) of the planes with normals (N, 3)."""
        gap, feature_gap = self.gaps(normals)
        return (1 - self.alpha) * gap / self.spacing + self.alpha * feature_gap


def search_on_sphere(cost: Callable[[Tensor], Tensor]) -> Tensor:
    """Search the direction (3,) of least cost, first coarsely and then around the best one.

    `cost` maps unit vectors (N, 3) to costs (N,).
    """
    directions = sphere(600)
    best = directions[cost(directions).argmin()]
    for width in (0.1, 0.03, 0.01):
        near = normalize(torch.cat([best[None], best + width * sphere(60)]), dim=-1)
        best = near[cost(near).argmin()]
    return best
