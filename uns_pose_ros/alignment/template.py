"""The category's mean shape: the template whose vertices the network tells apart."""

from __future__ import annotations

from collections.abc import Sequence
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
    """How the template is made."""

    resolution: int = 48  # voxels along the longest side of the canonical box
    vertices: int = 300  # at most, after decimation
    # voxels; farther from a surface, all places are alike inside or outside
    reach: float = 3.0


def mean_shape(
    meshes: Sequence[tuple[Tensor, Tensor]],
    canon_from_obj: Tensor,
    weight: Tensor,
    config: TemplateConfig = TemplateConfig(),
) -> tuple[Tensor, Tensor]:
    """Vertices (V, 3) float32 and triangles (T, 3) int64, canon frame, of the weighted mean of N
    closed meshes.

    Meshes are vertices (V_i, 3) and triangles (T_i, 3) in their obj frames, canon_from_obj (N, 4,
    4), weight (N,). Signed distances are averaged, not positions, so the shapes need no
    correspondences.
    """
    placed = zip(meshes, canon_from_obj, strict=True)
    moved = [
        (transform(pose, vertices.double()), triangles)
        for (vertices, triangles), pose in placed
    ]
    everything = torch.cat([vertices for vertices, _ in moved])
    low, high = everything.amin(0), everything.amax(0)
    step = float((high - low).max()) / (config.resolution - 1)
    low = low - 2 * step
    counts = ((high - low) / step).ceil().int().tolist()
    axes = [low[k] + step * torch.arange(count + 3) for k, count in enumerate(counts)]
    share = (weight / weight.sum()).tolist()
    mean, filled = np.zeros([len(axis) for axis in axes]), 0.0
    for (vertices, triangles), part in zip(moved, share, strict=True):
        solid = inside(vertices.float(), triangles, axes)
        distance = distance_transform_edt(solid) - distance_transform_edt(~solid)
        mean += part * distance.clip(-config.reach, config.reach)
        filled += part * solid.mean()
    mean = gaussian_filter(
        mean, 0.7
    )  # voxel distances are whole numbers; where they cancel, surfaces get slivers
    level = np.quantile(
        mean, 1 - filled
    )  # the mean volume: parts that differ among the instances would shrink else
    return extract_surface(mean - level, low.numpy(), np.full(3, step), config.vertices)


def inside(vertices: Tensor, triangles: Tensor, axes: Sequence[Tensor]) -> np.ndarray:
    """Which points of a grid with the given axes lie inside a closed mesh (V, 3), (T, 3).

    Bool, (len(x), len(y), len(z)).

    Crossings of the surface are counted along lines parallel to z.
    """
    a, b, c = vertices[triangles].unbind(1)
    x, y = torch.meshgrid(
        axes[0].float() + 1e-6, axes[1].float() + 1e-6, indexing="ij"
    )  # off the vertices of a grid-made mesh
    points = torch.stack([x, y], -1).reshape(-1, 1, 2)
    e1, e2, p = (b - a)[:, :2], (c - a)[:, :2], points - a[:, :2]
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
    """Reflection (4, 4) float64 of the canonical frame that leaves the category unchanged, or None
    where there is none.

    Template vertices (V, 3), N feature meshes with canon_from_obj (N, 4, 4). Of all planes through
    the template's middle, the one for which reflected shape and shape coincide best, and the
    features of the mirrored images with those of the images, weighted by `alpha`. None where the
    shapes are more than `tolerance` apart (mean, in distances of neighbouring vertices: nearer than
    about 0.6 no sampled shape comes), the features are unlike, or a mesh has no mirrored features.
    """
    if any(mesh.mirrored is None for mesh in meshes):
        return None
    totals = torch.zeros(2, len(vertices), meshes[0].features.shape[1])
    for mesh, pose in zip(meshes, canon_from_obj, strict=True):
        nearest = torch.cdist(
            transform(pose, mesh.vertices.double()).float(), vertices
        ).argmin(1)[mesh.vertex_index]
        assert mesh.mirrored is not None
        totals[0].index_add_(0, nearest, mesh.features.float())
        totals[1].index_add_(0, nearest, mesh.mirrored.float())
    known = totals[0].abs().sum(1) > 0
    plain, flipped = (normalize(total - total[known].mean(0), dim=-1) for total in totals)
    likeness = flipped @ plain.T
    centre = (vertices.amin(0) + vertices.amax(0)) / 2
    points = vertices - centre
    spacing = float(torch.cdist(points, points).fill_diagonal_(torch.inf).amin(1).mean())

    def rate(normals: Tensor) -> tuple[Tensor, Tensor]:
        """How far shape (canonical units) and features (1 - cosine) are from their reflections,
        (N,) each.
        """
        reflected = points - 2 * (points @ normals.T).T[..., None] * normals[:, None]
        gap, nearest = torch.cdist(reflected, points.expand(len(normals), -1, -1)).min(2)
        apart = (
            1 - likeness.expand(len(normals), -1, -1).gather(2, nearest[..., None])[..., 0]
        )
        return gap[:, known].mean(1), apart[:, known].mean(1)

    def cost(normals: Tensor) -> Tensor:
        gap, apart = rate(normals)
        return (1 - alpha) * gap / spacing + alpha * apart

    normals = sphere(600)
    best = normals[cost(normals).argmin()]
    for width in (0.1, 0.03, 0.01):
        near = normalize(torch.cat([best[None], best + width * sphere(60)]), dim=-1)
        best = near[cost(near).argmin()]
    gap, apart = rate(best[None])
    # 1: no more alike than any two places of the object
    if float(gap) > tolerance * spacing or float(apart) > 0.5:
        return None
    normal = best.double()
    return from_parts(
        torch.eye(3, dtype=torch.float64) - 2 * normal[:, None] * normal,
        2 * (centre.double() @ normal) * normal,
    )
