"""What a camera sees of a mesh: rays, normals, visible vertices."""

from __future__ import annotations

import torch
from torch import Tensor


def vertex_normals(vertices: Tensor, triangles: Tensor) -> Tensor:
    """Outward unit normals (V, 3), weighted by area."""
    a, b, c = vertices[triangles].unbind(1)
    face = torch.linalg.cross(b - a, c - a)
    normals = torch.zeros_like(vertices).index_add_(
        0, triangles.reshape(-1), face.repeat_interleave(3, 0)
    )
    return normals / normals.norm(dim=-1, keepdim=True).clamp_min(1e-12)


def cast_rays(
    origin: Tensor, directions: Tensor, vertices: Tensor, triangles: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """First hit of rays from origin (3,) along directions (N, 3).

    Distance in lengths of the direction (N,), inf for a miss; triangle (N,) int64, and the hit's
    barycentric weights (N, 3).

    Source: Moeller and Trumbore, 1997, with the origin's part computed once a triangle.
    """
    a, b, c = vertices[triangles].unbind(1)
    edge1, edge2, s = b - a, c - a, origin - a
    normal = torch.linalg.cross(edge1, edge2)
    determinant = -(directions @ normal.T)  # (N, T)
    inverse = torch.where(
        determinant.abs() < 1e-12, torch.zeros_like(determinant), 1 / determinant
    )
    u = (directions @ torch.linalg.cross(edge2, s).T) * inverse
    v = (directions @ torch.linalg.cross(s, edge1).T) * inverse
    distance = (s * normal).sum(-1) * inverse
    edge = 1e-6  # a ray through a shared edge hits one of its triangles at least
    hit = (
        (inverse != 0) & (u >= -edge) & (v >= -edge) & (u + v <= 1 + edge) & (distance > 0)
    )
    nearest, triangle = torch.where(hit, distance, torch.inf).min(1)
    u, v = u.gather(1, triangle[:, None])[:, 0], v.gather(1, triangle[:, None])[:, 0]
    return nearest, triangle, torch.stack([1 - u - v, u, v], -1)


def visible_vertices(
    vertices: Tensor, triangles: Tensor, cam_from_obj: Tensor, grazing: float = 0.1
) -> Tensor:
    """(V,) bool.

    Vertices that face the camera by more than `grazing` (cosine) and that no triangle hides.
    """
    pose = cam_from_obj.to(vertices.dtype)
    origin = -pose[:3, :3].T @ pose[:3, 3]
    rays = vertices - origin
    facing = (
        -(rays * vertex_normals(vertices, triangles)).sum(-1) / rays.norm(dim=-1) > grazing
    )
    size = (vertices.amax(0) - vertices.amin(0)).norm()
    distance, _, _ = cast_rays(origin, rays, vertices, triangles)
    return facing & (distance > 1 - 0.01 * size / rays.norm(dim=-1))


def visible_from(
    vertices: Tensor,
    triangles: Tensor,
    directions: Tensor,
    cells: int = 40,
    grazing: float = 0.1,
) -> Tensor:
    """(D, V) bool.

    Vertices (V, 3) that far cameras in unit directions (D, 3) see; `visible_vertices` for many
    views at once.

    Approximate: points all over the surface go into depth buffers of cells * cells, and a vertex is
    hidden where the buffer is nearer by more than two cells.
    """
    size = float((vertices.amax(0) - vertices.amin(0)).norm())
    middle = (vertices.amax(0) + vertices.amin(0)) / 2
    steps = (
        torch.tensor(
            [[i, j, 5 - i - j] for i in range(6) for j in range(6 - i)],
            dtype=vertices.dtype,
        )
        / 5
    )
    points = (
        (steps @ vertices[triangles]).reshape(-1, 3) - middle
    ) / size  # 21 a triangle, within a ball of diameter 1
    corners, normals = (vertices - middle) / size, vertex_normals(vertices, triangles)
    parts = []
    for towards in directions.split(32):
        aside = torch.where(
            towards[:, 2:].abs() < 0.9,
            torch.tensor([0.0, 0.0, 1.0]),
            torch.tensor([0.0, 1.0, 0.0]),
        )
        across = torch.nn.functional.normalize(torch.linalg.cross(aside, towards), dim=-1)
        frame = torch.stack(
            [across, torch.linalg.cross(towards, across), -towards], 1
        )  # rows: two across, depth
        seen, vertex = points @ frame.mT, corners @ frame.mT
        cell, own = (
            ((x[..., :2] + 0.5) * cells).long().clamp_(0, cells - 1)
            @ torch.tensor([cells, 1])
            for x in (seen, vertex)
        )
        buffer = torch.full((len(towards), cells * cells), torch.inf, dtype=vertices.dtype)
        buffer.scatter_reduce_(1, cell, seen[..., 2], "amin")
        parts.append(
            (vertex[..., 2] <= buffer.gather(1, own) + 2 / cells)
            & (towards @ normals.T > grazing)
        )
    return torch.cat(parts)
