"""Poses found from dense correspondences whose truth is known."""

from __future__ import annotations

import pytest
import torch

from uns_pose_ros import pose_search
from uns_pose_ros.geometry import angle_between, random_rotations, rotation_from_vector
from uns_pose_ros.pose_search import Places, Template

CELL = 0.03  # object diameters between neighbouring places


def cloud(generator: torch.Generator) -> Template:
    """120 points without symmetry, all of them always visible."""
    points = (torch.rand(120, 3, generator=generator) - 0.5) * torch.tensor([1.0, 0.5, 0.4])
    return Template(points, torch.tensor([[0.0, 0.0, 1.0]]), torch.ones(1, 120, dtype=torch.bool), points.mean(0))


def observe(
    template: Template, rotation: torch.Tensor, translation: torch.Tensor, outliers: float, generator: torch.Generator
) -> Places:
    """A place for every point, half a cell of noise; some places believe in a wrong vertex instead."""
    tangents, _ = pose_search.project_template(template, rotation[None], translation[None])
    count = len(template.vertices)
    vertex = torch.stack([torch.arange(count), torch.randint(count, (count,), generator=generator)], 1)
    wrong = torch.rand(count, generator=generator) < outliers
    probability = torch.tensor([[0.8, 0.1]]).repeat(count, 1)
    probability[wrong] = torch.tensor([0.05, 0.85])
    cell = CELL / float(translation[2])
    return Places(tangents[0].T + 0.5 * cell * torch.randn(count, 2, generator=generator), probability, vertex, cell)


def search(places: Places, template: Template, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    place, vertex = pose_search.draw_triples(places, 300, generator)
    rotation, translation = pose_search.poses_from_triples(places.tangents[place], template.vertices[vertex])
    sound = rotation.isfinite().all(-1).all(-1) & (translation[:, 2] > 0.6)
    rotation, translation = rotation[sound], translation[sound]
    fit = pose_search.kernel(places, template, rotation, translation, 3.0)
    best = pose_search.distinct(rotation, pose_search.agreement(fit, places, 0.05), 25.0, 6)
    rotation, translation, _ = pose_search.refine(
        places, template, rotation[best], translation[best], (3.0, 2.0, 1.5, 1.5), 0.05
    )
    fit = pose_search.kernel(places, template, rotation, translation, 1.5)
    winner = int(pose_search.agreement(fit, places, 0.05).argmax())
    return rotation[winner], translation[winner]


@pytest.mark.parametrize("distance", [1.6, 4.0, 30.0])
@pytest.mark.parametrize("outliers", [0.0, 0.5])
def test_finds_the_pose_near_and_far_with_half_of_the_places_wrong(distance: float, outliers: float) -> None:
    generator = torch.Generator().manual_seed(3)
    for truth in random_rotations(4, generator).float():
        template = cloud(generator)
        translation = torch.tensor([0.1, -0.05, distance])
        places = observe(template, truth, translation, outliers, generator)
        rotation, moved = search(places, template, generator)
        assert float(angle_between(rotation, truth)) < 6.0
        assert abs(float(moved[2]) / distance - 1) < 0.1


def test_a_triple_without_noise_gives_the_weak_perspective_pose_and_its_mirror_image() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = random_rotations(20, generator).float()
    model = torch.randn(20, 3, 3, generator=generator)
    image = (model @ truth.mT)[..., :2] * 0.25 + torch.tensor([0.3, -0.2])
    rotation, translation = pose_search.poses_from_triples(image, model)
    errors = angle_between(rotation.view(2, 20, 3, 3), truth).amin(0)
    assert float(errors.max()) < 0.5
    assert torch.allclose(
        (translation[:20, 2] + (rotation[:20] @ model.mean(1)[..., None])[:, 2, 0]), torch.full((20,), 4.0), rtol=1e-3
    )


def test_refinement_converges_to_the_truth_and_its_information_is_that_of_the_projection() -> None:
    generator = torch.Generator().manual_seed(1)
    template = cloud(generator)
    truth = random_rotations(1, generator)[0].float()
    translation = torch.tensor([0.0, 0.1, 2.5])
    tangents, _ = pose_search.project_template(template, truth[None], translation[None])
    count = len(template.vertices)
    places = Places(tangents[0].T, torch.full((count, 1), 0.95), torch.arange(count)[:, None], CELL / 2.5)
    start = rotation_from_vector(torch.tensor([[0.1, -0.1, 0.15]])) @ truth
    rotation, moved, information = pose_search.refine(
        places, template, start, translation[None] + 0.05, (6.0, 6.0, 3.0, 2.0, 1.0, 1.0), 0.01
    )
    assert float(angle_between(rotation[0], truth)) < 0.05
    assert torch.allclose(moved[0], translation, atol=2e-3)
    assert bool((torch.linalg.eigvalsh(information[0]) > 0).all())


def test_distinct_keeps_the_best_of_each_neighbourhood() -> None:
    turns = torch.tensor([0.0, 5.0, 90.0, 95.0, 180.0]).deg2rad()
    rotation = rotation_from_vector(turns[:, None] * torch.tensor([0.0, 0.0, 1.0]))
    chosen = pose_search.distinct(rotation, torch.tensor([1.0, 2.0, 0.5, 0.1, 1.5]), 25.0, 4)
    assert chosen.tolist() == [1, 4, 2]
