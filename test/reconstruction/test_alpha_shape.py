"""Alpha shapes: against their definition, closed, and refused where points are missing."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.spatial import Delaunay

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import sphere
from uns_pose_ros.reconstruction.alpha_shape import (
    boundary_faces,
    circumradii,
    compute_alpha_shape,
    is_closed_manifold,
    point_spacing,
    points_in_masks,
)

TETRAHEDRON = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]])


def volume(vertices: np.ndarray, triangles: np.ndarray) -> float:
    a, b, c = np.moveaxis(vertices[triangles], 1, 0)
    return float((a * np.cross(b, c)).sum() / 6)


def cloud(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 3))


def test_the_boundary_is_that_of_all_small_empty_spheres() -> None:
    points, alpha = cloud(14), 1.5
    faces: dict[frozenset[int], int] = {}
    for corners in combinations(range(len(points)), 4):
        tetrahedron = points[list(corners)]
        # the center is as far from all four corners
        edges = tetrahedron[1:] - tetrahedron[0]
        squares = (tetrahedron[1:] ** 2).sum(1) - (tetrahedron[0] ** 2).sum()
        center = np.linalg.solve(2 * edges, squares)
        radius = np.linalg.norm(tetrahedron[0] - center)
        distances = np.linalg.norm(points - center, axis=1)
        if radius <= alpha and (np.delete(distances, corners) > radius).all():
            for face in combinations(corners, 3):
                faces[frozenset(face)] = faces.get(frozenset(face), 0) + 1
    expected = {face for face, count in faces.items() if count == 1}
    tetrahedra = Delaunay(points).simplices.astype(np.int64)
    small = tetrahedra[circumradii(points[tetrahedra]) <= alpha]
    found = boundary_faces(points, small)
    assert 0 < len(small) < len(tetrahedra)
    assert {frozenset(face.tolist()) for face in found} == expected


def test_the_spacing_is_a_quantile_of_all_distances() -> None:
    points = cloud(150)
    table = torch.cdist(torch.from_numpy(points), torch.from_numpy(points))
    expected = float(table.quantile(3 / 150, dim=1).mean())
    assert point_spacing(points) == pytest.approx(expected)


def test_points_of_a_ball_give_its_closed_surface_with_normals_to_the_outside() -> None:
    generator = torch.Generator().manual_seed(0)
    inside = torch.randn(300, 3, generator=generator).clamp(-0.4, 0.4)
    vertices, triangles = compute_alpha_shape(torch.cat([sphere(700), inside]), 200)
    assert len(vertices) <= 200
    assert is_closed_manifold(triangles.numpy())
    assert volume(vertices.numpy(), triangles.numpy()) == pytest.approx(4.19, rel=0.1)
    assert float((vertices.norm(dim=1) - 1).abs().max()) < 0.15


def test_a_hollow_between_two_parts_stays_open() -> None:
    axes = [np.arange(0, n, 0.1) for n in (1.01, 1.01, 0.31)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    corner = grid[(grid[:, 0] < 0.35) | (grid[:, 1] < 0.35)]
    corner = corner + 0.003 * cloud(len(corner))
    vertices, triangles = compute_alpha_shape(torch.from_numpy(corner), 400)
    size = volume(vertices.numpy() - vertices.numpy().mean(0), triangles.numpy())
    assert size == pytest.approx(0.3 * (1 - 0.7**2), rel=0.15)  # the convex hull: 0.227


@pytest.mark.parametrize(
    ("triangles", "closed"),
    [
        (TETRAHEDRON, True),
        (TETRAHEDRON[:3], False),
        (np.concatenate([TETRAHEDRON, TETRAHEDRON + 4]), True),  # apart
        (np.concatenate([TETRAHEDRON, TETRAHEDRON + 3]), False),  # at a vertex
        (np.concatenate([TETRAHEDRON, (TETRAHEDRON + 2) % 6]), False),  # at an edge
        (TETRAHEDRON[:0], False),
    ],
)
def test_a_surface_that_is_open_or_touches_itself_is_not_closed(
    triangles: np.ndarray, closed: bool
) -> None:
    assert is_closed_manifold(triangles) == closed


@pytest.mark.parametrize(
    ("points", "said"),
    [
        (torch.zeros(0, 3), "0 points of structure from motion lie inside the masks, 20"),
        (torch.ones(50, 3), "1 points of structure from motion"),
        (torch.from_numpy(cloud(50) * [1, 1, 0]), "lie in one plane"),
    ],
)
def test_points_without_an_alpha_shape_are_refused(points: torch.Tensor, said: str) -> None:
    with pytest.raises(InvalidInput, match=f"{said}.*--surface hull needs none"):
        compute_alpha_shape(points, 100)


def test_a_point_counts_as_inside_if_nearly_all_masks_that_show_it_do() -> None:
    pose = torch.eye(4, dtype=torch.float64)
    pose[2, 3] = 2
    matrix = torch.tensor([[10.0, 0, 5], [0, 10, 5], [0, 0, 1]], dtype=torch.float64)
    mask = torch.zeros(11, 11, dtype=torch.bool)
    mask[3:8, 3:8] = True
    points = torch.tensor([[0, 0, 0], [0.8, 0, 0], [9, 0, 0], [0, 0, -3]])
    views = [mask] * 9 + [torch.zeros_like(mask)]
    cameras = (matrix.expand(10, 3, 3), pose.expand(10, 4, 4))
    # the second lies beside the mask, the third beside the image, the last behind the camera
    for share, kept in ((0.1, 1), (0.05, 0)):
        assert len(points_in_masks(points.double(), views, *cameras, share)) == kept
