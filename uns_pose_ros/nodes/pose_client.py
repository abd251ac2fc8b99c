"""The estimator's poses for other packages, in a few lines.

Wait for a category, ask for its pose at a stamp.

    with PoseClient(frame="base_link") as poses:
        mug = poses.wait_for("mug", timeout=5.0)
        print(mug.frame_from_canon, mug.size)

It has a node and a thread of its own, so that it works inside callbacks and beside any executor.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from types import TracebackType

import numpy as np
from builtin_interfaces.msg import Time as Stamp
from numpy.typing import NDArray
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from scipy.spatial.transform import Rotation
from vision_msgs.msg import Detection3D, Detection3DArray

from uns_pose_ros.io.transform_buffer import TransformTree
from uns_pose_ros.nodes.tf_listener import TransformListener

Floats = NDArray[np.float64]
_COUNT = itertools.count()
_POLL = 0.02  # s, between looks for transforms that come later than the detections
_KEPT = 1000  # messages


@dataclass(frozen=True, eq=False)
class ObjectPose:
    """One object in one image."""

    category: str
    track: int  # stays the same while the object is followed
    stamp: int  # ns, of the image
    frame: str  # that the pose is in
    # (4, 4) rigid, m; canon: the category's frame, x forward, y left, z up once named
    frame_from_canon: Floats
    size: Floats  # (3,) extents along the canonical axes, m
    centre: Floats  # (3,) of the object's box in `frame`, m
    score: float  # in [0, 1]
    # (6, 6) x y z, rotation about the axes of `frame`; m^2, rad^2
    covariance: Floats | None


class PoseClient:
    """Hears an estimator's detections and keeps those of the last seconds.

    `close` it, or use it with `with`.
    """

    def __init__(
        self,
        topic: str = "/estimator/detections",
        frame: str = "",
        memory: float = 10.0,
        min_score: float = 0.0,
        context: Context | None = None,
    ) -> None:
        """topic: of the detections; frame: TF frame that poses are given in, empty: the image's.

        memory: s before the newest image for which answers are kept; min_score: objects below are
        ignored. rclpy must be up.
        """
        self._frame, self._memory, self._min_score = (
            frame.lstrip("/"),
            int(memory * 1e9),
            min_score,
        )
        self._heard: deque[Detection3DArray] = deque(maxlen=_KEPT)
        self._count = 0
        self._changed = threading.Condition()
        self._node = Node(f"uns_pose_client_{os.getpid()}_{next(_COUNT)}", context=context)
        self._tree = TransformTree(memory)
        self._listener = TransformListener(self._node, self._tree) if frame else None
        qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
        self._topic = self._node.create_subscription(
            Detection3DArray, topic, self._on_detections, qos
        ).topic_name
        self._executor = SingleThreadedExecutor(context=context)
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
        self._executor.shutdown()
        self._thread.join(5.0)
        self._node.destroy_node()

    def wait_for(self, category: str, timeout: float) -> ObjectPose:
        """The best object of the category in the next image that shows one.

        TimeoutError says what came instead.
        """
        end, reason = time.monotonic() + timeout, ""
        with self._changed:
            first = self._count
        while True:
            with self._changed:
                fresh = (
                    list(self._heard)[-(self._count - first) :]
                    if self._count > first
                    else []
                )
            for message in reversed(fresh):
                found = self._best(message, category)
                if isinstance(found, ObjectPose):
                    return found
                reason = reason if found is None else found
            left = end - time.monotonic()
            if left <= 0:
                break
            with self._changed:
                self._changed.wait(min(left, _POLL))
        publishers = self._node.count_publishers(self._topic)
        heard = (
            f"{len(fresh)} images without it"
            if fresh
            else f"nothing on {self._topic} ({publishers} publishers)"
        )
        raise TimeoutError(f"no {category} within {timeout:g} s: {reason or heard}")

    def pose_at(
        self, category: str, stamp: Stamp | Time | int, tolerance: float = 0.05
    ) -> ObjectPose | None:
        """The best object of the category in the image nearest to a stamp (message, rclpy Time or
        ns).

        None where no image within `tolerance` s shows one, or the transforms to the client's frame
        are not there.
        """
        wanted = (
            stamp
            if isinstance(stamp, int)
            else (Time.from_msg(stamp) if isinstance(stamp, Stamp) else stamp).nanoseconds
        )
        with self._changed:
            near = [
                message
                for message in self._heard
                if abs(_nanoseconds(message) - wanted) <= tolerance * 1e9
            ]
        for message in sorted(near, key=lambda one: abs(_nanoseconds(one) - wanted)):
            found = self._best(message, category)
            if isinstance(found, ObjectPose):
                return found
        return None

    def _best(self, message: Detection3DArray, category: str) -> ObjectPose | str | None:
        """The object of the category with the highest score in the client's frame.

        None without one, else what is missing.
        """
        found = [
            detection
            for detection in message.detections
            if detection.results[0].hypothesis.class_id == category
            and detection.results[0].hypothesis.score >= self._min_score
        ]
        if not found:
            return None
        best = _read(max(found, key=lambda one: float(one.results[0].hypothesis.score)))
        if not self._frame or best.frame == self._frame:
            return best
        to_frame = self._tree.lookup(self._frame, best.frame, best.stamp)
        return (
            to_frame if isinstance(to_frame, str) else _moved(best, self._frame, to_frame)
        )

    def _on_detections(self, message: Detection3DArray) -> None:
        now = _nanoseconds(message)
        with self._changed:
            if self._heard and now < _nanoseconds(self._heard[-1]):  # time jumped back
                self._heard.clear()
                self._tree.clear()
            while self._heard and now - _nanoseconds(self._heard[0]) > self._memory:
                self._heard.popleft()
            self._heard.append(message)
            self._count += 1
            self._changed.notify_all()

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            return


def _nanoseconds(message: Detection3DArray) -> int:
    return int(Time.from_msg(message.header.stamp).nanoseconds)


def _read(detection: Detection3D) -> ObjectPose:
    result = detection.results[0]
    place, turn = result.pose.pose.position, result.pose.pose.orientation
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_quat([turn.x, turn.y, turn.z, turn.w]).as_matrix()
    matrix[:3, 3] = place.x, place.y, place.z
    covariance = np.array(result.pose.covariance, dtype=np.float64).reshape(6, 6)
    size, centre = detection.bbox.size, detection.bbox.center.position
    return ObjectPose(
        result.hypothesis.class_id,
        int(detection.id),
        int(Time.from_msg(detection.header.stamp).nanoseconds),
        detection.header.frame_id.lstrip("/"),
        matrix,
        np.array([size.x, size.y, size.z]),
        np.array([centre.x, centre.y, centre.z]),
        float(result.hypothesis.score),
        None if covariance[0, 0] < 0 else covariance,
    )


def _moved(found: ObjectPose, frame: str, frame_from_image: Floats) -> ObjectPose:
    """The pose in another frame."""
    lift = np.kron(np.eye(2), frame_from_image[:3, :3])
    return replace(
        found,
        frame=frame,
        frame_from_canon=frame_from_image @ found.frame_from_canon,
        centre=frame_from_image[:3, :3] @ found.centre + frame_from_image[:3, 3],
        covariance=None if found.covariance is None else lift @ found.covariance @ lift.T,
    )
