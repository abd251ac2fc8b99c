"""No set of numbers that is accepted lets a recording keep nothing: corners of the ranges."""

from __future__ import annotations

import dataclasses
import itertools

import cv2
import numpy as np
import pytest

from camera_ring import view
from textures import scene
from uns_pose_ros.capture.keyframes import (
    FrameStats,
    KeyframeChooser,
    KeyframeConfig,
    measure_frame,
)
from uns_pose_ros.io.encoded_image import EncodedImage

_ENDS = {
    field.name: (field.metadata["low"], field.metadata["high"])
    for field in dataclasses.fields(KeyframeConfig)
}
_CORNERS = [
    dict(zip(_ENDS, ends, strict=True)) for ends in itertools.product(*_ENDS.values())
]


@pytest.fixture(scope="module")
def film() -> list[FrameStats]:
    """A camera on its way past a scene with a small lamp in it."""
    images = []
    for k in range(8):
        pixels = scene(0)[100:340, 100 + 80 * k : 420 + 80 * k].copy()
        cv2.circle(pixels, (160, 120), 20, (255, 255, 255), -1)
        images.append(measure_frame(EncodedImage.of_pixels(pixels.astype(np.uint8))))
    return images


def kept(film: list[FrameStats], config: KeyframeConfig, *, posed: bool) -> int:
    """Number of images that are kept."""
    chooser = KeyframeChooser(config)
    for k, stats in enumerate(film):
        pose = view(50.0 * k) if posed else None
        if chooser.rejection_reason(stats) is None and chooser.is_new_view(stats, pose):
            chooser.keep(stats, pose)
    return len(chooser.orbit) if posed else int(chooser._last is not None)


@pytest.mark.parametrize("posed", [True, False])
def test_images_are_kept_with_all_numbers_at_ends_of_their_ranges(
    film: list[FrameStats], posed: bool
) -> None:
    for values in _CORNERS:
        config = KeyframeConfig(**values)
        assert kept(film, config, posed=posed) >= (2 if posed else 1), values


def test_a_camera_that_moves_on_is_a_new_view_with_the_largest_shift(
    film: list[FrameStats],
) -> None:
    chooser = KeyframeChooser(KeyframeConfig(view_shift=_ENDS["view_shift"][1]))
    chooser.keep(film[0])
    assert any(chooser.is_new_view(stats) for stats in film[1:])
