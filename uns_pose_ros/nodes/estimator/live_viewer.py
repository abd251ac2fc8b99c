"""The results of a running estimator node as a 3D scene in a browser, made from its topics."""

from __future__ import annotations

import math
import re
import signal
import sys
import threading
import time
from collections import OrderedDict
from typing import Any

import rclpy
import torch
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo, Image
from vision_msgs.msg import Detection3D, Detection3DArray
from visualization_msgs.msg import Marker, MarkerArray

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import from_parts
from uns_pose_ros.core.types import PoseEstimate, Symmetry
from uns_pose_ros.io.ros import ros_messages
from uns_pose_ros.nodes.image_stamps import stamp_ns
from uns_pose_ros.nodes.managed_node import one_line
from uns_pose_ros.nodes.message_conversions import answers_request, is_usable_detection
from uns_pose_ros.nodes.steady_executor import SteadyExecutor
from uns_pose_ros.visualization import browser_viewer
from uns_pose_ros.visualization.browser_viewer import Scene, TemplateMesh, Viewer

_QUEUE_SIZE = 8  # messages of a topic that wait for those of the same image
_MOST_SHAPES = 100  # categories whose templates are kept, and tracks whose scales are
_MOST_CORNERS = 3_000_000  # of a template
# of the node's diagnostics: the categories whose lengths are no meters
_UNKNOWN_SIZE = re.compile(r"size of (.+?) unknown: its diameter is published as 1 m")
_PERIOD = 0.1  # s at least between two scenes: a browser needs time for each


class LiveScene:
    """Combines detections, overlay and templates of one image; `newest` is the newest scene."""

    def __init__(self, node: Node, estimator: str, camera_info: str) -> None:
        """Subscribe.

        Args:
            node: The node that subscribes.
            estimator: Name of the estimator node.
            camera_info: Topic of its camera's camera_info.
        """
        self.shapes: dict[str, TemplateMesh] = {}  # by category, from the markers
        self.newest: Scene | None = None
        self._corners: dict[str, list[Any]] = {}  # source of the shapes, by category
        self._info: CameraInfo | None = None
        self._detections: OrderedDict[int, Detection3DArray] = OrderedDict()  # by stamp, ns
        self._overlays: OrderedDict[int, Image] = OrderedDict()
        self._without_size: frozenset[str] = frozenset()  # categories
        # m of a canonical unit, by category and track
        self._scales: OrderedDict[tuple[str, int], float] = OrderedDict()
        results = QoSProfile(depth=5)
        camera = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        name = "/" + estimator.strip("/")
        node.create_subscription(
            Detection3DArray,
            f"{name}/detections",
            lambda m: None if answers_request(m) else self._keep(self._detections, m),
            results,
        )
        node.create_subscription(
            Image, f"{name}/overlay", lambda m: self._keep(self._overlays, m), results
        )
        node.create_subscription(MarkerArray, f"{name}/markers", self._on_markers, results)
        node.create_subscription(CameraInfo, camera_info, self._on_info, camera)
        node.create_subscription(
            DiagnosticArray,
            "/diagnostics",
            lambda message: self._on_diagnostics(message, name),
            results,
        )
        self._topics = {"the overlay": f"{name}/overlay", "the camera": camera_info}

    @property
    def missing(self) -> str:
        """Messages that have not come yet, with their topics."""
        received = {
            "the overlay": bool(self._overlays),
            "the camera": self._info is not None,
        }
        return ", ".join(
            f"{name} on {topic}"
            for name, topic in self._topics.items()
            if not received[name]
        )

    def _on_info(self, message: CameraInfo) -> None:
        self._info = message

    def _on_diagnostics(self, message: DiagnosticArray, node: str) -> None:
        for status in message.status:
            if status.name.startswith(f"{node.lstrip('/')}: "):
                found = _UNKNOWN_SIZE.search(status.message)
                self._without_size = frozenset(found[1].split(", ") if found else ())

    def _on_markers(self, message: MarkerArray) -> None:
        for marker in message.markers:
            if (
                marker.type != Marker.TRIANGLE_LIST
                or marker.action != Marker.ADD
                or len(marker.points) % 3
                or not 0 < len(marker.points) <= _MOST_CORNERS
                or (marker.ns not in self._corners and len(self._corners) == _MOST_SHAPES)
            ):
                continue
            self._scales[marker.ns, marker.id] = marker.scale.x
            if len(self._scales) > _MOST_SHAPES:
                self._scales.popitem(last=False)
            if self._corners.get(marker.ns) != marker.points:
                corners = torch.tensor(
                    [[point.x, point.y, point.z] for point in marker.points],
                    dtype=torch.float32,
                )
                length = float((corners.amax(0) - corners.amin(0)).norm())
                if not math.isfinite(length) or length <= 0:
                    continue
                self._corners[marker.ns] = marker.points
                self.shapes[marker.ns] = (
                    corners.reshape(-1, 3),
                    torch.arange(len(corners)).reshape(-1, 3),
                )

    def _keep(self, waiting: OrderedDict[int, Any], message: Any) -> None:
        stamp = stamp_ns(message)
        waiting[stamp] = message
        if len(waiting) > _QUEUE_SIZE:
            waiting.popitem(last=False)
        if stamp in self._detections and stamp in self._overlays and self._info is not None:
            try:
                image = ros_messages.decode_image(self._overlays[stamp])
                camera = ros_messages.read_camera_info(
                    self._info, image.shape[1], image.shape[0], False
                )
            # for example the camera_info of another camera
            except InvalidInput:
                return
            detections = [
                detection
                for detection in self._detections[stamp].detections
                if is_usable_detection(detection)
                and _has_size(detection)
                and detection.results[0].hypothesis.class_id in self.shapes
            ]
            estimates = [self._estimate(detection) for detection in detections]
            tracks = [int(detection.id) for detection in detections]
            self.newest = browser_viewer.make_scene(
                f"{stamp / 1e9:.3f} s", image, camera, estimates, tracks, drawn=True
            )

    def _estimate(self, detection: Detection3D) -> PoseEstimate:
        """Convert a detection into an estimate, with the values that the scene shows."""
        result = detection.results[0]
        size = detection.bbox.size
        position = result.pose.pose.position
        orientation = result.pose.pose.orientation
        quaternion = [orientation.x, orientation.y, orientation.z, orientation.w]
        rotation = torch.from_numpy(Rotation.from_quat(quaternion).as_matrix())
        pose = from_parts(
            rotation,
            torch.tensor([position.x, position.y, position.z], dtype=torch.float64),
        )
        category = result.hypothesis.class_id
        corners = self.shapes[category][0]
        scale = self._scales.get((category, int(detection.id)), 0.0)
        if not 0 < scale < math.inf:  # the marker has not come yet
            scale = math.hypot(size.x, size.y, size.z) / float(
                (corners.amax(0) - corners.amin(0)).norm()
            )
        extents = torch.tensor([size.x, size.y, size.z], dtype=torch.float64)
        return PoseEstimate(
            result.hypothesis.class_id,
            pose,
            scale,
            result.hypothesis.class_id not in self._without_size,
            extents,
            result.hypothesis.score,
            None,
            Symmetry(),
            0,
            0.0,
            torch.zeros(4, dtype=torch.float64),
        )


def _has_size(detection: Detection3D) -> bool:
    size = detection.bbox.size
    return 0 < math.hypot(size.x, size.y, size.z) < math.inf


def _print_error(where: str, error: Exception) -> None:
    print(f"{where}: {one_line(error)}", file=sys.stderr)


def show_live_scene(estimator: str, camera_info: str, host: str, port: int) -> None:
    """Serve the scene until Ctrl-C.

    Args:
        estimator: Name of the estimator node.
        camera_info: Topic of its camera's camera_info.
        host: Address to listen on.
        port: Port to listen on; if it is in use, the next free one.
    """
    ended = threading.Event()
    before = signal.signal(signal.SIGINT, lambda number, frame: ended.set())
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = Node("uns_pose_view")
    executor = SteadyExecutor(_print_error)
    executor.add_node(node)
    viewer: Viewer | None = None
    try:
        scene = LiveScene(node, estimator, camera_info)
        last = None
        due = 0.0  # s, monotonic, of the next scene
        hint_time = time.monotonic() + 3.0
        while not ended.is_set():
            executor.spin_once(timeout_sec=_PERIOD)
            now = time.monotonic()
            if scene.newest is None and now > hint_time:
                print(
                    f"waiting for {scene.missing or 'an image with its detections'}",
                    file=sys.stderr,
                )
                hint_time = math.inf
            if scene.newest is last or scene.newest is None or now < due:
                continue
            last = scene.newest
            due = now + _PERIOD
            if viewer is None:
                viewer = Viewer([last], scene.shapes, host, port)
                print(f"{viewer.address}  (Ctrl-C ends)", flush=True)
            else:
                viewer.put(last)
    finally:
        if viewer is not None:
            viewer.close()
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
        signal.signal(signal.SIGINT, before)
