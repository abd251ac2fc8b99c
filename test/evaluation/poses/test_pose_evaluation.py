"""Estimates of labeled images against the truth."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from label_rotations import X, Z, model_of, rotations, turn
from synthetic import write_video
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import (
    from_parts,
)
from uns_pose_ros.core.types import (
    Camera,
    PoseEstimate,
    Symmetry,
)
from uns_pose_ros.evaluation.poses import pose_evaluation, pose_figures
from uns_pose_ros.io.video_folder import load_video


def estimate_of(
    rotation: Tensor, score: float = 0.5, category: str = "mug"
) -> PoseEstimate:
    pose = from_parts(rotation, torch.tensor([0.0, 0, 2], dtype=torch.float64))
    size = torch.ones(3, dtype=torch.float64)
    return PoseEstimate(
        category,
        pose,
        1.0,
        False,
        size,
        score,
        None,
        Symmetry(),
        9,
        1.0,
        torch.zeros(4, dtype=torch.float64),
    )


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("truck") / "a"
    write_video(folder, seed=4, views=4, size=32)
    return folder


def test_poses_are_compared_in_the_labels_frame_and_the_best_score_counts(
    clip: Path,
) -> None:
    video = load_video(clip)
    label, label_from_canon = rotations(2, seed=7)
    model = model_of({"a": label_from_canon.T @ label}, Symmetry(2, Z))
    errors = iter([5.0, 20.0, 180.0])
    poses = iter([frame.cam_from_obj for frame in video.frames])

    def estimate(image: Tensor, camera: Camera) -> list[PoseEstimate]:
        pose = next(poses)
        assert pose is not None and image.shape == (32, 32, 3) and camera.width == 32
        error = next(errors, None)
        if error is None:
            return []
        right = pose[:3, :3] @ label.T @ label_from_canon
        wrong = estimate_of(turn(X, 90) @ right, score=0.2)
        return [
            wrong,
            estimate_of(right @ turn(Z, error), score=0.9 if error < 100 else 0.6),
            estimate_of(right, 1.0, "shoe"),
        ]

    results = pose_evaluation.evaluate_poses(estimate, model, [video], {"a": label})
    assert [r.error for r in results] == pytest.approx([5, 20, 180, 180], abs=1e-4)
    assert [r.symmetric_error for r in results] == pytest.approx([5, 20, 0, 180], abs=1e-4)
    figures = pose_figures.summarize_poses(results)
    assert (figures["images"], figures["estimated"]) == (4, 3)
    assert [figures[k] for k in ("acc30", "acc15", "acc10")] == [50, 25, 25] and figures[
        "median_deg"
    ] == pytest.approx(100)
    assert figures["symmetry_aware"]["acc30"] == 75 and figures["auroc"] == 1.0
    assert figures["answered"] == 75


def test_without_an_answer_the_best_pose_below_the_threshold_counts_for_the_score(
    clip: Path,
) -> None:
    video = load_video(clip)
    label, label_from_canon = rotations(2, seed=7)
    model = model_of({"a": label_from_canon.T @ label}, Symmetry())
    right = [
        frame.cam_from_obj[:3, :3] @ label.T @ label_from_canon
        for frame in video.frames
        if frame.cam_from_obj is not None
    ]
    answers = iter([[estimate_of(right[0], 0.5)], [], [], []])
    rejected = iter(
        [[], *([estimate_of(right[k] @ turn(X, 90), s)] for k, s in ((2, 0.1), (3, 0.7)))]
    )

    def estimate(image: Tensor, camera: Camera) -> list[PoseEstimate]:
        return next(answers)

    def without_threshold(image: Tensor, camera: Camera) -> list[PoseEstimate]:
        return next(rejected)

    results = pose_evaluation.evaluate_poses(
        estimate, model, [video], {"a": label}, without_threshold=without_threshold
    )
    assert [result.rejected for result in results[:2]] == [None, (0.0, 180.0)]
    figures = pose_figures.summarize_poses(results)
    assert figures["answered"] == 25
    assert (figures["acc30"], figures["wrong"]) == (25, 3)
    assert figures["auroc"] == pytest.approx(2 / 3)  # one wrong pose scores higher


def test_a_place_that_is_a_tenth_of_a_diameter_off_is_said_to_be_whatever_the_unit() -> (
    None
):
    """A camera 4 m from an object of 2 m, 30 degrees above it.

    The estimate is in diameters of another instance.
    """
    template, obj = (
        torch.tensor([[0.0, 0, 0], [1, 0, 0]]),
        torch.tensor([[5.0, 0, 0], [7, 0, 0]]),
    )
    model = replace(
        model_of({}),
        vertices=template,
        triangles=torch.zeros(0, 3, dtype=torch.int64),
        vertex_features=torch.eye(3)[:2],
    )
    label = turn(Z, 40)
    towards = label.T @ torch.tensor(
        [math.cos(math.radians(30)), 0, math.sin(math.radians(30))], dtype=torch.float64
    )
    forward = -towards
    aside = torch.linalg.cross(label.T @ Z, forward)
    aside = aside / aside.norm()
    rotation = torch.stack([aside, torch.linalg.cross(forward, aside), forward])
    place = pose_evaluation.ObjectExtent.of(obj)
    pose = from_parts(
        rotation, torch.tensor([0.0, 0, 4], dtype=torch.float64) - rotation @ place.center
    )
    canon = torch.tensor([0.5, 0, 0], dtype=torch.float64)  # the template's middle
    translation = torch.tensor([0.06, 0, 2.08], dtype=torch.float64) - rotation @ canon
    estimate = replace(
        estimate_of(rotation),
        cam_from_canon=from_parts(rotation, 3 * translation),
        scale=3.0,
    )
    plain = pose_evaluation.ImageResult("a", "1", estimate, 0.0, 0.0, 0.1)
    result = pose_evaluation.add_translation_error(plain, model, pose, label, place)
    assert (result.shift, result.aside) == pytest.approx((0.1, 0.06), abs=1e-6)
    assert (result.distance, result.elevation) == pytest.approx((2.0, 30.0), abs=1e-6)
    unknown = pose_evaluation.add_translation_error(
        plain, model, from_parts(rotation, rotation @ (-4 * towards)), label, None
    )
    assert (unknown.shift, unknown.distance) == (
        None,
        None,
    ) and unknown.elevation == pytest.approx(30.0)


def test_what_scores_are_worth_and_where_the_errors_lie() -> None:
    def result(score: float, error: float, distance: float) -> pose_evaluation.ImageResult:
        return pose_evaluation.ImageResult(
            "a",
            "1",
            estimate_of(torch.eye(3).double(), score),
            error,
            error,
            0.1,
            distance=distance,
        )

    results = [
        result(0.95, 3, 0.5),
        result(1.0, 40, 2.5),
        result(0.31, 100, 2.5),
        result(0.39, 20, 9.0),
    ]
    figures = pose_figures.summarize_poses(results)
    low, high = (
        {"from": 0.3, "count": 2, "acc30": 50.0},
        {"from": 0.9, "count": 2, "acc30": 50.0},
    )
    assert figures["score"] == [low, high]
    near, middle, far = figures["by"]["distance"]
    assert (near["from"], near["to"], near["acc30"]) == (None, 1.0, 100)
    assert (middle["from"], middle["to"], middle["images"], middle["acc30"]) == (
        2.0,
        3.0,
        2,
        0,
    )
    assert (far["from"], far["to"], far["acc15"]) == (5.0, None, 0)
    assert figures["by"]["elevation"] == [] and figures["shift_diameters"] is None


def test_a_true_rotation_is_inside_the_region_that_the_covariance_gives_it_and_no_farther() -> (
    None
):
    true = rotations(1, seed=3)[0]
    covariance = torch.diag(
        torch.tensor([1.0, 1, 1, 0.04, 0.01, 0.01], dtype=torch.float64)
    )  # x may be off twice as far
    reach = math.degrees(math.sqrt(7.815) * 0.1)  # 16 degrees about y

    def inside(off: Tensor, symmetry: Symmetry = Symmetry()) -> bool | None:
        return pose_evaluation.is_in_confidence_region(
            replace(estimate_of(off @ true), covariance=covariance, symmetry=symmetry), true
        )

    y = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    assert inside(turn(y, reach * 0.99)) and not inside(turn(y, reach * 1.01))
    assert inside(turn(X, reach * 1.99)) and not inside(turn(X, reach * 2.01))
    assert not inside(true @ turn(Z, 180) @ true.T)
    assert inside(true @ turn(Z, 180) @ true.T, Symmetry(2, Z))
    assert pose_evaluation.is_in_confidence_region(estimate_of(true), true) is None


def test_a_video_without_a_label_cannot_be_evaluated(clip: Path) -> None:
    model = model_of({"b": torch.eye(3, dtype=torch.float64)})
    with pytest.raises(InvalidInput, match="no labels for a; there are labels for b"):
        pose_evaluation.evaluate_poses(
            lambda image, camera: [],
            model,
            [load_video(clip)],
            {"b": torch.eye(3).double()},
        )
