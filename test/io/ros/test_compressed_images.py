"""A compressed image message is read with all its bits, or it is refused before it takes memory."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("rosbags")
from camera_messages import (
    KINDS,
    check_entries,
    compressed_message,
    random_rgb,
    reduced,
    with_alpha,
)
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io import images
from uns_pose_ros.io.images import decode_rgb
from uns_pose_ros.io.ros.ros_messages import decode_image, read_encoded_image


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("mode", ["gray", "rgb", "rgba"])
@pytest.mark.parametrize("ending", [".png", ".tiff"])
def test_lossless_files_are_read_with_all_their_bits(
    kind: str, bits: int, mode: str, ending: str
) -> None:
    rgb = random_rgb(f"u{bits // 8}")
    if mode == "gray":
        rgb = np.dstack([rgb[..., 0]] * 3)
    stored = {
        "gray": rgb[..., 0],
        "rgb": rgb[..., ::-1],
        "rgba": with_alpha(rgb[..., ::-1]),
    }
    data = cv2.imencode(ending, stored[mode])[1].tobytes()
    check_entries(compressed_message(kind, data), reduced(rgb))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["BMP", "WEBP", "JPEG"])
def test_other_files_are_read_too(kind: str, name: str) -> None:
    rgb = random_rgb("u1", 32, 48)
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, name, **({"lossless": True} if name == "WEBP" else {}))
    expected = rgb
    if name == "JPEG":
        expected = np.array(Image.open(io.BytesIO(file.getvalue())))
    check_entries(compressed_message(kind, file.getvalue()), expected)


PNG = cv2.imencode(".png", random_rgb("u1", 40, 40))[1].tobytes()

JPEG = cv2.imencode(".jpg", random_rgb("u1", 40, 40))[1].tobytes()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("data", "name", "reason"),
    [
        (b"", "jpeg", "of 0 bytes and format 'jpeg' holds no data"),
        (
            b"rubbish",
            "h264",
            "'h264' is broken or of unknown format; JPEG, PNG, .* is valid",
        ),
        (b"GIF89a" + bytes(100), "gif", "of unknown format"),
        (PNG[: len(PNG) // 2], "png", "is broken"),
        (JPEG[: len(JPEG) // 2], "jpeg", "is broken"),
        (PNG, "16UC1; png compressed ", "is depth, no color"),
    ],
)
def test_files_that_are_no_image_are_refused(
    kind: str, data: bytes, name: str, reason: str
) -> None:
    with pytest.raises(InvalidInput, match=reason) as caught:
        decode_image(compressed_message(kind, data, name))
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(InvalidInput):
        read_encoded_image(compressed_message(kind, data, name)).preview(100)


def test_the_header_bounds_the_size_before_pixels_are_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 1000)
    monkeypatch.setattr(cv2, "imdecode", None)
    for data in (PNG, JPEG):
        with pytest.raises(InvalidInput, match="claims 40 x 40 px"):
            decode_rgb(data, "the image")
