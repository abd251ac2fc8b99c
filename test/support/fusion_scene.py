"""Cameras whose estimators answer by a script, and what the fusion node makes of it over DDS."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseArray
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.time import Time
from std_msgs.msg import Header, String
from tf2_msgs.msg import TFMessage
from vision_msgs.msg import Detection3DArray
from visualization_msgs.msg import MarkerArray

from streams import orbit
from uns_pose_ros.core.types import PoseEstimate
from uns_pose_ros.nodes.fusion.frame_list import frame_list
from uns_pose_ros.nodes.fusion.fusion_node import FusionNode
from uns_pose_ros.nodes.message_conversions import detection_array, transform_message

CAMERAS = dict(zip(("left", "right", "top"), orbit(3, 80.0), strict=True))  # cam_from_odom
CENTER = torch.tensor([0.01, 0.0, 0.02])  # of every box, in the object's frame
LASTING = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
PATIENCE = 200.0  # s after which a message will not come any more


class Scene:
    """Cameras with their estimators, and what the fusion node sends."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._nodes = [Node("cameras", context=context)]
        self.node = self._nodes[0]
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self.node)
        self.received: dict[str, list[Any]] = {
            name: [] for name in ("tf", "detections", "poses", "grasps", "markers")
        }
        self.diagnostics: list[DiagnosticArray] = []
        for name, kind, topic in (
            ("tf", TFMessage, "/tf"),
            ("detections", Detection3DArray, "/fusion/detections"),
            ("poses", PoseArray, "/fusion/poses"),
            ("grasps", PoseArray, "/fusion/grasps"),
            ("markers", MarkerArray, "/fusion/markers"),
        ):
            self.node.create_subscription(kind, topic, self.received[name].append, 50)
        self.node.create_subscription(
            DiagnosticArray, "/diagnostics", self.diagnostics.append, 50
        )
        self._static = self.node.create_publisher(TFMessage, "/tf_static", LASTING)
        self._outputs = {
            camera: self.node.create_publisher(
                Detection3DArray, f"/{camera}/estimator/detections", 5
            )
            for camera in CAMERAS
        }
        self._frame_lists = {
            camera: self.node.create_publisher(String, f"/{camera}/estimator/frames", 5)
            for camera in CAMERAS
        }
        self.place_cameras()

    def place_cameras(self, prefix: str = "") -> None:
        """Publish where the cameras are."""
        odom_from_cam = {
            camera: torch.linalg.inv(matrix) for camera, matrix in CAMERAS.items()
        }
        self._static.publish(
            TFMessage(
                transforms=[
                    transform_message(
                        Header(frame_id="odom"), f"{prefix}{camera}_eye", matrix
                    )
                    for camera, matrix in odom_from_cam.items()
                ]
            )
        )

    def start(self, *cameras: str, **parameters: Any) -> FusionNode:
        """Start the fusion node; objects keep their numbers while the machine stands still."""
        given = {
            "cameras": f"[{', '.join(cameras)}]",
            "fixed_frame": "odom",
            "rate": 50.0,
            "object_memory": 1000.0,
        }
        arguments = ["--ros-args"]
        for name, value in {**given, **parameters}.items():
            arguments += ["-p", f"{name}:={value}"]
        node = FusionNode(context=self._context, cli_args=arguments)
        self._nodes.append(node)
        self._executor.add_node(node)
        assert node.start()
        self.wait(
            "a listening node",
            lambda: (
                all(self._outputs[camera].get_subscription_count() for camera in cameras)
                and all(
                    self._frame_lists[camera].get_subscription_count() for camera in cameras
                )
                and node.count_subscribers("/fusion/markers")
                and self.node.count_publishers("/fusion/detections")
                and all(f"{camera}_eye" in node._tree.frames for camera in cameras)
            ),
        )
        return node

    def now(self) -> int:
        return int(self.node.get_clock().now().nanoseconds)

    def send(
        self, camera: str, *estimates: PoseEstimate, late: float = 0.0, tracks: Any = None
    ) -> int:
        """Send what a camera sees, with a stamp `late` s before now; return the stamp, ns."""
        stamp = self.now() - int(late * 1e9)
        header = Header(frame_id=f"{camera}_eye", stamp=Time(nanoseconds=stamp).to_msg())
        numbers = tracks or list(range(len(estimates)))
        text = frame_list(stamp, estimates, numbers)
        self._frame_lists[camera].publish(String(data=text))
        self._outputs[camera].publish(
            detection_array(header, estimates, numbers, [CENTER] * len(estimates))
        )
        return stamp

    def wait(self, what: str, ready: Callable[[], Any]) -> Any:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if value := ready():
                return value
            self._executor.spin_once(timeout_sec=0.02)
        raise AssertionError(f"{what} did not come: {self.diagnostics[-1:]}")

    def latest(self) -> list[Any]:
        """The detections of the next result."""
        self.received["detections"].clear()
        messages = self.received["detections"]
        return list(
            self.wait("detections", lambda: messages and messages[-1:])[0].detections
        )

    def diagnosis(self, part: str, meanwhile: Callable[[], Any] = lambda: None) -> Any:
        """Wait for a status from now on whose message or values hold `part`."""
        self.diagnostics.clear()

        def find() -> Any:
            meanwhile()
            for array in self.diagnostics:
                for status in array.status:
                    texts = [status.message, *(f"{v.key} {v.value}" for v in status.values)]
                    if any(part in text for text in texts):
                        return status
            return None

        return self.wait(f"diagnostics with {part!r}", find)

    def close(self) -> None:
        self._executor.shutdown()
        for node in self._nodes[::-1]:
            if isinstance(node, FusionNode):
                node.close()
            node.destroy_node()
