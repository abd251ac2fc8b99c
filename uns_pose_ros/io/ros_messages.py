"""Messages of bags, read without ROS: pictures and cameras.

Nothing here trusts what a message says of itself.
"""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from uns_pose_ros.core.camera import fitted
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Camera
from uns_pose_ros.io.images import MAX_PIXELS

IMAGE, COMPRESSED, CAMERA_INFO = (
    "sensor_msgs/msg/Image",
    "sensor_msgs/msg/CompressedImage",
    "sensor_msgs/msg/CameraInfo",
)
TF = "tf2_msgs/msg/TFMessage"
_MAX_SIDE = 16384  # px
# encoding: channels of 8 bits, OpenCV's conversion to RGB (None: it is RGB)
_ENCODINGS: dict[str, tuple[int, int | None]] = {
    "rgb8": (3, None),
    "bgr8": (3, cv2.COLOR_BGR2RGB),
    "8UC3": (3, cv2.COLOR_BGR2RGB),
    "rgba8": (4, cv2.COLOR_RGBA2RGB),
    "bgra8": (4, cv2.COLOR_BGRA2RGB),
    "mono8": (1, cv2.COLOR_GRAY2RGB),
    "8UC1": (1, cv2.COLOR_GRAY2RGB),
    "bayer_rggb8": (1, cv2.COLOR_BayerRGGB2RGB),
    "bayer_bggr8": (1, cv2.COLOR_BayerBGGR2RGB),
    "bayer_gbrg8": (1, cv2.COLOR_BayerGBRG2RGB),
    "bayer_grbg8": (1, cv2.COLOR_BayerGRBG2RGB),
    "yuv422": (2, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": (2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": (2, cv2.COLOR_YUV2RGB_YUY2),
    "yuyv": (2, cv2.COLOR_YUV2RGB_YUY2),
}
_DISTORTIONS = (
    "",
    "plumb_bob",
    "rational_polynomial",
)  # distortion models that OpenCV's eight coefficients hold


def picture(message: Any, kind: str) -> tuple[np.ndarray, bytes | None]:
    """RGB (H, W, 3) uint8 of an Image or CompressedImage, and its JPEG file where it is one.

    Errors: InvalidInput.
    """
    if kind == COMPRESSED:
        data = bytes(message.data)
        try:
            file = Image.open(io.BytesIO(data), formats=("JPEG", "PNG"))
            if file.width * file.height > MAX_PIXELS:
                raise ValueError(f"{file.width} x {file.height} px")
            image = np.array(
                file.convert("RGB")
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
                f"a compressed picture of {len(data)} bytes cannot be decoded ({reason})"
            ) from None
        return image, data if file.format == "JPEG" else None
    if message.encoding not in _ENCODINGS:
        raise InvalidInput(
            f"image encoding {message.encoding!r} is no picture of 8 bits; valid are "
            f"{', '.join(_ENCODINGS)}"
        )
    channels, conversion = _ENCODINGS[message.encoding]
    height, width, step = int(message.height), int(message.width), int(message.step)
    row = width * channels
    if not (
        0 < height <= _MAX_SIDE
        and 0 < width <= _MAX_SIDE
        and step >= row
        and len(message.data) >= step * height
    ):
        raise InvalidInput(
            f"an image of {width} x {height} px {message.encoding} with step {step} has "
            f"{len(message.data)} bytes"
        )
    pixels = np.asarray(message.data, np.uint8)[: step * height].reshape(height, step)[
        :, :row
    ]
    pixels = np.ascontiguousarray(
        pixels.reshape(height, width, channels) if channels > 1 else pixels
    )
    return pixels if conversion is None else cv2.cvtColor(pixels, conversion), None


def camera_of(info: Any, width: int, height: int, rectified: bool) -> Camera:
    """The camera of pictures of width x height px, from a CameraInfo.

    P where they are rectified, else K and D (REP-104).

    K and P describe the full image; region of interest and binning are applied, then a resize of
    the picture.
    """
    values = np.asarray(info.p if rectified else info.k, float).reshape(3, -1)[:, :3].copy()
    if not (np.isfinite(values).all() and values[0, 0] > 0 and values[1, 1] > 0):
        raise InvalidInput(
            "camera_info is not calibrated (its focal length is 0); calibrate the camera, or "
            "give --camera K.json"
        )
    coefficients = [] if rectified else [float(x) for x in info.d]
    if not np.isfinite(coefficients).all():
        raise InvalidInput("camera_info holds distortion coefficients that are not finite")
    if any(coefficients) and (
        info.distortion_model not in _DISTORTIONS or len(coefficients) not in (4, 5, 8)
    ):
        raise InvalidInput(
            f"distortion model {info.distortion_model!r} with {len(coefficients)} coefficients "
            "is not supported; "
            "plumb_bob (4 or 5) and rational_polynomial (8) are: record rectified images instead"
        )
    distortion = torch.tensor(
        coefficients if any(coefficients) else [], dtype=torch.float64
    )
    seen_width, seen_height = int(info.width) or width, int(info.height) or height
    if (seen_width, seen_height) != (width, height):
        roi = info.roi
        if roi.width and roi.height:
            values[0, 2] -= roi.x_offset
            values[1, 2] -= roi.y_offset
            seen_width, seen_height = int(roi.width), int(roi.height)
        bins = [max(int(info.binning_x), 1), max(int(info.binning_y), 1)]
        if bins != [1, 1]:
            values[0] /= bins[0]
            values[1] /= bins[1]
            seen_width, seen_height = seen_width // bins[0], seen_height // bins[1]
    return fitted(
        Camera(torch.from_numpy(values), seen_width, seen_height, distortion), width, height
    )


def nanoseconds(stamp: Any) -> int:
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)
