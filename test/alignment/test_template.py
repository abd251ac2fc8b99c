"""The mean shape of known solids, and the mirror plane of a shape that has one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from uns_pose_ros.alignment.template import (
    TemplateConfig,
    find_mirror_plane,
    inside,
    mean_shape,
)
from uns_pose_ros.core.geometry import (
    angle_between,
    from_parts,
    random_rotations,
    transform,
)
from uns_pose_ros.core.isosurface import extract_surface
from uns_pose_ros.core.types import FeatureMesh

STEPS = np.linspace(-1.2, 1.2, 40)


def ellipsoid(
    a: float, b: float, c: float, taper: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Closed mesh with half axes a, b, c.

    `taper` narrows it towards +x, so only y -> -y and z -> -z mirror it.
    """
    x, y, z = np.meshgrid(STEPS, STEPS, STEPS, indexing="ij")
    narrow = 1 - taper * x
    field = 1 - np.sqrt((x / a) ** 2 + (y / b / narrow) ** 2 + (z / c / narrow) ** 2)
    return extract_surface(
        field, np.full(3, STEPS[0]), np.full(3, STEPS[1] - STEPS[0]), 400
    )


def test_points_are_inside_where_the_solid_is() -> None:
    vertices, triangles = ellipsoid(1.0, 0.6, 0.4)
    axes = [torch.linspace(-1.1, 1.1, 23)] * 3
    x, y, z = np.meshgrid(*[axis.numpy() for axis in axes], indexing="ij")
    radius = np.sqrt(x**2 + (y / 0.6) ** 2 + (z / 0.4) ** 2)
    solid = inside(vertices, triangles, axes)
    assert bool(solid[radius < 0.9].all())
    assert not bool(solid[radius > 1.1].any())


def test_the_mean_of_shapes_in_their_own_frames_lies_between_them() -> None:
    shapes = [ellipsoid(0.5, 0.3, 0.2), ellipsoid(0.5, 0.4, 0.3)]
    rotations = random_rotations(2, torch.Generator().manual_seed(0))
    away = from_parts(rotations, torch.ones(3).double())
    moved = [
        (transform(pose, v.double()).float(), t)
        for pose, (v, t) in zip(away, shapes, strict=True)
    ]
    back = from_parts(rotations.mT, -(rotations.mT @ torch.ones(3, 1).double())[..., 0])
    vertices, triangles = mean_shape(
        moved, back, torch.ones(2), TemplateConfig(resolution=40, vertices=200)
    )
    half = (vertices.amax(0) - vertices.amin(0)) / 2
    assert torch.allclose(half, torch.tensor([0.5, 0.35, 0.25]), atol=0.03)
    assert len(vertices) <= 200
    assert int(triangles.max()) < len(vertices)


def feature_mesh(
    vertices: torch.Tensor,
    triangles: torch.Tensor,
    meaning: torch.Tensor,
    mirrored: torch.Tensor,
) -> FeatureMesh:
    index = torch.arange(len(vertices))
    unit = torch.nn.functional.normalize
    return FeatureMesh(
        vertices,
        triangles,
        unit(meaning, dim=-1).half(),
        index,
        torch.zeros_like(index),
        torch.eye(4)[None],
        unit(mirrored, dim=-1).half(),
    )


def meaning(points: torch.Tensor) -> torch.Tensor:
    """Features that distinguish front, back, top and bottom, but not left from right."""
    x, y, z = points.T
    return torch.stack(
        [
            torch.sin(3 * x),
            torch.cos(3 * x),
            torch.sin(4 * z),
            torch.cos(4 * z),
            y.abs(),
            0.3 * torch.ones_like(x),
        ],
        1,
    )


def test_the_plane_is_that_of_shape_and_features_not_that_of_shape_alone() -> None:
    vertices, triangles = ellipsoid(
        0.5, 0.3, 0.29, taper=0.5
    )  # z -> -z mirrors the shape as well as y -> -y
    mesh = feature_mesh(vertices, triangles, meaning(vertices), meaning(vertices))
    plane = find_mirror_plane(vertices, [mesh], torch.eye(4, dtype=torch.float64)[None])
    assert plane is not None
    truth = torch.diag(torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64))
    assert float(angle_between(-plane[:3, :3], -truth)) < 4
    assert (
        float(
            (transform(plane, vertices.double()) - vertices.double() @ truth)
            .norm(dim=-1)
            .mean()
        )
        < 0.03
    )


def test_no_plane_where_shape_and_features_have_none() -> None:
    vertices, triangles = ellipsoid(0.5, 0.3, 0.2, taper=0.5)
    generator = torch.Generator().manual_seed(0)
    mesh = feature_mesh(
        vertices, triangles, *torch.randn(2, len(vertices), 16, generator=generator)
    )
    assert (
        find_mirror_plane(vertices, [mesh], torch.eye(4, dtype=torch.float64)[None]) is None
    )


def test_no_plane_without_features_of_mirrored_images() -> None:
    vertices, triangles = ellipsoid(0.5, 0.3, 0.2)
    index = torch.arange(len(vertices))
    mesh = FeatureMesh(
        vertices, triangles, meaning(vertices).half(), index, 0 * index, torch.eye(4)[None]
    )
    assert (
        find_mirror_plane(vertices, [mesh], torch.eye(4, dtype=torch.float64)[None]) is None
    )


def volume(vertices: torch.Tensor, triangles: torch.Tensor) -> float:
    """Of a closed mesh, the sum of the tetrahedra from the origin to its triangles."""
    return float(torch.linalg.det(vertices[triangles].double()).sum()) / 6


def test_parts_that_differ_among_the_shapes_do_not_cost_the_mean_its_volume() -> None:
    shapes = [ellipsoid(1.0, 0.3, 0.3), ellipsoid(0.3, 1.0, 0.3)]
    nowhere = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    mean = volume(*mean_shape(shapes, nowhere, torch.ones(2)))
    assert mean == pytest.approx(volume(*shapes[0]), rel=0.1)
    assert volume(*shapes[0]) == pytest.approx(volume(*shapes[1]), rel=0.05)
