"""One pose a category as PoseStamped, which docking and other single-object programs read."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from geometry_msgs.msg import PoseStamped
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import Header, String

from uns_pose_ros.core.types import CategoryModel, PoseEstimate
from uns_pose_ros.nodes import message_conversions

_POSES = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
_LATCHED = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
_BETTER = 0.1  # by which a score must exceed that of the track that was published before


class PoseTopics:
    """Publishes ~/pose/<category>, the best tracked object, and ~/categories.

    The track that was published last stays the best one until it is lost or until another one has
    a clearly higher score, so that a robot does not change its goal at every image.
    """

    def __init__(self, node: LifecycleNode, models: Sequence[CategoryModel]) -> None:
        """Make the publishers for models."""
        self._node = node
        self._best: dict[str, int] = {}  # track by category
        self._categories = node.create_publisher(String, "~/categories", _LATCHED)
        names = topic_names([model.category for model in models])
        self._publishers = {
            category: node.create_lifecycle_publisher(PoseStamped, topic, _POSES)
            for category, topic in names.items()
        }
        self._categories.publish(String(data=json.dumps(self._describe(models))))

    def publish(
        self,
        header: Header,
        estimates: Sequence[PoseEstimate],
        tracks: Sequence[int],
        tracked: Sequence[bool],
    ) -> None:
        """Publish the best tracked object of each category.

        Args:
            header: Header of the image.
            estimates: Estimates in meters.
            tracks: Track number of each estimate.
            tracked: Whether enough images have shown each object.
        """
        if not header.frame_id:
            return
        objects = [
            (estimate, track)
            for estimate, track, is_tracked in zip(estimates, tracks, tracked, strict=True)
            if is_tracked
        ]
        for category, publisher in self._publishers.items():
            rivals = [(e, t) for e, t in objects if e.category == category]
            if not rivals:
                continue
            before = self._best.get(category)
            estimate, track = max(
                rivals, key=lambda rival: rival[0].score + _BETTER * (rival[1] == before)
            )
            self._best[category] = track
            pose = message_conversions.pose_message(estimate.cam_from_canon)
            publisher.publish(PoseStamped(header=header, pose=pose))

    def forget(self) -> None:
        """Let any track be the best one next: the numbers begin anew."""
        self._best = {}

    def close(self) -> None:
        """Destroy the publishers."""
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self._node.destroy_publisher(self._categories)

    def _describe(self, models: Sequence[CategoryModel]) -> list[dict[str, object]]:
        return [
            {
                "category": model.category,
                # m, extents along the canonical axes; null: the model does not know its size
                "size": None
                if model.diameter is None
                else (model.extents.double() * model.diameter).tolist(),
                "symmetry": {
                    "order": model.symmetry.order,
                    "name": model.symmetry.name,
                    "axis": model.symmetry.axis.tolist(),
                },
                "pose_topic": self._publishers[model.category].topic_name,
            }
            for model in models
        ]


def topic_names(categories: Sequence[str]) -> dict[str, str]:
    """Return the private topic of each category; what no topic may contain becomes _."""
    names: dict[str, str] = {}
    for category in categories:
        name = re.sub(r"_+", "_", re.sub(r"[^A-Za-z0-9_]", "_", category)).strip("_")
        if not name or name[0].isdigit():
            name = f"category_{name}".rstrip("_")
        topic = f"~/pose/{name}"
        while topic in names.values():
            topic += "_2"
        names[category] = topic
    return names
