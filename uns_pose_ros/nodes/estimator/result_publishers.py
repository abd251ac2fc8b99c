"""The estimator node's outputs.

/tf, detections, poses, markers and the overlay picture of one image's estimates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from geometry_msgs.msg import Point, PoseArray
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from torch import Tensor
from vision_msgs.msg import Detection3DArray
from visualization_msgs.msg import MarkerArray

from uns_pose_ros.core.types import Camera, CategoryModel, PoseEstimate
from uns_pose_ros.nodes import message_conversions
from uns_pose_ros.nodes.ros_compat import TransformBroadcaster, array_to_image
from uns_pose_ros.nodes.worker_thread import run_in_temporary_thread
from uns_pose_ros.visualization import drawing

RESULTS = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)


class ResultPublishers:
    """Publishers of one node for the models that it has loaded.

    Pictures and markers are made only where somebody listens.
    """

    def __init__(
        self,
        node: LifecycleNode,
        broadcaster: TransformBroadcaster,
        models: Sequence[CategoryModel],
    ) -> None:
        self._node = node
        self.use(models)
        self._shown: dict[
            int, str
        ] = {}  # track -> category of the markers that viewers hold
        self._header = Header()
        self._broadcaster = broadcaster
        override = QoSOverridingOptions.with_default_policies()
        self._detections = node.create_lifecycle_publisher(
            Detection3DArray, "~/detections", RESULTS
        )
        self._poses = node.create_lifecycle_publisher(PoseArray, "~/poses", RESULTS)
        self._markers = node.create_lifecycle_publisher(MarkerArray, "~/markers", RESULTS)
        self._overlay = node.create_lifecycle_publisher(
            Image, "~/overlay", RESULTS, qos_overriding_options=override
        )

    def use(self, models: Sequence[CategoryModel]) -> None:
        """Estimates are of these models from now on.

        To be called when `clear` has taken those of others away.
        """
        self._models: Mapping[str, CategoryModel] = {
            model.category: model for model in models
        }
        self._centres, self._meshes = run_in_temporary_thread(lambda: tables(models))

    def publish(
        self,
        header: Header,
        picture: np.ndarray,
        camera: Camera,
        seen: Sequence[PoseEstimate],
        sent: Sequence[PoseEstimate],
        tracks: Sequence[int],
        prefix: str,
    ) -> None:
        """Send everything about one image under its own header.

        picture: (H, W, 3) uint8 RGB; seen: estimates in the model's units; sent: the same in
        metres; tracks: their numbers.
        """
        if sent and header.frame_id:
            self._broadcaster.sendTransform(
                [
                    message_conversions.transform_message(
                        header,
                        message_conversions.frame_name(prefix, estimate, track),
                        estimate.cam_from_canon,
                    )
                    for estimate, track in zip(sent, tracks, strict=True)
                ]
            )
        centres = [self._centres[estimate.category] for estimate in sent]
        self._detections.publish(
            message_conversions.detection_array(header, sent, tracks, centres)
        )
        self._poses.publish(message_conversions.pose_array(header, sent))
        if self._markers.get_subscription_count() > 0 or self._shown:
            self._markers.publish(
                message_conversions.marker_array(
                    header, sent, tracks, self._meshes, self._shown
                )
            )
            self._shown, self._header = (
                {track: e.category for e, track in zip(sent, tracks, strict=True)},
                header,
            )
        if self._overlay.get_subscription_count() > 0:
            for estimate in seen:
                picture = drawing.overlay(
                    picture, camera, estimate, self._models[estimate.category]
                )
            self._overlay.publish(array_to_image(picture, "rgb8", header))

    def clear(self) -> None:
        """Take every marker off the viewers' screens."""
        if self._shown:
            self._markers.publish(
                message_conversions.marker_array(
                    self._header, [], [], self._meshes, self._shown
                )
            )
            self._shown = {}

    def close(self) -> None:
        """Destroy the publishers; the transform broadcaster is the node's."""
        for publisher in (self._detections, self._poses, self._markers, self._overlay):
            self._node.destroy_lifecycle_publisher(publisher)


def tables(
    models: Sequence[CategoryModel],
) -> tuple[dict[str, Tensor], dict[str, list[Point]]]:
    """By category.

    The middle (3,) of the template's extents, and the corners of its triangles, canonical units.
    """
    centres = {
        model.category: (model.vertices.amin(0) + model.vertices.amax(0)) / 2
        for model in models
    }
    return centres, {
        model.category: message_conversions.mesh_points(model) for model in models
    }
