"""Regions that something parts are neighbors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from uns_pose_ros.estimation.regions.presence_regions import (
    group_neighbors,
    object_odds,
)
from uns_pose_ros.estimation.score_calibration import Chance, ScoreCalibration
from uns_pose_ros.estimation.solver.pose_evidence import EVIDENCE


def test_boxes_are_neighbours_through_others() -> None:
    boxes = torch.tensor(
        [
            [0.0, 0, 10, 10],
            [15, 0, 25, 10],
            [30, 0, 40, 10],
            [100, 0, 110, 10],
            [100, 13, 105, 14],
        ]
    )
    assert group_neighbors(boxes, 0.6) == [[0, 1, 2], [3, 4]]
    assert group_neighbors(boxes, 0.4) == [[3, 4]]
    assert group_neighbors(boxes[:1], 0.6) == []


def calibration(*weighed: str) -> ScoreCalibration:
    weight = torch.zeros(len(EVIDENCE), dtype=torch.float64)
    for name in weighed:
        weight[list(EVIDENCE).index(name)] = 8.0
    chance = Chance(weight - 1e6, weight + 1e6, weight, -4.0)
    spread = torch.eye(3, dtype=torch.float64)
    return ScoreCalibration(chance, chance, spread, spread, 1.0, 0.05)


def test_a_region_is_judged_by_the_likeness_of_the_better_half_of_what_it_shows() -> None:
    likeness = torch.full((4, 8), -5.0)
    likeness[0, :2] = torch.tensor(
        [1.0, -3.0]
    )  # half of an object lies under another thing
    presence = np.zeros((8, 16), np.float32)
    presence[:2, :4] = presence[4:8, 8:16] = 0.9
    boxes = torch.tensor([[0.0, 0, 4, 2], [8, 4, 16, 8]])
    odds = object_odds(likeness, presence, boxes, calibration("likeness"))
    assert odds.tolist() == pytest.approx([8.0 * 1.0 - 4, 8.0 * -5 - 4])


def test_models_that_know_objects_by_more_than_likeness_judge_no_region_from_afar() -> None:
    boxes = torch.tensor([[0.0, 0, 4, 2]])
    presence = np.ones((2, 4), np.float32)
    for one in (None, calibration("likeness", "mass"), calibration("covered")):
        odds = object_odds(torch.full((1, 2), -50.0), presence, boxes, one)
        assert odds.tolist() == [torch.inf]
    assert object_odds(
        torch.zeros(1, 2), presence, boxes[:0], calibration("likeness")
    ).shape == (0,)
