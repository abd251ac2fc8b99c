"""The one reader of camera and image messages, for nodes, recorder, bags and viewers.

It takes messages of rclpy and of rosbags, since it only uses their fields, and it imports no ROS.
It does not trust a message: sizes, lengths and numbers are checked before they are used.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from uns_pose_ros.core.camera import resize_camera, scaled_matrix
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import MAX_CAMERA_PX, Camera
from uns_pose_ros.io.encoded_image import EncodedImage
from uns_pose_ros.io.images import MAX_PIXELS, Pixels, decode_rgb, to_eight_bits

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
TF = "tf2_msgs/msg/TFMessage"
# distortion models of OpenCV's first eight coefficients; drivers without distortion send no name
_DISTORTION_MODELS = ("", "plumb_bob", "rational_polynomial")
# of fisheye lenses: without distortion they are no pinhole cameras either
_FISHEYE_MODELS = ("equidistant", "fisheye", "kannala_brandt", "kannala_brandt4")
DEPTH_ENCODINGS = ("16UC1", "32FC1")  # mm and m
FEW_BITS = "the images of 16 bits use the lower bits only, so that they are dark"
_FAINT = 64  # of 255, what 14 of 16 bits give
_LOWER_DEPTH_ENCODINGS = tuple(name.lower() for name in DEPTH_ENCODINGS)
_JPEG_START = b"\xff\xd8\xff"


class Encoding(NamedTuple):
    """The layout of the pixels of an encoding."""

    dtype: str  # NumPy's, without byte order
    channels: int
    to_rgb: int | None = None  # OpenCV's conversion
    is_color: bool = True  # False: depth
    row_share: float = 1.0  # rows of data for each row of the image
    column_step: int = 1  # pixels that share one color: the width is a multiple of it


def _bayer(pattern: str) -> int:
    """OpenCV's conversion of a Bayer pattern, whose constants take ROS' names since version 4.5."""
    return int(getattr(cv2, f"COLOR_Bayer{pattern.upper()}2RGB"))


_UYVY = Encoding("u1", 2, cv2.COLOR_YUV2RGB_UYVY, column_step=2)
_YUYV = Encoding("u1", 2, cv2.COLOR_YUV2RGB_YUY2, column_step=2)
ENCODINGS = {
    "rgb8": Encoding("u1", 3),
    "bgr8": Encoding("u1", 3, cv2.COLOR_BGR2RGB),
    "rgba8": Encoding("u1", 4, cv2.COLOR_RGBA2RGB),
    "bgra8": Encoding("u1", 4, cv2.COLOR_BGRA2RGB),
    "mono8": Encoding("u1", 1, cv2.COLOR_GRAY2RGB),
    "rgb16": Encoding("u2", 3),
    "bgr16": Encoding("u2", 3, cv2.COLOR_BGR2RGB),
    "rgba16": Encoding("u2", 4, cv2.COLOR_RGBA2RGB),
    "bgra16": Encoding("u2", 4, cv2.COLOR_BGRA2RGB),
    "mono16": Encoding("u2", 1, cv2.COLOR_GRAY2RGB),
    "8UC1": Encoding("u1", 1, cv2.COLOR_GRAY2RGB),
    "8UC3": Encoding("u1", 3, cv2.COLOR_BGR2RGB),
    "8UC4": Encoding("u1", 4, cv2.COLOR_BGRA2RGB),
    "16UC3": Encoding("u2", 3, cv2.COLOR_BGR2RGB),
    "16UC4": Encoding("u2", 4, cv2.COLOR_BGRA2RGB),
    **{
        f"bayer_{pattern}{bits}": Encoding(kind, 1, _bayer(pattern))
        for bits, kind in ((8, "u1"), (16, "u2"))
        for pattern in ("rggb", "bggr", "gbrg", "grbg")
    },
    "yuv422": _UYVY,
    "uyvy": _UYVY,
    "yuv422_yuy2": _YUYV,
    "yuyv": _YUYV,
    "nv12": Encoding("u1", 1, cv2.COLOR_YUV2RGB_NV12, row_share=1.5, column_step=2),
    "nv21": Encoding("u1", 1, cv2.COLOR_YUV2RGB_NV21, row_share=1.5, column_step=2),
    "nv24": Encoding("u1", 1, row_share=3.0),
    "16UC1": Encoding("u2", 1, is_color=False),
    "32FC1": Encoding("f4", 1, is_color=False),
}
_BY_LOWER_NAME = {name.lower(): encoding for name, encoding in ENCODINGS.items()}


def decode_image(message: Any) -> Pixels:
    """Decode an Image or a CompressedImage.

    16 bits become 8 by the full range, v / 257, rounded; alpha is dropped; 8UC3 to 16UC4 are in
    OpenCV's order, BGR. A compressed image is a JPEG, PNG, BMP, WebP or TIFF file; its content
    decides, not its format, except that a gray file of a Bayer encoding is a mosaic.

    Args:
        message: The message, of rclpy or of rosbags.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        InvalidInput: The message is depth, broken, or of an encoding that is not supported.
    """
    if not hasattr(message, "encoding"):
        data, label = _compressed_data(message)
        mosaic = _mosaic_of(message)
        content = decode_rgb(data, label)
        return content if mosaic is None else _demosaic(content, mosaic)
    encoding = _encoding_of(message)
    if not encoding.is_color:
        colors = ", ".join(name for name, item in ENCODINGS.items() if item.is_color)
        raise InvalidInput(
            f"image encoding '{message.encoding}' is depth, no color; valid are {colors}"
        )
    pixels = unpack_pixels(message)
    if pixels.dtype == np.uint16:
        pixels = to_eight_bits(pixels)
    if message.encoding.lower() == "nv24":
        return _nv24_to_rgb(pixels)
    if encoding.to_rgb is None:
        return pixels
    return cv2.cvtColor(pixels, encoding.to_rgb).astype(np.uint8, copy=False)


def uses_few_bits(message: Any, pixels: Pixels) -> bool:
    """Whether the values of a 16-bit image use the lower bits only, so that it is dark.

    Cameras of 10 and 12 bits send such images where their driver does not scale them.

    Args:
        message: The image.
        pixels: What `decode_image` gives for it.
    """
    layout = _BY_LOWER_NAME.get(getattr(message, "encoding", "").lower())
    return layout is not None and layout.dtype == "u2" and int(pixels.max()) < _FAINT


def read_encoded_image(message: Any) -> EncodedImage:
    """Read an Image or a CompressedImage, and keep a JPEG or PNG file as it is.

    Raises InvalidInput as `decode_image`; a file whose end is missing is noticed when it is
    decoded.
    """
    if hasattr(message, "encoding"):
        return EncodedImage.of_pixels(decode_image(message))
    if _mosaic_of(message) is not None:
        return EncodedImage.of_pixels(decode_image(message))
    return EncodedImage.of_file(*_compressed_data(message))


def jpeg_file(message: Any) -> bytes | None:
    """The JPEG file in a CompressedImage; None for other files, for mosaics and for an Image."""
    if hasattr(message, "encoding") or _mosaic_of(message) is not None:
        return None
    data = bytes(message.data)
    return data if data.startswith(_JPEG_START) else None


def unpack_pixels(message: Any) -> NDArray[Any]:
    """The pixels of an Image as they are, for color, depth and masks.

    Args:
        message: The message, of rclpy or of rosbags.

    Returns:
        (H, W) or (H, W, C) in this machine's byte order, without row padding. NV12 and NV21 have
        (1.5 H, W), NV24 has (3 H, W): their color follows the gray image.

    Raises:
        InvalidInput: The encoding is not supported, or the data do not fit the size.
    """
    encoding = _encoding_of(message)
    height, width, step = int(message.height), int(message.width), int(message.step)
    dtype = np.dtype(encoding.dtype)
    row = width * encoding.channels * dtype.itemsize
    rows = int(height * encoding.row_share)
    data = np.frombuffer(message.data, np.uint8)
    name = f"an image of {width} x {height} px {message.encoding}"
    if not 0 < height * width <= MAX_PIXELS:
        raise InvalidInput(
            f"{name} has no valid size; at most {MAX_PIXELS // 10**6} megapixels are valid"
        )
    if step < row or len(data) < step * rows:
        raise InvalidInput(
            f"{name} with step {step} has {len(data)} bytes; a row needs {row} bytes, the image "
            f"step * {rows}"
        )
    if width % encoding.column_step or rows != height * encoding.row_share:
        raise InvalidInput(f"{name} has an odd size; its pixels share colors in pairs")
    padded = data[: step * rows].reshape(rows, step)
    if message.encoding.lower() == "nv24":
        # a row of colors is twice as long, and so is its padding
        colors = padded[height:].reshape(height, 2 * step)[:, : 2 * row]
        padded = np.vstack([padded[:height, :row], colors.reshape(2 * height, row)])
    values = np.ascontiguousarray(padded[:, :row]).view(
        dtype.newbyteorder(">" if message.is_bigendian else "<")
    )
    values = values.astype(dtype, copy=False)
    if encoding.channels == 1:
        return values
    return values.reshape(height, width, encoding.channels)


def _encoding_of(message: Any) -> Encoding:
    """Layout of the message's encoding, whose name is case-insensitive; raises InvalidInput."""
    encoding = _BY_LOWER_NAME.get(message.encoding.lower())
    if encoding is None:
        raise InvalidInput(
            f"image encoding '{message.encoding}' is not supported; valid are "
            f"{', '.join(ENCODINGS)}"
        )
    return encoding


def _compressed_data(message: Any) -> tuple[bytes, str]:
    """The file in a CompressedImage, and the words for it in error messages."""
    data = bytes(message.data)
    label = f"a compressed image of {len(data)} bytes and format '{message.format}'"
    if not data:
        raise InvalidInput(f"{label} holds no data")
    # image_transport begins the format with the encoding of the image before the compression
    name = message.format.partition(";")[0].strip().lower()
    if name in _LOWER_DEPTH_ENCODINGS or "compresseddepth" in message.format.lower():
        raise InvalidInput(f"{label} is depth, no color")
    return data, label


def _mosaic_of(message: Any) -> Encoding | None:
    """The Bayer encoding of a CompressedImage that holds a mosaic, else None.

    image_transport compresses the mosaic as it is, as gray, and names its encoding; where it has
    made colors of it, the end of the format names them.
    """
    name, _, rest = message.format.lower().partition(";")
    if not name.strip().startswith("bayer_") or re.search("(rgb|bgr|mono)[0-9]+", rest):
        return None
    return _BY_LOWER_NAME.get(name.strip())


def _demosaic(pixels: Pixels, encoding: Encoding) -> Pixels:
    """The colors of a mosaic (H, W, 3); a file that has colors already stays as it is."""
    gray = np.ascontiguousarray(pixels[..., 0])
    if encoding.to_rgb is None or not (pixels == gray[..., None]).all():
        return pixels
    return cv2.cvtColor(gray, encoding.to_rgb).astype(np.uint8, copy=False)


def _nv24_to_rgb(planes: Pixels) -> Pixels:
    """RGB of (3 H, W): H rows of gray, then U and V in turn, of every pixel."""
    height, width = planes.shape[0] // 3, planes.shape[1]
    colors = planes[height:].reshape(height, width, 2)
    # as YUYV of twice the width, since OpenCV does not know NV24
    pairs = np.empty((height, width, 4), np.uint8)
    pairs[..., 0::2] = planes[:height, :, None]
    pairs[..., 1::2] = colors
    wide = cv2.cvtColor(pairs.reshape(height, 2 * width, 2), cv2.COLOR_YUV2RGB_YUY2)
    return np.ascontiguousarray(wide[:, ::2]).astype(np.uint8, copy=False)


def read_camera_info(info: Any, width: int, height: int, rectified: bool) -> Camera:
    """Read the camera of an image from its CameraInfo, as REP-104 defines it.

    P describes a rectified image, K and D describe a raw image, both in pixels of the whole sensor.
    The region of interest is subtracted, then binning divides, then a resize of the image scales.
    Every scale keeps pixel centers (`scaled_matrix`). An image of the size in the message is the
    whole image: some drivers send it although they fill in a region or binning.

    Args:
        info: The CameraInfo, of rclpy or of rosbags.
        width: Width of the image, px.
        height: Height of the image, px.
        rectified: Whether the image is rectified.

    Returns:
        The camera of the image; a rectified image has no distortion.

    Raises:
        InvalidInput: The camera is uncalibrated, its distortion is not supported, or the image has
            another shape.
    """
    values = _camera_matrix(info, rectified)
    distortion = [] if rectified else _distortion(info)
    matrix = torch.from_numpy(values)
    full_width = int(info.width) or width
    full_height = int(info.height) or height
    if (full_width, full_height) != (width, height):
        roi = info.roi
        if roi.width and roi.height:
            matrix[0, 2] -= float(roi.x_offset)
            matrix[1, 2] -= float(roi.y_offset)
            full_width, full_height = int(roi.width), int(roi.height)
        bin_x = max(int(info.binning_x), 1)
        bin_y = max(int(info.binning_y), 1)
        matrix = scaled_matrix(matrix, 1 / bin_x, 1 / bin_y)
        full_width = max(full_width // bin_x, 1)
        full_height = max(full_height // bin_y, 1)
    coefficients = torch.tensor(distortion, dtype=torch.float64)
    camera = Camera(matrix, full_width, full_height, coefficients)
    try:
        return resize_camera(camera, width, height)
    except InvalidInput:
        raise InvalidInput(
            f"the image is {width} x {height} px, camera_info describes {full_width} x "
            f"{full_height} px: the same size or the same shape is needed"
        ) from None


def calibration_values(info: Any, name: str) -> NDArray[np.float64]:
    """The values of d, k or p of a CameraInfo, whose fields are in capitals in ROS 1."""
    values = getattr(info, name, None)
    return np.asarray(getattr(info, name.upper()) if values is None else values, np.float64)


def _camera_matrix(info: Any, rectified: bool) -> NDArray[np.float64]:
    """P without its last column, or K, (3, 3); raises InvalidInput for an uncalibrated camera."""
    name = "P" if rectified else "K"
    numbers = calibration_values(info, "p" if rectified else "k")
    matrix = numbers.reshape(3, -1)[:, :3].copy()
    if not np.isfinite(matrix).all():
        raise InvalidInput(f"camera_info holds a camera matrix {name} that is not finite")
    if (np.abs(matrix) > MAX_CAMERA_PX).any():
        raise InvalidInput(
            f"camera_info holds a camera matrix {name} with {np.abs(matrix).max():g}: at most "
            f"{MAX_CAMERA_PX:g} px are valid"
        )
    if matrix[0, 0] > 0 and matrix[1, 1] > 0:
        if matrix[1, 0] != 0 or tuple(matrix[2]) != (0, 0, 1):
            rows = "; ".join(" ".join(f"{value:g}" for value in row) for row in matrix)
            raise InvalidInput(
                f"camera_info holds a camera matrix {name} ({rows}) that is none: fx s cx; "
                "0 fy cy; 0 0 1 is valid"
            )
        return matrix
    advice = "calibrate it; an import also takes --camera K.json"
    if rectified and calibration_values(info, "k")[0] > 0:
        advice = "publish P, or set rectified to false for raw images"
    entry = 0 if matrix[0, 0] <= 0 else numbers.size // 3 + 1
    raise InvalidInput(
        f"the camera is uncalibrated (camera_info has {name}[{entry}] = {numbers[entry]:g}): "
        f"{advice}"
    )


def _distortion(info: Any) -> list[float]:
    """OpenCV's 4, 5 or 8 coefficients, none if all are zero; later ones must be zero.

    Raises InvalidInput for other models, and for every fisheye lens.
    """
    coefficients = [float(value) for value in calibration_values(info, "d")]
    if not np.isfinite(coefficients).all():
        raise InvalidInput("camera_info holds distortion coefficients that are not finite")
    if str(info.distortion_model).lower() in _FISHEYE_MODELS:
        raise InvalidInput(
            f"distortion model '{info.distortion_model}' with {len(coefficients)} coefficients "
            "is not supported: it is a fisheye lens, and no pinhole camera even with zeros; "
            "rectify the image and set rectified to true"
        )
    if not any(coefficients):
        return []
    kept, rest = coefficients[:8], coefficients[8:]
    if info.distortion_model not in _DISTORTION_MODELS or len(kept) not in (4, 5, 8):
        raise InvalidInput(
            f"distortion model '{info.distortion_model}' with {len(coefficients)} coefficients "
            "is not supported: rectify the image and set rectified to true, or give plumb_bob "
            "(4 or 5) or rational_polynomial (8)"
        )
    if any(rest):
        raise InvalidInput(
            f"distortion model '{info.distortion_model}' with {len(coefficients)} coefficients "
            "is not supported: its thin prism terms are not 0; rectify the image instead"
        )
    return kept


def nanoseconds(stamp: Any) -> int:
    """The time of a stamp, ns."""
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)
