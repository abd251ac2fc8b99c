"""The recorder node.

Pictures and camera_info in, a video folder out, with poses from TF where a fixed frame is named.

A lifecycle node. Callbacks only put pictures into a bounded queue; one thread judges them in their
order, another writes those that are kept. ~/status and ~/overlay tell what was kept, what was not
and why, and from where the object is still to be filmed.
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
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_srvs.srv import Trigger

from uns_pose_ros.capture.guidance import Coverage, draw_guidance
from uns_pose_ros.capture.keyframes import KeyframeConfig
from uns_pose_ros.capture.recording import FrameRecord, Recording, recover
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Camera
from uns_pose_ros.core.view_coverage import Orbit
from uns_pose_ros.io import depth_images as depths
from uns_pose_ros.io.encoded_image import Photo
from uns_pose_ros.io.transform_buffer import TransformTree
from uns_pose_ros.nodes import message_conversions, parameter_declaration, ros_compat
from uns_pose_ros.nodes.diagnostics import OK, WARN, NodeDiagnostics
from uns_pose_ros.nodes.estimator.image_subscriber import ImageMessage, ImageSubscriber
from uns_pose_ros.nodes.estimator.stamp_synchronizer import (
    StampSynchronizer,
    SynchronizedImage,
)
from uns_pose_ros.nodes.managed_node import ManagedNode, one_line, spin_node
from uns_pose_ros.nodes.recorder.recorder_parameters import (
    AT_ACTIVATION,
    SETTINGS,
    RecorderParameters,
)
from uns_pose_ros.nodes.recorder.recording_session import RecordingSession
from uns_pose_ros.nodes.tf_listener import TransformListener
from uns_pose_ros.nodes.worker_thread import Worker

DEPTHS: dict[
    str, dict[str, type]
] = {  # topic and kind of its messages, by the parameter depth
    "none": {},
    "raw": {"depth": Image},
    "compressed": {"depth/compressedDepth": CompressedImage},
}
NO_TRANSFORM = "no transform at the picture's stamp"
_DEPTH = (
    10  # messages that wait in the middleware: none is to be lost while a callback is late
)
_POLL = 0.005  # s between two looks for a transform
_OVERLAY_PERIOD = 0.1  # s at least between two overlays
_OVERLAY_LONGEST = 640  # px
_TOLD = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)


class RecorderNode(ManagedNode):
    """Records the pictures of a camera that are worth it, from ~/start to ~/stop."""

    def __init__(self, **options: Any) -> None:
        """options: those of rclpy's Node. Raises where a parameter is not valid."""
        super().__init__(
            "recorder", SETTINGS, NodeDiagnostics("pictures kept", "writing"), **options
        )
        self._start_service = self.create_service(Trigger, "~/start", self._on_start)
        self._stop_service = self.create_service(Trigger, "~/stop", self._on_stop)
        self._tree = TransformTree()
        self._listener: TransformListener | None = None
        self._image_subscriber: ImageSubscriber | None = None
        self._selection_worker: Worker[SynchronizedImage] | None = None
        self._synchronizer: StampSynchronizer | None = None
        self._session: RecordingSession | None = None
        self._halt = threading.Event()  # ends the waiting for transforms
        self._last_stamp = -1  # ns
        self._told = 0.0  # s, monotonic, when the last overlay went out
        self._outcome = ""  # of the last picture

    @property
    def autostart(self) -> bool:
        return self._settings.autostart

    # Lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._diagnostics.clear()
        override = QoSOverridingOptions.with_default_policies()
        qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
        self._status = self.create_lifecycle_publisher(DiagnosticStatus, "~/status", _TOLD)
        self._overlay = self.create_lifecycle_publisher(
            Image, "~/overlay", qos, qos_overriding_options=override
        )
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = super().on_activate(state)
        self._halt.clear()
        self._on_jump()
        self._listener = (
            TransformListener(self, self._tree) if self._settings.frame else None
        )
        self._selection_worker = Worker(
            self._work,
            lambda: self._diagnostics.dropped("replaced by a newer image"),
            self._settings.queue,
        )
        self._synchronizer = StampSynchronizer(
            self,
            DEPTHS[self._settings.depth],
            self._diagnostics,
            self._selection_worker.put,
            self._settings.queue,
        )
        self._image_subscriber = ImageSubscriber(
            self, self._settings.transport, self._diagnostics, self._synchronizer.picture, _DEPTH
        )
        if self._settings.record:
            self._begin()
        return result

    def close(self) -> None:
        """Hear no more pictures and finish the recording, if there is one.

        The folder is whole afterwards.
        """
        self._halt.set()
        for part in (self._image_subscriber, self._synchronizer, self._listener):
            if part is not None:
                part.close()
        self._image_subscriber = self._synchronizer = self._listener = None
        if self._selection_worker is not None:
            self._selection_worker.stop(10.0)
            self._selection_worker = None
        if self._session is not None:
            self._end()

    def _release(self) -> None:
        for publisher in (self._status, self._overlay):
            self.destroy_lifecycle_publisher(publisher)

    # From start to stop

    def _begin(self) -> tuple[bool, str]:
        """Start recording; whether it has begun, and one line."""
        if self._image_subscriber is None:
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
                "image": self._image_subscriber.image_topic,
                "camera_info": self._image_subscriber.camera_topic,
            }
            settings = self._settings
            for topic in DEPTHS[settings.depth]:
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
            text + (f", which has {len(recording)} pictures" if len(recording) else "")
        )
        return True, text

    def _end(self) -> tuple[bool, str]:
        """Stop recording and finish the folder; whether all is well, and one line."""
        session, self._session = self._session, None
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

    # Pictures

    def _work(self, item: SynchronizedImage) -> None:
        """In the judging thread.

        Everything from a message to a picture kept or not; never raises.
        """
        self._guarded(lambda: self._process(*item), "recording a picture failed")

    def _process(
        self, message: ImageMessage, info: CameraInfo, others: Mapping[str, Any]
    ) -> None:
        session = self._session
        if session is None:
            self._diagnostics.dropped("not recording")
            if self._overlay.get_subscription_count() == 0:
                return
        stamp = Time.from_msg(message.header.stamp).nanoseconds
        if stamp == self._last_stamp:
            self._diagnostics.dropped("stamp seen before")
            return
        if stamp < self._last_stamp:
            self.get_logger().info("the images' stamps jumped back")
            self._on_jump()
        self._last_stamp = stamp
        compressed = isinstance(message, CompressedImage)
        photo = (
            Photo.of_file(bytes(message.data))
            if compressed
            else Photo.of_pixels(ros_compat.image_to_rgb(message))
        )
        pose = self._pose(message.header.frame_id, stamp) if self._settings.frame else None
        if session is not None:
            self._outcome = self._judged(
                session, photo, stamp, info, pose, next(iter(others.values()), None)
            )
        self._show(message, photo, session, pose if isinstance(pose, np.ndarray) else None)

    def _judged(
        self,
        session: RecordingSession,
        photo: Photo,
        stamp: int,
        info: CameraInfo,
        pose: np.ndarray | str | None,
        depth: Image | CompressedImage | None,
    ) -> str:
        """Keep the picture or count why not; what became of it, in words."""
        camera = self._camera(info, photo.width, photo.height)
        if isinstance(pose, str):
            reason: str | None = NO_TRANSFORM
        else:
            known = None if pose is None else torch.from_numpy(pose)
            shot = FrameRecord(stamp, camera, message_conversions.info_record(info), known)
            measured = None if depth is None else partial(_aligned, depth, photo)
            reason = session.take(
                photo,
                shot,
                lambda: (self.get_clock().now().nanoseconds - stamp) / 1e9,
                measured,
            )
        if reason is not None:
            self._diagnostics.dropped(reason)
        return reason or "kept"

    def _camera(self, info: CameraInfo, width: int, height: int) -> Camera | None:
        """The picture's camera.

        None for an uncalibrated one, where its calibration may still be found from the pictures.
        """
        uncalibrated = info.k[0] == 0.0 and not self._settings.rectified
        if uncalibrated and self._settings.frame:
            raise InvalidInput(
                "the camera is uncalibrated (camera_info has K[0] = 0): poses without "
                "calibration are of no use"
            )
        text = "the camera is uncalibrated (camera_info has K[0] = 0): recorded without calibration"
        if self._diagnostics.condition("calibration", WARN if uncalibrated else OK, text):
            self.get_logger().warning(text)
        return (
            None
            if uncalibrated
            else message_conversions.camera_from_info(
                info, width, height, self._settings.rectified
            )
        )

    def _pose(self, frame: str, stamp: int) -> np.ndarray | str:
        """cam_from_obj (4, 4) with the fixed frame as obj, m.

        Else why there is none, after waiting for it.
        """
        fixed, end = self._settings.frame, time.monotonic() + self._settings.tf_wait
        found: np.ndarray | str = "the images have no frame_id"
        while frame:
            found = self._tree.lookup(frame.lstrip("/"), fixed, stamp)
            if (
                isinstance(found, np.ndarray)
                or time.monotonic() > end
                or self._halt.wait(_POLL)
            ):
                break
        text = f"no pose of the camera: {found}" if isinstance(found, str) else ""
        if (
            self._diagnostics.condition("transform", WARN if text else OK, text)
            and not self._halt.is_set()
        ):
            self.get_logger().warning(text, throttle_duration_sec=10.0)
        return found

    def _show(
        self,
        message: ImageMessage,
        photo: Photo,
        session: RecordingSession | None,
        pose: np.ndarray | None,
    ) -> None:
        """The overlay, where somebody looks at it, but not more often than anybody needs."""
        if (
            self._overlay.get_subscription_count() == 0
            or time.monotonic() - self._told < _OVERLAY_PERIOD
        ):
            return
        self._told = time.monotonic()
        if session is None:
            coverage, lines = Coverage.of(Orbit(), 0, None), ["not recording: call ~/start"]
        else:
            coverage = session.coverage(pose)
            advice = (
                coverage.advice()
                if self._settings.frame
                else "coverage unknown without fixed_frame"
            )
            lines = [f"REC {session.name}: {session.kept} kept", advice, self._outcome]
        picture = draw_guidance(photo.preview(_OVERLAY_LONGEST), coverage, lines)
        self._overlay.publish(ros_compat.array_to_image(picture, "rgb8", message.header))

    # Everything else

    def _on_jump(self) -> None:
        """Forget what is known of a time that has been left."""
        self._last_stamp = -1
        self._tree.clear()

    def _reject_reason(self, names: Sequence[str]) -> str:
        if self._session is not None:
            return "recording: call ~/stop before parameters are changed"
        fixed = ", ".join(name for name in names if name in AT_ACTIVATION)
        return (
            f"{fixed}: read by activate only; deactivate the node first"
            if fixed and self._image_subscriber is not None
            else ""
        )

    def _apply_settings(self, changed: Sequence[Parameter]) -> None:
        config = parameter_declaration.read(self, KeyframeConfig, changed)
        self._settings = parameter_declaration.read(self, RecorderParameters, changed)
        self._config = config

    def _tick(self) -> None:
        """Once a second, and at start and stop.

        Diagnostics and status, and the end of a session that failed.
        """
        if self._session is not None and self._session.error:
            self._end()
        if self._image_subscriber is not None and self._synchronizer is not None:
            self._image_subscriber.check()
            self._synchronizer.check()
        session = self._session
        facts = {"recording": "no" if session is None else "yes"}
        if session is not None:
            session.settle()
            facts |= {
                "folder": str(session.recording.folder),
                "pictures in the folder": str(session.kept),
            }
            facts |= session.coverage().facts()
        status = self._diagnose("recording", "cpu", facts)
        if self._state_machine.current_state[1] == "active":
            self._status.publish(status)


def _aligned(message: Image | CompressedImage, photo: Photo) -> depths.Depth:
    """The depth of a picture; InvalidInput where it is none of it."""
    depth = depths.of_message(message)
    depths.check_aligned((depth.shape[1], depth.shape[0]), photo.width, photo.height)
    return depth


def run_recorder(args: list[str] | None = None) -> int:
    """Spin the node until a signal; exit code 0, or 2 where a parameter is not valid."""
    return spin_node("recorder", RecorderNode, args)
