"""An image message of any encoding becomes the same RGB image for all that read it."""

from __future__ import annotations

import itertools
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rosbags")
from bag_writer import compressed, header, make, raw
from camera_messages import (
    KINDS,
    check_entries,
    image_message,
    random_rgb,
    reduced,
    with_alpha,
)
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io.images import to_eight_bits
from uns_pose_ros.io.ros import ros_messages
from uns_pose_ros.io.ros.ros_messages import decode_image, jpeg_file, unpack_pixels

BAYER = list(itertools.product(["rggb", "bggr", "gbrg", "grbg"], [8, 16]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("order", ["rgb", "bgr", "rgba", "bgra", "mono"])
def test_color_and_gray_images_are_read_whatever_their_layout(
    kind: str, padding: int, big: bool, bits: int, order: str
) -> None:
    rgb = random_rgb(f"u{bits // 8}")
    if order == "mono":
        rgb = np.dstack([rgb[..., 0]] * 3)
    stored = rgb[..., ::-1] if order.startswith("bgr") else rgb
    if order.endswith("a"):
        stored = with_alpha(stored)
    if order == "mono":
        stored = stored[..., 0]
    for encoding in (f"{order}{bits}", f"{order}{bits}".upper()):
        check_entries(image_message(kind, encoding, stored, padding, big), reduced(rgb))


@pytest.mark.parametrize("kind", KINDS)
def test_opencv_names_without_an_order_are_bgr(kind: str) -> None:
    rgb = random_rgb("u1")
    check_entries(image_message(kind, "8UC3", rgb[..., ::-1]), rgb)
    check_entries(image_message(kind, "8UC4", with_alpha(rgb[..., ::-1])), rgb)
    gray = np.dstack([rgb[..., 0]] * 3)
    check_entries(image_message(kind, "8UC1", rgb[..., 0]), gray)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(("pattern", "bits"), BAYER)
def test_a_bayer_mosaic_of_one_color_becomes_that_color(
    pattern: str, bits: int, big: bool
) -> None:
    color = np.array([200, 10, 20], f"u{bits // 8}") * (257 if bits == 16 else 1)
    tile = np.array([color["rgb".index(c)] for c in pattern], color.dtype).reshape(2, 2)
    message = image_message(
        "rosbags", f"bayer_{pattern}{bits}", np.tile(tile, (4, 4)), 2, big
    )
    check_entries(message, np.broadcast_to(np.array([200, 10, 20], np.uint8), (8, 8, 3)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "encoding", ["yuv422", "uyvy", "yuv422_yuy2", "yuyv", "nv12", "nv21"]
)
def test_yuv_images_keep_gray_and_tell_red_from_blue(kind: str, encoding: str) -> None:
    def message(y: int, u: int, v: int) -> Any:
        if encoding in ("nv12", "nv21"):
            first, second = (u, v) if encoding == "nv12" else (v, u)
            plane = np.full((6, 4), y, np.uint8)
            plane[4:, 0::2] = first
            plane[4:, 1::2] = second
            result = image_message(kind, encoding, plane, padding=3)
            result.height = 4
            return result
        luma = 0 if encoding in ("yuv422_yuy2", "yuyv") else 1
        pixels = np.full((4, 4, 2), y, np.uint8)
        pixels[:, 0::2, 1 - luma] = u
        pixels[:, 1::2, 1 - luma] = v
        return image_message(kind, encoding, pixels, padding=3)

    gray = decode_image(message(126, 128, 128))  # luma 126 of 16..235 is 128 of 0..255
    assert gray.shape == (4, 4, 3) and np.abs(gray.astype(int) - 128).max() <= 1
    red = decode_image(message(82, 90, 240))
    assert np.abs(red.astype(int) - [255, 0, 0]).max() <= 3
    blue = decode_image(message(41, 240, 110))
    assert np.abs(blue.astype(int) - [0, 0, 255]).max() <= 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(
    ("encoding", "dtype"), [("mono16", "u2"), ("16UC1", "u2"), ("32FC1", "f4")]
)
def test_unpacked_values_survive_padding_and_byte_order(
    kind: str, big: bool, encoding: str, dtype: str
) -> None:
    values = np.array([[1, 258, 40000], [3, 4, 65535]]).astype(dtype)
    unpacked = unpack_pixels(image_message(kind, encoding, values, padding=6, big=big))
    assert unpacked.dtype == np.dtype(dtype)
    assert np.array_equal(unpacked, values)


def test_cv_bridge_unpacks_the_same_values() -> None:
    bridge = pytest.importorskip("cv_bridge").CvBridge()
    rgb = random_rgb("u1")
    for encoding, pixels in (
        ("bgr8", rgb),
        ("16UC1", rgb[..., 0].astype(np.uint16) * 300),
        ("mono8", rgb[..., 1]),
    ):
        message = image_message("rclpy", encoding, pixels, padding=4)
        expected = bridge.imgmsg_to_cv2(message, "passthrough")
        assert np.array_equal(expected, unpack_pixels(message))


def test_sixteen_bits_are_scaled_by_the_full_range() -> None:
    values = np.arange(65536, dtype=np.uint16)
    scaled = to_eight_bits(values)
    assert np.abs(scaled * 257.0 - values).max() <= 128.5
    assert scaled[[0, 128, 129, 65535]].tolist() == [0, 0, 1, 255]


RGB = random_rgb("u1")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("encoding", "change", "reason"),
    [
        ("yuv9", {}, "'yuv9' is not supported; valid are rgb8, bgr8"),
        ("32FC1", {}, "'32FC1' is depth, no color; valid are rgb8"),
        ("16UC1", {}, "'16UC1' is depth, no color"),
        ("rgb8", {"step": 8}, "with step 8 has 144 bytes; a row needs 24 bytes"),
        ("rgb8", {"height": 10_000}, "8 x 10000 px rgb8 with step 24 has 144 bytes"),
        ("rgb8", {"height": 0}, "has no valid size"),
        ("rgb8", {"width": 2**31}, "has no valid size"),
        ("yuyv", {"width": 7}, "has an odd size"),
        ("nv12", {"height": 3}, "has an odd size"),
    ],
)
def test_images_that_cannot_be_read_are_refused(
    kind: str, encoding: str, change: dict[str, int], reason: str
) -> None:
    message = image_message(kind, encoding, RGB)
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(InvalidInput, match=reason) as caught:
        decode_image(message)
    assert len(str(caught.value).splitlines()) == 1


def test_native_byte_order_is_returned() -> None:
    values = unpack_pixels(
        image_message("rosbags", "mono16", RGB[..., 0].astype("u2"), 0, True)
    )
    assert values.dtype.byteorder in ("=", "<" if sys.byteorder == "little" else ">")


@pytest.mark.parametrize("name", ["mono16", "bayer_rggb16", "rgb16"])
def test_sixteen_bits_of_which_the_lower_ones_are_used_are_noticed(name: str) -> None:
    channels = ros_messages.ENCODINGS[name].channels
    for largest in (4095, 65535):
        data = np.full((4, 6 * channels), largest, "<u2")
        message = SimpleNamespace(
            height=4,
            width=6,
            encoding=name,
            is_bigendian=0,
            step=12 * channels,
            data=data.tobytes(),
        )
        pixels = decode_image(message)
        assert ros_messages.uses_few_bits(message, pixels) == (largest == 4095)
    dark = SimpleNamespace(encoding="mono8")
    assert not ros_messages.uses_few_bits(dark, np.zeros((4, 6, 3), np.uint8))


def test_encodings_become_rgb_and_lies_about_sizes_are_noticed() -> None:
    red = np.zeros((4, 6, 3), np.uint8)
    red[..., 0] = 200
    assert decode_image(raw(0, red)).tolist() == red.tolist()
    assert decode_image(raw(0, red[..., ::-1], "bgr8")).tolist() == red.tolist()
    bayer = make(
        "sensor_msgs/msg/Image",
        header=header(0, "c"),
        height=4,
        width=4,
        encoding="bayer_rggb8",
        is_bigendian=0,
        step=4,
        data=np.tile(np.array([[200, 0], [0, 0]], np.uint8), (2, 2)).ravel(),
    )
    assert decode_image(bayer)[1, 1].tolist() == [200, 0, 0]
    image, file = decode_image(compressed(0, red)), jpeg_file(compressed(0, red))
    assert file is not None and np.abs(image.astype(int) - red).max() < 5
    lie = raw(0, red)
    lie.height = 10_000
    broken = compressed(0, red)
    broken.data = broken.data[:20]
    depth = raw(0, red, "32FC1")
    for message, reason in (
        (lie, "10000 px rgb8 with step"),
        (broken, "of 20 bytes"),
        (depth, "'32FC1' is depth, no color"),
    ):
        with pytest.raises(InvalidInput, match=reason):
            decode_image(message)
