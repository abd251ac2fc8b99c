"""What the tokens of an object tell together, wherever and however large it is."""

from __future__ import annotations

import torch

from uns_pose_ros.core.geometry import random_rotations, rotation_from_vector
from uns_pose_ros.networks.coarse_rotation import CoarseRotation, pool_tokens

SPREAD = 0.2  # standard deviation of an entry of a rotation matrix


def told(mean: torch.Tensor, turn: torch.Tensor | None = None) -> CoarseRotation:
    """A coarse rotation around a rotation (3, 3)."""
    return CoarseRotation(
        mean.flatten()[None],
        torch.eye(9) / SPREAD**2,
        torch.eye(3) if turn is None else turn,
    )


def test_pooled_tokens_depend_on_neither_place_nor_size() -> None:
    generator = torch.Generator().manual_seed(0)
    object_tokens = torch.randn(4, 5, 2 * 384, generator=generator)
    pooled = []
    for row, column, scale in ((0, 0, 1), (7, 3, 1), (2, 1, 2)):
        tokens = torch.randn(1, 16, 16, 2 * 384, generator=generator)  # what lies around
        presence = torch.zeros(1, 16, 16)
        drawn = object_tokens.repeat_interleave(scale, 0).repeat_interleave(scale, 1)
        rows, columns = slice(row, row + 4 * scale), slice(column, column + 5 * scale)
        tokens[0, rows, columns], presence[0, rows, columns] = drawn, 0.8
        pooled.append(pool_tokens(tokens, presence)[0])
    assert pooled[0].shape == (5 * 2 * 384,)
    assert torch.allclose(pooled[0], pooled[1], atol=1e-5)
    # larger tokens would lie a little closer together
    assert float((pooled[0] - pooled[2]).norm() / pooled[0].norm()) < 0.05
    # what is to the left and what is to the right counts
    mirrored = tokens.flip(2), presence.flip(2)
    assert float((pool_tokens(*mirrored)[0] - pooled[2]).norm() / pooled[2].norm()) > 0.5


def test_no_presence_at_all_gives_numbers() -> None:
    assert bool(
        pool_tokens(torch.randn(2, 4, 4, 384), torch.zeros(2, 4, 4)).isfinite().all()
    )


def test_the_likelihood_falls_with_the_angle_down_to_a_bound() -> None:
    (mean,) = random_rotations(1, torch.Generator().manual_seed(1)).float()
    angles = torch.tensor([[0.0, 0.0, a] for a in (0.0, 0.1, 0.3, 1.0, 3.0)])
    value = told(mean).log_likelihood((mean @ rotation_from_vector(angles))[:, None])[:, 0]
    assert abs(float(value[0])) < 1e-5
    assert bool((value.diff() < 0).all())
    assert float(value[-1]) >= -14.001
    # by hand: the matrices of rotations by a differ by sqrt(8) sin(a / 2)
    expected = -0.5 * 8 * torch.tensor(0.15).sin() ** 2 / SPREAD**2
    assert abs(float(value[2] - expected)) < 1e-3


def test_a_turned_model_tells_the_same() -> None:
    mean, turn, other = random_rotations(3, torch.Generator().manual_seed(2)).float()
    before = told(mean).log_likelihood(other[None])
    after = told(mean, turn).log_likelihood((other @ turn.T)[None])
    assert torch.allclose(before, after, atol=1e-4)


def test_the_equations_are_those_of_the_likelihood() -> None:
    mean, rotation = random_rotations(2, torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(4)
    spread = torch.randn(9, 9, generator=generator, dtype=torch.float64)
    precision = 2 * spread @ spread.T + 5 * torch.eye(9, dtype=torch.float64)
    near = mean @ rotation_from_vector(0.05 * rotation[0])
    coarse = CoarseRotation(
        mean.flatten()[None], precision, torch.eye(3, dtype=torch.float64)
    )
    gradient, information = coarse.normal_equations(near[None].to(torch.float64))
    step = 1e-5
    turns = rotation_from_vector(step * torch.eye(3, dtype=torch.float64))
    plus = coarse.log_likelihood((turns @ near)[:, None])[:, 0]
    minus = coarse.log_likelihood((turns.mT @ near)[:, None])[:, 0]
    assert torch.allclose(gradient[0].double(), (plus - minus) / (2 * step), rtol=1e-3)
    assert float(torch.linalg.eigvalsh(information[0]).min()) > 0
    # a rotation that the map does not expect at all is left alone
    far = mean @ rotation_from_vector(torch.tensor([0.0, 3.0, 0.0], dtype=torch.float64))
    force, stiffness = coarse.normal_equations(far[None])
    assert float(force.abs().max()) < 1e-3 > float(stiffness.abs().max())
