"""Masks as other programs write them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from uns_pose_ros.core.errors import DiskError
from uns_pose_ros.io.images import read_image, read_mask

OBJECT = np.zeros((48, 64), bool)
OBJECT[10:30, 20:40] = True


def _of_labels(*values: int) -> np.ndarray:
    """The object has two labels; a third lies around it."""
    labels = np.zeros(OBJECT.shape, np.uint8)
    labels[5:6] = values[2]
    labels[OBJECT] = values[0]
    labels[12:20, 20:30] = values[1]
    return labels


def _in_colors() -> np.ndarray:
    colors = np.zeros((*OBJECT.shape, 3), np.uint8)
    colors[OBJECT] = 0, 0, 128
    colors[12:14, 20:22] = 192, 128, 0
    return colors


def _cut_out(channels: int) -> np.ndarray:
    """Everything has one color, and only the object is opaque."""
    pixels = np.full((*OBJECT.shape, channels), 77, np.uint8)
    pixels[..., -1] = np.where(OBJECT, 255, 0)
    return pixels


MASKS = {
    "labels": _of_labels(1, 2, 0),
    "labels with doubtful borders": _of_labels(1, 2, 255),
    "numbers of 0 and 1": _of_labels(1, 1, 0),
    "soft": _of_labels(255, 140, 90),
    "colors": _in_colors(),
    "cut out": _cut_out(4),
    "cut out, gray": _cut_out(2),
    "gray as color": np.repeat(_of_labels(1, 2, 0)[..., None], 3, axis=-1),
}


@pytest.mark.parametrize("kind", MASKS)
def test_a_mask_shows_the_object_however_it_is_written(tmp_path: Path, kind: str) -> None:
    Image.fromarray(MASKS[kind]).save(tmp_path / "a.png")
    assert np.array_equal(read_mask(tmp_path / "a.png").numpy(), OBJECT)


def test_labels_of_sixteen_bits_keep_their_numbers(tmp_path: Path) -> None:
    for scale in (1, 257 * 127):
        labels = OBJECT.astype(np.uint16) * scale
        cv2.imwrite(str(tmp_path / "a.png"), labels)
        assert np.array_equal(read_mask(tmp_path / "a.png").numpy(), OBJECT)


def test_an_image_on_a_failing_disk_is_not_called_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(
        DiskError, match=r"a\.png: the image: cannot be read \(Input/output"
    ):
        read_image(tmp_path / "a.png")
