"""What a machine may lack of ROS.

cv_bridge, tf2_ros and tf_transformations are used where they import, else stood in for.
"""

from __future__ import annotations

import array
import sys
from collections.abc import Sequence

import cv2
import numpy as np
from geometry_msgs.msg import TransformStamped
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from uns_pose_ros.core.errors import InvalidInput

try:
    from cv_bridge import CvBridge
except (ImportError, AttributeError):  # AttributeError: a bridge built for another NumPy
    CvBridge = None
try:
    from tf2_ros import TransformBroadcaster
except ImportError:
    # the name is tf2_ros's where that imports
    class TransformBroadcaster:  # type: ignore[no-redef]
        """Publishes transforms on /tf as tf2_ros does: one message for a whole list."""

        def __init__(self, node: Node) -> None:
            qos = QoSProfile(
                depth=100,
                history=HistoryPolicy.KEEP_LAST,
                reliability=ReliabilityPolicy.RELIABLE,
            )
            self._publisher = node.create_publisher(TFMessage, "/tf", qos)

        def sendTransform(
            self, transform: TransformStamped | Sequence[TransformStamped]
        ) -> None:
            transforms = (
                [transform] if isinstance(transform, TransformStamped) else list(transform)
            )
            self._publisher.publish(TFMessage(transforms=transforms))


try:
    from tf_transformations import quaternion_from_matrix
except ImportError:
    quaternion_from_matrix = None

try:
    from rclpy.event_handler import SubscriptionEventCallbacks as SubscriptionEventCallbacks
    from rclpy.event_handler import UnsupportedEventTypeError as UnsupportedEventTypeError
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks as SubscriptionEventCallbacks
    from rclpy.qos_event import UnsupportedEventTypeError as UnsupportedEventTypeError

LAYOUT: dict[
    str, tuple[str, int]
] = {  # encoding -> NumPy type without byte order, channels
    "rgb8": ("u1", 3),
    "bgr8": ("u1", 3),
    "rgba8": ("u1", 4),
    "bgra8": ("u1", 4),
    "mono8": ("u1", 1),
    "8UC1": ("u1", 1),
    "mono16": ("u2", 1),
    "16UC1": ("u2", 1),
    "32FC1": ("f4", 1),
    "bayer_rggb8": ("u1", 1),
    "bayer_bggr8": ("u1", 1),
    "bayer_gbrg8": ("u1", 1),
    "bayer_grbg8": ("u1", 1),
    "yuv422": ("u1", 2),
    "yuv422_yuy2": ("u1", 2),
}
TO_RGB: dict[str, int | None] = {  # encoding -> OpenCV's conversion, None: it is RGB
    "rgb8": None,
    "bgr8": cv2.COLOR_BGR2RGB,
    "rgba8": cv2.COLOR_RGBA2RGB,
    "bgra8": cv2.COLOR_BGRA2RGB,
    "mono8": cv2.COLOR_GRAY2RGB,
    "8UC1": cv2.COLOR_GRAY2RGB,
    "mono16": cv2.COLOR_GRAY2RGB,
    "bayer_rggb8": cv2.COLOR_BayerRGGB2RGB,
    "bayer_bggr8": cv2.COLOR_BayerBGGR2RGB,
    "bayer_gbrg8": cv2.COLOR_BayerGBRG2RGB,
    "bayer_grbg8": cv2.COLOR_BayerGRBG2RGB,
    "yuv422": cv2.COLOR_YUV2RGB_UYVY,
    "yuv422_yuy2": cv2.COLOR_YUV2RGB_YUY2,
}


def image_to_array(message: Image) -> np.ndarray:
    """Pixels of an image message as they are.

    (H, W) or (H, W, C) in this machine's byte order, row padding removed.

    Raises InvalidInput for an encoding that is not listed and for data that do not fit the size.
    """
    if message.encoding not in LAYOUT:
        raise InvalidInput(
            f"image encoding '{message.encoding}' is not known; known are {', '.join(LAYOUT)}"
        )
    kind, channels = LAYOUT[message.encoding]
    row = message.width * channels * np.dtype(kind).itemsize
    if (
        row == 0
        or message.height == 0
        or message.step < row
        or len(message.data) < message.step * message.height
    ):
        raise InvalidInput(
            f"image of {message.width} x {message.height} px {message.encoding} with step "
            f"{message.step} and "
            f"{len(message.data)} bytes: a row needs {row} bytes, the image step * height"
        )
    if CvBridge is not None:
        pixels = np.asarray(CvBridge().imgmsg_to_cv2(message, "passthrough"))
        return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    return _decode(message, kind, channels, row)


def _decode(message: Image, kind: str, channels: int, row: int) -> np.ndarray:
    rows = np.frombuffer(message.data, np.uint8)[: message.step * message.height].reshape(
        message.height, message.step
    )
    pixels = np.ascontiguousarray(rows[:, :row]).view(
        (">" if message.is_bigendian else "<") + kind
    )
    pixels = pixels.astype(np.dtype(kind), copy=False)
    return (
        pixels if channels == 1 else pixels.reshape(message.height, message.width, channels)
    )


def image_to_rgb(message: Image) -> np.ndarray:
    """(H, W, 3) uint8 RGB pixels of a colour or grey image message; mono16 keeps its upper 8 bits.

    Raises InvalidInput where the encoding is no picture (depth) or not known.
    """
    if message.encoding in LAYOUT and message.encoding not in TO_RGB:
        raise InvalidInput(
            f"image encoding '{message.encoding}' is no picture; valid are {', '.join(TO_RGB)}"
        )
    pixels = image_to_array(message)
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    code = TO_RGB[message.encoding]
    return pixels if code is None else cv2.cvtColor(pixels, code)


def compressed_to_rgb(message: CompressedImage) -> np.ndarray:
    """(H, W, 3) uint8 RGB pixels of a JPEG or PNG image message.

    Raises InvalidInput where it cannot be read.
    """
    pixels = cv2.imdecode(
        np.frombuffer(message.data, np.uint8),
        cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION,
    )
    if pixels is None:
        raise InvalidInput(
            f"compressed image '{message.format}' of {len(message.data)} bytes cannot be read: "
            "JPEG or PNG needed"
        )
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def array_to_image(pixels: np.ndarray, encoding: str, header: Header) -> Image:
    """Image message of pixels (H, W) or (H, W, C) whose type fits the encoding."""
    kind, channels = LAYOUT[encoding]
    if (
        pixels.dtype != np.dtype(kind)
        or pixels.size != pixels.shape[0] * pixels.shape[1] * channels
    ):
        raise ValueError(f"pixels {pixels.shape} {pixels.dtype} are not {encoding}")
    pixels = np.ascontiguousarray(pixels)
    message = Image(
        header=header, height=pixels.shape[0], width=pixels.shape[1], encoding=encoding
    )
    message.is_bigendian = int(sys.byteorder == "big")
    message.step = pixels.shape[1] * channels * pixels.itemsize
    message.data = array.array(
        "B", pixels.tobytes()
    )  # any other sequence is copied byte by byte in Python
    return message


def matrix_to_quaternion(rotation: np.ndarray) -> tuple[float, float, float, float]:
    """Unit quaternion x y z w of a rotation (3, 3)."""
    if quaternion_from_matrix is not None:
        matrix = np.eye(4)
        matrix[:3, :3] = rotation
        x, y, z, w = quaternion_from_matrix(matrix)
    else:
        x, y, z, w = Rotation.from_matrix(rotation).as_quat()
    return float(x), float(y), float(z), float(w)
