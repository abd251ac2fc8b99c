"""An adapted model is better only if held-out images agree better with both models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from streams import HALF_TURN, estimate, orbit, pose
from uns_pose_ros.core.types import PoseEstimate
from uns_pose_ros.training.adaptation.judgment import (
    HeldOutFigures,
    HeldOutImage,
    Judgment,
    judge,
)
from uns_pose_ros.training.adaptation.resting_objects import RestingObject

OBJECT = pose((10.0, -5.0, 70.0), (0.05, -0.03, 0.02))


def seen(k: int, turn: float = 0.0, flip: bool = False) -> PoseEstimate:
    """The object in image k, turned by some degrees, about six axes in turns."""
    x, y, z = (turn * (-1) ** k * (k // 2 % 3 == axis) for axis in range(3))
    wrong = pose((x, y, z), (0.0, 0.0, 0.0))
    own = orbit(12)[k] @ OBJECT @ wrong
    return estimate(own @ HALF_TURN if flip else own)


def held_out(errors: Sequence[float | None]) -> list[HeldOutImage]:
    return [
        HeldOutImage(k, torch.linalg.inv(orbit(12)[k]), None if e is None else seen(k, e))
        for k, e in enumerate(errors)
    ]


def judgment(
    before: Sequence[float | None], after: Sequence[PoseEstimate | None]
) -> Judgment:
    thing = RestingObject(OBJECT, 0.2, ())
    answers = {k: [] if one is None else [one] for k, one in enumerate(after)}
    result = judge([(thing, held_out(before))], answers)
    assert isinstance(result, Judgment), result
    return result


def test_a_model_whose_held_out_images_agree_better_is_kept() -> None:
    result = judgment([20.0] * 6, [seen(k, 8.0) for k in range(6)])
    assert result.kept
    assert result.before[0].acc15 == 0 and result.after[0].acc15 == 100
    assert result.before[0].median_deg == pytest.approx(20, abs=0.1)
    assert result.after[1].median_deg == pytest.approx(8, abs=0.1)


@pytest.mark.parametrize(
    ("after", "reason"),
    [
        ([seen(k, 20.0) for k in range(6)], "not better"),
        ([None, *(seen(k, 8.0) for k in range(1, 6))], "not better"),
        ([seen(k, 2.0, flip=True) for k in range(6)], "another rotation"),
        ([seen(k, 2.0, flip=k == 0) for k in range(6)], "not better"),
    ],
    ids=["as before", "one unanswered", "all flipped", "one flipped"],
)
def test_a_model_that_is_not_better_or_sees_another_pose_is_not_kept(
    after: list[PoseEstimate | None], reason: str
) -> None:
    before = [20.0, 20.0, 20.0, 20.0, 14.0, 14.0]
    assert reason in judgment(before, after).reason


def test_a_model_that_gains_on_average_may_be_a_little_farther_from_the_old_pose() -> None:
    """Its own fused pose is better matched: fewer are far off, though the best are not as good."""
    before = [2.0, 2.0, 2.0, 2.0, 25.0, 25.0]
    result = judgment(before, [seen(k, 6.0) for k in range(6)])
    assert result.after[0].median_deg > result.before[0].median_deg
    assert result.after[0].mean_deg < result.before[0].mean_deg
    assert result.kept


def test_images_without_an_estimate_before_are_wrong_and_may_be_won() -> None:
    result = judgment([None, *[14.0] * 5], [seen(k, 9.0) for k in range(6)])
    assert result.before[0].answered == pytest.approx(100 * 5 / 6)
    assert result.kept and result.after[0].answered == 100


def test_an_estimate_elsewhere_in_the_image_is_not_of_the_object() -> None:
    away = pose((0.0, 0.0, 0.0), (1.0, 0.0, 0.0))
    moved = [
        replace(seen(k), cam_from_canon=away @ seen(k).cam_from_canon) for k in range(6)
    ]
    thing = RestingObject(OBJECT, 0.2, ())
    answer = judge([(thing, held_out([5.0] * 6))], {k: [m] for k, m in enumerate(moved)})
    assert answer == "the held-out images do not agree on the rotation of an object"


def test_without_held_out_images_nothing_is_judged() -> None:
    assert judge([], {}) == "no image is held out"


def test_figures_count_a_missing_estimate_as_wrong() -> None:
    figures = HeldOutFigures.of([5.0, 12.0, 25.0, None])
    assert (figures.acc10, figures.acc15, figures.acc30) == (25, 50, 75)
    assert figures.answered == 75
