"""Overlap of boxes against volumes that are known, and the average precision."""

from __future__ import annotations

import math

import pytest
import torch

from uns_pose_ros.core.geometry import random_rotations, rotation_from_vector
from uns_pose_ros.evaluation.box_overlap import OrientedBox, average_precision, box_iou_3d

EYE = torch.eye(3, dtype=torch.float64)


def box(
    center: tuple[float, ...] = (0, 0, 5),
    extents: tuple[float, ...] = (1, 1, 1),
    rotation: torch.Tensor = EYE,
) -> OrientedBox:
    return OrientedBox(
        rotation,
        torch.tensor(center, dtype=torch.float64),
        torch.tensor(extents, dtype=torch.float64),
    )


@pytest.mark.parametrize(
    ("a", "b", "iou"),
    [
        (box(), box(), 1.0),
        (box(), box((0.5, 0, 5)), 1 / 3),
        (box(), box((0.5, 0.5, 5)), 1 / 7),
        (box(), box(extents=(0.5, 0.5, 0.5)), 1 / 8),
        (box(), box((1, 0, 5)), 0.0),
        (box(), box((3, 0, 5)), 0.0),
        (box(extents=(2, 1, 1)), box(extents=(1, 2, 1)), 1 / 3),
    ],
)
def test_boxes_along_the_axes_overlap_as_counted_by_hand(
    a: OrientedBox, b: OrientedBox, iou: float
) -> None:
    assert box_iou_3d(a, b) == pytest.approx(iou, abs=1e-9)
    assert box_iou_3d(b, a) == pytest.approx(iou, abs=1e-9)


def test_two_cubes_turned_by_half_a_right_angle_share_an_octagon() -> None:
    turn = rotation_from_vector(torch.tensor([0, 0, math.pi / 4], dtype=torch.float64))
    shared = 2 * (math.sqrt(2) - 1)
    assert box_iou_3d(box(), box(rotation=turn)) == pytest.approx(shared / (2 - shared))


def test_the_overlap_is_what_random_points_say() -> None:
    generator = torch.Generator().manual_seed(3)
    points = torch.rand(200_000, 3, generator=generator, dtype=torch.float64) * 4 - 2
    for rotation in random_rotations(3, generator):
        a = box((0, 0, 0), (1.0, 1.5, 0.7))
        b = box((0.2, -0.1, 0.3), (0.8, 1.1, 1.2), rotation)
        inside = [
            (((points - one.center) @ one.rotation).abs() <= one.extents / 2).all(1)
            for one in (a, b)
        ]
        expected = (inside[0] & inside[1]).sum() / (inside[0] | inside[1]).sum()
        assert box_iou_3d(a, b) == pytest.approx(float(expected), abs=0.02)


@pytest.mark.parametrize(
    ("scored", "truths", "precision"),
    [
        ([(0.9, True), (0.8, True)], 2, 100),
        ([(0.9, False), (0.8, True)], 1, 50),
        ([(0.8, True), (0.9, False), (0.7, True)], 2, 100 * (2 / 3 + 2 / 3) / 2),
        ([(0.9, True)], 4, 25),
        ([], 2, 0),
        ([(0.9, False)], 0, None),
    ],
)
def test_average_precision_is_the_area_below_the_curve(
    scored: list[tuple[float, bool]], truths: int, precision: float | None
) -> None:
    assert average_precision(scored, truths) == pytest.approx(precision)
