"""Publish the fused objects: /tf with named frames, detections, poses, grasps and markers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from geometry_msgs.msg import Point, PoseArray, Vector3
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile, ReliabilityPolicy
from std_msgs.msg import Header
from torch import Tensor
from vision_msgs.msg import Detection3DArray
from visualization_msgs.msg import Marker, MarkerArray

from uns_pose_ros.core.types import PoseEstimate
from uns_pose_ros.nodes import message_conversions
from uns_pose_ros.nodes.estimator.frame_messages import (
    MarkerKey,
    add_frame_markers,
    grasp_array,
    object_transforms,
)
from uns_pose_ros.nodes.ros_compat import TransformBroadcaster

_RESULTS = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
_ABOVE = 0.6  # longest sides of the object from its origin to its label


class FusedPublishers:
    """Publishes what the estimator publishes of each object, in the fixed frame."""

    def __init__(self, node: LifecycleNode, broadcaster: TransformBroadcaster) -> None:
        """Make the publishers.

        Args:
            node: The node that publishes.
            broadcaster: Publishes the transforms.
        """
        self._node, self._broadcaster = node, broadcaster
        self._detections = node.create_lifecycle_publisher(
            Detection3DArray, "~/detections", _RESULTS
        )
        self._poses = node.create_lifecycle_publisher(PoseArray, "~/poses", _RESULTS)
        self._grasps = node.create_lifecycle_publisher(PoseArray, "~/grasps", _RESULTS)
        self._markers = node.create_lifecycle_publisher(MarkerArray, "~/markers", _RESULTS)
        self._shown: dict[int, str] = {}  # category of the markers that viewers show
        self._fanned: set[int] = set()
        self._framed: set[MarkerKey] = set()
        self._header = Header()

    def publish(
        self,
        header: Header,
        estimates: Sequence[PoseEstimate],
        numbers: Sequence[int],
        centers: Sequence[Tensor],
        prefix: str,
    ) -> None:
        """Publish the objects of one result.

        Args:
            header: With the fixed frame and the newest stamp.
            estimates: In the fixed frame, m.
            numbers: Of the objects.
            centers: (3,) of each object's box in its own frame, m.
            prefix: Text before every TF child frame.
        """
        transforms = object_transforms(header, prefix, estimates, numbers)
        if transforms:
            self._broadcaster.sendTransform(transforms)
        self._detections.publish(
            message_conversions.detection_array(header, estimates, numbers, centers)
        )
        self._poses.publish(message_conversions.pose_array(header, estimates))
        self._grasps.publish(grasp_array(header, estimates))
        if self._markers.get_subscription_count() > 0 or self._shown:
            self._show(header, estimates, numbers, centers)

    def clear(self) -> None:
        """Delete every marker that viewers show."""
        if self._shown:
            self._show(self._header, [], [], [])

    def close(self) -> None:
        """Destroy the publishers; the broadcaster belongs to the node."""
        for publisher in (self._detections, self._poses, self._grasps, self._markers):
            self._node.destroy_lifecycle_publisher(publisher)

    def _show(
        self,
        header: Header,
        estimates: Sequence[PoseEstimate],
        numbers: Sequence[int],
        centers: Sequence[Tensor],
    ) -> None:
        meshes = {estimate.category: _CUBE for estimate in estimates}
        # the cube stands for the box, so that no edges are needed
        plain = [replace(estimate, center=None) for estimate in estimates]
        message = message_conversions.marker_array(
            header, plain, numbers, meshes, self._shown, self._fanned
        )
        objects = dict(zip(numbers, zip(estimates, centers, strict=True), strict=True))
        for marker in message.markers:
            if marker.action == Marker.ADD:
                _fit_marker(marker, *objects[marker.id])
        self._framed = add_frame_markers(message, header, estimates, numbers, self._framed)
        self._markers.publish(message)
        pairs = list(zip(estimates, numbers, strict=True))
        self._fanned = {
            number for each, number in pairs if message_conversions.has_fan(each)
        }
        self._shown = {number: each.category for each, number in pairs}
        self._header = header


def _fit_marker(marker: Marker, estimate: PoseEstimate, center: Tensor) -> None:
    """Make a box of a mesh, since this node has no models, and put a label above it, along z."""
    if marker.type == Marker.TRIANGLE_LIST:
        marker.pose = message_conversions.pose_message(estimate.box_pose(center))
        x, y, z = estimate.size.tolist()
        marker.scale = Vector3(x=x, y=y, z=z)
    elif marker.type == Marker.TEXT_VIEW_FACING:
        x, y, z = estimate.cam_from_canon[:3, 3].tolist()
        height = _ABOVE * float(estimate.size.max()) + marker.scale.z
        marker.pose.position = Point(x=x, y=y, z=z + height)


def _cube_points() -> list[Point]:
    """Corners of the triangles of a cube of side 1 about the origin."""
    points = list[Point]()
    for axis in range(3):
        for side in (-0.5, 0.5):
            for corners in (((-1, -1), (1, -1), (1, 1)), ((-1, -1), (1, 1), (-1, 1))):
                for u, v in corners:
                    xyz = torch.tensor([side, u / 2, v / 2]).roll(axis).tolist()
                    points.append(Point(x=xyz[0], y=xyz[1], z=xyz[2]))
    return points


_CUBE = _cube_points()
