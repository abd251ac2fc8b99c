"""Accuracy figures of rotations and scores, with known answers."""

from __future__ import annotations

import pytest
import torch

from label_rotations import X, Z, rotations, turn
from uns_pose_ros.core.types import (
    Symmetry,
)
from uns_pose_ros.evaluation import metrics


def test_a_continuous_symmetry_forgives_any_turn_about_its_axis_and_only_that() -> None:
    b = rotations(5)
    a = turn(Z, 73.3) @ b
    assert float(metrics.symmetric_angle(a, b, Symmetry(0, Z)).max()) < 1e-5
    tilted = turn(Z, 41) @ turn(X, 20) @ b
    assert metrics.symmetric_angle(tilted, b, Symmetry(0, Z)).tolist() == pytest.approx(
        [20] * 5
    )


def test_the_continuous_symmetry_is_the_limit_of_many_turns() -> None:
    a, b = rotations(20, seed=1), rotations(20, seed=2)
    exact = metrics.symmetric_angle(a, b, Symmetry(0, Z))
    assert torch.allclose(exact, metrics.symmetric_angle(a, b, Symmetry(2000, Z)), atol=0.1)


def test_auroc_is_the_share_of_right_and_wrong_pairs_in_order() -> None:
    assert metrics.auroc([(0.9, 0), (0.4, 10), (0.5, 90), (0.4, 170)]) == pytest.approx(
        2.5 / 4
    )
    assert metrics.auroc([(0.9, 0), (0.4, 10)]) is None


def test_accuracies_are_percents_below_the_angle() -> None:
    figures = metrics.accuracies(
        torch.tensor([0.0, 9.9, 10.0, 29.9, 30.0], dtype=torch.float64)
    )
    assert figures == {
        "acc30": 80,
        "acc15": pytest.approx(60),
        "acc10": 40,
        "median_deg": 10,
    }
