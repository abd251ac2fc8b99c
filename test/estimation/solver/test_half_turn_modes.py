"""A pose is told from its half turn by what sticks out and by the coarse rotation."""

from __future__ import annotations

import pytest
import torch

from uns_pose_ros.core.device import to_cpu
from uns_pose_ros.core.geometry import angle_between, rotation_from_vector
from uns_pose_ros.core.types import Camera
from uns_pose_ros.estimation.config import EstimatorConfig
from uns_pose_ros.estimation.solver import pose_scoring, pose_solver
from uns_pose_ros.estimation.solver.crop_observation import CropObservation, observe_crops
from uns_pose_ros.estimation.solver.pose_hypotheses import Template
from uns_pose_ros.networks.coarse_rotation import CoarseRotation


def half_turned(turn: float, with_tail: bool) -> tuple[Template, CropObservation]:
    """A body that equals its half turn, but for its tail, and what a crop shows of it.

    Args:
        turn: Angle about the viewing axis, degrees.
        with_tail: Whether the tail is seen; otherwise it is covered.
    """
    generator = torch.Generator().manual_seed(2)
    half = (torch.rand(60, 3, generator=generator) - 0.5) * torch.tensor([0.6, 0.6, 0.4])
    body = torch.cat(
        [half, half * torch.tensor([-1.0, -1.0, 1.0])]
    )  # vertex v + 60 is the twin of v
    tail = torch.rand(40, 3, generator=generator) * torch.tensor(
        [0.4, 0.1, 0.1]
    ) + torch.tensor([0.35, -0.05, -0.05])
    points = torch.cat([body, tail])
    template = Template(
        points,
        torch.tensor([[0.0, 0.0, -1.0]]),
        torch.ones(1, 160, dtype=torch.bool),
        torch.zeros(3),
    )
    truth = about_z(turn)
    camera = Camera(
        torch.tensor([[300.0, 0, 111.5], [0, 300, 111.5], [0, 0, 1]], dtype=torch.float64),
        224,
        224,
    )
    moved = points @ truth.T + torch.tensor([0.0, 0.0, 2.5])
    column, row = (
        ((300 * moved[:, :2] / moved[:, 2:] + 111.5 - 3) / 7).round().long().T
    )  # 7 px a place
    probability, presence = torch.zeros(1, 32, 32, 160), torch.full((1, 32, 32), 1e-3)
    shown = len(points) if with_tail else len(body)
    presence[0, row[:shown], column[:shown]] = 1.0
    vertex = torch.arange(120)
    probability[0, row[:120], column[:120], vertex] = 0.5
    probability[0, row[:120], column[:120], (vertex + 60) % 120] = 0.5
    probability /= probability.sum(-1, keepdim=True).clamp_min(1)
    return template, observe_crops(
        probability,
        presence,
        224,
        torch.eye(3, dtype=torch.float64)[None],
        camera,
        EstimatorConfig(),
    )


def angles_of_modes(
    template: Template,
    view: CropObservation,
    truth: torch.Tensor,
    coarse: CoarseRotation | None = None,
) -> torch.Tensor:
    """Angles (K,) between the modes of one crop and a rotation (3, 3), degrees."""
    config = EstimatorConfig()
    # the coarse rotation counts among the refined modes alone
    proposed = pose_solver.propose_hypotheses(view.correspondences, template, config)
    told = pose_scoring.refine_and_score(view, template, *proposed, config, coarse)
    return angle_between(to_cpu(told).rotation[0], truth.double())


def about_z(turn: float) -> torch.Tensor:
    return rotation_from_vector(torch.tensor([0.0, 0.0, turn]).deg2rad())


@pytest.mark.parametrize("turn", [0.0, 180.0])
def test_a_pose_whose_template_sticks_out_of_the_object_loses_to_one_that_does_not(
    turn: float,
) -> None:
    """A half turn explains the body as well: only where its tail is seen tells the poses apart."""
    apart = angles_of_modes(*half_turned(turn, True), about_z(turn))
    assert float(apart[0]) < 10
    assert float((apart[1:] - 180).abs().min()) < 10, (
        "the half turn is there, and comes after"
    )


@pytest.mark.parametrize("turn", [0.0, 180.0])
def test_the_coarse_rotation_tells_a_pose_from_its_half_turn(turn: float) -> None:
    """Without the tail both explain as much."""
    for told in (0.0, 180.0):
        coarse = CoarseRotation(
            about_z(told).flatten()[None], 10 * torch.eye(9), torch.eye(3)
        )
        apart = angles_of_modes(*half_turned(turn, False), about_z(told), coarse)
        assert float(apart[0]) < 10
