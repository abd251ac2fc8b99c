"""The recorder node: subscribes to images and writes a video folder.

If a fixed frame is set, the folder has camera poses from TF.

It is a lifecycle node. Callbacks only put images into a bounded queue. One thread selects images in
their order, another thread writes the selected ones. ~/status and ~/overlay show which images were
kept, why others were not, and from which directions the object still has to be filmed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_srvs.srv import Trigger

from uns_pose_ros.capture.guidance import Coverage, draw_guidance
from uns_pose_ros.capture.keyframes import KeyframeConfig
from uns_pose_ros.capture.recording import FrameRecord, Recording, recover
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Camera
from uns_pose_ros.core.view_coverage import ViewCoverage
from uns_pose_ros.io import depth_images as depths
from uns_pose_ros.io.encoded_image import EncodedImage
from uns_pose_ros.io.ros import ros_messages
from uns_pose_ros.io.ros.transform_buffer import TransformTree
from uns_pose_ros.nodes import message_conversions, parameter_declaration, ros_compat
from uns_pose_ros.nodes.diagnostics import OK, WARN, NodeDiagnostics, cut_text
from uns_pose_ros.nodes.estimator.image_stream import DEPTH_TOPICS, ImageStream
from uns_pose_ros.nodes.estimator.image_subscriber import ImageMessage
from uns_pose_ros.nodes.estimator.stamp_synchronizer import SynchronizedImage
from uns_pose_ros.nodes.image_stamps import StampOrder, stamp_ns
from uns_pose_ros.nodes.managed_node import ManagedNode, one_line, spin_node
from uns_pose_ros.nodes.recorder.recorder_parameters import (
    AT_ACTIVATION,
    SETTINGS,
    RecorderParameters,
)
from uns_pose_ros.nodes.recorder.recording_session import RecordingSession
from uns_pose_ros.nodes.tf_listener import (
    TransformListener,
    report_faults,
    wait_for_transform,
)

NO_TRANSFORM = "no transform at the image's stamp"
# images that may wait in the middleware: none must be lost while a callback is late
_QUEUE_DEPTH = 10
_STOP_TIMEOUT = 10.0  # s that deactivation waits for the image in the selection thread
_OVERLAY_PERIOD = 0.1  # s at least between two overlays
_OVERLAY_SIDE = 640  # px, longer side of the overlay at most
_LATCHED = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)


class RecorderNode(ManagedNode):
    """Records the useful images of a camera, from ~/start to ~/stop."""

    def __init__(self, **options: Any) -> None:
        """Declare the parameters; raises if one of them is not valid.

        Args:
            options: Options of rclpy's Node.
        """
        super().__init__(
            "recorder", SETTINGS, NodeDiagnostics("images kept", "writing"), **options
        )
        self._start_service = self.create_service(Trigger, "~/start", self._on_start)
        self._stop_service = self.create_service(Trigger, "~/stop", self._on_stop)
        self._tree = TransformTree()
        self._listener: TransformListener | None = None
        self._stream: ImageStream | None = None
        self._session: RecordingSession | None = None
        self._closing = threading.Event()  # ends the waiting for transforms
        self._stamps = StampOrder()
        self._overlay_time = 0.0  # s, monotonic, of the last overlay
        self._outcome = ""  # of the last image

    @property
    def autostart(self) -> bool:
        """Whether the node configures and activates itself."""
        return self._settings.autostart

    # Lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Make the publishers."""
        self._diagnostics.clear()
        override = QoSOverridingOptions.with_default_policies()
        qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
        self._status = self.create_lifecycle_publisher(
            DiagnosticStatus, "~/status", _LATCHED
        )
        self._overlay = self.create_lifecycle_publisher(
            Image, "~/overlay", qos, qos_overriding_options=override
        )
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe, and start the thread that selects images."""
        result = super().on_activate(state)
        self._closing.clear()
        self._on_jump()
        self._listener = (
            TransformListener(self, self._tree) if self._settings.frame else None
        )
        companions: dict[str, type] = {}
        if self._settings.depth != "none":
            topic, kind = DEPTH_TOPICS[self._settings.depth]
            companions[topic] = kind
        self._stream = ImageStream(
            self,
            self._diagnostics,
            self._settings.transport,
            companions,
            self._work,
            slots=self._settings.queue,
            waiting_images=self._settings.queue,
            queue_depth=_QUEUE_DEPTH,
        )
        if self._settings.record:
            self._begin()
        return result

    def close(self) -> None:
        """Unsubscribe and finish the recording, so that its folder is complete."""
        self._closing.set()
        for part in (self._stream, self._listener):
            if part is not None:
                part.close()
        if self._stream is not None:
            self._stream.stop(_STOP_TIMEOUT)
        self._stream = None
        self._listener = None
        if self._session is not None:
            self._end()

    def _release(self) -> None:
        for publisher in (self._status, self._overlay):
            self.destroy_lifecycle_publisher(publisher)

    # From start to stop

    def _begin(self) -> tuple[bool, str]:
        """Start recording; return whether it has begun, and a message."""
        if self._stream is None:
            return False, "the node is not active: configure and activate it first"
        if self._session is not None:
            return (
                False,
                f"already recording into {self._session.recording.folder}: call ~/stop first",
            )
        try:
            for name in recover(self._settings.category_folder()):
                self.get_logger().info(
                    f"{name}: finished what a recorder that was killed had left"
                )
            topics = {
                "image": self._stream.image_topic,
                "camera_info": self._stream.camera_topic,
            }
            settings = self._settings
            if settings.depth != "none":
                topic, _ = DEPTH_TOPICS[settings.depth]
                topics["depth"] = self.resolve_topic_name(topic)
            recording = Recording.open_or_recover(
                settings.folder(), topics, settings.frame, settings.keep_free
            )
        except (InvalidInput, OSError) as error:
            text = f"cannot record: {one_line(error)}"
            self._report_error("recording", text)
            return False, text
        self._diagnostics.condition("recording", OK, "")
        self._session = RecordingSession(
            recording,
            settings,
            self._config,
            self._diagnostics,
            lambda text: self._report_error("recording", text),
        )
        text = f"recording into {recording.folder}"
        self.get_logger().info(
            text + (f", which has {len(recording)} images" if len(recording) else "")
        )
        return True, text

    def _end(self) -> tuple[bool, str]:
        """Finish the recording; return whether its folder is complete, and a message."""
        session = self._session
        self._session = None
        if session is None:
            return False, "not recording"
        try:
            text = session.finish()
        except InvalidInput as error:
            self._report_error("recording", str(error))
            return False, str(error)
        if self.context.ok():
            self.get_logger().info(text)
        return True, text

    def _on_start(
        self, request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        response.success, response.message = self._begin()
        self._tick()
        return response

    def _on_stop(
        self, request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        response.success, response.message = self._end()
        self._tick()
        return response

    # Images

    def _work(self, item: SynchronizedImage) -> None:
        """Process one image in the selection thread; never raises."""
        self._guarded(lambda: self._process(*item), "recording an image failed")

    def _process(
        self, message: ImageMessage, info: CameraInfo, companions: Mapping[str, Any]
    ) -> None:
        """Keep an image or count why not, and publish the overlay; raises InvalidInput.

        Args:
            message: The image.
            info: Its camera_info.
            companions: Its depth message, if depth is recorded, by topic.
        """
        session = self._session
        if session is None:
            self._diagnostics.dropped("not recording")
            if self._overlay.get_subscription_count() == 0:
                return
        stamp = stamp_ns(message)
        if not self._stamps.advance(stamp, self._on_jump_back):
            self._diagnostics.dropped("stamp seen before")
            return
        image = ros_messages.read_encoded_image(message)
        if image.pixels is not None:
            is_faint = ros_messages.uses_few_bits(message, image.pixels)
            self.set_warning("bits", ros_messages.FEW_BITS if is_faint else "")
        pose = None
        if self._settings.frame:
            pose = self._pose(
                message.header.frame_id, stamp if self._stamps.is_time else None
            )
        if session is not None:
            depth = next(iter(companions.values()), None)
            self._outcome = self._offer(session, image, stamp, info, pose, depth)
        self._publish_overlay(
            message, image, session, pose if isinstance(pose, np.ndarray) else None
        )

    def _offer(
        self,
        session: RecordingSession,
        image: EncodedImage,
        stamp: int,
        info: CameraInfo,
        pose: np.ndarray | str | None,
        depth: Image | CompressedImage | None,
    ) -> str:
        """Offer an image to the session, and count why it is not kept.

        Args:
            session: The recording.
            image: The image.
            stamp: Its stamp, ns.
            info: Its camera_info.
            pose: cam_from_obj (4, 4), m; None: not recorded; a text: why it is missing.
            depth: Its depth message; None: not recorded.

        Returns:
            What became of the image, for people.
        """
        camera = self._camera(info, image.width, image.height)
        if isinstance(pose, str):
            reason: str | None = NO_TRANSFORM
        else:
            cam_from_obj = None if pose is None else torch.from_numpy(pose)
            record = FrameRecord(
                stamp, camera, message_conversions.info_record(info), cam_from_obj
            )
            read_depth = None if depth is None else partial(_decode_aligned, depth, image)
            reason = session.take(
                image,
                record,
                lambda: (self.get_clock().now().nanoseconds - stamp) / 1e9,
                read_depth,
            )
        if reason is not None:
            self._diagnostics.dropped(reason)
        return reason or "kept"

    def _camera(self, info: CameraInfo, width: int, height: int) -> Camera | None:
        """Return the camera of an image; None if it is uncalibrated.

        The reconstruction finds the calibration of an uncalibrated camera from the images. Raises
        InvalidInput if poses are recorded, which are useless without calibration.
        """
        uncalibrated = info.k[0] == 0.0 and not self._settings.rectified
        if uncalibrated and self._settings.frame:
            raise InvalidInput(
                "the camera is uncalibrated (camera_info has K[0] = 0): poses without "
                "calibration are of no use"
            )
        text = "the camera is uncalibrated (camera_info has K[0] = 0): recorded without calibration"
        self.set_warning("calibration", text if uncalibrated else "")
        if uncalibrated:
            return None
        return ros_messages.read_camera_info(info, width, height, self._settings.rectified)

    def _pose(self, frame: str, stamp: int | None) -> np.ndarray | str:
        """Return cam_from_obj (4, 4), m, with the fixed frame as obj, or why it is missing."""
        pose: np.ndarray | str = "the images have no frame_id"
        if frame:
            pose = wait_for_transform(
                self._tree,
                frame,
                self._settings.frame,
                stamp,
                self._settings.tf_wait,
                self._closing,
            )
        text = cut_text(f"no pose of the camera: {pose}") if isinstance(pose, str) else ""
        if (
            self._diagnostics.condition("transform", WARN if text else OK, text)
            and not self._closing.is_set()
        ):
            self.get_logger().warning(text, throttle_duration_sec=10.0)
        return pose

    def _publish_overlay(
        self,
        message: ImageMessage,
        image: EncodedImage,
        session: RecordingSession | None,
        pose: np.ndarray | None,
    ) -> None:
        """Publish the overlay if a node subscribes to it, at a limited rate.

        Args:
            message: The image's message, whose header the overlay gets.
            image: The image.
            session: The recording; None: not recording.
            pose: cam_from_obj (4, 4), m; None: not known.
        """
        if (
            self._overlay.get_subscription_count() == 0
            or time.monotonic() - self._overlay_time < _OVERLAY_PERIOD
        ):
            return
        self._overlay_time = time.monotonic()
        if session is None:
            coverage, lines = (
                Coverage.of(ViewCoverage(), 0, None),
                ["not recording: call ~/start"],
            )
        else:
            coverage = session.coverage(pose)
            advice = (
                coverage.advice()
                if self._settings.frame
                else "coverage unknown without fixed_frame"
            )
            lines = [f"REC {session.name}: {session.kept} kept", advice, self._outcome]
        overlay = draw_guidance(image.preview(_OVERLAY_SIDE), coverage, lines)
        self._overlay.publish(ros_compat.array_to_image(overlay, "rgb8", message.header))

    # Everything else

    def _on_jump(self) -> None:
        """Forget everything of the time before the jump."""
        self._stamps.forget()
        self._tree.clear()

    def _on_jump_back(self) -> None:
        self.get_logger().info("the images' stamps jumped back")
        self._on_jump()

    def _reject_reason(self, names: Sequence[str]) -> str:
        if self._session is not None:
            return "recording: call ~/stop before parameters are changed"
        fixed = ", ".join(name for name in names if name in AT_ACTIVATION)
        return (
            f"{fixed}: read by activate only; deactivate the node first"
            if fixed and self._stream is not None
            else ""
        )

    def _apply_settings(self, changed: Sequence[Parameter]) -> None:
        config = parameter_declaration.read(self, KeyframeConfig, changed)
        self._settings = parameter_declaration.read(self, RecorderParameters, changed)
        self._config = config

    def _tick(self) -> None:
        """Publish diagnostics and status, and end a session that has failed.

        It is called every PERIOD and by ~/start and ~/stop.
        """
        if self._session is not None and self._session.error:
            self._end()
        if self._stream is not None:
            self._stream.check()
            report_faults(self._tree, self._diagnostics)
        session = self._session
        facts = {"recording": "no" if session is None else "yes"}
        if session is not None:
            session.update_folder()
            facts |= {
                "folder": str(session.recording.folder),
                "images in the folder": str(session.kept),
            }
            facts |= session.coverage().facts()
        status = self._diagnose("recording", "cpu", facts)
        if self._state_machine.current_state[1] == "active":
            self._status.publish(status)


def _decode_aligned(message: Image | CompressedImage, image: EncodedImage) -> depths.Depth:
    """Decode the depth of an image; raises InvalidInput if it is not aligned to the image."""
    depth = depths.decode_depth(message)
    depths.check_aligned((depth.shape[1], depth.shape[0]), image.width, image.height)
    return depth


def run_recorder(args: list[str] | None = None) -> int:
    """Run the node until a signal; exit code 0, or 2 if a parameter is not valid."""
    return spin_node("recorder", RecorderNode, args)
