"""Parts of ROS that a machine may lack, and image messages for output.

cv_bridge, tf2_ros and tf_transformations are used where they are installed. Otherwise, this module
has replacements. Messages that come in are read by `io.ros.ros_messages`, with or without ROS, so
that node, recorder and bags give the same pixels.
"""

from __future__ import annotations

import array
import sys
from collections.abc import Sequence

import numpy as np
import torch
from geometry_msgs.msg import TransformStamped
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from uns_pose_ros.core.geometry import matrix_to_quaternion
from uns_pose_ros.io.ros.ros_messages import ENCODINGS

try:
    from cv_bridge import CvBridge
except (ImportError, AttributeError):  # AttributeError: a bridge built for another NumPy
    CvBridge = None
try:
    from tf_transformations import quaternion_from_matrix
except ImportError:
    quaternion_from_matrix = None
BROADCASTER = "tf2_ros"  # what publishes the transforms
try:
    from tf2_ros import TransformBroadcaster
except ImportError:
    BROADCASTER = (
        "a stand-in, since the Python package tf2_ros (ROS package tf2_ros_py) is missing"
    )

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
            """Publish one transform or a list of transforms."""
            transforms = (
                [transform] if isinstance(transform, TransformStamped) else list(transform)
            )
            self._publisher.publish(TFMessage(transforms=transforms))


try:
    from rclpy.event_handler import SubscriptionEventCallbacks as SubscriptionEventCallbacks
    from rclpy.event_handler import UnsupportedEventTypeError as UnsupportedEventTypeError
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks as SubscriptionEventCallbacks
    from rclpy.qos_event import UnsupportedEventTypeError as UnsupportedEventTypeError


def array_to_image(pixels: np.ndarray, encoding: str, header: Header) -> Image:
    """Make an Image message.

    Args:
        pixels: (H, W) or (H, W, C), of the type and channels of the encoding.
        encoding: A name in `ENCODINGS`.
        header: The header of the message.

    Returns:
        The message, without row padding.

    Raises:
        ValueError: The pixels do not have the type or the channels of the encoding.
    """
    layout = ENCODINGS[encoding]
    size = pixels.shape[0] * pixels.shape[1] * layout.channels
    if pixels.dtype != np.dtype(layout.dtype) or pixels.size != size:
        raise ValueError(f"pixels {pixels.shape} {pixels.dtype} are not {encoding}")
    pixels = np.ascontiguousarray(pixels)
    if CvBridge is not None:
        return CvBridge().cv2_to_imgmsg(pixels, encoding, header)
    message = Image(
        header=header, height=pixels.shape[0], width=pixels.shape[1], encoding=encoding
    )
    message.is_bigendian = int(sys.byteorder == "big")
    message.step = pixels.shape[1] * layout.channels * pixels.itemsize
    # any other sequence is copied byte by byte in Python
    message.data = array.array("B", pixels.tobytes())
    return message


def quaternion_xyzw(rotation: np.ndarray) -> tuple[float, float, float, float]:
    """Unit quaternion of a rotation (3, 3), in the order of messages."""
    if quaternion_from_matrix is not None:
        matrix = np.eye(4)
        matrix[:3, :3] = rotation
        x, y, z, w = map(float, quaternion_from_matrix(matrix))
        return x, y, z, w
    w, x, y, z = matrix_to_quaternion(torch.as_tensor(rotation)).tolist()
    return x, y, z, w
