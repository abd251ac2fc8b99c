"""What other nodes say about a picture (regions, depth), paired with it by the stamp."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo

from uns_pose_ros.nodes.diagnostics import OK, WARN, NodeDiagnostics
from uns_pose_ros.nodes.estimator.image_subscriber import ImageMessage

SynchronizedImage: TypeAlias = tuple[
    ImageMessage, CameraInfo, Mapping[str, Any]
]  # with the messages of its stamp, by topic

_KEPT = 8  # where the newest pictures are wanted


class StampSynchronizer:
    """Holds pictures back until the messages with the same stamp are there.

    They may come first. One thread calls all.
    """

    def __init__(
        self,
        node: LifecycleNode,
        kinds: Mapping[str, type],
        diagnostics: NodeDiagnostics,
        put: Callable[[SynchronizedImage], None],
        kept: int = _KEPT,
    ) -> None:
        """kinds.

        Type of the messages by their topic; without any, pictures go on at once. put: where
        complete items go.

        kept: pictures that wait for their companions at most, and companions of a topic that wait
        for their picture.
        """
        self._node, self._diagnostics, self._put, self._kept = node, diagnostics, put, kept
        self._pictures: OrderedDict[int, tuple[ImageMessage, CameraInfo]] = OrderedDict()
        self._others: dict[str, OrderedDict[int, Any]] = {
            topic: OrderedDict() for topic in kinds
        }
        qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
        override = QoSOverridingOptions.with_default_policies()
        self._subscriptions = {
            topic: node.create_subscription(
                kind,
                topic,
                partial(self._on_other, topic),
                qos,
                qos_overriding_options=override,
            )
            for topic, kind in kinds.items()
        }

    def close(self) -> None:
        for subscription in self._subscriptions.values():
            self._node.destroy_subscription(subscription)

    def check(self) -> None:
        """Tell the health where nothing is paired; called now and then."""
        for topic, subscription in self._subscriptions.items():
            stuck = (
                len(self._pictures) == self._kept
                and not self._pictures.keys() & self._others[topic].keys()
            )
            name = subscription.topic_name
            text = (
                f"images wait for {topic} of their stamp on {name} "
                f"({self._node.count_publishers(name)} publishers)"
            )
            self._diagnostics.condition(f"no {topic}", WARN if stuck else OK, text)

    def picture(self, item: tuple[ImageMessage, CameraInfo]) -> None:
        """A picture with its camera_info has come."""
        stamp = _stamp(item[0])
        self._pictures[stamp] = item
        if len(self._pictures) > self._kept:
            self._give_up(next(iter(self._pictures)))
        self._pair(stamp)

    def _on_other(self, topic: str, message: Any) -> None:
        waiting, stamp = self._others[topic], _stamp(message)
        waiting[stamp] = message
        if len(waiting) > self._kept:
            waiting.popitem(last=False)
        self._pair(stamp)

    def _pair(self, stamp: int) -> None:
        """Hand over the picture of that stamp if all of it is there.

        Older ones that still wait are given up.
        """
        if stamp not in self._pictures or any(
            stamp not in waiting for waiting in self._others.values()
        ):
            return
        item, found = (
            self._pictures.pop(stamp),
            {topic: waiting.pop(stamp) for topic, waiting in self._others.items()},
        )
        for other in [
            other for other in self._pictures if other < stamp
        ]:  # others answer in order: nothing will come
            self._give_up(other)
        self._put((*item, found))

    def _give_up(self, stamp: int) -> None:
        del self._pictures[stamp]
        missing = " and ".join(
            topic for topic, waiting in self._others.items() if stamp not in waiting
        )
        self._diagnostics.dropped(f"no {missing} of its stamp")


def _stamp(message: Any) -> int:
    return int(Time.from_msg(message.header.stamp).nanoseconds)
