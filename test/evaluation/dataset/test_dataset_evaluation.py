"""The two rows of a data set, on objects and estimates that are known."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from known_colors import centered_model, estimate_of, write_colored
from source_files import write_film
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import from_parts, rotation_from_vector
from uns_pose_ros.core.left_out import LeftOut
from uns_pose_ros.core.types import Camera, Symmetry
from uns_pose_ros.datasets.labeled_object import LabeledObject
from uns_pose_ros.evaluation.dataset import dataset_evaluation, dataset_figures
from uns_pose_ros.evaluation.dataset.dataset_evaluation import ImageEstimates
from uns_pose_ros.evaluation.dataset.object_results import (
    FrameTie,
    ObjectResult,
    score_object,
)

EYE = torch.eye(3, dtype=torch.float64)
CAMERA = Camera(
    torch.tensor([[100.0, 0, 48], [0, 100, 32], [0, 0, 1]], dtype=torch.float64), 96, 64
)
TIE = FrameTie.of(centered_model("car"), EYE)


def turn(x: float = 0, y: float = 0, z: float = 0) -> Tensor:
    return rotation_from_vector(
        torch.tensor([math.radians(a) for a in (x, y, z)], dtype=torch.float64)
    )


def labeled(
    rotation: Tensor = EYE, at: tuple[float, ...] = (0, 0, 3), **more: Any
) -> LabeledObject:
    pose = from_parts(rotation, torch.tensor(at, dtype=torch.float64))
    fields: dict[str, Any] = {
        "extents": torch.tensor([1.0, 0.5, 0.5], dtype=torch.float64),
        "metric": True,
        "box": torch.tensor([20.0, 12, 64, 50], dtype=torch.float64),
    }
    fields |= more
    return LabeledObject(Path("a.png"), "car", CAMERA, fields.pop("box"), pose, **fields)


def score(estimate: Any, truth: LabeledObject, is_crop: bool = False) -> ObjectResult:
    return score_object(estimate, truth, TIE, is_crop)


def test_a_right_estimate_has_no_error_at_all() -> None:
    estimate = estimate_of("car", EYE, size=(1, 0.5, 0.5), metric=True)
    result = score(estimate, labeled())
    assert (result.error, result.symmetric_error) == (0, 0)
    assert result.iou == pytest.approx(1)
    assert (result.size_error, result.shift, result.shift_share) == (0, 0, 0)


def test_a_metric_estimate_twice_as_far_is_that_far_off() -> None:
    estimate = estimate_of("car", EYE, (0, 0, 6.0), size=(1, 0.5, 0.5), metric=True)
    result = score(estimate, labeled())
    assert (result.error, result.iou, result.shift) == (0, 0, 3)
    assert result.shift_share == pytest.approx(3 / math.sqrt(1.5))


def test_an_estimate_without_meters_is_scaled_to_the_true_distance() -> None:
    estimate = estimate_of("car", EYE, (0, 0, 6.0), size=(2, 1, 1), metric=False)
    result = score(estimate, labeled())
    assert result.iou == pytest.approx(1)
    assert result.shift is None  # meters are not known
    assert result.shift_share == pytest.approx(0)


def test_a_given_translation_turns_the_object_to_where_it_is() -> None:
    aside = turn(y=20)
    at = tuple((aside @ torch.tensor([0.0, 0, 3], dtype=torch.float64)).tolist())
    estimate = estimate_of("car", EYE, size=(1, 0.5, 0.5), metric=True)
    truth = labeled(aside, at)
    assert score(estimate, truth).error == pytest.approx(20)
    result = score(estimate, truth, is_crop=True)
    assert result.error == pytest.approx(0, abs=1e-6)
    assert result.iou == pytest.approx(1)
    assert result.shift is None  # it was given


def test_the_rotation_against_the_line_of_sight_counts_where_the_camera_is_no_calibration() -> (
    None
):
    aside = turn(y=20)
    at = (aside @ torch.tensor([0.0, 0, 3], dtype=torch.float64)).tolist()
    estimate = estimate_of("car", aside, at)
    assert score(estimate, labeled(calibrated=False)).error == pytest.approx(0, abs=1e-6)


def test_half_a_turn_is_right_up_to_a_symmetry_of_the_data_set_only() -> None:
    axis = torch.tensor([0.0, 0, 1], dtype=torch.float64)
    estimate = estimate_of("car", turn(z=180), size=(1, 0.5, 0.5), metric=True)
    for order, expected in ((1, 180), (2, 0), (0, 0)):
        result = score(estimate, labeled(symmetry=Symmetry(order, axis)))
        assert result.error == pytest.approx(180)
        assert result.symmetric_error == pytest.approx(expected, abs=1e-5)


def test_an_object_may_have_symmetries_about_several_axes() -> None:
    z, half = torch.tensor([0.0, 0, 1]).double(), torch.stack([EYE, turn(x=180)])
    cylinder = labeled(turn(x=30), symmetry=Symmetry(0, z), turns=half)
    box = labeled(turn(x=30), symmetry=Symmetry(2, z), turns=half)
    size = (1, 0.5, 0.5)
    for truth, rotation, error in (
        (cylinder, turn(x=30) @ turn(z=70) @ turn(x=180), 0),
        (cylinder, turn(x=30) @ turn(y=10), 10),
        (box, turn(x=30) @ turn(y=180), 0),
        (box, turn(x=30) @ turn(z=90), 90),
        (labeled(is_sphere=True), turn(x=77), 0),
    ):
        result = score(estimate_of("car", rotation, size=size, metric=True), truth)
        assert result.symmetric_error == pytest.approx(error, abs=1e-5)
        if error == 0:
            assert result.iou == pytest.approx(1)


def test_the_model_frame_is_tied_by_a_rotation() -> None:
    tie = FrameTie.of(centered_model("car"), turn(z=90))
    # the canonical x axis is the object's y axis, so the box is long along canonical y
    estimate = estimate_of("car", turn(z=90), size=(0.5, 1, 0.5), metric=True)
    result = score_object(estimate, labeled(), tie, False)
    assert result.error == pytest.approx(0, abs=1e-6)
    assert result.iou == pytest.approx(1)
    assert result.size_error == pytest.approx(0)


def image_of(
    *pairs: tuple[LabeledObject, Any], extra: tuple[Any, ...] = ()
) -> ImageEstimates:
    estimates = tuple(estimate for _, estimate in pairs if estimate is not None)
    return ImageEstimates(
        tuple(truth for truth, _ in pairs),
        (*estimates, *extra),
        tuple(estimate for _, estimate in pairs),
        0.5,
        0.25,
    )


def test_accuracies_are_strict_and_a_missing_estimate_is_wrong() -> None:
    images = [
        image_of((labeled(), estimate_of("car", turn(z=angle))))
        for angle in (0, 9.9, 10.1, 29.9, 30.1)
    ] + [image_of((labeled(), None))]
    rows = dataset_evaluation.score_rows(images, TIE)
    for name in dataset_evaluation.ROWS:
        figures = dataset_figures.summarize_row(rows[name])
        assert (figures["objects"], figures["images"]) == (6, 6)
        assert figures["acc30"] == pytest.approx(100 * 4 / 6)
        assert figures["acc10"] == pytest.approx(100 * 2 / 6)
        assert figures["answered"] == pytest.approx(100 * 5 / 6)
    assert dataset_figures.summarize_row(rows["detected"])["seconds_per_image"] == 0.5


def test_an_estimate_of_another_object_does_not_count() -> None:
    elsewhere = estimate_of("car", EYE, box=(70, 50, 90, 60))
    image = ImageEstimates((labeled(),), (elsewhere,), (None,), 0, 0)
    assert dataset_evaluation.match_estimates(image) == [None]
    both = image_of((labeled(), estimate_of("car", EYE)), extra=(elsewhere,))
    assert dataset_evaluation.match_estimates(both) == [both.estimates[0]]


def test_an_estimate_is_that_of_one_object_at_most() -> None:
    near = labeled(box=torch.tensor([24.0, 12, 68, 50], dtype=torch.float64))
    estimate = estimate_of("car", EYE)
    image = ImageEstimates((near, labeled()), (estimate,), (None, None), 0, 0)
    assert dataset_evaluation.match_estimates(image) == [None, estimate]


def test_a_second_detection_of_an_object_lowers_the_precision() -> None:
    right = estimate_of("car", EYE, size=(1, 0.5, 0.5), metric=True, score=0.8)
    twin = estimate_of("car", EYE, size=(1, 0.5, 0.5), metric=True, score=0.9)
    missed = image_of((labeled(), None))
    once = dataset_evaluation.score_rows([image_of((labeled(), right)), missed], TIE)[
        "detected"
    ]
    figures = dataset_figures.summarize_row(once)["boxes"]
    assert [figures[key] for key in ("ap25", "ap50", "ap10deg5cm", "ap10deg10pct")] == [
        50
    ] * 4
    assert figures["iou_mean"] == pytest.approx(50)
    # a better score on an image with another object spoils the precision before the right one
    wrong = estimate_of("car", turn(z=90), (3, 0, 3), metric=True, score=0.95)
    spoiled = image_of((labeled(), None), extra=(wrong,))
    rows = dataset_evaluation.score_rows(
        [image_of((labeled(), right), extra=(twin,)), spoiled], TIE
    )
    assert dataset_figures.summarize_row(rows["detected"])["boxes"][
        "ap50"
    ] == pytest.approx(25)


def test_figures_in_meters_need_an_estimate_in_meters() -> None:
    image = image_of((labeled(), estimate_of("car", EYE, size=(1, 0.5, 0.5))))
    rows = dataset_evaluation.score_rows([image], TIE)
    figures = dataset_figures.summarize_row(rows["detected"])["boxes"]
    assert figures["ap10deg5cm"] is None and figures["translation_m"] is None
    assert figures["ap10deg10pct"] == 100
    given = dataset_figures.summarize_row(rows["true_crop"])["boxes"]
    assert given["ap10deg10pct"] is None and given["ap50"] == 100


def test_a_data_set_without_boxes_has_no_figures_of_boxes() -> None:
    image = image_of((labeled(extents=None), estimate_of("car", EYE)))
    rows = dataset_evaluation.score_rows([image], TIE)
    assert dataset_figures.summarize_row(rows["detected"])["boxes"] is None


def test_means_are_over_categories_and_over_objects() -> None:
    right, wrong = estimate_of("car", EYE), estimate_of("car", turn(z=90))
    rows = {
        "car": dataset_evaluation.score_rows([image_of((labeled(), right))] * 3, TIE),
        "bus": dataset_evaluation.score_rows([image_of((labeled(), wrong))], TIE),
    }
    record = dataset_figures.summarize_dataset(rows, ("bus", "car"))
    assert record["mean"]["detected"]["acc30"] == 50
    assert record["weighted"]["detected"]["acc30"] == 75
    assert record["mean"]["true_crop"]["objects"] == 4
    assert record["paper_mean"]["detected"]["acc30"] == 50
    partly = dataset_figures.summarize_dataset(rows, ("bus", "car", "tv"))
    assert partly["paper_mean"]["detected"] is None


def test_a_fit_finds_the_rotation_on_which_most_crops_agree() -> None:
    tie = turn(x=40, z=100)
    images = [
        image_of((labeled(turn(y=10 * k)), estimate_of("car", turn(y=10 * k) @ tie)))
        for k in range(4)
    ]
    images.append(image_of((labeled(), estimate_of("car", turn(x=90)))))
    fitted = dataset_evaluation.fit_object_from_canon(images, centered_model("car"))
    assert fitted is not None
    torch.testing.assert_close(fitted, tie)
    assert dataset_evaluation.fit_object_from_canon([], centered_model("car")) is None


def test_an_image_of_another_size_is_counted_and_no_image_at_all_is_refused(
    tmp_path: Path,
) -> None:
    write_colored(tmp_path / "a.png", 1, (32, 32))
    truth = labeled()
    object.__setattr__(truth, "image", tmp_path / "a.png")
    left_out = LeftOut()
    with pytest.raises(InvalidInput, match="of another size than annotated: 1"):
        dataset_evaluation.estimate_objects(
            lambda image, camera: [], lambda *_: [], "car", [truth], left_out
        )


def test_a_frame_of_a_film_is_the_frame_of_that_number(tmp_path: Path) -> None:
    films = [np.full((64, 96, 3), 20 * k, np.uint8) for k in range(8)]
    path = write_film(tmp_path / "a.mp4", films)
    groups = [(labeled(film_frame=number),) for number in (1, 4, 5, 20)]
    for (truth,) in groups:
        object.__setattr__(truth, "image", path)
    seen = [image for _, image in dataset_evaluation._read_images(groups)]
    assert seen[3] is None
    levels = [float(image.double().mean()) for image in seen[:3] if image is not None]
    assert levels == pytest.approx([20, 80, 100], abs=6)
