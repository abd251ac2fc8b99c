"""What to expect of a model, measured on whole images of videos that a head has not seen."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from synthetic import write_category
from uns_pose_ros.core.geometry import from_parts, rotation_from_vector
from uns_pose_ros.core.types import Camera, PoseEstimate, Symmetry, Video
from uns_pose_ros.estimation.score_calibration import Chance, ScoreCalibration
from uns_pose_ros.estimation.solver.pose_evidence import EVIDENCE
from uns_pose_ros.io.video_folder import load_video
from uns_pose_ros.training.left_out import (
    LeftOutImage,
    estimate_left_out,
    summarize_left_out,
)

NONE = Symmetry()
COUNT = len(EVIDENCE)


def chance(weight: float) -> Chance:
    """Grows with the first number of the evidence."""
    weights = torch.zeros(COUNT, dtype=torch.float64)
    weights[0] = weight
    far = torch.full((COUNT,), 100.0, dtype=torch.float64)
    return Chance(-far, far, weights, 0.0)


def calibration(spread_deg: float) -> ScoreCalibration:
    eye = torch.eye(3, dtype=torch.float64)
    return ScoreCalibration(
        chance(1.0), chance(0.0), eye * math.radians(spread_deg) ** 2, 0 * eye, 1.0, 0.25
    )


def image(video: str, *poses: tuple[float, float]) -> LeftOutImage:
    """Poses with first evidence and error, degrees."""
    evidence = torch.zeros(len(poses), COUNT, dtype=torch.float64)
    error = torch.zeros(len(poses), 3, dtype=torch.float64)
    for k, (value, degrees) in enumerate(poses):
        evidence[k, 0], error[k, 2] = value, math.radians(degrees)
    score = torch.sigmoid(evidence[:, 0])
    fit = torch.zeros(len(poses), 3, 3, dtype=torch.float64)
    return LeftOutImage(video, score, evidence, error, fit, torch.stack([fit, fit], 1))


def test_the_best_pose_of_an_image_counts_and_an_unanswered_image_is_wrong() -> None:
    images = [
        image("a", (4.0, 5.0), (-4.0, 170.0)),
        image("a", (-4.0, 2.0), (4.0, 170.0)),
        image("b", (4.0, 12.0)),
        image("b", (-4.0, 1.0)),  # below the threshold
        image("b"),
    ]
    figures = summarize_left_out(images, calibration(5.0), 0.0)
    assert figures == {
        "images": 5,
        "answered": 60.0,
        "acc30": 40.0,
        "acc15": 40.0,
        "acc10": 20.0,
        "median_deg": 170.0,
        "region95": pytest.approx(66.7, abs=0.1),
        "videos": {"a": 50.0, "b": pytest.approx(33.3, abs=0.1)},
    }


def test_without_a_calibration_the_score_and_threshold_of_the_estimator_count() -> None:
    images = [image("a", (4.0, 5.0)), image("a", (-4.0, 5.0)), image("a", (-4.0, 5.0))]
    figures = summarize_left_out(images, None, 0.22)
    assert figures["answered"] == pytest.approx(33.3, abs=0.1)
    assert figures["region95"] is None
    assert figures["median_deg"] is None


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Video:
    folder = tmp_path_factory.mktemp("trucks")
    write_category(folder, {"clip_01": 1}, views=6, size=64)
    return load_video(folder / "clip_01")


def answers(
    video: Video, pose: Tensor, error: Tensor
) -> Callable[[Tensor, Camera], list[PoseEstimate]]:
    """Estimates the frames of a video in turn, each with this error, rad, canonical axes."""
    left = iter(video.frames)

    def estimate(_: Tensor, camera: Camera) -> list[PoseEstimate]:
        true = next(left).cam_from_obj
        assert true is not None
        turned = (true @ torch.linalg.inv(pose))[:3, :3] @ rotation_from_vector(error)
        empty = torch.zeros(3, dtype=torch.float64)
        return [
            PoseEstimate(
                category="truck",
                cam_from_canon=from_parts(turned, empty),
                scale=1.0,
                metric=False,
                size=empty + 1,
                score=0.5,
                covariance=torch.eye(6, dtype=torch.float64) * 1e-4,
                symmetry=NONE,
                inliers=9,
                reprojection_error=1.0,
                box=torch.zeros(4, dtype=torch.float64),
                evidence=torch.zeros(COUNT, dtype=torch.float64),
                hypothesis_spread=torch.zeros(2, 3, 3, dtype=torch.float64),
            )
        ]

    return estimate


@pytest.mark.parametrize("part", ["nothing", "fit", "near", "far", "doubt"])
def test_each_part_of_the_covariance_widens_the_region(part: str) -> None:
    """An error of 20 degrees lies beyond 2.8 times 5 degrees, and within 2.8 times 9."""
    known, one = calibration(5.0), image("a", (0.0, 20.0))
    more = math.radians(7.5) ** 2 * torch.eye(3, dtype=torch.float64)
    known = replace(known, fit_share=0.5, near_share=0.5, far_share=0.25)
    if part == "fit":
        one = replace(one, fit=2 * more[None])
    elif part == "near":
        one = replace(one, spread=torch.stack([2 * more, 0 * more])[None])
    elif part == "far":
        one = replace(one, spread=torch.stack([0 * more, 4 * more])[None])
    elif part == "doubt":
        known = replace(known, wrong_spread=2 * more)  # the chance of a right pose is 0.5
    figures = summarize_left_out([one], known, 0.0)
    assert figures["region95"] == (0.0 if part == "nothing" else 100.0)


def test_the_truth_of_an_image_is_the_alignments_pose(video: Video) -> None:
    turn = rotation_from_vector(torch.tensor([0.2, -0.4, 0.9], dtype=torch.float64))
    pose = from_parts(turn, torch.zeros(3, dtype=torch.float64))
    error = torch.tensor([0.0, 0.1, 0.0], dtype=torch.float64)
    estimate = answers(video, pose, error)
    images = estimate_left_out(estimate, {"clip_01": (video, pose)}, NONE, 6)
    assert len(images) == 6
    for one in images:
        assert torch.allclose(one.error, -error[None], atol=1e-6)
        assert one.fit.shape == (1, 3, 3)


@pytest.mark.parametrize(("most", "chosen"), [(100, 6), (3, 3), (1, 1)])
def test_images_are_chosen_evenly_at_most_as_many_as_asked(
    video: Video, most: int, chosen: int
) -> None:
    eye = torch.eye(4, dtype=torch.float64)
    frames = [replace(frame, mask=frame.mask or Path("none")) for frame in video.frames]
    seen = estimate_left_out(
        lambda *_: [], {"clip_01": (replace(video, frames=tuple(frames)), eye)}, NONE, most
    )
    assert len(seen) == chosen
    assert all(one.video == "clip_01" and not len(one.score) for one in seen)
