"""Transforms from /tf and /tf_static at an image's stamp, and the motion between two images.

`tf2_ros.Buffer` of ROS does the same. The nodes do not use it, since it has no wheel on the package
index and `make setup` must run without ROS.
"""

from __future__ import annotations

import threading
import time

import numpy as np
import torch
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from tf2_msgs.msg import TFMessage
from torch import Tensor

from uns_pose_ros.core.errors import InvalidInput, shorten
from uns_pose_ros.io.ros.transform_buffer import TransformTree
from uns_pose_ros.nodes.diagnostics import OK, WARN, NodeDiagnostics

_POLL = 0.005  # s between two lookups of a transform that has not come yet


def wait_for_transform(
    tree: TransformTree,
    target: str,
    source: str,
    stamp: int | None,
    timeout: float,
    cancel: threading.Event | None = None,
) -> np.ndarray | str:
    """Look a transform up, and wait for it if it comes later than the image.

    Args:
        tree: The transforms.
        target: Frame of the result.
        source: Frame of the points that the result transforms.
        stamp: Time of the transform, ns; None: not known, which is not waited for.
        timeout: Time to wait at most, s.
        cancel: Ends the waiting when it is set.

    Returns:
        target_from_source (4, 4), m, or the reason why it is missing.
    """
    end = time.monotonic() + timeout
    cancel = threading.Event() if cancel is None else cancel
    while True:
        transform = tree.lookup(target.lstrip("/"), source.lstrip("/"), stamp)
        if isinstance(transform, np.ndarray) or stamp is None or time.monotonic() > end:
            return transform
        if cancel.wait(_POLL):
            return transform


class TransformListener:
    """Fills a tree of transforms from the topics."""

    def __init__(self, node: Node, tree: TransformTree) -> None:
        """Subscribe."""
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
        """Unsubscribe."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)


def report_faults(tree: TransformTree, diagnostics: NodeDiagnostics) -> None:
    """Warn of transforms that contradict each other or cannot be used, with their counts."""
    faults = {f"transforms: {fault}": count for fault, count in tree.faults.items()}
    diagnostics.note(faults)
    text = shorten(sorted(faults), 20)
    diagnostics.condition("transform faults", WARN if text else OK, text)


class CameraMotion:
    """Measures how a camera moved since the last image, in a frame that does not move."""

    def __init__(self, node: Node, fixed_frame: str, timeout: float) -> None:
        """Subscribe.

        Args:
            node: The node that subscribes.
            fixed_frame: TF frame that does not move with the camera.
            timeout: Time to wait for transforms that come later than the image, s.
        """
        self.timeout = timeout  # s
        self._fixed_frame = fixed_frame
        self._tree = TransformTree()
        self._listener = TransformListener(node, self._tree)
        # the last image's frame, fixed_from_cam (4, 4)
        self._last: tuple[str, np.ndarray] | None = None

    def close(self) -> None:
        """Unsubscribe."""
        self._listener.close()

    def check(self, diagnostics: NodeDiagnostics) -> None:
        """Report what is wrong with the transforms; called once a second."""
        report_faults(self._tree, diagnostics)

    def forget(self) -> None:
        """Make the next image the first one, and forget all transforms: time may have jumped."""
        self._last = None
        self._tree.clear()

    def peek(self, frame: str, stamp: int) -> Tensor | None:
        """Return what `since_last` would, if its transform is here already, and change nothing."""
        if self._last is None or self._last[0] != frame:
            return None
        fixed_from_cam = wait_for_transform(
            self._tree, self._fixed_frame, frame, stamp, timeout=0.0
        )
        if isinstance(fixed_from_cam, str):
            return None
        return torch.from_numpy(np.linalg.inv(fixed_from_cam) @ self._last[1])

    def since_last(self, frame: str, stamp: int) -> Tensor | None:
        """Return the motion since the image before.

        Args:
            frame: TF frame of the image.
            stamp: Stamp of the image, ns.

        Returns:
            cam_now_from_cam_before (4, 4) float64, m; None for the first image of a frame.

        Raises:
            InvalidInput: No transform came within the timeout. The next image is the first then.
        """
        last = self._last
        self._last = None
        fixed_from_cam = wait_for_transform(
            self._tree, self._fixed_frame, frame, stamp, self.timeout
        )
        if isinstance(fixed_from_cam, str):
            raise InvalidInput(fixed_from_cam)
        self._last = (frame, fixed_from_cam)
        if last is None or last[0] != frame:
            return None
        return torch.from_numpy(np.linalg.inv(fixed_from_cam) @ last[1])
