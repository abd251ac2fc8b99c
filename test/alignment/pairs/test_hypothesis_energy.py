"""The energy of pose hypotheses: the fast one against the exact one."""

from __future__ import annotations

import math

import torch

from uns_pose_ros.alignment.mesh_batch import MeshBatch
from uns_pose_ros.alignment.pairs.correspondences import cycle_weights, feature_distances
from uns_pose_ros.alignment.pairs.hypothesis_energy import energies, exact_energies
from uns_pose_ros.alignment.pairs.pair_config import PairConfig
from uns_pose_ros.core.geometry import from_parts, rotation_from_vector

CONFIG = PairConfig()


def random_poses(near: torch.Tensor, count: int, degrees: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    vector = torch.randn(count, 3, generator=generator, dtype=torch.float64) * math.radians(
        degrees
    )
    shift = torch.randn(count, 3, generator=generator, dtype=torch.float64) * 0.05
    return from_parts(rotation_from_vector(vector), shift) @ near


def test_the_fast_energies_rank_poses_as_the_exact_ones_do(
    shapes: MeshBatch, true_b_from_a: torch.Tensor
) -> None:
    a, b = shapes.take(torch.tensor([0])), shapes.take(torch.tensor([1]))
    distances = feature_distances(a, b)
    _, _, weight_a, weight_b = cycle_weights(distances, a.points, b.points, CONFIG.tau)
    distances = torch.where(
        distances.isfinite(), distances, distances[distances.isfinite()].mean()
    )
    poses = random_poses(true_b_from_a, 300, 60.0).float()
    fast = energies(poses[None], a, b, distances, (weight_a, weight_b), CONFIG)[0]
    exact = exact_energies(
        poses,
        a.points[0],
        b.points[0],
        distances[0],
        (weight_a[0], weight_b[0]),
        CONFIG.alpha,
    )
    torch.testing.assert_close(fast, exact, atol=0.02, rtol=0.0)
    assert float(torch.corrcoef(torch.stack([fast, exact]))[0, 1]) > 0.999


def test_screening_on_fewer_vertices_hardly_changes_the_energies(
    shapes: MeshBatch, true_b_from_a: torch.Tensor
) -> None:
    a, b = shapes.take(torch.tensor([0])), shapes.take(torch.tensor([1]))
    distances = feature_distances(a, b)
    _, _, *weights = cycle_weights(distances, a.points, b.points, CONFIG.tau)
    distances = torch.where(
        distances.isfinite(), distances, distances[distances.isfinite()].mean()
    )
    poses = random_poses(true_b_from_a, 300, 60.0).float()[None]
    full = energies(poses, a, b, distances, weights, CONFIG)
    rough = energies(poses, a, b, distances, weights, CONFIG, vertices=64)
    assert float(torch.corrcoef(torch.cat([full, rough]))[0, 1]) > 0.99


def test_the_exact_energy_of_equal_meshes_is_their_feature_distance() -> None:
    points = torch.eye(4, 3, dtype=torch.float64)
    distances = torch.full((4, 4), 0.5, dtype=torch.float64)
    weights = (torch.ones(4, dtype=torch.float64),) * 2
    shifted = from_parts(
        torch.eye(3, dtype=torch.float64),
        torch.tensor([0.0, 0.0, 0.1], dtype=torch.float64),
    )
    poses = torch.stack([torch.eye(4, dtype=torch.float64), shifted])
    expected = torch.tensor([0.2 * 0.5, 0.2 * 0.5 + 0.8 * 0.1], dtype=torch.float64)
    torch.testing.assert_close(
        exact_energies(poses, points, points, distances, weights, 0.2),
        expected,
        atol=1e-6,
        rtol=0.0,
    )
