"""What one camera's estimator sends: its newest detections as estimates, and its clock."""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from scipy.spatial.transform import Rotation
from std_msgs.msg import String
from torch import Tensor
from vision_msgs.msg import Detection3D, Detection3DArray

from uns_pose_ros.core.geometry import from_parts
from uns_pose_ros.core.types import MAX_ORDER, PoseEstimate, PoseMode, Symmetry
from uns_pose_ros.nodes.fusion.frame_list import place_frame, read_frame_list
from uns_pose_ros.nodes.image_stamps import stamp_ns
from uns_pose_ros.nodes.message_conversions import answers_request, is_usable_detection

_RESULTS = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
_LATCHED = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
_AGES = 50  # detections whose age at arrival is kept
_LISTS = 5  # images whose named frames are kept
_LEAST_SCORE = 1e-6
_FAR = 1e6  # m, or m^2 and rad^2: more is no measurement


class CameraInput:
    """Subscribes to the results of one camera's estimator."""

    def __init__(
        self,
        node: LifecycleNode,
        camera: str,
        on_message: Callable[[], None],
        on_jump_back: Callable[[], None],
    ) -> None:
        """Subscribe.

        Args:
            node: The node that subscribes.
            camera: Namespace of the estimator.
            on_message: The function is called for every message.
            on_jump_back: The function is called where the stamps go back.
        """
        self.camera = camera
        self.message: Detection3DArray | None = None  # the newest
        self.sizeless: set[str] = set()  # categories whose model does not know its size
        self.left_out = -1  # ns, stamp of the last message without a transform
        self._node = node
        self._on_message = on_message
        self._on_jump_back = on_jump_back
        self._arrived = time.monotonic()
        self._ages: deque[float] = deque(maxlen=_AGES)
        self._symmetries: dict[str, Symmetry] = {}
        self._frames: dict[
            int, dict[int, list[dict[str, Any]]]
        ] = {}  # by stamp, ns, and track
        self._subscriptions = [
            node.create_subscription(
                Detection3DArray,
                f"{camera}/estimator/detections",
                self._on_detections,
                _RESULTS,
            ),
            node.create_subscription(
                String, f"{camera}/estimator/categories", self._on_categories, _LATCHED
            ),
            node.create_subscription(
                String, f"{camera}/estimator/frames", self._on_frames, _RESULTS
            ),
        ]

    @property
    def topic(self) -> str:
        """Full name of the topic of the detections."""
        return str(self._subscriptions[0].topic_name)

    @property
    def silence(self) -> float:
        """Time since the last message, s."""
        return time.monotonic() - self._arrived

    @property
    def age(self) -> float | None:
        """Median time from an image's stamp to the arrival of its results, s; None: no image."""
        return float(np.median(self._ages)) if self._ages else None

    def forget(self) -> None:
        """Forget the newest message and the ages."""
        self.message = None
        self.left_out = -1
        self._ages.clear()
        self._frames.clear()

    def close(self) -> None:
        """Unsubscribe."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def estimates(
        self, min_score: float
    ) -> tuple[list[PoseEstimate], list[int], list[Tensor]]:
        """Convert the newest message.

        Returns:
            The estimates in the camera, their track numbers, and the center (3,) of each object's
            box in its own frame, m.
        """
        assert self.message is not None
        frames = self._frames.get(stamp_ns(self.message), {})
        estimates, tracks, centers = [], [], []
        for detection in self.message.detections:
            if not is_usable_detection(detection) or not _is_complete(detection):
                continue
            if detection.results[0].hypothesis.score < min_score:
                continue
            category = detection.results[0].hypothesis.class_id
            symmetry = self._symmetries.get(category, Symmetry())
            estimate, center = estimate_of(detection, symmetry)
            placed = [
                place_frame(entry, estimate) for entry in frames.get(int(detection.id), [])
            ]
            estimate = replace(estimate, frames=tuple(placed))
            estimates.append(estimate)
            tracks.append(int(detection.id))
            centers.append(center)
        return estimates, tracks, centers

    def _on_detections(self, message: Detection3DArray) -> None:
        stamp = stamp_ns(message)
        if answers_request(message) or stamp < 0:
            return
        if self.message is not None and stamp < stamp_ns(self.message):
            self._on_jump_back()
        self._arrived = time.monotonic()
        now = self._node.get_clock().now().nanoseconds
        self._ages.append((now - stamp) / 1e9)
        self.message = message
        self._on_message()

    def _on_frames(self, message: String) -> None:
        """Keep the named frames of the last images; they come before the detections."""
        try:
            stamp, frames = read_frame_list(message.data)
        except ValueError:
            self._node.get_logger().warning(
                f"{self.camera}: the list of named frames cannot be read",
                throttle_duration_sec=60.0,
            )
            return
        self._frames[stamp] = frames
        while len(self._frames) > _LISTS:
            del self._frames[next(iter(self._frames))]

    def _on_categories(self, message: String) -> None:
        """Read sizes and symmetries; what cannot be read is as if it had not come."""
        try:
            records = json.loads(message.data)
            self._symmetries = {
                str(record["category"]): _symmetry(record["symmetry"]) for record in records
            }
            self.sizeless = {
                str(record["category"]) for record in records if record["size"] is None
            }
        except (ValueError, LookupError, TypeError, ArithmeticError, RuntimeError):
            self._node.get_logger().warning(
                f"{self.camera}: the list of categories cannot be read",
                throttle_duration_sec=60.0,
            )


def estimate_of(detection: Detection3D, symmetry: Symmetry) -> tuple[PoseEstimate, Tensor]:
    """Convert a usable detection back into an estimate, with its alternatives.

    Returns:
        The estimate, in meters with a scale of 1, and the center (3,) of the box in its frame.
    """
    best, *others = detection.results
    pose = _matrix(best)
    size = detection.bbox.size
    position = detection.bbox.center.position
    middle = torch.tensor([position.x, position.y, position.z], dtype=torch.float64)
    center = pose[:3, :3].T @ (middle - pose[:3, 3])
    score = min(max(best.hypothesis.score, 0.0), 1.0)
    alternatives = [
        PoseMode(
            _matrix(other),
            math.log(max(other.hypothesis.score, _LEAST_SCORE) / max(score, _LEAST_SCORE)),
            _covariance(other),
        )
        for other in others
        if other.hypothesis.class_id == best.hypothesis.class_id and _is_finite(other)
    ]
    estimate = PoseEstimate(
        category=best.hypothesis.class_id,
        cam_from_canon=pose,
        scale=1.0,
        metric=True,
        size=torch.tensor([size.x, size.y, size.z], dtype=torch.float64),
        score=score,
        covariance=_covariance(best),
        symmetry=symmetry,
        inliers=0,
        reprojection_error=0.0,
        box=torch.zeros(4, dtype=torch.float64),
        alternatives=tuple(alternatives),
        center=center,
    )
    return estimate, center


def _symmetry(record: Any) -> Symmetry:
    order = int(record["order"])
    if not 0 <= order <= MAX_ORDER:
        raise ValueError(f"order {order}")
    return Symmetry(order, torch.tensor(record["axis"], dtype=torch.float64))


def _matrix(result: Any) -> Tensor:
    """The pose of a hypothesis as a rigid transform (4, 4)."""
    position, turn = result.pose.pose.position, result.pose.pose.orientation
    rotation = Rotation.from_quat([turn.x, turn.y, turn.z, turn.w]).as_matrix()
    return from_parts(
        torch.from_numpy(rotation),
        torch.tensor([position.x, position.y, position.z], dtype=torch.float64),
    )


def _covariance(result: Any) -> Tensor | None:
    values = np.array(result.pose.covariance, dtype=np.float64).reshape(6, 6)
    if values[0, 0] < 0 or not (np.abs(values) < _FAR).all():
        return None
    return torch.from_numpy(values)


def _is_finite(result: Any) -> bool:
    pose = result.pose.pose
    turn = [pose.orientation.x, pose.orientation.y, pose.orientation.z, pose.orientation.w]
    place = [pose.position.x, pose.position.y, pose.position.z, result.hypothesis.score]
    length = float(np.linalg.norm(turn))
    return bool((np.abs([*turn, *place]) < _FAR).all()) and length > 1e-6


def _is_complete(detection: Detection3D) -> bool:
    """Whether it has a track, a finite pose and a box with a size."""
    size, center = detection.bbox.size, detection.bbox.center.position
    sides = [size.x, size.y, size.z]
    numbers = [*sides, center.x, center.y, center.z]
    return (
        int(detection.id) >= 0
        and _is_finite(detection.results[0])
        and bool((np.abs(numbers) < _FAR).all())
        and min(sides) >= 0
        and max(sides) > 0
    )
