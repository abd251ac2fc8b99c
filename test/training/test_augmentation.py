"""Random views stay true to the map that is returned with them."""

from __future__ import annotations

import numpy as np
import pytest

from uns_pose_ros.training.augmentation import AugmentConfig, augment

PLAIN = AugmentConfig(
    background_probability=0.0,
    occlusion_probability=0.0,
    colour_probability=0.0,
    blur_probability=0.0,
    jpeg_probability=0.0,
)


def scene() -> tuple[np.ndarray, np.ndarray]:
    """A picture whose red and green tell the pixel's column and row, and a mask of a rectangle."""
    rows, columns = np.mgrid[:200, :240]
    image = np.stack([columns, rows, np.full_like(rows, 128)], -1).astype(np.uint8)
    mask = np.zeros((200, 240), bool)
    mask[60:140, 70:190] = True
    return image, mask


@pytest.mark.parametrize("seed", range(6))
def test_every_visible_pixel_shows_what_the_map_says(seed: int) -> None:
    image, mask = scene()
    view, visible, crop_from_image = augment(
        image, mask, 112, np.random.default_rng(seed), [], PLAIN
    )
    rows, columns = np.nonzero(visible)
    source = np.linalg.inv(crop_from_image) @ np.stack([columns, rows, np.ones_like(rows)])
    x, y = source[:2] / source[2]
    error = np.abs(view[rows, columns, :2] - np.stack([x, y], 1))
    assert np.percentile(error, 95) < 14  # noise of at most 10 grey levels is added
    assert (
        mask[y.round().astype(int).clip(0, 199), x.round().astype(int).clip(0, 239)].mean()
        > 0.98
    )
    assert view.shape == (112, 112, 3)


def test_the_same_seed_gives_the_same_view_and_another_seed_another() -> None:
    image, mask = scene()
    photo = np.random.default_rng(0).integers(0, 255, (90, 120, 3)).astype(np.uint8)
    views = [
        augment(image, mask, 112, np.random.default_rng(seed), [photo])[0]
        for seed in (1, 1, 2)
    ]
    assert np.array_equal(views[0], views[1])
    assert not np.array_equal(views[0], views[2])


def test_something_of_the_object_is_always_left() -> None:
    image, mask = scene()
    hard = AugmentConfig(
        occlusion_probability=1.0, occlusion=(0.4, 0.9), far_probability=0.5
    )
    counts = [
        augment(image, mask, 112, np.random.default_rng(seed), [], hard)[1].sum()
        for seed in range(40)
    ]
    assert min(counts) > 50
