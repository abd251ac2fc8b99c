"""A constant turn between the frames of the truth and of the model is noticed and fitted."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("rosbags")
from scripted_bag import IDENTITY, Scripted, car, frame_results
from streams import pose
from uns_pose_ros.evaluation.bag_figures import (
    advise_fit,
    fit_truth_from_canon,
    summarize_bag,
)


def test_a_constant_turn_between_the_frames_is_said_with_what_mends_it(
    bag: Path,
) -> None:
    turn = pose((10.0, 80.0, -30.0), (0.02, 0.0, 0.01))
    turned = Scripted(flipped=[3, 10], canon_from_own=turn)
    results = frame_results(bag, turned, truth_frame="thing")
    advice = advise_fit(results, car(), IDENTITY)
    assert re.match(r"the frame of the truth is turned by a constant \d+° from the", advice)
    assert "with --fit the median would be 0.0° in place of " in advice
    fitted = fit_truth_from_canon(results, car())
    assert advise_fit(results, car(), fitted) == ""  # --fit was given
    right = frame_results(bag, Scripted(flipped=[3, 10]), truth_frame="thing")
    assert advise_fit(right, car(), IDENTITY) == ""
    assert advise_fit(results[:4], car(), IDENTITY) == ""  # too few images
    assert advise_fit(frame_results(bag, turned), car(), IDENTITY) == ""  # no truth


def test_without_one_turn_for_most_images_no_fit_is_advised(bag: Path) -> None:
    results = frame_results(bag, Scripted(flipped=range(0, 20, 2)), truth_frame="thing")
    mixed = [
        replace(
            result,
            estimates=(
                replace(
                    result.estimates[0],
                    cam_from_canon=result.estimates[0].cam_from_canon
                    @ pose((37.0 * k, 81.0 * k, 0.0), (0.0, 0.0, 0.0)),
                ),
            ),
        )
        for k, result in enumerate(results)
    ]
    assert advise_fit(mixed, car(), IDENTITY) == ""


def test_a_model_with_another_frame_than_the_truth_is_fitted_on_demand(bag: Path) -> None:
    turn = pose((10.0, 80.0, -30.0), (0.02, 0.0, 0.01))
    results = frame_results(
        bag, Scripted(flipped=[3, 10], canon_from_own=turn), truth_frame="thing"
    )
    assert summarize_bag(results, car(), IDENTITY)["acc30"] == 0
    fitted = fit_truth_from_canon(results, car())
    assert torch.allclose(fitted, turn, atol=1e-5)
    assert summarize_bag(results, car(), fitted)["acc10"] == 90
