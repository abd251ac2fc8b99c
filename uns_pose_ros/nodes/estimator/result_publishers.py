"""Publish the estimates of one image: /tf, detections, poses, grasps, markers and the overlay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from geometry_msgs.msg import Point, PoseArray
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import Image
from std_msgs.msg import Header, String
from torch import Tensor
from vision_msgs.msg import Detection3DArray
from visualization_msgs.msg import MarkerArray

from uns_pose_ros.core.types import Camera, CategoryModel, PoseEstimate
from uns_pose_ros.io.ros.ros_messages import nanoseconds
from uns_pose_ros.nodes import message_conversions
from uns_pose_ros.nodes.estimator.frame_messages import (
    MarkerKey,
    add_frame_markers,
    grasp_array,
    object_transforms,
)
from uns_pose_ros.nodes.estimator.on_demand.pose_topics import PoseTopics
from uns_pose_ros.nodes.fusion.frame_list import frame_list
from uns_pose_ros.nodes.ros_compat import TransformBroadcaster, array_to_image
from uns_pose_ros.nodes.worker_thread import run_in_temporary_thread
from uns_pose_ros.visualization import drawing
from uns_pose_ros.visualization.rerun_recording import RerunRecording

RESULTS = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)


class ResultPublishers:
    """Publishes the estimates of the estimator node.

    Overlays and markers are made only if a node subscribes to them.
    """

    def __init__(
        self,
        node: LifecycleNode,
        broadcaster: TransformBroadcaster,
        models: Sequence[CategoryModel],
        recording: RerunRecording | None = None,
    ) -> None:
        """Make the publishers.

        Args:
            node: The node that publishes.
            broadcaster: Publishes the transforms.
            models: The models whose estimates are published.
            recording: It gets all images and estimates too, and is closed with the publishers.
        """
        self._recording = recording
        self._node = node
        self._pose_topics: PoseTopics | None = None
        self.set_models(models)
        # category of the markers that viewers show, by track
        self._shown: dict[int, str] = {}
        self._fanned: set[int] = set()  # tracks whose alternatives viewers show
        self._framed: set[MarkerKey] = set()  # markers of named frames that viewers show
        self._header = Header()
        self._broadcaster = broadcaster
        override = QoSOverridingOptions.with_default_policies()
        self._detections = node.create_lifecycle_publisher(
            Detection3DArray, "~/detections", RESULTS
        )
        self._poses = node.create_lifecycle_publisher(PoseArray, "~/poses", RESULTS)
        self._grasps = node.create_lifecycle_publisher(PoseArray, "~/grasps", RESULTS)
        self._frames = node.create_lifecycle_publisher(String, "~/frames", RESULTS)
        self._markers = node.create_lifecycle_publisher(MarkerArray, "~/markers", RESULTS)
        self._overlay = node.create_lifecycle_publisher(
            Image, "~/overlay", RESULTS, qos_overriding_options=override
        )

    def set_models(self, models: Sequence[CategoryModel]) -> None:
        """Publish estimates of these models from now on; call `clear` before."""
        self._models: Mapping[str, CategoryModel] = {
            model.category: model for model in models
        }
        if self._recording is not None:
            self._recording.set_models(models)
        self._centers, self._meshes = run_in_temporary_thread(
            lambda: centers_and_meshes(models)
        )
        if self._pose_topics is not None:
            self._pose_topics.close()
        self._pose_topics = PoseTopics(self._node, models)

    def publish(
        self,
        header: Header,
        image: np.ndarray,
        camera: Camera,
        estimates: Sequence[PoseEstimate],
        metric_estimates: Sequence[PoseEstimate],
        tracks: Sequence[int],
        prefix: str,
        send_transform: bool = True,
        tracked: Sequence[bool] = (),
        only_seen_grasps: bool = False,
    ) -> None:
        """Publish everything about one image, with the image's own header.

        Args:
            header: Header of the image.
            image: (H, W, 3) uint8 RGB.
            camera: Camera of the image.
            estimates: Estimates in the model's units, which the overlay shows.
            metric_estimates: The same estimates in meters.
            tracks: Track number of each estimate.
            prefix: Text before every TF child frame.
            send_transform: Whether to send the transforms.
            tracked: Whether enough images have shown each object.
            only_seen_grasps: Whether to leave out grasps whose place the image does not show.
        """
        if metric_estimates and header.frame_id and send_transform:
            transforms = object_transforms(header, prefix, metric_estimates, tracks)
            self._broadcaster.sendTransform(transforms)
        if self._frames.get_subscription_count() > 0 and header.frame_id:
            text = frame_list(nanoseconds(header.stamp), metric_estimates, tracks)
            self._frames.publish(String(data=text))
        centers = [self._centers[estimate.category] for estimate in metric_estimates]
        self._detections.publish(
            message_conversions.detection_array(header, metric_estimates, tracks, centers)
        )
        self._poses.publish(message_conversions.pose_array(header, metric_estimates))
        if self._pose_topics is not None and tracked:
            self._pose_topics.publish(header, metric_estimates, tracks, tracked)
        self._grasps.publish(grasp_array(header, metric_estimates, only_seen_grasps))
        if self._markers.get_subscription_count() > 0 or self._shown:
            message = message_conversions.marker_array(
                header, metric_estimates, tracks, self._meshes, self._shown, self._fanned
            )
            self._framed = add_frame_markers(
                message, header, metric_estimates, tracks, self._framed
            )
            self._markers.publish(message)
            self._fanned = {
                track
                for estimate, track in zip(metric_estimates, tracks, strict=True)
                if message_conversions.has_fan(estimate)
            }
            self._shown = {
                track: estimate.category
                for estimate, track in zip(metric_estimates, tracks, strict=True)
            }
            self._header = header
        if self._recording is not None:
            stamp = header.stamp.sec * 10**9 + header.stamp.nanosec
            self._recording.add(stamp, image, camera, metric_estimates, tracks)
        if self._overlay.get_subscription_count() > 0:
            for estimate in estimates:
                image = drawing.draw_estimate(
                    image, camera, estimate, self._models[estimate.category]
                )
            self._overlay.publish(array_to_image(image, "rgb8", header))

    def answer(self, header: Header, estimates: Sequence[PoseEstimate]) -> None:
        """Publish the answer to a request, as detections that belong to no track.

        Args:
            header: Header of the image. An answer without objects has no frame.
            estimates: Estimates in meters.
        """
        centers = [self._centers[estimate.category] for estimate in estimates]
        header = header if estimates else Header(stamp=header.stamp)
        tracks = [message_conversions.NO_TRACK] * len(estimates)
        self._detections.publish(
            message_conversions.detection_array(header, estimates, tracks, centers)
        )

    def clear(self) -> None:
        """Delete every marker that viewers show: the tracks begin anew."""
        if self._pose_topics is not None:
            self._pose_topics.forget()
        if self._shown:
            message = message_conversions.marker_array(
                self._header, [], [], self._meshes, self._shown, self._fanned
            )
            self._framed = add_frame_markers(message, self._header, [], [], self._framed)
            self._markers.publish(message)
            self._shown, self._fanned = {}, set()

    def close(self) -> None:
        """Destroy the publishers; the transform broadcaster belongs to the node."""
        for publisher in (
            self._detections,
            self._poses,
            self._grasps,
            self._frames,
            self._markers,
            self._overlay,
        ):
            self._node.destroy_lifecycle_publisher(publisher)
        if self._recording is not None:
            self._recording.close()
            self._recording = None
        if self._pose_topics is not None:
            self._pose_topics.close()
            self._pose_topics = None


def centers_and_meshes(
    models: Sequence[CategoryModel],
) -> tuple[dict[str, Tensor], dict[str, list[Point]]]:
    """Return two tables by category, in canonical units.

    Returns:
        The center (3,) of the box of an average instance, and the corners of the template's
        triangles.
    """
    return {model.category: model.center for model in models}, {
        model.category: message_conversions.mesh_points(model) for model in models
    }
