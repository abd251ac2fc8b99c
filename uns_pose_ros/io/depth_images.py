"""Depth beside a video's pictures.

From messages, as files, and the metres that it gives to poses of unknown scale.

depth/<image name>.png holds millimetres in 16 bits, 0 where nothing was measured (REP-118), for
each pixel of its picture.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io.images import MAX_PIXELS

Depth = NDArray[np.uint16]  # (H, W) mm, 0: none
ENCODINGS = ("16UC1", "32FC1")  # mm and m
COMPRESSED_TOPIC = (
    "compressedDepth"  # what image_transport puts after the topic of the raw depth
)
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = struct.Struct(
    "<iff"
)  # of compressedDepth: format, and a and b of depth = a / (value - b), m, for 32FC1
_KINDS = ("I;16", "I;16B", "I", "L")  # Pillow's of PNG files with one channel
_AGREE = 0.02  # by which a ratio may differ from the one that most share
_LEAST, _FRAMES, _SHARE = (
    30,
    3,
    0.4,
)  # points, pictures, and part of all points that must agree


def of_message(message: Any) -> Depth:
    """The depth in an Image or a CompressedImage, of rclpy or of a bag.

    InvalidInput where it is none, or broken.
    """
    return _of_image(message) if hasattr(message, "encoding") else _of_compressed(message)


def in_metres(message: Any, width: int, height: int) -> NDArray[np.float32]:
    """The depth of a picture of a size, (H, W) m, NaN where there is none, likewise."""
    depth = of_message(message)
    check_aligned((depth.shape[1], depth.shape[0]), width, height)
    return np.where(depth > 0, depth * np.float32(1e-3), np.float32(np.nan))


def check_aligned(size: tuple[int, int], width: int, height: int) -> None:
    """InvalidInput where depth of a size (width, height) is not that of a picture of width x
    height px.
    """
    if size != (width, height):
        raise InvalidInput(
            f"the depth is {size[0]} x {size[1]} px, the image {width} x {height} px: one "
            "aligned to it is needed"
        )


def _of_image(message: Any) -> Depth:
    if message.encoding not in ENCODINGS:
        raise InvalidInput(
            f"the depth's encoding is '{message.encoding}': 16UC1 (mm) and 32FC1 (m) are valid"
        )
    kind = np.dtype("u2" if message.encoding == "16UC1" else "f4").newbyteorder(
        ">" if message.is_bigendian else "<"
    )
    height, width, step = int(message.height), int(message.width), int(message.step)
    data, row = np.frombuffer(message.data, np.uint8), width * kind.itemsize
    if not (row and height and step >= row and len(data) >= step * height):
        raise InvalidInput(
            f"a depth of {width} x {height} px {message.encoding} with step {step} has "
            f"{len(data)} bytes"
        )
    pixels = np.ascontiguousarray(
        data[: step * height].reshape(height, step)[:, :row]
    ).view(kind)
    return (
        pixels.astype(np.uint16) if message.encoding == "16UC1" else _in_millimetres(pixels)
    )


def _of_compressed(message: Any) -> Depth:
    """Of the transport compressedDepth.

    A short header and a PNG file; 32FC1 is stored inverse and quantised.
    """
    encoding = message.format.partition(";")[0].strip()
    data = bytes(message.data)
    start = data.find(_SIGNATURE, 0, _HEADER.size + len(_SIGNATURE))
    if encoding not in ENCODINGS or start < 0:
        raise InvalidInput(
            f"compressed depth of format '{message.format}': 16UC1 and 32FC1 as PNG are valid, "
            "RVL is not"
        )
    values = _decoded(data[start:], f"a compressed depth of {len(data)} bytes")
    if encoding == "16UC1":
        return values
    if start != _HEADER.size:
        raise InvalidInput(
            f"compressed depth of format '{message.format}' lacks the header that says what "
            "its values mean"
        )
    _, a, b = _HEADER.unpack(data[: _HEADER.size])
    with np.errstate(divide="ignore", invalid="ignore"):
        return _in_millimetres(np.where(values > 0, a / (values - np.float64(b)), 0.0))


def _in_millimetres(metres: NDArray[Any]) -> Depth:
    """What is not finite, not in front of the camera, or further than 16 bits reach is not
    measured.
    """
    millimetres = 1000 * metres.astype(np.float64)
    valid = np.isfinite(millimetres) & (millimetres > 0) & (millimetres < 65535.5)
    return np.rint(np.where(valid, millimetres, 0)).astype(np.uint16)


def encoded(depth: Depth) -> bytes:
    """The PNG file of a depth picture."""
    return bytes(cv2.imencode(".png", depth, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes())


def path_of(folder: Path, name: str) -> Path:
    """Where the depth of a video folder's picture lies."""
    return folder / "depth" / f"{name}.png"


def read_depth(path: Path, size: tuple[int, int]) -> Depth:
    """The depth in a PNG file of a picture of a size (width, height).

    InvalidInput names it where it is broken or not of it.
    """
    try:
        depth = _decoded(path.read_bytes(), str(path))
        check_aligned((depth.shape[1], depth.shape[0]), *size)
    except OSError as error:
        raise InvalidInput(f"{path}: the depth cannot be read ({error.strerror})") from None
    except InvalidInput as error:
        raise InvalidInput(
            str(error) if str(path) in str(error) else f"{path}: {error}"
        ) from None
    return depth


def _decoded(data: bytes, what: str) -> Depth:
    try:
        file = Image.open(io.BytesIO(data), formats=("PNG",))
        if file.width * file.height > MAX_PIXELS or file.mode not in _KINDS:
            raise ValueError(f"{file.width} x {file.height} px of kind {file.mode}")
        return np.asarray(file).astype(
            np.uint16
        )  # unlike OpenCV, this notices that the end is missing
    except (
        OSError,
        SyntaxError,
        ValueError,
        IndexError,
        Image.DecompressionBombError,
    ) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].partition(" <")[0]
        raise InvalidInput(
            f"{what}: no PNG of 16 bits and one channel ({reason})"
        ) from None
