"""What an estimator node finds, as a 3D scene in a browser, while it runs.

Made of its topics alone.
"""

from __future__ import annotations

import math
import signal
import sys
import threading
import time
from collections import OrderedDict
from typing import Any

import rclpy
import torch
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.time import Time
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo, Image
from vision_msgs.msg import Detection3D, Detection3DArray
from visualization_msgs.msg import Marker, MarkerArray

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import from_parts
from uns_pose_ros.core.types import PoseEstimate, Symmetry
from uns_pose_ros.nodes import message_conversions
from uns_pose_ros.nodes.ros_compat import image_to_rgb
from uns_pose_ros.visualization import browser_viewer
from uns_pose_ros.visualization.browser_viewer import Shape, Shot, Viewer

_KEPT = 8  # messages of a topic that wait for those of the same picture
_SHORTEST = 0.1  # s between two scenes: a browser needs time for each


class LiveScene:
    """Puts detections, overlay and templates of one picture together; `shot` is the newest."""

    def __init__(self, node: Node, estimator: str, camera_info: str) -> None:
        """estimator: name of the node whose topics are heard; camera_info: topic of its camera."""
        self.shapes: dict[str, Shape] = {}  # by category, from the markers
        self.shot: Shot | None = None
        self._corners: dict[str, list[Any]] = {}  # that the shapes were made of
        self._info: CameraInfo | None = None
        self._found: OrderedDict[int, Detection3DArray] = OrderedDict()  # by stamp, ns
        self._overlays: OrderedDict[int, Image] = OrderedDict()
        results, camera = (
            QoSProfile(depth=5),
            QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT),
        )
        name = "/" + estimator.strip("/")
        node.create_subscription(
            Detection3DArray,
            f"{name}/detections",
            lambda m: self._keep(self._found, m),
            results,
        )
        node.create_subscription(
            Image, f"{name}/overlay", lambda m: self._keep(self._overlays, m), results
        )
        node.create_subscription(MarkerArray, f"{name}/markers", self._on_markers, results)
        node.create_subscription(CameraInfo, camera_info, self._on_info, camera)
        self._topics = {"the overlay": f"{name}/overlay", "the camera": camera_info}

    @property
    def missing(self) -> str:
        """What has not come yet, by name and topic."""
        there = {"the overlay": bool(self._overlays), "the camera": self._info is not None}
        return ", ".join(
            f"{what} on {topic}" for what, topic in self._topics.items() if not there[what]
        )

    def _on_info(self, message: CameraInfo) -> None:
        self._info = message

    def _on_markers(self, message: MarkerArray) -> None:
        for marker in message.markers:
            if (
                marker.type != Marker.TRIANGLE_LIST
                or marker.action != Marker.ADD
                or len(marker.points) % 3
            ):
                continue
            if self._corners.get(marker.ns) != marker.points:
                self._corners[marker.ns] = marker.points
                corners = torch.tensor(
                    [[point.x, point.y, point.z] for point in marker.points],
                    dtype=torch.float32,
                )
                self.shapes[marker.ns] = (
                    corners.reshape(-1, 3),
                    torch.arange(len(corners)).reshape(-1, 3),
                )

    def _keep(self, waiting: OrderedDict[int, Any], message: Any) -> None:
        stamp = int(Time.from_msg(message.header.stamp).nanoseconds)
        waiting[stamp] = message
        if len(waiting) > _KEPT:
            waiting.popitem(last=False)
        if stamp in self._found and stamp in self._overlays and self._info is not None:
            overlay, found = self._overlays[stamp], self._found[stamp]
            try:
                picture = image_to_rgb(overlay)
                camera = message_conversions.camera_from_info(
                    self._info, picture.shape[1], picture.shape[0], False
                )
            except InvalidInput:  # of another camera, say
                return
            known = [
                one
                for one in found.detections
                if one.results and one.results[0].hypothesis.class_id in self.shapes
            ]
            seen = [self._estimate(one) for one in known]
            numbers = [int(one.id) for one in known]
            self.shot = browser_viewer.shot(
                f"{stamp / 1e9:.3f} s", picture, camera, seen, numbers
            )

    def _estimate(self, detection: Detection3D) -> PoseEstimate:
        """What the node estimated, as far as the scene shows it."""
        result, size = detection.results[0], detection.bbox.size
        place, turn = result.pose.pose.position, result.pose.pose.orientation
        rotation = torch.from_numpy(
            Rotation.from_quat([turn.x, turn.y, turn.z, turn.w]).as_matrix()
        )
        pose = from_parts(
            rotation, torch.tensor([place.x, place.y, place.z], dtype=torch.float64)
        )
        corners = self.shapes[result.hypothesis.class_id][0]
        scale = math.hypot(size.x, size.y, size.z) / float(
            (corners.amax(0) - corners.amin(0)).norm()
        )
        extents = torch.tensor([size.x, size.y, size.z], dtype=torch.float64)
        return PoseEstimate(
            result.hypothesis.class_id,
            pose,
            scale,
            True,
            extents,
            result.hypothesis.score,
            None,
            Symmetry(),
            0,
            0.0,
            torch.zeros(4, dtype=torch.float64),
        )


def show_live_scene(estimator: str, camera_info: str, host: str, port: int) -> None:
    """Serve the scene until Ctrl-C."""
    ended = threading.Event()
    before = signal.signal(signal.SIGINT, lambda number, frame: ended.set())
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = Node("uns_pose_view")
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    shown: Viewer | None = None
    try:
        scene = LiveScene(node, estimator, camera_info)
        last, due, told = None, 0.0, time.monotonic() + 3.0
        while not ended.is_set():
            executor.spin_once(timeout_sec=_SHORTEST)
            now = time.monotonic()
            if scene.shot is None and now > told:
                print(
                    f"waiting for {scene.missing or 'a picture with its detections'}",
                    file=sys.stderr,
                )
                told = math.inf
            if scene.shot is last or scene.shot is None or now < due:
                continue
            last, due = scene.shot, now + _SHORTEST
            if shown is None:
                shown = Viewer([last], scene.shapes, host, port)
                print(f"http://{host}:{shown.port}  (Ctrl-C ends)", flush=True)
            else:
                shown.put(last)
    finally:
        if shown is not None:
            shown.close()
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
        signal.signal(signal.SIGINT, before)
