"""Correspondences of two meshes, and hypotheses through four of them."""

from __future__ import annotations

import math

import pytest
import torch

from uns_pose_ros.alignment.mesh_batch import ShapeConfig, build_mesh_batch
from uns_pose_ros.alignment.pairs.correspondences import (
    cycle_weights,
    draw_hypotheses,
    exact_feature_distances,
    feature_distances,
)
from uns_pose_ros.core.geometry import from_parts, random_rotations, transform
from uns_pose_ros.core.types import FeatureMesh


def test_with_as_many_clusters_as_views_the_distances_are_those_of_all_views(
    made: list[tuple[FeatureMesh, torch.Tensor]],
) -> None:
    # the mean feature is taken away in shapes: do the same for the slow twin
    meshes = [mesh for mesh, _ in made[:2]]
    mean = torch.cat([mesh.features for mesh in meshes]).double().mean(0).float()
    centered = [
        FeatureMesh(
            **{
                **vars(mesh),
                "features": torch.nn.functional.normalize(
                    mesh.features.float() - mean, dim=-1
                ).half(),
            }
        )
        for mesh in meshes
    ]
    exact = exact_feature_distances(*centered)
    shapes = build_mesh_batch({"a": meshes[0], "b": meshes[1]}, ShapeConfig(clusters=16))
    fast = feature_distances(
        shapes.take(torch.tensor([0])), shapes.take(torch.tensor([1]))
    )[0]
    assert torch.equal(fast.isfinite(), exact.isfinite())
    finite = exact.isfinite()
    torch.testing.assert_close(fast[finite], exact[finite], atol=5e-3, rtol=0.0)


def test_a_correspondence_whose_cycle_does_not_close_loses_weight() -> None:
    points = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]])
    distances = torch.tensor(
        [[[0.0, 1, 1], [1, 0.1, 1], [1, 0.2, 1]]]
    )  # the last of a takes what the second has
    to_b, to_a, weight_a, weight_b = cycle_weights(distances, points, points, tau=0.9)
    assert to_b.tolist() == [[0, 1, 1]]
    assert to_a.tolist() == [[0, 1, 0]]
    broken = math.exp(-math.sqrt(2) / 0.9)
    torch.testing.assert_close(
        weight_a, 3 / (2 + broken) * torch.tensor([[1.0, 1.0, broken]])
    )
    assert float(weight_b.mean()) == pytest.approx(1.0)


def test_hypotheses_of_right_correspondences_are_the_similarity() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(1, 50, 3, generator=generator, dtype=torch.float64)
    truth = from_parts(
        random_rotations(1, generator)[0],
        torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64),
        1.3,
    )
    same, even = torch.arange(50)[None], torch.ones(1, 50)
    uniform = torch.rand(40, 4, generator=generator, dtype=torch.float64)
    drawn = draw_hypotheses(a, transform(truth, a), same, same, even, even, uniform)[0]
    good = drawn[(drawn - truth).abs().amax((1, 2)) < 1e-6]
    assert (
        len(good) >= 36
    )  # a few draws hold one vertex twice and leave the turn about a line open
