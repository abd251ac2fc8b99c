"""A client for other ROS packages: wait for an object, or ask for its pose at a stamp.

    with PoseClient(frame="base_link") as poses:
        mug = poses.wait_for("mug", timeout=5.0)
        print(mug.frame_from_canon, mug.size)
        mugs = poses.estimate("mug", boxes=[(100, 80, 220, 190)])  # in the newest image

The client has a node and a thread of its own. So it works inside callbacks and with any executor.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import TracebackType

import numpy as np
from builtin_interfaces.msg import Time as Stamp
from numpy.typing import NDArray
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from scipy.spatial.transform import Rotation
from vision_msgs.msg import (
    Detection2D,
    Detection2DArray,
    Detection3D,
    Detection3DArray,
    ObjectHypothesisWithPose,
)

from uns_pose_ros.io.ros.transform_buffer import TransformTree
from uns_pose_ros.nodes.image_stamps import StampWatch, stamp_ns
from uns_pose_ros.nodes.message_conversions import answers_request, is_usable_detection
from uns_pose_ros.nodes.steady_executor import SteadyExecutor
from uns_pose_ros.nodes.tf_listener import TransformListener

Floats = NDArray[np.float64]
_COUNT = itertools.count()
_POLL = 0.02  # s between two lookups of transforms that come later than the detections
_MAX_MESSAGES = 1000


@dataclass(frozen=True, eq=False)
class ObjectPose:
    """One object in one image."""

    category: str
    # number that stays the same while the object is tracked; -1 in the answer to a request
    track: int
    stamp: int  # ns, of the image
    frame: str  # TF frame of the pose
    # (4, 4) rigid, m; canon: the category's frame, x forward, y left, z up if they are named
    frame_from_canon: Floats
    size: Floats  # (3,) extents along the canonical axes, m
    center: Floats  # (3,) center of the object's box in `frame`, m
    score: float  # in [0, 1]
    # (6, 6) x y z, rotation about the axes of `frame`; m^2, rad^2
    covariance: Floats | None


class PoseClient:
    """Subscribes to an estimator's detections and keeps those of the last seconds.

    Call `close` at the end, or use it with `with`.
    """

    def __init__(
        self,
        topic: str = "/estimator/detections",
        frame: str = "",
        memory: float = 10.0,
        min_score: float = 0.0,
        context: Context | None = None,
    ) -> None:
        """Subscribe; rclpy must be initialized.

        Args:
            topic: Topic of the detections.
            frame: TF frame of the poses; empty: the image's frame.
            memory: Time before the newest image for which detections are kept, s.
            min_score: Objects with a lower score are ignored.
            context: Context of rclpy; None: the default one.
        """
        self._frame = frame.lstrip("/")
        self._memory = int(memory * 1e9)
        self._min_score = min_score
        self._messages: deque[Detection3DArray] = deque(maxlen=_MAX_MESSAGES)
        self._answers: list[
            Detection3DArray
        ] = []  # to requests, since the oldest that waits
        self._asking = 0  # requests that wait
        self._requests: Publisher | None = None
        self._count = 0
        self._changed = threading.Condition()
        self._watch = StampWatch()
        self._node = Node(f"uns_pose_client_{os.getpid()}_{next(_COUNT)}", context=context)
        self._tree = TransformTree(memory)
        self._listener = TransformListener(self._node, self._tree) if frame else None
        qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
        self._topic = self._node.create_subscription(
            Detection3DArray, topic, self._on_detections, qos
        ).topic_name
        self._executor = SteadyExecutor(
            lambda where, error: self._node.get_logger().error(
                f"{where}: {type(error).__name__}: {error}", throttle_duration_sec=10.0
            ),
            context=context,
        )
        self._executor.add_node(self._node)
        self._thread = threading.Thread(target=self._spin, name="pose client", daemon=True)
        self._thread.start()

    def __enter__(self) -> PoseClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Unsubscribe and end the thread."""
        self._executor.shutdown()
        self._thread.join(5.0)
        self._node.destroy_node()

    def wait_for(self, category: str, timeout: float) -> ObjectPose:
        """Wait for the next image that shows an object of a category.

        Args:
            category: Category of the object.
            timeout: Time to wait, s.

        Returns:
            The object with the highest score.

        Raises:
            TimeoutError: No object came; the message has the reason.
        """
        end = time.monotonic() + timeout
        reason = ""
        with self._changed:
            first = self._count
        while True:
            with self._changed:
                fresh = (
                    list(self._messages)[-(self._count - first) :]
                    if self._count > first
                    else []
                )
            for message in reversed(fresh):
                pose = self._best(message, category)
                if isinstance(pose, ObjectPose):
                    return pose
                reason = reason if pose is None else pose
            left = end - time.monotonic()
            if left <= 0:
                break
            with self._changed:
                self._changed.wait(min(left, _POLL))
        publishers = self._node.count_publishers(self._topic)
        received = (
            f"{len(fresh)} images without it"
            if fresh
            else f"nothing on {self._topic} ({publishers} publishers)"
        )
        raise TimeoutError(f"no {category} within {timeout:g} s: {reason or received}")

    def pose_at(
        self, category: str, stamp: Stamp | Time | int, tolerance: float = 0.05
    ) -> ObjectPose | None:
        """Return the best object of a category in the image nearest to a stamp.

        Args:
            category: Category of the object.
            stamp: A message, a Time of rclpy, or ns.
            tolerance: Difference of the stamps at most, s.

        Returns:
            The object with the highest score; None if no image shows one, or if the transform to
            the client's frame is missing.
        """
        if isinstance(stamp, Stamp):
            stamp = Time.from_msg(stamp)
        wanted = stamp if isinstance(stamp, int) else int(stamp.nanoseconds)
        with self._changed:
            near = [
                message
                for message in self._messages
                if abs(stamp_ns(message) - wanted) <= tolerance * 1e9
            ]
        near.reverse()  # of several with one stamp the newest
        for message in sorted(near, key=lambda message: abs(stamp_ns(message) - wanted)):
            pose = self._best(message, category)
            if isinstance(pose, ObjectPose):
                return pose
        return None

    def estimate(
        self,
        category: str = "",
        stamp: Stamp | Time | int = 0,
        boxes: Sequence[Sequence[float]] = (),
        timeout: float = 5.0,
    ) -> list[ObjectPose]:
        """Let the estimator answer for one image, before the images that it would take next.

        The estimator keeps the images of the last 2 s from the first call on; before, the newest.

        Args:
            category: Category of the objects; empty: all.
            stamp: The image's: a message, a Time of rclpy, or ns; 0: the newest image.
            boxes: x0 y0 x1 y1 of regions in the image as it was sent, px; none: the whole image.
            timeout: Time to wait for the answer, s.

        Returns:
            The objects, the best first. None of them belongs to a track. The list is empty where
            the image shows none, or where the estimator refuses; its diagnostics have the reason.

        Raises:
            TimeoutError: No answer came, or the transform to the client's frame is missing.
        """
        end = time.monotonic() + timeout
        if isinstance(stamp, Stamp):
            stamp = Time.from_msg(stamp)
        wanted = stamp if isinstance(stamp, int) else int(stamp.nanoseconds)
        publisher = self._request_publisher()
        while not publisher.get_subscription_count():
            if time.monotonic() > end:
                raise TimeoutError(f"no estimator listens on {publisher.topic_name}")
            time.sleep(_POLL)
        request = _request_message(category, wanted, boxes)
        with self._changed:
            self._asking += 1
            first = len(self._answers)
        try:
            publisher.publish(request)
            answer = self._wait_for_answer(wanted, first, end)
        finally:
            with self._changed:
                self._asking -= 1
                if not self._asking:
                    self._answers.clear()
        if answer is None:
            raise TimeoutError(f"no answer on {self._topic} within {timeout:g} s")
        usable = [each for each in answer.detections if is_usable_detection(each)]
        usable = [each for each in usable if _score(each) >= self._min_score]
        poses = []
        for detection in sorted(usable, key=_score, reverse=True):
            pose = self._in_frame(_object_pose(detection))
            while isinstance(pose, str):
                if time.monotonic() > end:
                    raise TimeoutError(pose)
                time.sleep(_POLL)
                pose = self._in_frame(_object_pose(detection))
            poses.append(pose)
        return poses

    def _request_publisher(self) -> Publisher:
        with self._changed:
            if self._requests is None:
                topic = f"{self._topic.rpartition('/')[0]}/request"
                qos = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
                self._requests = self._node.create_publisher(Detection2DArray, topic, qos)
            return self._requests

    def _wait_for_answer(
        self, stamp: int, first: int, end: float
    ) -> Detection3DArray | None:
        """Wait for an answer.

        Args:
            stamp: The stamp that was asked for, ns; 0: any.
            first: The number of answers that had come before.
            end: Time to wait until, s, monotonic.
        """
        with self._changed:
            while True:
                for message in self._answers[first:]:
                    if stamp in (0, stamp_ns(message)):
                        return message
                left = end - time.monotonic()
                if left <= 0:
                    return None
                self._changed.wait(left)

    def _in_frame(self, pose: ObjectPose) -> ObjectPose | str:
        """Transform a pose into the client's frame; a text if the transform is missing."""
        if not self._frame or pose.frame == self._frame:
            return pose
        to_frame = self._tree.lookup(self._frame, pose.frame, pose.stamp)
        if isinstance(to_frame, str):
            return to_frame
        return _transform_pose(pose, self._frame, to_frame)

    def _best(self, message: Detection3DArray, category: str) -> ObjectPose | str | None:
        """Find the object of a category with the highest score, in the client's frame.

        Args:
            message: The detections of one image.
            category: Category of the object.

        Returns:
            The object; None if the image shows none; a text if the transform is missing.
        """
        detections = [
            detection
            for detection in message.detections
            if is_usable_detection(detection)
            and detection.results[0].hypothesis.class_id == category
            and detection.results[0].hypothesis.score >= self._min_score
        ]
        if not detections:
            return None
        return self._in_frame(_object_pose(max(detections, key=_score)))

    def _on_detections(self, message: Detection3DArray) -> None:
        now = stamp_ns(message)
        if answers_request(message) and (message.detections or self._asking):
            with self._changed:
                if self._asking:
                    self._answers.append(message)
                    self._changed.notify_all()
            return
        is_negative = self._watch.take(now, self._node.get_clock().now().nanoseconds)
        if text := self._watch.report(self._topic):
            self._node.get_logger().warning(text, throttle_duration_sec=10.0)
        if is_negative:
            return
        with self._changed:
            if self._messages and now < stamp_ns(self._messages[-1]):  # time jumped back
                self._messages.clear()
                self._tree.clear()
            while self._messages and now - stamp_ns(self._messages[0]) > self._memory:
                self._messages.popleft()
            self._messages.append(message)
            self._count += 1
            self._changed.notify_all()

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            return


def _request_message(
    category: str, stamp: int, boxes: Sequence[Sequence[float]]
) -> Detection2DArray:
    """Make a request: a detection for each box, or one without a size for the whole image."""
    request = Detection2DArray()
    request.header.stamp = Time(nanoseconds=stamp).to_msg()
    for x0, y0, x1, y1 in boxes or [(0.0, 0.0, 0.0, 0.0)]:
        detection = Detection2D(header=request.header)
        detection.bbox.center.position.x = (x0 + x1) / 2
        detection.bbox.center.position.y = (y0 + y1) / 2
        detection.bbox.size_x, detection.bbox.size_y = float(x1 - x0), float(y1 - y0)
        if category:
            result = ObjectHypothesisWithPose()
            result.hypothesis.class_id, result.hypothesis.score = category, 1.0
            detection.results = [result]
        request.detections.append(detection)
    return request


def _score(detection: Detection3D) -> float:
    return float(detection.results[0].hypothesis.score)


def _object_pose(detection: Detection3D) -> ObjectPose:
    """Convert a detection."""
    result = detection.results[0]
    position = result.pose.pose.position
    orientation = result.pose.pose.orientation
    quaternion = [orientation.x, orientation.y, orientation.z, orientation.w]
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_quat(quaternion).as_matrix()
    matrix[:3, 3] = position.x, position.y, position.z
    covariance = np.array(result.pose.covariance, dtype=np.float64).reshape(6, 6)
    size = detection.bbox.size
    center = detection.bbox.center.position
    return ObjectPose(
        result.hypothesis.class_id,
        int(detection.id),
        stamp_ns(detection),
        detection.header.frame_id.lstrip("/"),
        matrix,
        np.array([size.x, size.y, size.z]),
        np.array([center.x, center.y, center.z]),
        float(result.hypothesis.score),
        None if covariance[0, 0] < 0 else covariance,
    )


def _transform_pose(pose: ObjectPose, frame: str, frame_from_image: Floats) -> ObjectPose:
    """Transform a pose into another frame."""
    rotations = np.kron(np.eye(2), frame_from_image[:3, :3])
    return replace(
        pose,
        frame=frame,
        frame_from_canon=frame_from_image @ pose.frame_from_canon,
        center=frame_from_image[:3, :3] @ pose.center + frame_from_image[:3, 3],
        covariance=None
        if pose.covariance is None
        else rotations @ pose.covariance @ rotations.T,
    )
