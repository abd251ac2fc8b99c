"""Messages of images and cameras, of `rosbags` and `rclpy`, and the check of all that read them."""

from __future__ import annotations

import array
from typing import Any

import numpy as np
import pytest

import bag_writer
from uns_pose_ros.io.ros import ros_messages
from uns_pose_ros.io.ros.ros_messages import decode_image, read_encoded_image

KINDS = ["rosbags", "rclpy"]


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
