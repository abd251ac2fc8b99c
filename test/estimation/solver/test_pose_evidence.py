"""The numbers that speak for a pose, on a crop whose truth is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from uns_pose_ros.core.geometry import rotation_from_vector
from uns_pose_ros.estimation.solver.pose_evidence import (
    EVIDENCE,
    collect_evidence,
    mean_of_better_half,
    spread_of_hypotheses,
    turns_to_hypotheses,
)
from uns_pose_ros.estimation.solver.pose_hypotheses import Correspondences

CELL = 2 / 32  # the crop spans tangents from -1 to 1
Z = torch.tensor([0.0, 0.0, 1.0])
TURNS = rotation_from_vector(
    torch.tensor([[0.0, 0.0, 0.1 * k] for k in range(-3, 4)] + [[3.1, 0.0, 0.0]])
)


def disc(radius: float = 0.5) -> tuple[Correspondences, Tensor]:
    """The cells of a disc in the middle of a crop, and the presence of the crop."""
    centers = (torch.arange(32) + 0.5) * CELL - 1
    row, column = torch.meshgrid(centers, centers, indexing="ij")
    there = row.hypot(column) < radius
    tangents = torch.stack([column[there], row[there]], 1)[None]
    count = tangents.shape[1]
    presence = torch.where(there, 0.9, 0.0)[None]
    probability = torch.full((1, count, 2), 0.45)
    vertex = torch.zeros(1, count, 2, dtype=torch.int64)
    return Correspondences(tangents, probability, vertex, torch.tensor([CELL])), presence


def evidence_of(
    shift: float = 0.0,
    size: float = 0.5,
    rating: Tensor | None = None,
    strange: float = 0.0,
) -> dict[str, float]:
    """Evidence of a pose under which the template is a disc.

    Args:
        shift: Of the disc's center from the object's, tangents.
        size: Its radius.
        rating: Scores (8,) of the hypotheses; the last is far from the pose.
        strange: Share of the cells that do not look like the category.
    """
    cells, presence = disc()
    angle = torch.arange(40) * 2 * torch.pi / 40
    rings = [
        torch.stack([angle.cos(), angle.sin()]) * size * share
        for share in (0.35, 0.65, 0.95)
    ]
    tangents = torch.cat(rings, 1)[None] + torch.tensor([shift, 0.0])[:, None]
    count = cells.tangents.shape[1]
    scores = (torch.zeros(8) if rating is None else rating)[None]
    turns = turns_to_hypotheses(torch.eye(3)[None], TURNS[None], 1, Z)
    values = collect_evidence(
        cells,
        presence,
        torch.where(torch.arange(count)[None] < strange * count, -4.0, 3.0),
        torch.eye(3)[None],
        tangents,
        torch.ones(1, 120, dtype=torch.bool),
        torch.arange(count)[None] < count // 2,
        torch.tensor([0.02]),
        torch.tensor([-1.5]),
        torch.tensor([-0.1]),
        turns,
        scores,
        spread_of_hypotheses(turns, scores),
        torch.tensor([-2.5]),
    )
    assert values.shape == (1, len(EVIDENCE))
    assert bool(values.isfinite().all())
    return dict(zip(EVIDENCE, values[0].tolist(), strict=True))


def test_a_template_that_lies_on_its_object_has_nothing_beside_it() -> None:
    right, beside = evidence_of(), evidence_of(shift=0.4)
    assert right["outside"] == 0
    assert beside["outside"] > 0.1
    assert right["covered"] > -0.05
    assert beside["covered"] < -0.3
    # where a third is hidden, the rest still is on the object
    assert (
        evidence_of(shift=0.2)["covered_best"] > -0.05 > evidence_of(shift=0.2)["covered"]
    )


def test_a_small_template_fills_little_of_the_cells() -> None:
    assert abs(evidence_of()["filled"]) < 0.15
    assert -0.85 < evidence_of(size=0.25)["filled"] < -0.55  # log 0.5 is -0.69


def test_hypotheses_near_the_pose_weigh_against_the_others() -> None:
    agree = evidence_of(rating=torch.tensor([0.0] * 7 + [-1.0]))
    other = evidence_of(rating=torch.tensor([-1.0] * 7 + [0.0]))
    assert agree["mass"] > 5
    assert other["mass"] < agree["mass"] - 8
    assert other["mass_sharp"] == -6  # the largest odds
    # hypotheses that are not valid count nothing
    alone = evidence_of(rating=torch.tensor([-torch.inf] * 7 + [0.0]))
    assert alone["mass"] == -6


def test_hypotheses_that_explain_the_crop_alike_spread_the_pose_about_their_axis() -> None:
    alike, sure = torch.zeros(8), torch.tensor([-9.0] * 3 + [0.0] + [-9.0] * 4)
    assert evidence_of(rating=alike)["spread"] > evidence_of(rating=sure)["spread"] + 5
    pose = rotation_from_vector(torch.tensor([[0.4, -1.0, 0.3]]))
    turns = turns_to_hypotheses(pose, (pose @ TURNS[:7])[None], 1, Z)
    near, far = spread_of_hypotheses(turns, alike[None, :7])[0]
    assert torch.allclose(near, torch.diag(torch.tensor([0.0, 0.0, 0.04])), atol=1e-5)
    assert float(far.abs().max()) == 0
    # what is not valid does not count
    only = torch.full((1, 7), -torch.inf)
    assert float(spread_of_hypotheses(turns, only).abs().max()) == 0
    only[0, 6] = -2.0
    assert abs(float(spread_of_hypotheses(turns, only)[0, 0, 2, 2]) - 0.09) < 1e-4
    # half a turn away
    turns = turns_to_hypotheses(torch.eye(3)[None], TURNS[None, 7:], 1, Z)
    near, far = spread_of_hypotheses(turns, torch.zeros(1, 1))[0]
    assert float(near.abs().max()) == 0
    assert abs(float(far[0, 0]) - 3.1**2) < 1e-3


@pytest.mark.parametrize("order", [0, 2])
def test_equivalent_hypotheses_do_not_spread_a_pose(order: int) -> None:
    pose = rotation_from_vector(torch.tensor([[0.4, -1.0, 0.3]]))
    angle = torch.pi if order else 0.7
    turned = pose @ rotation_from_vector(torch.tensor([[0.0, 0.0, angle]]))
    turns = turns_to_hypotheses(pose, turned[None], order, Z)
    assert float(turns.abs().max()) < 1e-3
    assert float(turns_to_hypotheses(pose, turned[None], 1, Z).norm()) > 0.6


def test_what_covers_less_than_half_of_an_object_makes_it_no_stranger() -> None:
    assert evidence_of()["likeness"] == evidence_of(strange=0.45)["likeness"] == 3
    assert evidence_of(strange=0.75)["likeness"] < 0
    assert evidence_of(strange=1)["likeness"] == -4


def test_the_better_half_is_that_of_the_values_that_count_with_the_middle_one() -> None:
    values = torch.tensor([[9.0, 5.0, 1.0, 2.0, 8.0], [-3.0, -7.0, -5.0, 4.0, 6.0]])
    counted = torch.tensor([[False, True, True, True, False], [True] * 3 + [False, True]])
    # of 5 2 1 the better two, of 6 -3 -5 -7 likewise
    assert mean_of_better_half(values, counted).tolist() == [3.5, 1.5]
    assert float(mean_of_better_half(values[0], counted[0])) == 3.5
    assert mean_of_better_half(values, ~counted).tolist() == [9.0, 4.0]
    assert mean_of_better_half(values[0], torch.zeros(5).bool()) < -1000


def test_the_coarse_rotation_is_evidence() -> None:
    assert evidence_of()["coarse_rotation"] == -2.5


def test_half_of_the_cells_are_explained() -> None:
    assert abs(evidence_of()["explained"] - torch.tensor(0.5).log().item()) < 0.02
