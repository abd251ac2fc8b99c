"""Estimated boxes against true boxes of labeled objects."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from uns_pose_ros.core.geometry import from_parts, random_rotations, rotation_from_vector
from uns_pose_ros.core.types import PoseEstimate, Symmetry
from uns_pose_ros.evaluation.box_figures import (
    BoxFit,
    BoxResult,
    TrueBox,
    compare_boxes,
    describe_boxes,
    summarize_boxes,
)

EYE = torch.eye(3, dtype=torch.float64)
ZERO = torch.zeros(3, dtype=torch.float64)
SIZE = torch.tensor([0.4, 0.5, 0.9], dtype=torch.float64)
LABEL, TURN = random_rotations(2, torch.Generator().manual_seed(5))


def truth_of(size: Tensor = SIZE, metric: bool = True) -> TrueBox:
    """A box of that size about (1, 2, 3) in the obj frame, along the axes of LABEL."""
    corners = torch.cartesian_prod(*[torch.tensor([-0.5, 0.5])] * 3).double() * size
    middle = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    return TrueBox.around(corners @ LABEL + middle, LABEL, metric)


def estimate_of(
    turn: Tensor, center: Tensor, size: Tensor = SIZE, symmetry: Symmetry = Symmetry()
) -> PoseEstimate:
    """An estimate of the object at the place of its center in the camera."""
    return PoseEstimate(
        "mug",
        from_parts(turn, center),
        1.0,
        True,
        size,
        0.9,
        None,
        symmetry,
        9,
        1.0,
        torch.zeros(4, dtype=torch.float64),
    )


def pose_of(distance: float) -> Tensor:
    """A camera before which the middle of the object lies straight ahead."""
    place = torch.tensor([0.1, -0.2, distance], dtype=torch.float64)
    middle = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    return from_parts(TURN, place - TURN @ middle)


def test_the_box_of_a_labeled_object_lies_along_the_axes_of_its_label() -> None:
    seen = truth_of().seen_from(pose_of(3.0))
    assert seen.extents.tolist() == pytest.approx(SIZE.tolist(), abs=1e-5)
    assert seen.center.tolist() == pytest.approx([0.1, -0.2, 3.0], abs=1e-5)
    assert torch.allclose(seen.rotation, TURN @ LABEL.T)


def test_an_estimate_at_twice_the_distance_and_twice_as_large_fits_only_when_scaled() -> (
    None
):
    place = torch.tensor([0.2, -0.4, 6.0], dtype=torch.float64)
    far = estimate_of(TURN @ LABEL.T, place, 2 * SIZE)
    result = compare_boxes(far, ZERO, truth_of(), pose_of(3.0), EYE)
    assert result.scaled is not None and result.unscaled is not None
    assert result.scaled.iou == pytest.approx(1, abs=1e-4)
    assert result.scaled.size_error.tolist() == pytest.approx([0, 0, 0], abs=1e-4)
    assert result.unscaled.iou == 0
    assert result.unscaled.size_error.tolist() == pytest.approx([1, 1, 1], abs=1e-4)
    for estimate, truth in (
        (replace(far, metric=False), truth_of()),
        (far, truth_of(metric=False)),
    ):
        assert compare_boxes(estimate, ZERO, truth, pose_of(3.0), EYE).unscaled is None
    assert compare_boxes(None, ZERO, truth_of(), pose_of(3.0), EYE).scaled is None


def test_a_box_off_the_origin_of_its_frame_is_placed_by_its_center() -> None:
    center = torch.tensor([0.0, 0.0, -0.3], dtype=torch.float64)
    turn = TURN @ LABEL.T
    place = torch.tensor([0.1, -0.2, 3.0], dtype=torch.float64) - turn @ center
    fit = compare_boxes(estimate_of(turn, place), center, truth_of(), pose_of(3.0), EYE)
    assert fit.unscaled is not None and fit.unscaled.iou == pytest.approx(1, abs=1e-4)


def test_sides_are_compared_along_the_axes_of_the_labels_whatever_the_models_axes_are() -> (
    None
):
    label_from_canon = torch.tensor(
        [[0.0, -1, 0], [0, 0, 1], [-1, 0, 0]], dtype=torch.float64
    )
    size = label_from_canon.abs().T @ (SIZE * torch.tensor([1.1, 1.0, 0.8]))
    place = torch.tensor([0.1, -0.2, 3.0], dtype=torch.float64)
    estimate = estimate_of(TURN @ LABEL.T @ label_from_canon, place, size)
    fit = compare_boxes(estimate, ZERO, truth_of(), pose_of(3.0), label_from_canon)
    assert fit.unscaled is not None
    assert fit.unscaled.size_error.tolist() == pytest.approx([0.1, 0, 0.2], abs=1e-4)
    assert fit.unscaled.iou == pytest.approx(0.8 / 1.08, abs=1e-4)


@pytest.mark.parametrize(("order", "degrees"), [(4, 90.0), (2, 180.0), (0, 50.0)])
def test_of_the_poses_that_symmetry_makes_equal_the_best_box_counts(
    order: int, degrees: float
) -> None:
    size = torch.tensor([0.5, 0.4, 0.9], dtype=torch.float64)
    axis = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    turn = rotation_from_vector(math.radians(degrees) * axis)
    swapped = size if order != 4 else size[[1, 0, 2]]
    place = torch.tensor([0.1, -0.2, 3.0], dtype=torch.float64)
    offset = torch.tensor([0.05, 0.0, 0.0], dtype=torch.float64)
    rotation = TURN @ LABEL.T @ turn
    estimate = estimate_of(
        rotation, place - TURN @ LABEL.T @ offset, swapped, Symmetry(order, axis)
    )
    fit = compare_boxes(estimate, offset, truth_of(size), pose_of(3.0), EYE)
    plain = replace(estimate, symmetry=Symmetry())
    without = compare_boxes(plain, offset, truth_of(size), pose_of(3.0), EYE)
    assert fit.unscaled is not None and without.unscaled is not None
    assert fit.unscaled.iou >= without.unscaled.iou - 1e-9
    if order == 0:
        assert fit.unscaled.iou == pytest.approx(1, abs=0.02) and without.unscaled.iou < 0.9


def test_shares_are_of_all_images_and_means_of_the_estimates() -> None:
    def result(iou: float, error: float) -> BoxResult:
        return BoxResult(BoxFit(iou, torch.full((3,), error, dtype=torch.float64)))

    results = [result(0.2, 0.1), result(0.5, 0.2), result(0.8, 0.9), BoxResult()]
    figures = summarize_boxes(results, {"videos without masks": 2})
    assert figures["images"] == 4 and figures["mean"] == pytest.approx(0.5)
    assert (figures["share25"], figures["share50"]) == (50, 50)
    assert figures["size_error_pct"] == pytest.approx([20, 20, 20])
    assert figures["unscaled"] is None
    words = describe_boxes(figures)
    assert "3D IoU 0.50 on average, 50.0 % ≥ 0.25, 50.0 % ≥ 0.5" in words
    assert words.endswith("not compared by box: videos without masks: 2")
    empty = summarize_boxes([], {})
    assert empty["share25"] is None and describe_boxes(empty) == ""
    assert describe_boxes(summarize_boxes([BoxResult()], {})) == ""
