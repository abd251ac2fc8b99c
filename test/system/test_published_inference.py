"""The published inference: its starts, its renderer, and poses that it finds again."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial import ConvexHull
from torch.nn.functional import normalize

from uns_pose_ros.core.geometry import angle_between, rotation_from_vector, sphere
from uns_pose_ros.core.types import CategoryModel
from uns_pose_ros.io.artifacts import load_model
from uns_pose_ros.io.video_folder import load_video

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SIDE = 16


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import published_inference

    return published_inference


@pytest.fixture
def shape(published: Any) -> Any:
    vertices = sphere(60) * torch.tensor([0.5, 0.3, 0.2])
    hull = ConvexHull(vertices.numpy())
    triangles = torch.from_numpy(hull.simplices.astype(np.int64))
    a, b, c = vertices[triangles].unbind(1)
    inwards = (torch.linalg.cross(b - a, c - a) * a).sum(1) < 0
    triangles[inwards] = triangles[inwards].flip(1)
    wave = torch.randn(3, 12, generator=torch.Generator().manual_seed(0))
    features = normalize((vertices @ (8 * wave)).sin(), dim=1)
    clutter = normalize(torch.ones(1, 12), dim=1)
    return published.Shape(vertices, triangles, features, clutter)


def render(
    published: Any, shape: Any, rotation: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features (cells, D) that every triangle gives every cell, the nearest one wins.

    Returns:
        The features, zero for no object; which cells show it; their rays; the true center.
    """
    size = 7 * SIDE
    matrix = torch.tensor(
        [[2.0 * size, 0, size / 2], [0, 2.0 * size, size / 2], [0, 0, 1]],
        dtype=torch.float64,
    )
    center = torch.tensor([0.02, -0.03, 2.4])
    rays = published.cell_rays(matrix, SIDE)
    corners = (shape.vertices @ rotation.T + center)[shape.triangles]
    weight = (torch.linalg.inv(corners.mT)[None] @ rays[:, None, :, None])[..., 0]
    depth = (1 / weight.sum(2)).masked_fill((weight < 0).any(2), math.inf)
    nearest, triangle = depth.min(1)
    some = torch.take_along_dim(weight, triangle[:, None, None], 1)[:, 0]
    some = some / some.sum(1, keepdim=True)
    features = (some[..., None] * shape.features[shape.triangles[triangle]]).sum(1)
    shown = nearest.isfinite()
    return torch.where(shown[:, None], features, 0), shown, rays, center


def scene_of(published: Any, shape: Any, rotation: torch.Tensor) -> Any:
    """An image of the shape."""
    features, shown, rays, center = render(published, shape, rotation)
    image = torch.where(shown[:, None], normalize(features, dim=1), shape.clutter)
    return published.Scene(image.view(SIDE, SIDE, -1), rays, center)


def test_the_starts_are_144_level_looks_and_turns_at_the_object(published: Any) -> None:
    starts = published.start_rotations()
    assert starts.shape == (144, 3, 3)
    unit = torch.eye(3).expand(144, 3, 3)
    torch.testing.assert_close(starts @ starts.mT, unit, atol=1e-5, rtol=0.0)
    assert bool((torch.linalg.det(starts) > 0).all())
    eyes = -starts[:, 2]  # where the camera stands, seen from the object
    elevation = torch.rad2deg(eyes[:, 2].asin())
    assert sorted({round(float(e)) for e in elevation}) == [-30, 0, 30, 60]
    azimuth = torch.rad2deg(torch.atan2(eyes[:, 1], eyes[:, 0])).round() % 360
    assert sorted(set(azimuth.tolist())) == list(range(0, 360, 30))
    level = starts[(starts[:, 0, 2].abs() < 1e-6)]
    assert len(level) == 48
    assert bool((level[:, 1, 2] < 0).all())  # down in the image is down


def test_the_similarity_is_that_of_a_literal_renderer(published: Any, shape: Any) -> None:
    true, other = rotation_from_vector(torch.tensor([[0.4, -0.2, 0.9], [1.4, 0.3, 0.1]]))
    scene = scene_of(published, shape, true)
    image = scene.features.flatten(0, 1)
    clutter = (image @ shape.clutter.T)[:, 0]
    found = []
    for rotation in (true, other):
        rendered, shown, _, _ = render(published, shape, rotation)
        alike = torch.maximum((image * rendered).sum(1), clutter)
        expected = torch.where(shown, alike, clutter).mean()
        found.append(float(published.similarity(rotation, shape, scene)))
        assert found[-1] == pytest.approx(float(expected), abs=1e-5)
    assert found[0] > found[1]


def test_the_gradient_is_that_of_differences(published: Any, shape: Any) -> None:
    scene = scene_of(published, shape, rotation_from_vector(torch.tensor([0.4, -0.2, 0.9])))
    start = rotation_from_vector(torch.tensor([0.45, -0.15, 0.8]))
    turn = torch.zeros(3, requires_grad=True)
    published.similarity(start @ rotation_from_vector(turn), shape, scene).backward()
    for k in range(3):
        step = torch.zeros(3)
        step[k] = 2e-4  # so small that hardly a cell changes its triangle
        ends = [
            float(published.similarity(start @ rotation_from_vector(s), shape, scene))
            for s in (step, -step)
        ]
        difference = (ends[0] - ends[1]) / 4e-4
        assert turn.grad is not None
        assert float(turn.grad[k]) == pytest.approx(difference, abs=0.05)


def test_the_refinement_comes_nearer_to_the_true_rotation(
    published: Any, shape: Any
) -> None:
    truth = published.start_rotations()[40] @ rotation_from_vector(
        torch.tensor([0.1, -0.12, 0.08])
    )
    scene = scene_of(published, shape, truth)
    starts = published.start_rotations()[[3, 40, 77, 120]]
    start, rotation = published.infer_rotation(shape, scene, starts, 30)
    torch.testing.assert_close(start, starts[1])
    assert float(angle_between(rotation, truth)) < 4 < float(angle_between(start, truth))


def test_both_inferences_are_timed_on_the_same_images(
    published: Any, chair_model: Path
) -> None:
    from small_model import CLIP

    model: CategoryModel = load_model(chair_model)
    pose = next(iter(model.training_poses.values()))
    rotation = pose[:3, :3] / torch.linalg.det(pose[:3, :3]) ** (1 / 3)
    labels = {CLIP.name: rotation}
    figures = published.compare_inferences(
        model, [load_video(CLIP)], labels, 24, published.start_rotations()[::36]
    )
    assert list(figures) == ["published", "starts", "ours, box", "ours"]
    assert all(row["images"] == 1 for row in figures.values())
    assert figures["ours, box"]["acc30"] == 100
    assert figures["published"]["seconds"] > 0
    assert len(published.table(figures).splitlines()) == 5
