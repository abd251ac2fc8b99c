"""Poses found from dense correspondences whose truth is known."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest
import torch

from uns_pose_ros.core.geometry import angle_between, random_rotations, rotation_from_vector
from uns_pose_ros.core.types import Camera
from uns_pose_ros.estimation.config import EstimatorConfig
from uns_pose_ros.estimation.solver import (
    pose_hypotheses,
    pose_refinement,
    pose_scoring,
    pose_solver,
)
from uns_pose_ros.estimation.solver.crop_observation import observe_crops
from uns_pose_ros.estimation.solver.pose_hypotheses import Correspondences, Template
from uns_pose_ros.networks.coarse_rotation import CoarseRotation

CELL = 0.03  # object diameters between neighbouring places


def cloud(generator: torch.Generator) -> Template:
    """120 points without symmetry, all of them always visible."""
    points = (torch.rand(120, 3, generator=generator) - 0.5) * torch.tensor([1.0, 0.5, 0.4])
    return Template(
        points,
        torch.tensor([[0.0, 0.0, 1.0]]),
        torch.ones(1, 120, dtype=torch.bool),
        points.mean(0),
    )


def seen(
    template: Template, rotation: torch.Tensor, translation: torch.Tensor
) -> torch.Tensor:
    """Tangents (V, 2) of the template under a pose (3, 3), (3,)."""
    return (
        pose_refinement.project_template(
            template, rotation[None, None], translation[None, None]
        )
        .tangents[0, :, 0]
        .T
    )


def observe(
    template: Template,
    rotation: torch.Tensor,
    translation: torch.Tensor,
    outliers: float,
    generator: torch.Generator,
) -> Correspondences:
    """A place for every point, half a cell of noise.

    Some places believe in a wrong vertex instead.
    """
    count = len(template.vertices)
    vertex = torch.stack(
        [torch.arange(count), torch.randint(count, (count,), generator=generator)], 1
    )
    wrong = torch.rand(count, generator=generator) < outliers
    probability = torch.tensor([[0.8, 0.1]]).repeat(count, 1)
    probability[wrong] = torch.tensor([0.05, 0.85])
    cell = CELL / float(translation[2])
    tangents = seen(template, rotation, translation) + 0.5 * cell * torch.randn(
        count, 2, generator=generator
    )
    return Correspondences(
        tangents[None], probability[None], vertex[None], torch.tensor([cell])
    )


def together(several: list[Correspondences], room: int) -> Correspondences:
    """Crops with `room` places at least, the shorter lists filled up."""
    room = max(room, *(one.tangents.shape[1] for one in several))

    def filled(parts: list[torch.Tensor]) -> torch.Tensor:
        return torch.cat(
            [
                torch.nn.functional.pad(part, (0, 0, 0, room - part.shape[1]))
                for part in parts
            ]
        )

    return Correspondences(
        filled([one.tangents for one in several]),
        filled([one.probability for one in several]),
        filled([one.vertex for one in several]),
        torch.cat([one.cell for one in several]),
    )


def search(
    correspondences: Correspondences, template: Template
) -> tuple[torch.Tensor, torch.Tensor]:
    """The best pose of each crop, (B, 3, 3), (B, 3)."""
    tangents, vertex = pose_hypotheses.draw_triples(correspondences, 300)
    rotation, translation = pose_hypotheses.poses_from_triples(
        tangents, template.vertices[vertex]
    )
    score = pose_hypotheses.score_hypotheses(
        correspondences, template, rotation, translation, 3.0, 0.05
    )
    best, found = pose_hypotheses.rotation_nms(rotation, score, 25.0, 6)
    assert bool(found[:, 0].all())
    rotation = torch.take_along_dim(rotation, best[..., None, None], 1).transpose(0, 1)
    translation = torch.take_along_dim(translation, best[..., None], 1).transpose(0, 1)
    rotation, translation, _ = pose_refinement.refine(
        correspondences, template, rotation, translation, (3.0, 2.0, 1.5, 1.5), 0.05
    )
    fit = pose_refinement.correspondence_weights(
        correspondences,
        pose_refinement.project_template(template, rotation, translation),
        1.5,
    )
    winner, crop = (
        pose_hypotheses.log_likelihood(fit, correspondences.presence, 0.05).argmax(0),
        torch.arange(len(best)),
    )
    return rotation[winner, crop], translation[winner, crop]


@pytest.mark.parametrize("distance", [1.6, 4.0, 30.0])
@pytest.mark.parametrize("outliers", [0.0, 0.5])
def test_finds_the_poses_near_and_far_with_half_of_the_places_wrong(
    distance: float, outliers: float
) -> None:
    generator = torch.Generator().manual_seed(3)
    template = cloud(generator)
    truth, translation = (
        random_rotations(4, generator).float(),
        torch.tensor([0.1, -0.05, distance]),
    )
    correspondences = together(
        [observe(template, one, translation, outliers, generator) for one in truth], 0
    )
    rotation, moved = search(correspondences, template)
    assert float(angle_between(rotation, truth).max()) < 6.0
    assert float((moved[:, 2] / distance - 1).abs().max()) < 0.1


def test_a_crop_is_answered_as_it_would_be_alone() -> None:
    generator = torch.Generator().manual_seed(5)
    template = cloud(generator)
    poses = [
        (one, torch.tensor([0.0, 0.1, 3.0]))
        for one in random_rotations(3, generator).float()
    ]
    several = [observe(template, *pose, 0.2, generator) for pose in poses]
    one = several[1]
    several[1] = Correspondences(
        one.tangents[:, :50], one.probability[:, :50], one.vertex[:, :50], one.cell
    )
    rotation, moved = search(together(several, 150), template)
    for k, one in enumerate(several):
        alone, there = search(one, template)
        assert float(angle_between(rotation[k], alone[0])) < 0.1
        assert torch.allclose(moved[k], there[0], atol=1e-3)


def test_a_coarse_rotation_decides_between_poses_that_explain_nearly_as_much() -> None:
    generator = torch.Generator().manual_seed(5)
    template = cloud(generator)
    turns = random_rotations(2, generator).float()
    assert float(angle_between(turns[0], turns[1])) > 60
    distance = torch.tensor([0.0, 0.1, 3.0])
    first, second = (observe(template, one, distance, 0.0, generator) for one in turns)
    # more of the cells speak for the second pose
    mixed = Correspondences(
        torch.cat([first.tangents[:, :55], second.tangents[:, 55:]], 1),
        torch.cat([first.probability[:, :55], second.probability[:, 55:]], 1),
        torch.cat([first.vertex[:, :55], second.vertex[:, 55:]], 1),
        first.cell,
    )

    def best(coarse: CoarseRotation | None, weight: float = 0.5) -> torch.Tensor:
        config = EstimatorConfig(coarse_rotation_weight=weight)
        rotation, *_ = pose_solver.propose_hypotheses(mixed, template, config, coarse)
        return rotation[0, 0]

    around_first = CoarseRotation(turns[:1].flatten(1), 20 * torch.eye(9), torch.eye(3))
    assert float(angle_between(best(None), turns[1])) < 20
    assert float(angle_between(best(around_first), turns[0])) < 20
    assert torch.equal(best(around_first, 0.0), best(None))


def test_a_coarse_rotation_pulls_a_pose_as_far_as_its_cells_leave_it_free() -> None:
    generator = torch.Generator().manual_seed(6)
    template = cloud(generator)
    (truth,) = random_rotations(1, generator).float()
    distance = torch.tensor([0.0, 0.1, 3.0])
    cells = observe(template, truth, distance, 0.0, generator)
    aside = truth @ rotation_from_vector(torch.tensor([0.0, 0.3, 0.0]))
    coarse = CoarseRotation(aside.flatten()[None], 20 * torch.eye(9), torch.eye(3))
    variance = pose_refinement.cell_variance(cells.cell, EstimatorConfig())

    def refined(pull: float) -> torch.Tensor:
        rotation, *_ = pose_refinement.refine(
            cells,
            template,
            truth[None, None],
            distance[None, None],
            (1.0,) * 4,
            0.05,
            coarse,
            pull * variance,
        )
        return angle_between(rotation[0, 0], aside)

    free, little, much = (float(refined(pull)) for pull in (0.0, 0.25, 100.0))
    assert abs(free - math.degrees(0.3)) < 3
    assert 0.02 < free - little < 3
    assert much < 4


def test_some_of_the_places_are_spread_over_all_that_show_something() -> None:
    generator = torch.Generator().manual_seed(5)
    template = cloud(generator)
    correspondences = together(
        [observe(template, torch.eye(3), torch.tensor([0.0, 0.0, 3.0]), 0.0, generator)],
        300,
    )
    assert correspondences.count.tolist() == [120]
    few = correspondences.subset(40, 1)
    assert (
        few.vertex[0, :, 0].tolist()
        == (torch.arange(40) * 119 / 39).round().long().tolist()
    )
    all_of_them = correspondences.subset(200, 2)  # more than there are
    assert torch.equal(all_of_them.vertex[0, :120], correspondences.vertex[0, :120])
    assert all_of_them.count.tolist() == [120]


def test_a_triple_without_noise_gives_the_weak_perspective_pose_and_its_mirror_image() -> (
    None
):
    generator = torch.Generator().manual_seed(0)
    truth = random_rotations(20, generator).float()
    model = torch.randn(20, 3, 3, generator=generator)
    image = (model @ truth.mT)[..., :2] * 0.25 + torch.tensor([0.3, -0.2])
    rotation, translation = (
        both[0] for both in pose_hypotheses.poses_from_triples(image[None], model[None])
    )
    errors = angle_between(rotation.view(2, 20, 3, 3), truth).amin(0)
    assert float(errors.max()) < 0.5
    assert torch.allclose(pose_hypotheses.orthonormalize(rotation), rotation, atol=1e-3)
    assert torch.allclose(
        (translation[:20, 2] + (rotation[:20] @ model.mean(1)[..., None])[:, 2, 0]),
        torch.full((20,), 4.0),
        rtol=1e-3,
    )


def test_refinement_converges_to_the_truth_and_its_information_is_that_of_the_projection() -> (
    None
):
    generator = torch.Generator().manual_seed(1)
    template = cloud(generator)
    truth = random_rotations(1, generator)[0].float()
    translation = torch.tensor([0.0, 0.1, 2.5])
    tangents = seen(template, truth, translation)
    count = len(template.vertices)
    correspondences = Correspondences(
        tangents[None],
        torch.full((1, count, 1), 0.95),
        torch.arange(count)[None, :, None],
        torch.tensor([CELL / 2.5]),
    )
    start = rotation_from_vector(torch.tensor([[0.1, -0.1, 0.15]])) @ truth
    rotation, moved, information = pose_refinement.refine(
        correspondences,
        template,
        start[None],
        translation[None, None] + 0.05,
        (6.0, 6.0, 3.0, 2.0, 1.0, 1.0),
        0.01,
    )
    assert float(angle_between(rotation[0, 0], truth)) < 0.05
    assert torch.allclose(moved[0, 0], translation, atol=2e-3)

    def motion(vector: torch.Tensor) -> torch.Tensor:
        return seen(
            template,
            rotation_from_vector(vector[3:]) @ rotation[0, 0],
            moved[0, 0] + vector[:3],
        ).flatten()

    slope = torch.autograd.functional.jacobian(
        motion, torch.zeros(6)
    )  # every place is its vertex with a weight near 0.94
    weight = 0.95 * 0.95 / (0.95 + 0.95 * 0.01)
    assert torch.allclose(information[0, 0], weight * slope.T @ slope, rtol=0.01, atol=0.01)


def test_distinct_keeps_the_best_of_each_neighbourhood_and_says_where_nothing_is_left() -> (
    None
):
    turns = torch.tensor([0.0, 5.0, 90.0, 95.0, 180.0]).deg2rad()
    rotation = rotation_from_vector(turns[:, None] * torch.tensor([0.0, 0.0, 1.0]))
    score = torch.tensor(
        [[1.0, 2.0, 0.5, 0.1, 1.5], [-torch.inf, -torch.inf, -torch.inf, 0.1, -torch.inf]]
    )
    chosen, found = pose_hypotheses.rotation_nms(
        torch.stack([rotation, rotation]), score, 25.0, 4
    )
    assert chosen[0, :3].tolist() == [1, 4, 2]
    assert found.tolist() == [[True, True, True, False], [True, False, False, False]]
    assert int(chosen[1, 0]) == 3


def test_poses_too_near_or_behind_are_left_out_and_the_others_keep_their_order() -> None:
    depth = torch.tensor([[2.0, -1.0, torch.nan, 3.0, 0.1], [0.2, -1.0, 5.0, 0.3, 0.0]])
    translation = torch.zeros(2, 5, 3)
    translation[..., 2] = depth
    rotation = (
        random_rotations(10, torch.Generator().manual_seed(0)).float().view(2, 5, 3, 3)
    )
    kept, moved = pose_hypotheses.leave_out_behind(rotation, translation)
    assert moved[0, :, 2].tolist() == [2.0, 3.0]
    assert float(moved[1, 0, 2]) == 5.0
    assert torch.equal(kept[0], rotation[0, [0, 3]])
    assert torch.equal(kept[1, 0], rotation[1, 2])
    nothing, _ = pose_hypotheses.leave_out_behind(rotation, -translation.abs())
    assert nothing.shape == (2, 1, 3, 3)


def test_until_the_answers_are_told_no_value_is_waited_for() -> None:
    """Tensors without values stand for those of a device that has not computed them yet."""
    generator = torch.Generator().manual_seed(1)
    known = cloud(generator)
    template = Template(
        known.vertices.to("meta"),
        known.directions.to("meta"),
        known.visible.to("meta"),
        known.center.to("meta"),
    )
    config = EstimatorConfig(max_correspondences=60)
    camera = Camera(
        torch.tensor([[300.0, 0, 112], [0, 300, 112], [0, 0, 1]], dtype=torch.float64),
        224,
        224,
    )
    probability = torch.zeros(3, 32, 32, 120, device="meta")
    crop_from_image = torch.eye(3, dtype=torch.float64).expand(3, 3, 3)
    view = observe_crops(
        probability, probability.sum(-1), 224, crop_from_image, camera, config
    )
    coarse = CoarseRotation(
        *(torch.zeros(*shape, device="meta") for shape in ((3, 9), (9, 9), (3, 3)))
    )
    told = pose_scoring.refine_and_score(
        view,
        template,
        *pose_solver.propose_hypotheses(view.correspondences, template, config, coarse),
        config,
        coarse,
    )
    tensors = [getattr(told, field.name) for field in fields(told)]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert {tensor.dtype for tensor in tensors} == {torch.float32}
    assert told.rotation.shape == (3, config.max_modes + 3, 3, 3)
    with pytest.raises(RuntimeError):  # which tells when it is
        view.correspondences.presence[view.correspondences.presence > 0.5]
