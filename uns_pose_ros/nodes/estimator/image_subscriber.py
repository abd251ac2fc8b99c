"""A node's inputs: pictures with the newest camera_info, and what the middleware says of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeAlias

from rclpy.lifecycle import LifecycleNode
from rclpy.qos import (
    QoSPolicyKind,
    QoSProfile,
    ReliabilityPolicy,
    qos_policy_name_from_kind,
)
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from uns_pose_ros.nodes.diagnostics import ERROR, OK, WARN, NodeDiagnostics
from uns_pose_ros.nodes.ros_compat import (
    SubscriptionEventCallbacks,
    UnsupportedEventTypeError,
)

ImageMessage: TypeAlias = Image | CompressedImage
SILENCE_LIMIT = 5.0  # s without a picture after which that is worth a warning
_OVERRIDES = (
    QoSPolicyKind.HISTORY,
    QoSPolicyKind.DEPTH,
    QoSPolicyKind.RELIABILITY,
    QoSPolicyKind.DURABILITY,
)


class ImageSubscriber:
    """Subscriptions of one node from activation to deactivation.

    Callbacks cost the same however slow the work is.

    Intrinsics change rarely, so a picture is paired with the newest camera_info rather than with
    the one of its own stamp: drivers that stamp the two differently work. A picture that comes
    before any camera_info waits for the first.
    """

    def __init__(
        self,
        node: LifecycleNode,
        transport: str,
        diagnostics: NodeDiagnostics,
        put: Callable[[tuple[ImageMessage, CameraInfo]], None],
        depth: int = 1,
    ) -> None:
        """transport: raw or compressed; put: where a picture and its camera_info go.

        depth: messages that wait in the middleware; 1 where the newest picture is wanted, for a
        longer queue is older pictures.
        """
        self._node, self._diagnostics, self._put, self._depth = node, diagnostics, put, depth
        self._info: CameraInfo | None = None
        self._waiting: ImageMessage | None = None
        self._newest = time.monotonic()
        kind, topic = (
            (CompressedImage, "image/compressed")
            if transport == "compressed"
            else (Image, "image")
        )
        self._image = self._subscribe(kind, topic, self._on_image)
        self._camera = self._subscribe(CameraInfo, "camera_info", self._on_info)

    @property
    def image_topic(self) -> str:
        return str(self._image.topic_name)

    @property
    def camera_topic(self) -> str:
        return str(self._camera.topic_name)

    def close(self) -> None:
        self._node.destroy_subscription(self._image)
        self._node.destroy_subscription(self._camera)

    def check(self) -> None:
        """Tell the health what does not arrive; called now and then."""
        silent = time.monotonic() - self._newest > SILENCE_LIMIT
        topic = self.image_topic
        text = (
            f"no image for {SILENCE_LIMIT:.0f} s on {topic} ({self._node.count_publishers(topic)} "
            "publishers)"
        )
        self._diagnostics.condition("silence", WARN if silent else OK, text)
        topic = self.camera_topic
        text = (
            f"images wait for the first camera_info on {topic} "
            f"({self._node.count_publishers(topic)} publishers)"
        )
        self._diagnostics.condition(
            "no camera_info", ERROR if self._waiting is not None else OK, text
        )

    def _subscribe(
        self, kind: type, topic: str, callback: Callable[[Any], None]
    ) -> Subscription:
        qos = QoSProfile(depth=self._depth, reliability=ReliabilityPolicy.BEST_EFFORT)
        name = self._node.resolve_topic_name(topic)
        events: dict[str, Any] = {
            "incompatible_qos": lambda event: self._on_incompatible(name, event),
            "message_lost": self._on_lost,
        }
        if kind is CameraInfo:  # which is sent again and again
            del events["message_lost"]
        while True:
            try:
                return self._node.create_subscription(
                    kind,
                    topic,
                    callback,
                    qos,
                    event_callbacks=SubscriptionEventCallbacks(**events),
                    qos_overriding_options=QoSOverridingOptions(_OVERRIDES),
                )
            except (
                UnsupportedEventTypeError
            ):  # a middleware that does not count what it loses
                if events.pop("message_lost", None) is None:
                    raise

    def _on_image(self, message: ImageMessage) -> None:
        self._diagnostics.received()
        self._newest = time.monotonic()
        if self._info is not None:
            self._put((message, self._info))
            return
        if self._waiting is not None:
            self._diagnostics.dropped("no camera_info yet")
        self._waiting = message

    def _on_info(self, message: CameraInfo) -> None:
        self._info = message
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            self._put((waiting, message))

    def _on_incompatible(self, topic: str, event: Any) -> None:
        policy = qos_policy_name_from_kind(event.last_policy_kind)
        text = (
            f"a publisher of {topic} offers an incompatible QoS ({policy}): nothing comes "
            f"from it; set qos_overrides.{topic}"
        )
        if self._diagnostics.condition(f"qos {topic}", ERROR, text):
            self._node.get_logger().error(text)

    def _on_lost(self, event: Any) -> None:
        self._diagnostics.dropped("lost by the middleware", event.total_count_change)
