"""What /tf and /tf_static say, kept for lookups at an image's stamp.

And how a camera moved between two images.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from tf2_msgs.msg import TFMessage
from torch import Tensor

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io.transform_buffer import TransformTree

_POLL = 0.01  # s


class TransformListener:
    """Fills a tree from the topics, as tf2_ros does."""

    def __init__(self, node: Node, tree: TransformTree) -> None:
        self._node = node
        moving = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
        lasting = QoSProfile(
            depth=100,
            reliability=ReliabilityPolicy.RELIABLE,
            durability=DurabilityPolicy.TRANSIENT_LOCAL,
        )
        self._subscriptions = [
            node.create_subscription(
                TFMessage, "/tf", lambda message: tree.take(message, static=False), moving
            ),
            node.create_subscription(
                TFMessage,
                "/tf_static",
                lambda message: tree.take(message, static=True),
                lasting,
            ),
        ]

    def close(self) -> None:
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)


class CameraMotion:
    """How a camera moved since the last image, by a frame that does not move with it."""

    def __init__(self, node: Node, fixed_frame: str, timeout: float) -> None:
        """timeout: s that a lookup waits for transforms that come later than the image."""
        self._timeout = timeout
        self._fixed = fixed_frame.lstrip("/")
        self._tree = TransformTree()
        self._listener = TransformListener(node, self._tree)
        # the last image's frame, fixed_from_cam (4, 4)
        self._last: tuple[str, np.ndarray] | None = None

    def close(self) -> None:
        self._listener.close()

    def forget(self) -> None:
        """The next image is the first; what is kept of the transforms may be of another time."""
        self._last = None
        self._tree.clear()

    def since_last(self, frame: str, stamp: int) -> Tensor | None:
        """cam_now_from_cam_before (4, 4) float64, m, of the image in `frame` at `stamp` (ns).

        None for the first one.

        Waits up to the timeout for transforms of that time. Raises InvalidInput where none come;
        the next image is then the first.
        """
        last, self._last = self._last, None
        end = time.monotonic() + self._timeout
        found = self._tree.lookup(self._fixed, frame.lstrip("/"), stamp)
        while isinstance(found, str):
            if time.monotonic() > end:
                raise InvalidInput(found)
            time.sleep(_POLL)
            found = self._tree.lookup(self._fixed, frame.lstrip("/"), stamp)
        self._last = (frame, found)
        if last is None or last[0] != frame:
            return None
        return torch.from_numpy(np.linalg.inv(found) @ last[1])
