import math

import numpy as np
import pytest
import torch

from uns_pose_ros.core import geometry


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def similarities(count: int, generator: torch.Generator) -> torch.Tensor:
    rotation = geometry.random_rotations(count, generator)
    translation = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    scale = torch.rand(count, generator=generator, dtype=torch.float64) + 0.5
    return geometry.from_parts(rotation, translation, scale)


def test_a_similarity_and_its_inverse_cancel(generator: torch.Generator) -> None:
    matrix = similarities(50, generator)
    assert torch.allclose(
        geometry.invert(matrix) @ matrix,
        torch.eye(4, dtype=torch.float64).expand(50, 4, 4),
        atol=1e-12,
    )


def test_splitting_a_similarity_gives_back_its_parts(generator: torch.Generator) -> None:
    rotation = geometry.random_rotations(20, generator)
    translation, scale = (
        torch.randn(20, 3, dtype=torch.float64),
        torch.linspace(0.1, 10, 20, dtype=torch.float64),
    )
    parts = geometry.split_similarity(geometry.from_parts(rotation, translation, scale))
    for got, want in zip(parts, (rotation, translation, scale), strict=True):
        assert torch.allclose(got, want, atol=1e-12)


def test_chained_transforms_equal_the_product_of_their_matrices(
    generator: torch.Generator,
) -> None:
    c_from_b, b_from_a = similarities(2, generator)
    points = torch.randn(30, 3, generator=generator, dtype=torch.float64)
    chained = geometry.transform(c_from_b, geometry.transform(b_from_a, points))
    assert torch.allclose(
        chained, geometry.transform(c_from_b @ b_from_a, points), atol=1e-12
    )


def test_projects_a_known_point_to_its_pixel() -> None:
    matrix = torch.tensor([[500.0, 0, 319.5], [0, 400, 239.5], [0, 0, 1]])
    pixel = geometry.project(matrix, torch.tensor([[0.2, -0.1, 2.0], [0, 0, 5]]))
    assert torch.allclose(pixel, torch.tensor([[369.5, 219.5], [319.5, 239.5]]))


def test_a_quarter_turn_about_z_takes_x_to_y() -> None:
    turn = geometry.rotation_from_vector(
        torch.tensor([0, 0, math.pi / 2], dtype=torch.float64)
    )
    assert torch.allclose(
        turn @ torch.tensor([1.0, 0, 0], dtype=torch.float64),
        torch.tensor([0, 1.0, 0], dtype=torch.float64),
    )


@pytest.mark.parametrize("degrees", [0.0, 1e-6, 0.01, 30.0, 179.99, 180.0])
def test_angle_between_measures_the_angle_it_was_turned_by(
    degrees: float, generator: torch.Generator
) -> None:
    start = geometry.random_rotations(10, generator)
    axis = torch.nn.functional.normalize(
        torch.randn(10, 3, generator=generator, dtype=torch.float64), dim=-1
    )
    end = geometry.rotation_from_vector(axis * math.radians(degrees)) @ start
    assert torch.allclose(
        geometry.angle_between(start, end),
        torch.full((10,), degrees, dtype=torch.float64),
        atol=1e-5,
    )


def test_the_nearest_rotation_to_a_noisy_one_is_close_and_to_a_mirrored_one_is_proper(
    generator: torch.Generator,
) -> None:
    rotation = geometry.random_rotations(20, generator)
    noisy = rotation * 3 + 0.01 * torch.randn(
        20, 3, 3, generator=generator, dtype=torch.float64
    )
    assert (
        float(geometry.angle_between(geometry.nearest_rotation(noisy), rotation).max()) < 2
    )
    assert torch.allclose(
        torch.linalg.det(geometry.nearest_rotation(-rotation)),
        torch.ones(20, dtype=torch.float64),
    )


def test_recovers_a_known_similarity(generator: torch.Generator) -> None:
    truth = similarities(8, generator)
    source = torch.randn(8, 12, 3, generator=generator, dtype=torch.float64)
    assert torch.allclose(
        geometry.fit_similarity(source, geometry.transform(truth, source)), truth, atol=1e-9
    )


def test_points_of_zero_weight_do_not_pull_the_fit(generator: torch.Generator) -> None:
    truth = similarities(1, generator)[0]
    source = torch.randn(12, 3, generator=generator, dtype=torch.float64)
    target = geometry.transform(truth, source)
    target[:4] += 100
    weight = torch.ones(12, dtype=torch.float64)
    weight[:4] = 0
    assert torch.allclose(geometry.fit_similarity(source, target, weight), truth, atol=1e-9)


def test_a_fit_never_mirrors(generator: torch.Generator) -> None:
    source = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    fit = geometry.fit_similarity(
        source, source * torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)
    )
    assert float(torch.linalg.det(fit[:3, :3])) > 0


def test_a_fit_without_scale_is_rigid(generator: torch.Generator) -> None:
    source = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    source = source - source.mean(0)
    fit = geometry.fit_similarity(source, 5 * source, with_scale=False)
    assert torch.allclose(fit, torch.eye(4, dtype=torch.float64), atol=1e-9)


def test_quaternions_and_matrices_are_inverse_also_at_half_turns(
    generator: torch.Generator,
) -> None:
    rotation = torch.cat(
        [
            geometry.random_rotations(100, generator),
            torch.diag_embed(2 * torch.eye(3).double() - 1),
        ]
    )
    quaternion = geometry.matrix_to_quaternion(rotation)
    assert torch.allclose(geometry.quaternion_to_matrix(quaternion), rotation, atol=1e-12)
    assert bool((quaternion[:, 0] >= 0).all())


def test_the_quaternion_of_a_quarter_turn_about_z_is_known() -> None:
    turn = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64)
    assert torch.allclose(
        geometry.matrix_to_quaternion(turn), torch.tensor([0.5, 0, 0, 0.5]).double().sqrt()
    )


def test_random_rotations_have_the_mean_angle_of_the_uniform_distribution(
    generator: torch.Generator,
) -> None:
    rotation = geometry.random_rotations(20000, generator)
    angle = geometry.angle_between(
        rotation, torch.eye(3, dtype=torch.float64).expand_as(rotation)
    )
    assert float(angle.mean()) == pytest.approx(
        math.degrees(math.pi / 2 + 2 / math.pi), abs=1
    )


@pytest.mark.parametrize(("order", "count"), [(0, 36), (1, 1), (2, 2), (5, 5)])
def test_symmetry_rotations_are_a_group_about_the_axis(order: int, count: int) -> None:
    axis = torch.tensor([1.0, 2.0, 2.0], dtype=torch.float64)
    group = geometry.symmetry_rotations(order, axis)
    assert len(group) == count
    assert torch.allclose(group @ axis, axis.expand(count, 3))
    products = (group[:, None] @ group[None]).flatten(0, 1)
    assert (
        float(geometry.angle_between(products[:, None], group[None]).amin(1).max()) < 1e-5
    )


def test_views_look_along_their_directions_with_a_level_x_axis() -> None:
    directions = np.array(
        [[0.0, 0.0, 1.0], [0.3, -0.2, 2.0], [0.1, 5.0, 0.2], [0.0, -1.0, 0.0]]
    )
    turns = geometry.look_at_rotation(directions)
    along = (
        turns @ (directions / np.linalg.norm(directions, axis=1, keepdims=True))[..., None]
    )
    assert np.allclose(along[..., 0], [0.0, 0.0, 1.0])
    assert np.allclose(turns @ turns.transpose(0, 2, 1), np.eye(3))
    assert np.allclose(np.linalg.det(turns), 1.0)
    assert np.allclose(turns[:2, 0, 1], 0.0)
