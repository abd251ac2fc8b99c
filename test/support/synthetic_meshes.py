"""Feature meshes of made-up categories with known canonical poses.

A body whose features are a smooth random function of where on the body they are, seen from a ring
of cameras.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from uns_pose_ros.core.geometry import (
    from_parts,
    random_rotations,
    symmetry_rotations,
    transform,
)
from uns_pose_ros.core.types import FeatureMesh

CHANNELS = 48
VERTICES = 200


def body(directions: Tensor, order: int, size: Tensor) -> Tensor:
    """Points (V, 3) in those directions of a body that an order-fold turn about z leaves
    unchanged; size (3,) stretches it.
    """
    azimuth = torch.atan2(directions[:, 1], directions[:, 0])
    fold = torch.zeros_like(azimuth) if order == 0 else (max(order, 2) * azimuth).cos()
    radius = 1 + 0.25 * fold * (1 - directions[:, 2] ** 2) + 0.25 * directions[:, 2]
    if order == 1:
        radius = radius + 0.25 * directions[:, 0] * (1 + directions[:, 2])
    return directions * radius[:, None] * size


def appearance(points: Tensor, order: int, category: int) -> Tensor:
    """Unit features (V, C) of canonical points (V, 3), the same for points that the symmetry takes
    to each other.
    """
    generator = torch.Generator().manual_seed(category)
    frequency = torch.randn(3, CHANNELS, generator=generator, dtype=torch.float64) * 2.5
    phase = torch.rand(CHANNELS, generator=generator, dtype=torch.float64) * 2 * math.pi
    group = symmetry_rotations(order, torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64))
    return normalize(
        torch.stack([(points @ g.T @ frequency + phase).sin() for g in group]).mean(0),
        dim=-1,
    )


def feature_mesh(
    seed: int,
    order: int = 1,
    category: int = 0,
    azimuths: tuple[float, float] = (0.0, 360.0),
    views: int = 16,
    noise: float = 0.5,
) -> tuple[FeatureMesh, Tensor]:
    """A video's mesh in its own random frame, and its canon_from_obj (4, 4).

    `order` as in Symmetry. Cameras stand within the azimuths (degrees), at two heights. Every
    observation carries `noise`, a vector of that length. A reflected world shows what is on the
    other side of y = 0.
    """
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(8, generator=generator, dtype=torch.float64)
    step = torch.arange(VERTICES, dtype=torch.float64) + uniform[0]
    height = 1 - 2 * step / VERTICES
    turn = step * (math.pi * (3 - math.sqrt(5))) + 6 * uniform[1]
    ring = (1 - height**2).clamp_min(0).sqrt()
    directions = (
        torch.stack([ring * turn.cos(), ring * turn.sin(), height], 1)
        @ random_rotations(1, generator)[0]
    )
    size = torch.tensor(
        [1.0, 0.6, 0.5] if order in (1, 2) else [0.6, 0.6, 1.0], dtype=torch.float64
    )
    stretch = 1 + 0.1 * (uniform[2:5] - 0.5)
    stretch[1] = stretch[1] if order in (1, 2) else stretch[0]
    points = body(directions, order, size * stretch)
    canonical = body(directions, order, size)

    low, high = (math.radians(angle) for angle in azimuths)
    azimuth = (
        low + (high - low) * (torch.arange(views, dtype=torch.float64) + uniform[5]) / views
    )
    elevation = torch.where(torch.arange(views) % 2 == 0, 0.2, 0.8).double()
    eyes = torch.stack(
        [elevation.cos() * azimuth.cos(), elevation.cos() * azimuth.sin(), elevation.sin()],
        1,
    )
    seen = normalize(points, dim=-1) @ eyes.T > 0.25
    vertex, view = seen.nonzero(as_tuple=True)
    features = [
        _noisy(appearance(canonical * flip, order, category)[vertex], noise, generator)
        for flip in torch.tensor([[1.0, 1.0, 1.0], [1.0, -1.0, 1.0]], dtype=torch.float64)
    ]

    obj_from_canon = from_parts(
        random_rotations(1, generator)[0],
        torch.randn(3, generator=generator, dtype=torch.float64),
        0.5 + uniform[6],
    )
    cam_from_canon = torch.stack([_looking(eye) for eye in 4 * eyes])
    cam_from_obj = cam_from_canon @ torch.linalg.inv(obj_from_canon)
    cam_from_obj[:, :3] *= 0.5 + uniform[6]  # rigid: the whole scene in obj units
    mesh = FeatureMesh(
        vertices=transform(obj_from_canon, points).float(),
        triangles=torch.zeros(0, 3, dtype=torch.int64),
        features=features[0].half(),
        vertex_index=vertex,
        view_index=view,
        cameras_in_obj=cam_from_obj.float(),
        mirrored=features[1].half(),
    )
    return mesh, torch.linalg.inv(obj_from_canon)


def category_of(
    seeds: Sequence[int], **options: object
) -> tuple[dict[str, FeatureMesh], dict[str, Tensor]]:
    """Meshes by name and their true rotations canon from obj (3, 3)."""
    made = {
        f"video_{seed}": feature_mesh(seed, **options)  # type: ignore[arg-type]
        for seed in seeds
    }
    meshes = {name: mesh for name, (mesh, _) in made.items()}
    return meshes, {
        name: pose[:3, :3] / torch.linalg.det(pose[:3, :3]) ** (1 / 3)
        for name, (_, pose) in made.items()
    }


def moved(mesh: FeatureMesh, new_from_obj: Tensor) -> FeatureMesh:
    """The same video with its obj frame replaced: a similarity (4, 4) of it."""
    scale = torch.linalg.det(new_from_obj[:3, :3]) ** (1 / 3)
    cam_from_new = mesh.cameras_in_obj.double() @ torch.linalg.inv(new_from_obj)
    cam_from_new[:, :3] *= scale
    return FeatureMesh(
        vertices=transform(new_from_obj, mesh.vertices.double()).float(),
        triangles=mesh.triangles,
        features=mesh.features,
        vertex_index=mesh.vertex_index,
        view_index=mesh.view_index,
        cameras_in_obj=cam_from_new.float(),
        mirrored=mesh.mirrored,
    )


def _noisy(features: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    offset = normalize(
        torch.randn(features.shape, generator=generator, dtype=torch.float64), dim=-1
    )
    return normalize(features + noise * offset, dim=-1)


def _looking(eye: Tensor) -> Tensor:
    """cam_from_canon (4, 4) of a level camera at `eye` (3,) that looks at the origin; z is up."""
    forward = normalize(-eye, dim=0)
    right = normalize(
        torch.linalg.cross(forward, torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)),
        dim=0,
    )
    rotation = torch.stack([right, torch.linalg.cross(forward, right), forward])
    return from_parts(rotation, -(rotation @ eye))
