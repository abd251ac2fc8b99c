"""Objects that touch in an image are parted by their cells, and found one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from small_model import CLIP
from uns_pose_ros.core.crops import crop_from_image, mask_box
from uns_pose_ros.core.types import Camera
from uns_pose_ros.estimation.estimator import Estimator, EstimatorConfig
from uns_pose_ros.estimation.regions.touching_objects import (
    HiddenCells,
    divide_cells,
    hide_cells,
)
from uns_pose_ros.estimation.stream.expectation import box_iou
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.images import read_image, read_mask
from uns_pose_ros.io.video_folder import load_video

FRAMES = (3, 9, 12, 15, 18, 21)


def disk(row: float, column: float, radius: float) -> np.ndarray:
    """Cells (24, 32) of a disk."""
    rows, columns = np.mgrid[:24, :32]
    return (rows - row) ** 2 + (columns - column) ** 2 <= radius**2


def vertices_on(cells: np.ndarray) -> np.ndarray:
    """Columns and rows (V, 2) of vertices that a pose projects onto cells."""
    return np.argwhere(cells)[:, ::-1].astype(float)


def test_the_cells_of_two_disks_that_touch_are_parted_where_they_touch() -> None:
    left, right = disk(12, 8, 6), disk(12, 21, 6)
    right &= ~left
    shown = left | right
    first, second = divide_cells(shown, vertices_on(disk(12, 8, 5.5)), 6)
    assert not (first & second).any()
    assert np.array_equal(first | second, shown)
    assert (first & left).sum() > 0.95 * left.sum()
    assert (second & right).sum() > 0.95 * right.sum()


@pytest.mark.parametrize("radius", [0, 1.5])
def test_neither_one_object_nor_its_handle_is_parted(radius: float) -> None:
    """A template may lack thin parts of an object."""
    body = disk(12, 10, 8)
    assert divide_cells(body | disk(12, 22, radius), vertices_on(body), 6) == []


def test_three_objects_are_three_parts_and_without_vertices_nothing_is_parted() -> None:
    blobs = [disk(12, 16, 4), disk(12, 6, 4), disk(12, 26, 4)]
    shown = np.any(blobs, axis=0) | (disk(12, 16, 15) & (np.mgrid[:24, :32][0] == 12))
    parts = divide_cells(shown, vertices_on(blobs[0]), 6)
    assert [int((part & blob).sum()) for part, blob in zip(parts, blobs, strict=True)] == [
        int(blob.sum()) for blob in blobs
    ]
    assert divide_cells(shown, vertices_on(blobs[0]) + 100, 6) == []


def test_a_crop_of_one_part_hides_the_cells_of_the_others() -> None:
    """The crop shows the right half of the image's square, twice as large."""
    whole = crop_from_image(torch.tensor([[0.0, 0, 112, 112]]), 112)
    half = crop_from_image(torch.tensor([[56.0, 28, 112, 84]]), 112)
    cells = np.zeros((16, 16), bool)
    cells[:, 12:] = True  # from 84 px on
    seen = hide_cells(torch.ones(1, 16, 16), half, [HiddenCells(cells, whole[0])])[0]
    expected = torch.ones(16, 16)
    expected[:, 8:] = 0
    assert torch.equal(seen, expected)


def twins(index: int) -> tuple[Tensor, Camera, list[Tensor]]:
    """An image (H, W, 3) of a chair with its copy beside it, and their boxes (4,)."""
    frame = load_video(CLIP).frames[index]
    assert frame.mask is not None
    image, mask = read_image(frame.image), read_mask(frame.mask)
    box = mask_box(mask)
    shift = int(0.9 * float(box[2] - box[0]))  # the masks touch
    wide = torch.nn.functional.pad(
        image.permute(2, 0, 1)[None].float(), (60, shift + 60, 20, 20), mode="replicate"
    )[0]
    wide = wide.permute(1, 2, 0).byte()
    rows, columns = mask.nonzero().T
    wide[rows + 20, columns + 60 + shift] = image[rows, columns]
    matrix = frame.camera.matrix.clone()
    matrix[:2, 2] += torch.tensor([60.0, 20.0])
    first = box + torch.tensor([60.0, 20, 60, 20])
    second = first + torch.tensor([shift, 0, shift, 0])
    return wide, Camera(matrix, wide.shape[1], wide.shape[0]), [first, second]


def test_both_of_two_objects_that_touch_are_found(chair_model: Path) -> None:
    estimator = Estimator(artifacts.load_model(chair_model), device="cpu")
    found = 0
    for index in FRAMES:
        image, camera, boxes = twins(index)
        estimates = estimator(image, camera)
        nearest = {
            max(range(2), key=lambda k: box_iou(boxes[k], one.box)) for one in estimates
        }
        found += len(estimates) == len(nearest) == 2
    assert found >= len(FRAMES) / 2  # the model is trained for seconds only
    estimator.config = EstimatorConfig(touching_share=1.0)
    assert len(estimator(image, camera)) < 2
