"""Each message becomes the same image and the same camera in the nodes, the recorder and bags."""

from __future__ import annotations

import array
import io
import itertools
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("rosbags")
from rosbags.rosbag2 import StoragePlugin

import bag_writer
from uns_pose_ros.capture.import_source import import_video
from uns_pose_ros.capture.video_writer import ImportConfig
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Camera
from uns_pose_ros.evaluation.bag_config import BagConfig
from uns_pose_ros.evaluation.rosbag_evaluation import estimate_bag_frames
from uns_pose_ros.io import images
from uns_pose_ros.io.images import decode_rgb, read_image, to_eight_bits
from uns_pose_ros.io.ros import ros_messages
from uns_pose_ros.io.ros.ros_messages import (
    decode_image,
    read_camera_info,
    read_encoded_image,
    unpack_pixels,
)
from uns_pose_ros.io.video_folder import load_video

KINDS = ["rosbags", "rclpy"]
BAYER = list(itertools.product(["rggb", "bggr", "gbrg", "grbg"], [8, 16]))


def random_rgb(dtype: str, height: int = 6, width: int = 8) -> np.ndarray:
    values = np.random.default_rng(0).integers(
        0, np.iinfo(dtype).max + 1, (height, width, 3)
    )
    return values.astype(dtype)


def image_message(
    kind: str, encoding: str, pixels: np.ndarray, padding: int = 0, big: bool = False
) -> Any:
    """An Image of rows of `pixels` (H, W[, C]), with `padding` bytes after each row."""
    stored = pixels.astype(pixels.dtype.newbyteorder(">" if big else "<"))
    data = b"".join(row.tobytes() + b"\xaa" * padding for row in stored)
    fields = {
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "encoding": encoding,
        "is_bigendian": int(big),
        "step": len(data) // len(pixels),
    }
    if kind == "rosbags":
        values = np.frombuffer(data, np.uint8)
        head = bag_writer.header(0, "cam")
        return bag_writer.make(ros_messages.IMAGE, header=head, data=values, **fields)
    messages = pytest.importorskip("sensor_msgs.msg")
    message = messages.Image(**fields)
    message.data = array.array("B", data)
    return message


def compressed_message(kind: str, data: bytes, name: str = "rgb8; png compressed") -> Any:
    if kind == "rosbags":
        values = np.frombuffer(data, np.uint8)
        head = bag_writer.header(0, "cam")
        return bag_writer.make(
            ros_messages.COMPRESSED, header=head, format=name, data=values
        )
    messages = pytest.importorskip("sensor_msgs.msg")
    return messages.CompressedImage(format=name, data=array.array("B", data))


def info_message(kind: str, **changes: Any) -> Any:
    """A CameraInfo of 64 x 48 px; `roi` is x, y, width, height."""
    x, y, width, height = changes.pop("roi", (0, 0, 0, 0))
    region = {"x_offset": x, "y_offset": y, "width": width, "height": height}
    fields: dict[str, Any] = {
        "width": 64,
        "height": 48,
        "distortion_model": "plumb_bob",
        "d": [0.1, -0.2, 0.001, 0.002, 0.05],
        "k": [100.0, 0, 31.0, 0, 110.0, 23.0, 0, 0, 1],
        "p": [90.0, 0, 30.0, -45.0, 0, 95.0, 22.0, 0, 0, 0, 1, 0],
        "r": np.eye(3).ravel().tolist(),
        "binning_x": 0,
        "binning_y": 0,
        **changes,
    }
    arrays = {name: np.array(fields[name], float) for name in ("d", "k", "p", "r")}
    if kind == "rosbags":
        roi = bag_writer.make(
            "sensor_msgs/msg/RegionOfInterest", do_rectify=False, **region
        )
        head = bag_writer.header(100, "cam_optical")
        return bag_writer.make(
            ros_messages.CAMERA_INFO, header=head, roi=roi, **{**fields, **arrays}
        )
    messages = pytest.importorskip("sensor_msgs.msg")
    return messages.CameraInfo(
        roi=messages.RegionOfInterest(**region),
        **{**fields, **{name: values.tolist() for name, values in arrays.items()}},
    )


def reduced(values: np.ndarray) -> np.ndarray:
    """The rule for 16 bits, written a second time."""
    return values if values.dtype == np.uint8 else np.rint(values / 257).astype(np.uint8)


def with_alpha(pixels: np.ndarray) -> np.ndarray:
    return np.dstack([pixels, np.full(pixels.shape[:2], 9, pixels.dtype)])


def check_entries(message: Any, expected: np.ndarray) -> None:
    """Estimator, import and evaluation decode the message; the recorder keeps or decodes it."""
    assert np.array_equal(decode_image(message), expected)
    kept = read_encoded_image(message)
    assert (kept.height, kept.width) == expected.shape[:2]
    assert np.array_equal(kept.preview(max(expected.shape)), expected)


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


def test_sixteen_bits_are_scaled_by_the_full_range() -> None:
    values = np.arange(65536, dtype=np.uint16)
    scaled = to_eight_bits(values)
    assert np.abs(scaled * 257.0 - values).max() <= 128.5
    assert scaled[[0, 128, 129, 65535]].tolist() == [0, 0, 1, 255]


RGB = random_rgb("u1")
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


# Cameras


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize("roi", [(0, 0, 0, 0), (8, 4, 32, 24)])
@pytest.mark.parametrize("binning", [(0, 0), (2, 2), (4, 2)])
@pytest.mark.parametrize("resize", [1, 2])
def test_a_ray_meets_the_pixel_that_averages_its_pixels_of_the_sensor(
    kind: str,
    rectified: bool,
    roi: tuple[int, int, int, int],
    binning: tuple[int, int],
    resize: int,
) -> None:
    """The center of each pixel is the mean of the centers of the sensor's pixels in it."""
    info = info_message(kind, roi=roi, binning_x=binning[0], binning_y=binning[1])
    x_offset, y_offset = roi[:2]
    width, height = roi[2] or 64, roi[3] or 48
    factors = [max(step, 1) * resize for step in binning]
    columns, rows = width // factors[0], height // factors[1]
    camera = read_camera_info(info, columns, rows, rectified)
    assert (camera.width, camera.height) == (columns, rows)
    assert len(camera.distortion) == (0 if rectified else 5)
    sensor = np.array(info.p if rectified else info.k, float).reshape(3, -1)[:, :3]
    for number in (0, 1, 5):
        mean_x = x_offset + np.mean(np.arange(factors[0]) + number * factors[0])
        mean_y = y_offset + np.mean(np.arange(factors[1]) + number * factors[1])
        ray = np.linalg.inv(sensor) @ [mean_x, mean_y, 1]
        pixel = camera.matrix.numpy() @ ray
        np.testing.assert_allclose(pixel[:2] / pixel[2], [number, number], atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_image_keeps_its_camera_whatever_region_and_binning_say(kind: str) -> None:
    for info in (
        info_message(kind, roi=(8, 4, 32, 24), binning_x=2),
        info_message(kind, width=0, height=0),
    ):
        camera = read_camera_info(info, 64, 48, rectified=False)
        assert camera.matrix.flatten().tolist() == list(info.k)


def test_a_width_that_binning_does_not_divide_loses_its_last_columns() -> None:
    camera = read_camera_info(info_message("rosbags", width=65, binning_x=2), 32, 48, False)
    assert float(camera.matrix[0, 0]) == 50
    half = read_camera_info(info_message("rosbags"), 32, 24, False)
    assert float(half.matrix[0, 2]) == (31.0 + 0.5) / 2 - 0.5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("model", "given", "kept"),
    [
        ("plumb_bob", [0.1, 0.2, 0.0, 0.0], 4),
        ("plumb_bob", [0.1, 0.2, 0.0, 0.0, 0.0], 5),
        ("", [0.1, 0.2, 0.3, 0.4, 0.5], 5),
        ("rational_polynomial", [0.1] * 8, 8),
        ("rational_polynomial", [0.1] * 8 + [0.0] * 4, 8),
        ("rational_polynomial", [0.1] * 8 + [0.0] * 6, 8),
        ("plumb_bob", [0.0] * 5, 0),
        ("plumb_bob", [], 0),
        ("none", [0.0] * 4, 0),
        ("inverse_brown_conrady", [0.0] * 5, 0),
        ("plumb_bob", [0.1, 0.2, 0.0, 0.0, 0.3] + [0.0] * 7, 8),
        ("plumb_bob", [0.1, 0.2, 0.0, 0.0, 0.3] + [0.0] * 9, 8),
    ],
)
def test_distortion_is_kept_and_zeros_after_the_eighth_do_not_matter(
    kind: str, model: str, given: list[float], kept: int
) -> None:
    camera = read_camera_info(
        info_message(kind, distortion_model=model, d=given), 64, 48, False
    )
    assert camera.distortion.tolist() == given[:kept]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", ["equidistant", "fisheye", "EQUIDISTANT"])
@pytest.mark.parametrize("count", [0, 4, 5])
def test_a_fisheye_lens_with_zeros_is_no_pinhole_camera(
    kind: str, model: str, count: int
) -> None:
    info = info_message(kind, distortion_model=model, d=[0.0] * count)
    with pytest.raises(InvalidInput, match="no pinhole camera even with zeros"):
        read_camera_info(info, 64, 48, False)
    assert read_camera_info(info, 64, 48, True).distortion.numel() == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("changes", "size", "rectified", "reason"),
    [
        ({"k": [0.0] * 9}, (64, 48), False, r"uncalibrated \(camera_info has K\[0\] = 0\)"),
        ({"p": [0.0] * 12}, (64, 48), True, r"P\[0\] = 0\): publish P, or set rectified"),
        ({"k": [0.0] * 9, "p": [0.0] * 12}, (64, 48), True, r"P\[0\] = 0\): calibrate it"),
        ({"k": [1.0, 0, 0, 0, 0, 0, 0, 0, 1]}, (64, 48), False, r"K\[4\] = 0"),
        ({"k": [np.nan] * 9}, (64, 48), False, "K that is not finite"),
        (
            {"k": [60.0, 0, 32, 0, 60, 24, 0, 0, 2]},
            (64, 48),
            False,
            r"0 0 2\) that is none",
        ),
        ({"k": [60.0, 0, 32, 5, 60, 24, 0, 0, 1]}, (64, 48), False, r"5 60 24; .* is none"),
        ({"d": [np.inf] * 5}, (64, 48), False, "coefficients that are not finite"),
        ({"distortion_model": "equidistant"}, (64, 48), False, "'equidistant' with 5"),
        (
            {"d": [0.1] * 3},
            (64, 48),
            False,
            "'plumb_bob' with 3 coefficients is not supported",
        ),
        ({"d": [0.1] * 12}, (64, 48), False, "12 .* thin prism terms are not 0"),
        (
            {},
            (64, 36),
            False,
            "image is 64 x 36 px, camera_info describes 64 x 48 px: the same",
        ),
        ({"roi": (0, 0, 32, 16)}, (32, 24), False, "camera_info describes 32 x 16 px"),
    ],
)
def test_cameras_that_cannot_be_used_are_refused(
    kind: str, changes: dict[str, Any], size: tuple[int, int], rectified: bool, reason: str
) -> None:
    with pytest.raises(InvalidInput, match=reason) as caught:
        read_camera_info(info_message(kind, **changes), *size, rectified)
    assert len(str(caught.value).splitlines()) == 1


# Bags


class Listener:
    """Keeps the images and cameras that an evaluation gives to its estimator."""

    def __init__(self) -> None:
        self.models = (SimpleNamespace(category="truck"),)
        self.seen: list[tuple[np.ndarray, Camera]] = []

    def __call__(self, image: np.ndarray, camera: Camera, **stream: Any) -> list[Any]:
        self.seen.append((image, camera))
        return []


def bag_message(name: str, rgb: np.ndarray, time: float) -> Any:
    """The image as a message for the bag, in the encoding `name`."""
    if name == "bgr16":
        message = image_message("rosbags", name, rgb[..., ::-1].astype("u2") * 257, 2, True)
    elif name == "8UC3":
        message = image_message("rosbags", name, rgb[..., ::-1], 3)
    else:
        values = rgb[..., ::-1].astype("u2") * 257 if name == "png16" else rgb[..., ::-1]
        data = cv2.imencode(".png", values)[1].tobytes()
        message = compressed_message("rosbags", data)
    message.header = bag_writer.header(time, "cam_optical")
    return message


@pytest.mark.parametrize("name", ["bgr16", "8UC3", "png", "png16"])
def test_a_bag_gives_the_same_images_and_cameras_to_import_evaluation_and_nodes(
    tmp_path: Path, name: str
) -> None:
    topic = "/cam/image_raw/compressed" if name.startswith("png") else "/cam/image_raw"
    info = info_message("rosbags", d=[0.1] * 5 + [0.0] * 7)
    stored = [np.full((24, 32, 3), (30 * k, 9, 200), np.uint8) for k in range(4)]
    messages = [("/cam/camera_info", 100.0, info)]
    for k, rgb in enumerate(stored):
        messages.append((topic, 100 + k / 10, bag_message(name, rgb, 100 + k / 10)))
    topics = {"/cam/camera_info", topic}
    bag_writer.write_bag(tmp_path / "bag", StoragePlugin.MCAP, topics, messages=messages)

    listener = Listener()
    find: Any = listener
    estimate_bag_frames(tmp_path / "bag", find, BagConfig(), lambda step, done, total: None)
    import_video(tmp_path / "bag", tmp_path / "clip", ImportConfig(quality=100))
    video = load_video(tmp_path / "clip", need_masks=False, need_poses=False)

    expected = read_camera_info(info, 32, 24, rectified=False)
    assert len(listener.seen) == len(video.frames) == 4
    for rgb, (image, camera), frame in zip(
        stored, listener.seen, video.frames, strict=True
    ):
        assert np.array_equal(image, rgb)
        # the video folder holds JPEG files
        assert np.abs(read_image(frame.image).numpy().astype(int) - rgb).max() <= 3
        for other in (camera, frame.camera):
            assert torch.equal(other.matrix, expected.matrix)
            assert torch.equal(other.distortion, expected.distortion)
            assert (other.width, other.height) == (32, 24)


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
