"""What is expected is judged by what the image shows around it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from scripted_node import car
from streams import estimate, pose
from uns_pose_ros.core.camera import assumed_camera
from uns_pose_ros.core.crops import crop_from_image, square_around
from uns_pose_ros.estimation.stream.expectation import (
    ExpectedObject,
    agrees,
    blank_boxes,
    filled_regions,
    outside_boxes,
    project_box,
    region_of_box,
    whole_object_box,
)

BOX = torch.tensor([100.0, 100, 200, 160], dtype=torch.float64)
CAMERA = assumed_camera(320, 240)


@pytest.mark.parametrize(
    ("fills", "share"),
    [
        ([(6, 26, 4, 28)], 24 / 32),  # rows and columns of cells: what the box expects
        ([(0, 32, 0, 32)], 1.0),  # a patch of background that goes on beyond the box
        ([(12, 20, 12, 20)], 8 / 32),  # something small in a large box
        ([(12, 20, 6, 14), (12, 20, 18, 26)], 20 / 32),  # divided by something before it
        ([(12, 20, 8, 24), (0, 32, 30, 32)], 16 / 32),  # another object beside the box
        ([(0, 32, 30, 32)], 1.0),  # only another object
        ([], 1.0),
    ],
)
def test_a_pose_is_compared_with_what_presence_fills_not_with_the_predicted_box(
    fills: list[tuple[int, int, int, int]], share: float
) -> None:
    presence = torch.zeros(1, 32, 32)
    for top, bottom, left, right in fills:
        presence[0, top:bottom, left:right] = 0.9
    maps = crop_from_image(square_around(BOX[None], 0.15), 224)
    filled = filled_regions(presence, BOX[None], maps, 224, 0.5)
    assert filled.tolist() == pytest.approx([share])


def test_the_region_of_an_object_is_what_a_search_would_give() -> None:
    assert region_of_box(BOX, 0.8, CAMERA).tolist() == [87.5, 92.5, 212.5, 167.5]  # type: ignore[union-attr]
    half_outside = torch.tensor([-40.0, 100, 60, 160], dtype=torch.float64)
    assert region_of_box(half_outside, 1.0, CAMERA).tolist() == [0, 100, 60, 160]  # type: ignore[union-attr]
    for gone in ([-80.0, 100, 20, 160], [400.0, 100, 500, 160], [math.nan] * 4):
        assert region_of_box(torch.tensor(gone).double(), 1.0, CAMERA) is None


def test_the_box_of_a_pose_does_not_depend_on_its_scale_and_none_is_behind_the_camera() -> (
    None
):
    model = car(0.2)
    small = estimate(pose((0.0, 40.0, 0.0), (0.02, 0.0, 0.8)), size=0.2)
    large = estimate(pose((0.0, 40.0, 0.0), (0.2, 0.0, 8.0)), size=2.0)
    assert torch.allclose(
        project_box(model, small, CAMERA), project_box(model, large, CAMERA)
    )
    behind = estimate(pose((0.0, 0.0, 0.0), (0.0, 0.0, -1.0)))
    assert bool(project_box(model, behind, CAMERA).isnan().all())


def test_the_whole_object_has_the_parts_that_the_template_lacks() -> None:
    one = estimate(pose((0.0, 0.0, 0.0), (0.0, 0.0, 1.0)))
    x, y, f = (float(CAMERA.matrix[row]) for row in ((0, 2), (1, 2), (0, 0)))
    template = torch.tensor([x - 5, y - 5, x + 5, y + 5]).double()
    one = replace(one, box=template)
    assert whole_object_box(one, CAMERA).tolist() == template.tolist()  # no box in space
    legs = replace(
        one,
        size=torch.tensor([0.02, 0.4, 0.0]).double(),
        center=torch.tensor([0.0, 0.2, 0.0]).double(),
    )
    assert whole_object_box(legs, CAMERA).tolist() == pytest.approx(
        [x - max(5, 0.01 * f), y - 5, x + max(5, 0.01 * f), y + 0.4 * f]
    )
    behind = replace(legs, cam_from_canon=pose((0.0, 0.0, 0.0), (0.0, 0.0, -1.0)))
    assert whole_object_box(behind, CAMERA).tolist() == template.tolist()


def test_an_estimate_agrees_where_it_is_expected_with_its_usual_score() -> None:
    entry = ExpectedObject(estimate(torch.eye(4).double()), 0.5)
    there = torch.tensor([0.0, 0, 9, 9], dtype=torch.float64)  # the box of the estimates
    good, weak = (estimate(torch.eye(4).double(), score) for score in (0.6, 0.4))
    assert agrees(entry, there, good)
    assert not agrees(entry, there, weak)
    assert not agrees(entry, there + torch.tensor([5.0, 0, 5, 0]), good)


def test_parts_of_an_object_that_is_followed_are_left_out_and_neighbors_are_not() -> None:
    part, beside = [110.0, 110, 150, 140], [190.0, 100, 260, 160]
    both = [100.0, 100, 330, 160]  # the object and another one beside it
    regions = torch.tensor([part, beside, both], dtype=torch.float64)
    assert outside_boxes(regions, [BOX], 0.1).tolist() == [beside, both]
    assert outside_boxes(regions, [], 0.1).tolist() == regions.tolist()
    assert outside_boxes(regions[:0], [BOX], 0.1).shape == (0, 4)


def test_beside_an_object_that_is_followed_another_one_is_found_alone() -> None:
    presence = np.ones((10, 20), np.float32)
    box = torch.tensor([-3.0, 1, 8, 7], dtype=torch.float64)
    blank = blank_boxes(presence, [box], 0.1)
    assert not blank[:9, :10].any() and blank[:, 10:].all() and blank[9].all()
    assert presence.all()
    outside = torch.tensor([30.0, -9, 40, -1], dtype=torch.float64)
    assert blank_boxes(presence, [outside], 0.0).all()
