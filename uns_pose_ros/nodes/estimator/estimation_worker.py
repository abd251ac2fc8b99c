"""The work of the estimator node on one image: from the messages to the published results."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header
from torch import Tensor
from vision_msgs.msg import Detection2DArray

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Camera, PoseEstimate
from uns_pose_ros.estimation.device_failover import FallbackEstimator
from uns_pose_ros.estimation.metric_scale import to_known_diameter, to_metres
from uns_pose_ros.estimation.stream.expectation import Expectation
from uns_pose_ros.estimation.stream.stream_estimator import StreamEstimator
from uns_pose_ros.estimation.tracker import Tracker, TrackState
from uns_pose_ros.io import depth_images
from uns_pose_ros.io.ros import ros_messages
from uns_pose_ros.nodes.diagnostics import OK, WARN, NodeDiagnostics
from uns_pose_ros.nodes.estimator import region_inputs
from uns_pose_ros.nodes.estimator.empty_images import EmptyImages
from uns_pose_ros.nodes.estimator.estimator_parameters import ImageSettings
from uns_pose_ros.nodes.estimator.image_stream import DEPTH_TOPICS
from uns_pose_ros.nodes.estimator.image_subscriber import ImageMessage
from uns_pose_ros.nodes.estimator.model_slot import ModelSlot
from uns_pose_ros.nodes.estimator.on_demand.pose_requests import group_regions
from uns_pose_ros.nodes.estimator.result_publishers import ResultPublishers
from uns_pose_ros.nodes.estimator.stamp_synchronizer import SynchronizedImage
from uns_pose_ros.nodes.image_stamps import StampOrder, stamp_ns
from uns_pose_ros.nodes.managed_node import ManagedNode, one_line
from uns_pose_ros.nodes.tf_listener import CameraMotion


class EstimationWorker:
    """Estimates the poses in one image after another, tracks them and publishes them.

    The worker thread calls `process`; all other methods may be called from any thread.
    """

    def __init__(
        self,
        node: ManagedNode,
        diagnostics: NodeDiagnostics,
        models: ModelSlot,
        publishers: ResultPublishers,
        tracker: Tracker,
        settings: Callable[[], ImageSettings],
    ) -> None:
        """Begin without tracks.

        Args:
            node: The node whose clock and log are used.
            diagnostics: Counts results and drops, and holds conditions.
            models: The estimator in use.
            publishers: The outputs of the node.
            tracker: Fuses the estimates of all images.
            settings: The function returns the settings for the next image.
        """
        self._node = node
        self._diagnostics = diagnostics
        self._models = models
        self._publishers = publishers
        self._tracker = tracker
        self._stream = StreamEstimator(tracker)
        self._settings = settings
        self._motion: CameraMotion | None = None
        # guards what the worker thread, a reset and other models change: tracker, stamps, markers
        self._lock = threading.RLock()
        self._stamps = StampOrder()
        self._sent: int | None = None  # ns, stamp of the last transforms
        self._epoch = 0  # number of resets
        self.nothing = EmptyImages()
        self._regions_left_out: Counter[str] = Counter()
        self._requests_left_out: Counter[str] = Counter()
        self._depth_uses: Counter[str] = Counter()

    def follow_camera(self, motion: CameraMotion | None) -> None:
        """Use a source of the camera's motion from now on; None: the motion is not known."""
        self._motion = motion

    def reset(self) -> None:
        """Forget all tracks and delete their markers; an estimation in progress is dropped."""
        with self._lock:
            self._stream.reset()
            if self._motion is not None:
                self._motion.forget()
            self._stamps.forget()
            self._sent = None
            self._epoch += 1
            self.nothing = EmptyImages()
            self._node.set_warning("nothing", "")
            self._publishers.clear()

    def replace_models(self, estimator: FallbackEstimator) -> None:
        """Forget all tracks and use an estimator with other models from now on."""
        with self._lock:
            self.reset()
            self._models.estimator = estimator
            self._publishers.set_models(estimator.models)

    def track_states(self) -> list[TrackState]:
        """State of every track."""
        with self._lock:
            return [track.state for track in self._tracker.tracks]

    def process(self, item: SynchronizedImage) -> None:
        """Estimate, track and publish the poses in one image; raises InvalidInput."""
        message, _, _ = item
        settings = self._settings()
        began = time.monotonic()
        stamp = stamp_ns(message)
        with self._lock:
            if not self._stamps.advance(stamp, self._on_jump_back):
                self._diagnostics.dropped("stamp seen before")
                return
            is_time, tracker_time = self._stamps.is_time, self._stamps.time
            send_transform = stamp != self._sent
            epoch = self._epoch
            estimator = self._models.estimator
        assert estimator is not None  # the worker thread lives from activate to deactivate
        self._diagnostics.aged("begun", self._age(stamp))
        image = ros_messages.decode_image(message)
        is_faint = ros_messages.uses_few_bits(message, image)
        self._node.set_warning("bits", ros_messages.FEW_BITS if is_faint else "")
        frame = message.header.frame_id if is_time else None
        expected = self._expect(frame, stamp, tracker_time, settings)
        camera, estimates = self._estimate(estimator, image, item, settings, expected)
        motion = None
        if is_time:
            timeout = settings.tracking.transform_timeout
            motion = self._motion_since_last(message.header.frame_id, stamp, timeout)
        with self._lock:
            if epoch != self._epoch:
                self._diagnostics.dropped("reset meanwhile")
                return
            self._publish(
                message,
                image,
                camera,
                estimates,
                expected,
                tracker_time,
                motion,
                send_transform,
                settings,
            )
            self._sent = stamp
        self._diagnostics.published(self._age(stamp), time.monotonic() - began)

    def answer(self, item: SynchronizedImage, request: Detection2DArray) -> None:
        """Estimate the poses that a request asks for, and publish them; raises InvalidInput.

        The tracks do not change. The worker thread calls this.
        """
        message, info, companions = item
        settings = self._settings()
        with self._lock:
            estimator = self._models.estimator
        if estimator is None:
            raise InvalidInput("the node has no models now")
        estimator.configure(settings.estimator)
        image = ros_messages.decode_image(message)
        height, width = image.shape[:2]
        camera = ros_messages.read_camera_info(info, width, height, settings.node.rectified)
        depth_topic, _ = DEPTH_TOPICS[settings.node.depth_transport]
        depth = None
        if (depth_message := companions.get(depth_topic)) is not None:
            depth = depth_images.depth_in_metres(depth_message, width, height)
        left_out: Counter[str] = Counter()
        categories = [model.category for model in estimator.models]
        wanted = settings.node.wanted
        estimates: list[PoseEstimate] = []
        groups = group_regions(request, wanted or categories, left_out)
        for category, regions in groups.items():
            boxes = None
            if regions is not None:
                most = settings.estimator.max_instances
                boxes = region_inputs.region_boxes(regions, camera, (), most, left_out)
                if not len(boxes):
                    continue
            searched = [category] if category else wanted
            estimates += estimator(image, camera, boxes, depth, searched)
        diameter = settings.node.object_diameter
        if diameter:
            estimates = to_known_diameter(estimates, estimator.models, diameter)
        if counts := {reason: count for reason, count in left_out.items() if count}:
            self._requests_left_out.update(counts)
            self._diagnostics.note(
                {
                    f"regions of requests left out: {reason}": count
                    for reason, count in self._requests_left_out.items()
                }
            )
        with self._lock:
            self._publishers.answer(
                message.header, [to_metres(estimate, 1.0) for estimate in estimates]
            )

    def _age(self, stamp: int) -> float:
        """Time since an image's stamp, ns, in s."""
        return float(self._node.get_clock().now().nanoseconds - stamp) / 1e9

    def refuse(self, header: Header) -> None:
        """Publish an empty answer."""
        self._publishers.answer(header, [])

    def _on_jump_back(self) -> None:
        self.reset()
        self._node.get_logger().info("tracks reset: the images' stamps jumped back")

    def _expect(
        self, frame: str | None, stamp: int, tracker_time: int, settings: ImageSettings
    ) -> Expectation | None:
        """Predict what an image shows; the camera's motion helps if it is known already."""
        source = self._motion
        motion = None
        if source is not None and frame is not None:
            motion = source.peek(frame, stamp)
        with self._lock:
            self._tracker.configure(settings.tracker, settings.fusion)
            self._stream.config = settings.stream
            return self._stream.expect(tracker_time, motion)

    def _estimate(
        self,
        estimator: FallbackEstimator,
        image: np.ndarray,
        item: SynchronizedImage,
        image_settings: ImageSettings,
        expected: Expectation | None = None,
    ) -> tuple[Camera, list[PoseEstimate]]:
        """Estimate the poses in one image.

        Args:
            estimator: The estimator in use.
            image: (H, W, 3) uint8 RGB.
            item: The messages of the image.
            image_settings: The settings for this image.
            expected: What the stream expects of the image.

        Returns:
            The camera, and the estimates, in meters where the size is known.
        """
        message, info, companions = item
        settings = image_settings.node
        estimator.configure(image_settings.estimator)
        height, width = image.shape[:2]
        camera = ros_messages.read_camera_info(info, width, height, settings.rectified)
        self._check_headers(message, info)
        regions = companions.get(settings.regions)
        boxes = None
        if regions is not None:
            boxes = region_inputs.region_boxes(
                regions,
                camera,
                settings.classes,
                image_settings.estimator.max_instances,
                self._regions_left_out,
            )
            self._diagnostics.note(
                {
                    f"regions left out: {reason}": count
                    for reason, count in self._regions_left_out.items()
                    if count
                }
            )
        depth_topic, _ = DEPTH_TOPICS[settings.depth_transport]
        depth_message = companions.get(depth_topic)
        depth = None
        if depth_message is not None:
            depth = depth_images.depth_in_metres(depth_message, width, height)
        estimates = estimator(image, camera, boxes, depth, settings.wanted, expected)
        self._node.set_warning("device", estimator.fault)
        searched = boxes is None or len(boxes) > 0
        threshold = image_settings.estimator.score_threshold
        self.nothing.add(
            bool(estimates),
            estimator.best_rejected if searched else None,
            threshold if threshold >= 0 else estimator.threshold,
        )
        self._node.set_warning("nothing", self.nothing.warning())
        if depth is not None:
            self._note_depth(estimates)
        diameter = settings.object_diameter
        if diameter:
            estimates = to_known_diameter(estimates, estimator.models, diameter)
        return camera, estimates

    def _note_depth(self, estimates: Sequence[PoseEstimate]) -> None:
        """Count what depth did for the objects, and warn where their size stays unknown."""
        unscaled = sum(not estimate.metric for estimate in estimates)
        text = (
            f"depth says nothing of {unscaled} of {len(estimates)} objects: their size is "
            "not known"
        )
        self._diagnostics.condition("depth", WARN if unscaled else OK, text)
        self._depth_uses.update(one.depth_use for one in estimates if one.depth_use)
        self._diagnostics.note(
            {f"depth: {use}": count for use, count in self._depth_uses.items()}
        )

    def _publish(
        self,
        message: ImageMessage,
        image: np.ndarray,
        camera: Camera,
        estimates: list[PoseEstimate],
        expected: Expectation | None,
        stamp: int,
        motion: Tensor | None,
        send_transform: bool,
        settings: ImageSettings,
    ) -> None:
        """Update the tracks and publish them.

        Args:
            message: The image's message, whose header the results get.
            image: (H, W, 3) uint8 RGB.
            camera: The camera of the image.
            estimates: The estimates of this image.
            expected: What the stream expected of it.
            stamp: The image's time for the tracker, ns.
            motion: cam_now_from_cam_before (4, 4), m; None: not known.
            send_transform: Whether to send transforms: not twice with one stamp.
            settings: The settings for this image.
        """
        tracks = self._stream.update(estimates, expected, stamp, motion)
        if not settings.tracking.tentative:
            tracks = [track for track in tracks if track.state == TrackState.TRACKED]
        fused = [track.estimate for track in tracks]
        if not settings.node.named_frames:
            fused = [replace(estimate, frames=()) for estimate in fused]
        self._publishers.publish(
            message.header,
            image,
            camera,
            fused,
            [to_metres(estimate, 1.0) for estimate in fused],
            [track.number for track in tracks],
            settings.node.child_prefix(self._node.get_namespace()),
            send_transform,
            [track.state == TrackState.TRACKED for track in tracks],
            settings.node.only_seen_grasps,
        )

    def _motion_since_last(self, frame: str, stamp: int, timeout: float) -> Tensor | None:
        """Return cam_now_from_cam_before (4, 4), m; None with a diagnostic if TF has no motion."""
        if self._motion is None:
            return None
        try:
            self._motion.timeout = timeout
            motion = self._motion.since_last(frame, stamp)
        except InvalidInput as error:
            self._node.set_warning(
                "motion", f"the camera's motion is not known: {one_line(error)}"
            )
            return None
        self._diagnostics.condition("motion", OK, "")
        return motion

    def _check_headers(self, message: ImageMessage, info: CameraInfo) -> None:
        image_frame = message.header.frame_id
        info_frame = info.header.frame_id
        text = "the images have no frame_id: no transform is sent"
        self._diagnostics.condition("no frame", OK if image_frame else WARN, text)
        text = (
            f"image is in frame '{image_frame}', camera_info in '{info_frame}': results are "
            "in the image's"
        )
        self._node.set_warning("frames", text if image_frame != info_frame else "")
