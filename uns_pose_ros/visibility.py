"""What a camera sees of a mesh: rays, normals, visible vertices."""

from __future__ import annotations

import torch
from torch import Tensor


def vertex_normals(vertices: Tensor, triangles: Tensor) -> Tensor:
    """Outward unit normals (V, 3), weighted by area."""
    a, b, c = vertices[triangles].unbind(1)
    face = torch.linalg.cross(b - a, c - a)
    normals = torch.zeros_like(vertices).index_add_(0, triangles.reshape(-1), face.repeat_interleave(3, 0))
    return normals / normals.norm(dim=-1, keepdim=True).clamp_min(1e-12)


def cast_rays(origin: Tensor, directions: Tensor, vertices: Tensor, triangles: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """First hit of rays from origin (3,) along directions (N, 3): distance in lengths of the direction (N,), inf for a miss;
    triangle (N,) int64, and the hit's barycentric weights (N, 3).

    Source: Moeller and Trumbore, 1997, with the origin's part computed once a triangle.
    """
    a, b, c = vertices[triangles].unbind(1)
    edge1, edge2, s = b - a, c - a, origin - a
    normal = torch.linalg.cross(edge1, edge2)
    determinant = -(directions @ normal.T)  # (N, T)
    inverse = torch.where(determinant.abs() < 1e-12, torch.zeros_like(determinant), 1 / determinant)
    u = (directions @ torch.linalg.cross(edge2, s).T) * inverse
    v = (directions @ torch.linalg.cross(s, edge1).T) * inverse
    distance = (s * normal).sum(-1) * inverse
    edge = 1e-6  # a ray through a shared edge hits one of its triangles at least
    hit = (inverse != 0) & (u >= -edge) & (v >= -edge) & (u + v <= 1 + edge) & (distance > 0)
    nearest, triangle = torch.where(hit, distance, torch.inf).min(1)
    u, v = u.gather(1, triangle[:, None])[:, 0], v.gather(1, triangle[:, None])[:, 0]
    return nearest, triangle, torch.stack([1 - u - v, u, v], -1)


def visible_vertices(vertices: Tensor, triangles: Tensor, cam_from_obj: Tensor, grazing: float = 0.1) -> Tensor:
    """(V,) bool: vertices that face the camera by more than `grazing` (cosine) and that no triangle hides."""
    pose = cam_from_obj.to(vertices.dtype)
    origin = -pose[:3, :3].T @ pose[:3, 3]
    rays = vertices - origin
    facing = -(rays * vertex_normals(vertices, triangles)).sum(-1) / rays.norm(dim=-1) > grazing
    size = (vertices.amax(0) - vertices.amin(0)).norm()
    distance, _, _ = cast_rays(origin, rays, vertices, triangles)
    return facing & (distance > 1 - 0.01 * size / rays.norm(dim=-1))
