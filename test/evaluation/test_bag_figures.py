"""The errors, losses and jitter of the poses of a recorded bag."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

pytest.importorskip("rosbags")
from scripted_bag import IDENTITY, Scripted, car, figures, frame_results, true_pose
from streams import pose
from uns_pose_ros.evaluation.bag_figures import summarize_bag


def test_errors_losses_and_jitter_are_counted(bag: Path) -> None:
    result = figures(bag, Scripted(flipped=[3, 10], missed=[6, 7]), truth_frame="thing")
    assert (result["images"], result["estimated"], result["with_truth"]) == (20, 18, 20)
    assert result["acc30"] == pytest.approx(80)  # 2 flipped, 2 missed
    assert result["median_deg"] == pytest.approx(0, abs=1e-4)
    assert result["translation_m"]["max"] == pytest.approx(0, abs=1e-6)
    assert result["auroc"] == 1.0
    tracks = result["tracks"]
    assert (tracks["ids"], tracks["gaps"], tracks["longest_gap_images"]) == (1, 1, 2)
    assert tracks["longest_gap_s"] == pytest.approx(0.3)
    jitter = result["jitter"]
    assert (jitter["against"], jitter["steps"]) == ("truth", 16)
    assert jitter["deg"]["p50"] == pytest.approx(0, abs=1e-4)
    assert jitter["deg"]["max"] == pytest.approx(180, abs=1e-3)


def test_fusion_with_the_cameras_known_motion_removes_the_flips(bag: Path) -> None:
    result = figures(
        bag, Scripted(flipped=[3, 10]), truth_frame="thing", fixed_frame="map", fuse=True
    )
    assert result["acc10"] == 100
    assert result["jitter"]["deg"]["max"] < 1


def test_without_truth_only_jitter_is_measured_against_the_cameras_motion_or_rest(
    bag: Path,
) -> None:
    result = figures(bag, Scripted(), fixed_frame="map")
    assert result["acc30"] is None
    assert result["with_truth"] == 0
    assert result["jitter"]["against"] == "camera's motion"
    assert result["jitter"]["deg"]["max"] == pytest.approx(0, abs=1e-4)
    result = figures(bag, Scripted())
    assert result["jitter"]["against"].startswith("nothing: the camera or the object moved")
    assert "--fixed-frame" in result["jitter"]["against"]
    assert result["jitter"]["deg"]["p50"] == pytest.approx(4, abs=1e-3)  # the camera's turn


@pytest.mark.parametrize("flips", [(), (3, 10, 11)])
def test_jitter_of_a_camera_at_rest_is_measured_against_rest(
    bag: Path, flips: Sequence[int]
) -> None:
    moving = frame_results(bag, Scripted(flipped=flips))
    shaken = [
        replace(result, estimates=(replace(first.estimates[0], cam_from_canon=still),))
        for result, first, still in zip(moving, moving, _shaken(len(moving)), strict=True)
    ]
    result = summarize_bag(shaken, car(), IDENTITY)["jitter"]
    assert result["against"] == "an object and a camera at rest"


def _shaken(count: int) -> list[Tensor]:
    """Poses that turn by some degrees about a pose at rest, by chance."""
    angles = np.random.default_rng(0).normal(0, 4, count)
    return [
        true_pose(0) @ pose((0.0, float(angle), 0.0), (0.0, 0.0, 0.0)) for angle in angles
    ]
