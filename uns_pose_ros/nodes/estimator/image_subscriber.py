"""Subscribe to images, each with the newest camera_info, and to events of the middleware."""

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

from uns_pose_ros.io.ros.image_stamps import StampFault
from uns_pose_ros.nodes.diagnostics import ERROR, OK, WARN, NodeDiagnostics
from uns_pose_ros.nodes.image_stamps import StampWatch, stamp_ns
from uns_pose_ros.nodes.ros_compat import (
    SubscriptionEventCallbacks,
    UnsupportedEventTypeError,
)

ImageMessage: TypeAlias = Image | CompressedImage
_MOST_LOST = 100_000  # messages between two events; more is no count
_MOST_FRAMES = 16  # whose camera_info is kept
SILENCE_LIMIT = 5.0  # s without an image after which the diagnostics warn
_OVERRIDES = (
    QoSPolicyKind.HISTORY,
    QoSPolicyKind.DEPTH,
    QoSPolicyKind.RELIABILITY,
    QoSPolicyKind.DURABILITY,
)


class ImageSubscriber:
    """Subscribes to images and camera_info from activation to deactivation.

    The callbacks take the same time however slow the work on an image is.

    Intrinsics change rarely. So an image gets the newest camera_info, not the one of its own
    stamp: drivers that give the two different stamps work too. An image that comes before the
    first camera_info waits for it. Where several cameras send on one topic, the frame of an image
    says which camera_info is its own.
    """

    def __init__(
        self,
        node: LifecycleNode,
        transport: str,
        diagnostics: NodeDiagnostics,
        put: Callable[[tuple[ImageMessage, CameraInfo]], None],
        queue_depth: int = 1,
    ) -> None:
        """Subscribe.

        Args:
            node: The node that subscribes.
            transport: raw or compressed.
            diagnostics: Counts the images that are received and dropped.
            put: The function receives an image and its camera_info.
            queue_depth: Images that may wait in the middleware. With 1 the newest image comes
                next; a longer queue makes images older.
        """
        self._node = node
        self._diagnostics = diagnostics
        self._put = put
        self._queue_depth = queue_depth
        self._info: CameraInfo | None = None  # the newest
        self._by_frame: dict[str, CameraInfo] = {}  # the newest of each frame
        self._waiting: ImageMessage | None = None
        self._newest = time.monotonic()
        self._watch = StampWatch()
        if transport == "compressed":
            self._image = self._subscribe(
                CompressedImage, "image/compressed", self._on_image
            )
        else:
            self._image = self._subscribe(Image, "image", self._on_image)
        self._camera = self._subscribe(CameraInfo, "camera_info", self._on_info)

    @property
    def image_topic(self) -> str:
        """Full name of the topic of the images."""
        return str(self._image.topic_name)

    @property
    def camera_topic(self) -> str:
        """Full name of the topic of the camera_info."""
        return str(self._camera.topic_name)

    def close(self) -> None:
        """Unsubscribe."""
        self._node.destroy_subscription(self._image)
        self._node.destroy_subscription(self._camera)

    def check(self) -> None:
        """Report what does not arrive to the diagnostics; called once a second."""
        silent = time.monotonic() - self._newest > SILENCE_LIMIT
        topic = self.image_topic
        text = (
            f"no image for {SILENCE_LIMIT:.0f} s on {topic} ({self._node.count_publishers(topic)} "
            "publishers)"
        )
        self._diagnostics.condition("silence", WARN if silent else OK, text)
        text = self._watch.report(topic)
        if self._diagnostics.condition("stamps", WARN if text else OK, text):
            self._node.get_logger().warning(text)
        self._diagnostics.note(self._watch.counts())
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
        qos = QoSProfile(depth=self._queue_depth, reliability=ReliabilityPolicy.BEST_EFFORT)
        name = self._node.resolve_topic_name(topic)
        events: dict[str, Any] = {
            "incompatible_qos": lambda event: self._on_incompatible(name, event),
            "message_lost": self._on_lost,
        }
        if kind is CameraInfo:  # a lost one does not matter: the camera repeats it
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
            # not every middleware counts the messages that it loses
            except UnsupportedEventTypeError:
                if events.pop("message_lost", None) is None:
                    raise

    def _on_image(self, message: ImageMessage) -> None:
        self._diagnostics.received()
        self._newest = time.monotonic()
        stamp, now = stamp_ns(message), self._node.get_clock().now().nanoseconds
        self._diagnostics.aged("received", (now - stamp) / 1e9)
        if self._watch.take(stamp, now):
            self._diagnostics.dropped(StampFault.NEGATIVE.value)
            return
        if self._info is not None:
            self._put_with_info(message, self._info)
            return
        if self._waiting is not None:
            self._diagnostics.dropped("no camera_info yet")
        self._waiting = message

    def _on_info(self, message: CameraInfo) -> None:
        self._info = message
        self._by_frame[message.header.frame_id] = message
        if len(self._by_frame) > _MOST_FRAMES:
            del self._by_frame[next(iter(self._by_frame))]
        if self._waiting is not None:
            image = self._waiting
            self._waiting = None
            self._put_with_info(image, message)

    def _put_with_info(self, image: ImageMessage, newest: CameraInfo) -> None:
        self._put((image, self._by_frame.get(image.header.frame_id, newest)))

    def _on_incompatible(self, topic: str, event: Any) -> None:
        policy = qos_policy_name_from_kind(event.last_policy_kind)
        text = (
            f"a publisher of {topic} offers an incompatible QoS ({policy}): nothing comes "
            f"from it; set qos_overrides.{topic}"
        )
        if self._diagnostics.condition(f"qos {topic}", ERROR, text):
            self._node.get_logger().error(text)

    def _on_lost(self, event: Any) -> None:
        self._diagnostics.dropped("lost by the middleware", lost_count(event))


def lost_count(event: Any) -> int:
    """Messages that were lost since the last event, at least one.

    Some versions of the middleware leave the counts of an event unset: no number of messages then.
    """
    change = int(event.total_count_change)
    return change if 0 < change <= min(int(event.total_count), _MOST_LOST) else 1
