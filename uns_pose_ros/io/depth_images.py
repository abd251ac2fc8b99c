"""Depth beside the images of a video: from messages, and as files.

depth/<image name>.png holds millimeters in 16 bits for each pixel of its image, and 0 where nothing
was measured (REP-118).
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io.given_files import read_given
from uns_pose_ros.io.images import guarded_decoding, open_file
from uns_pose_ros.io.ros.ros_messages import DEPTH_ENCODINGS, unpack_pixels

Depth = NDArray[np.uint16]  # (H, W) mm, 0: none
COMPRESSED_TOPIC = (
    "compressedDepth"  # image_transport appends it to the topic of the raw depth
)
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# of compressedDepth: format, and a and b of depth = a / (value - b), m, for 32FC1
_HEADER = struct.Struct("<iff")
_MAX_FILE = 2**30  # bytes
_KINDS = ("I;16", "I;16B", "I", "L")  # Pillow's modes of PNG files with one channel

_VALID = "a PNG of 16 bits and one channel is valid"


def decode_depth(message: Any) -> Depth:
    """Decode the depth in an Image or a CompressedImage, of rclpy or of rosbags.

    Raises InvalidInput if the message is broken or holds no depth.
    """
    return _of_image(message) if hasattr(message, "encoding") else _of_compressed(message)


def depth_in_metres(message: Any, width: int, height: int) -> NDArray[np.float32]:
    """Decode the depth of an image.

    Args:
        message: An Image or a CompressedImage with depth.
        width: Width of the image, px.
        height: Height of the image, px.

    Returns:
        (H, W) m, NaN where nothing was measured.

    Raises:
        InvalidInput: The message is broken, holds no depth, or has another size than the image.
    """
    depth = decode_depth(message)
    check_aligned((depth.shape[1], depth.shape[0]), width, height)
    return np.where(depth > 0, depth * np.float32(1e-3), np.float32(np.nan))


def check_aligned(size: tuple[int, int], width: int, height: int) -> None:
    """Raise InvalidInput if depth has another size than its image.

    Args:
        size: Width and height of the depth, px.
        width: Width of the image, px.
        height: Height of the image, px.
    """
    if size != (width, height):
        raise InvalidInput(
            f"the depth is {size[0]} x {size[1]} px, the image {width} x {height} px: one "
            "aligned to it is needed"
        )


def _of_image(message: Any) -> Depth:
    if message.encoding not in DEPTH_ENCODINGS:
        raise InvalidInput(
            f"the depth's encoding is '{message.encoding}': 16UC1 (mm) and 32FC1 (m) are valid"
        )
    values = unpack_pixels(message)
    return values if values.dtype == np.uint16 else _in_millimeters(values)


def _of_compressed(message: Any) -> Depth:
    """Decode a message of the transport compressedDepth: a short header and a PNG file.

    32FC1 is stored as quantized inverse depth.
    """
    encoding = message.format.partition(";")[0].strip()
    data = bytes(message.data)
    start = data.find(_SIGNATURE, 0, _HEADER.size + len(_SIGNATURE))
    if encoding not in DEPTH_ENCODINGS or start < 0:
        raise InvalidInput(
            f"compressed depth of format '{message.format}': 16UC1 and 32FC1 as PNG are valid, "
            "RVL is not"
        )
    values = _decode_png(data[start:], f"a compressed depth of {len(data)} bytes")
    if encoding == "16UC1":
        return values
    if start != _HEADER.size:
        raise InvalidInput(
            f"compressed depth of format '{message.format}' lacks the header that says what "
            "its values mean"
        )
    _, a, b = _HEADER.unpack(data[: _HEADER.size])
    with np.errstate(divide="ignore", invalid="ignore"):
        return _in_millimeters(np.where(values > 0, a / (values - np.float64(b)), 0.0))


def _in_millimeters(meters: NDArray[Any]) -> Depth:
    """Convert depth; values that are not finite, not positive or beyond 16 bits become 0."""
    millimeters = 1000 * meters.astype(np.float64)
    valid = np.isfinite(millimeters) & (millimeters > 0) & (millimeters < 65535.5)
    return np.rint(np.where(valid, millimeters, 0)).astype(np.uint16)


def encode_depth(depth: Depth) -> bytes:
    """Encode depth as a PNG file."""
    return bytes(cv2.imencode(".png", depth)[1].tobytes())


def depth_path(folder: Path, name: str) -> Path:
    """The file with the depth of an image of a video folder."""
    return folder / "depth" / f"{name}.png"


def read_depth(path: Path, size: tuple[int, int]) -> Depth:
    """Read the depth of an image from a PNG file.

    Args:
        path: The file.
        size: Width and height of the image, px.

    Returns:
        (H, W) mm.

    Raises:
        InvalidInput: The file is missing, broken or of another size; the message names it.
    """
    try:
        data = read_given(path, _MAX_FILE)
    except OSError as error:
        raise InvalidInput(f"{path}: the depth cannot be read ({error.strerror})") from None
    depth = _decode_png(data, f"{path}: the depth")
    try:
        check_aligned((depth.shape[1], depth.shape[0]), *size)
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error}") from None
    return depth


def _decode_png(data: bytes, label: str) -> Depth:
    file = open_file(data, label, ("PNG",), _VALID)
    if file.mode not in _KINDS:
        raise InvalidInput(f"{label} has pixels of kind {file.mode}; {_VALID}")
    with guarded_decoding(label):
        # unlike OpenCV, Pillow notices that the end is missing
        return np.asarray(file).astype(np.uint16)
