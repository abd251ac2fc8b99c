"""Combine each image with the other messages (regions, depth) that have the same stamp.

`message_filters.TimeSynchronizer` of ROS does almost the same. The node does not use it for two
reasons: it has no wheel on the package index, and `make setup` must run without ROS; and it drops
images silently, while this node counts every image that is dropped, by reason.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo

from uns_pose_ros.nodes.diagnostics import OK, WARN, NodeDiagnostics
from uns_pose_ros.nodes.estimator.image_subscriber import ImageMessage
from uns_pose_ros.nodes.image_stamps import stamp_ns

# an image, its camera_info, and its companions: the other messages of its stamp, by topic
SynchronizedImage: TypeAlias = tuple[ImageMessage, CameraInfo, Mapping[str, Any]]


class StampSynchronizer:
    """Holds images back until their companions have come; companions may come first.

    All callbacks must be called from one thread.
    """

    def __init__(
        self,
        node: LifecycleNode,
        companions: Mapping[str, type],
        diagnostics: NodeDiagnostics,
        put: Callable[[SynchronizedImage], None],
        queue_size: int,
    ) -> None:
        """Subscribe to the companions.

        Args:
            node: The node that subscribes.
            companions: Types of the messages, by topic; empty: every image is complete at once.
            diagnostics: Counts the images that are dropped.
            put: The function receives complete images.
            queue_size: Images that may wait, and messages of each topic that may wait.
        """
        self._node = node
        self._diagnostics = diagnostics
        self._put = put
        self._queue_size = queue_size
        self._last: int | None = None  # ns, stamp of the last image
        self._images: OrderedDict[int, tuple[ImageMessage, CameraInfo]] = OrderedDict()
        self._companions: dict[str, OrderedDict[int, Any]] = {
            topic: OrderedDict() for topic in companions
        }
        qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
        override = QoSOverridingOptions.with_default_policies()
        self._subscriptions = {
            topic: node.create_subscription(
                kind,
                topic,
                partial(self._on_companion, topic),
                qos,
                qos_overriding_options=override,
            )
            for topic, kind in companions.items()
        }

    def close(self) -> None:
        """Unsubscribe."""
        for subscription in self._subscriptions.values():
            self._node.destroy_subscription(subscription)

    def check(self) -> None:
        """Report topics that never match to the diagnostics; called once a second."""
        for topic, subscription in self._subscriptions.items():
            full = len(self._images) == self._queue_size
            stuck = full and not self._images.keys() & self._companions[topic].keys()
            name = subscription.topic_name
            text = (
                f"images wait for {topic} of their stamp on {name} "
                f"({self._node.count_publishers(name)} publishers)"
            )
            self._diagnostics.condition(f"no {topic}", WARN if stuck else OK, text)

    def add_image(self, item: tuple[ImageMessage, CameraInfo]) -> None:
        """Take an image and its camera_info."""
        stamp = stamp_ns(item[0])
        if self._companions and (stamp == 0 or stamp == self._last):
            self._diagnostics.dropped(
                f"stamp 0 or repeated: no {' and '.join(self._companions)} belongs to it"
            )
            return
        self._last = stamp
        self._images[stamp] = item
        if len(self._images) > self._queue_size:
            self._drop(next(iter(self._images)))
        self._match(stamp)

    def _on_companion(self, topic: str, message: Any) -> None:
        waiting = self._companions[topic]
        stamp = stamp_ns(message)
        waiting[stamp] = message
        if len(waiting) > self._queue_size:
            waiting.popitem(last=False)
        self._match(stamp)

    def _match(self, stamp: int) -> None:
        """Hand over the image of this stamp if it is complete, and drop older images."""
        queues = self._companions.values()
        if stamp not in self._images or any(stamp not in waiting for waiting in queues):
            return
        message, info = self._images.pop(stamp)
        companions = {
            topic: waiting.pop(stamp) for topic, waiting in self._companions.items()
        }
        # the other nodes answer in order: nothing will come for older images
        for older in [other for other in self._images if other < stamp]:
            self._drop(older)
        self._put((message, info, companions))

    def _drop(self, stamp: int) -> None:
        del self._images[stamp]
        missing = [
            topic for topic, waiting in self._companions.items() if stamp not in waiting
        ]
        self._diagnostics.dropped(f"no {' and '.join(missing)} of its stamp")
