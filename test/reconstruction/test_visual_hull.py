"""Hulls of known solids, rays into them, and what is visible of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import from_parts, project, random_rotations, sphere
from uns_pose_ros.core.isosurface import extract_surface
from uns_pose_ros.core.ray_casting import (
    cast_rays,
    vertex_normals,
    visible_from,
    visible_vertices,
)
from uns_pose_ros.reconstruction.visual_hull import (
    HullConfig,
    carve_visual_hull,
    locate_object,
)

MATRIX = torch.tensor([[300.0, 0, 100], [0, 300, 100], [0, 0, 1]], dtype=torch.float64)


def ball_views(
    count: int, radius: float, middle: torch.Tensor
) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    """Masks, camera matrices and poses of cameras 3 units from a ball, at random rotations."""
    generator = torch.Generator().manual_seed(0)
    rotation = random_rotations(count, generator)
    translation = torch.tensor([0.05, -0.1, 3.0]) - (rotation @ middle)
    poses = from_parts(rotation, translation.double())
    v, u = torch.meshgrid(torch.arange(200), torch.arange(200), indexing="ij")
    rays = torch.linalg.solve(
        MATRIX, torch.stack([u, v, torch.ones_like(u)], -1).double()[..., None]
    )[..., 0]
    rays = rays / rays.norm(dim=-1, keepdim=True)
    center = torch.tensor([0.05, -0.1, 3.0], dtype=torch.float64)
    apart = (center - (rays @ center)[..., None] * rays).norm(dim=-1)
    return [apart < radius] * count, MATRIX.expand(count, 3, 3), poses


def test_the_hull_of_a_ball_is_the_ball() -> None:
    middle = torch.tensor([0.4, -0.2, 0.1], dtype=torch.float64)
    vertices, triangles = carve_visual_hull(
        *ball_views(24, 0.4, middle), HullConfig(resolution=48, vertices=300)
    )
    distance = (vertices.double() - middle).norm(dim=-1)
    assert len(vertices) <= 300
    assert float((distance - 0.4).abs().mean()) < 0.02
    assert (
        len(vertices) - 1.5 * len(triangles) + len(triangles) == 2
    )  # closed, without holes
    assert bool(
        (vertex_normals(vertices, triangles) * (vertices - middle.float()))
        .sum(-1)
        .gt(0)
        .all()
    )


def test_one_wrong_mask_carves_nothing_away() -> None:
    masks, matrices, poses = ball_views(24, 0.4, torch.zeros(3, dtype=torch.float64))
    masks = [*masks]
    masks[3] = masks[3] & (torch.arange(200) < 105)
    vertices, _ = carve_visual_hull(masks, matrices, poses, HullConfig(resolution=48))
    assert float((vertices.norm(dim=-1) - 0.4).abs().max()) < 0.06


def test_masks_of_different_objects_are_refused() -> None:
    masks, matrices, poses = ball_views(6, 0.2, torch.zeros(3, dtype=torch.float64))
    moved = [
        mask.roll((9 * k) % 100 - 50, 0).roll(-60 + 24 * k, 1)
        for k, mask in enumerate(masks)
    ]
    with pytest.raises(InvalidInput, match="masks"):
        carve_visual_hull(moved, matrices, poses, HullConfig(resolution=24))


def test_the_object_is_located_where_the_central_rays_meet() -> None:
    middle = torch.tensor([0.3, 0.2, -0.5], dtype=torch.float64)
    center, half = locate_object(*ball_views(10, 0.3, middle))
    assert torch.allclose(center, middle, atol=0.01)
    assert 0.25 < half < 0.35


def ball_mesh() -> tuple[torch.Tensor, torch.Tensor]:
    steps = np.linspace(-1.3, 1.3, 24)
    x, y, z = np.meshgrid(steps, steps, steps, indexing="ij")
    field = 1 - np.sqrt(x * x + y * y + z * z)
    return extract_surface(field, np.full(3, -1.3), np.full(3, steps[1] - steps[0]), 400)


def test_rays_hit_the_near_side_and_miss_what_they_miss() -> None:
    vertices, triangles = ball_mesh()
    directions = torch.tensor([[0.0, 0, 1], [0, 0.1, 1], [0, 0.6, 1], [0, 0, -1]])
    distance, triangle, weights = cast_rays(
        torch.tensor([0.0, 0.0, -4.0]), directions, vertices, triangles
    )
    assert distance[0] == pytest.approx(3.0, abs=0.03)
    assert distance[2:].isinf().all()
    hit = (vertices[triangles[triangle[:2]]] * weights[:2, :, None]).sum(1)
    assert torch.allclose(
        hit, torch.tensor([0.0, 0.0, -4.0]) + distance[:2, None] * directions[:2], atol=1e-4
    )


def test_a_camera_sees_the_half_that_faces_it() -> None:
    vertices, triangles = ball_mesh()
    pose = torch.eye(4)
    pose[2, 3] = 4.0
    seen = visible_vertices(vertices, triangles, pose)
    facing = -vertices[:, 2]  # cosine to a far camera
    assert bool(seen[facing > 0.5].all())
    assert not bool(seen[facing < 0.2].any())
    pixels = project(MATRIX, vertices[seen].double() + torch.tensor([0.0, 0.0, 4.0]))
    assert bool(((pixels - 100).norm(dim=-1) < 85).all())


def test_directions_are_spread_evenly() -> None:
    directions = sphere(400)
    nearest = (directions @ directions.T - 2 * torch.eye(400)).amax(1).acos().rad2deg()
    assert torch.allclose(directions.norm(dim=-1), torch.ones(400), atol=1e-5)
    assert float(nearest.min()) > 6
    assert float(nearest.max()) < 14


def test_many_far_views_agree_with_rays_also_where_parts_hide_each_other() -> None:
    steps = np.linspace(-1.3, 1.3, 30)
    x, y, z = np.meshgrid(steps, steps, steps, indexing="ij")
    bent = np.maximum(0.35 - np.hypot(np.abs(x) - 0.7, y), -np.inf) + 0 * z  # two columns
    bar = 0.35 - np.hypot(z + 0.8, y)  # joined below
    field = np.minimum(np.maximum(bent, bar), 1.1 - np.maximum(np.abs(z), np.abs(x)))
    vertices, triangles = extract_surface(
        field, np.full(3, -1.3), np.full(3, steps[1] - steps[0]), 300
    )
    directions = sphere(60)
    found, agree = visible_from(vertices, triangles, directions), []
    for direction, row in zip(directions, found, strict=True):
        aside = torch.linalg.cross(direction, torch.tensor([0.31, 0.53, 0.79]))
        across = aside / aside.norm()
        pose = torch.eye(4)
        pose[:3, :3] = torch.stack(
            [across, torch.linalg.cross(-direction, across), -direction]
        )
        pose[2, 3] = 30.0
        agree.append(
            float((row == visible_vertices(vertices, triangles, pose)).float().mean())
        )
    assert min(agree) > 0.8
    assert sum(agree) / len(agree) > 0.9


def plate(half: float, steps: int, depth: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A square grid of steps * steps vertices at z = depth that faces a camera which looks along
    z.
    """
    line = torch.linspace(-half, half, steps)
    x, y = torch.meshgrid(line, line, indexing="ij")
    vertices = torch.stack([x, y, torch.full_like(x, depth)], -1).reshape(-1, 3)
    corner = torch.arange(steps * steps).reshape(steps, steps)
    a, b, c, d = (
        part.reshape(-1)
        for part in (corner[:-1, :-1], corner[:-1, 1:], corner[1:, 1:], corner[1:, :-1])
    )
    return vertices, torch.cat([torch.stack([a, b, c], 1), torch.stack([a, c, d], 1)])


def plates() -> tuple[torch.Tensor, torch.Tensor]:
    """25 vertices at z = 2, 1.2 wide, before 81 at z = 4, 4 wide and 0.5 apart."""
    (near, first), (far, second) = plate(0.6, 5, 2.0), plate(2.0, 9, 4.0)
    return torch.cat([near, far]), torch.cat([first, second + len(near)])


def test_a_part_in_front_hides_the_vertices_in_its_shadow_and_no_others() -> None:
    vertices, triangles = plates()
    seen = visible_vertices(vertices, triangles, torch.eye(4))
    # 0.6 at depth 2 casts a shadow of 1.2 at depth 4
    shadow = (vertices[:, :2].abs() < 1.2).all(1) & (vertices[:, 2] == 4)
    assert int(shadow.sum()) == 25
    assert torch.equal(seen, ~shadow)


def test_a_part_in_front_hides_as_much_as_it_is_wide_from_a_far_camera() -> None:
    vertices, triangles = plates()
    (seen,) = visible_from(vertices, triangles, torch.tensor([[0.0, 0.0, -1.0]]))
    shadow = (vertices[:, :2].abs() < 0.6).all(1) & (vertices[:, 2] == 4)
    assert int(shadow.sum()) == 9
    assert torch.equal(seen, ~shadow)
