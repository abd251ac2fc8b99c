"""Dock a robot at an object, as SimpleChargingDock of Nav2's opennav_docking does.

    python3 examples/docking_client.py --ros-args -r detected_dock_pose:=/estimator/pose/dock

A robot with Nav2 needs no such program: docs/robots.md has the parameters of its docking server.
This one shows the whole loop for robots without it: switch the estimator on, follow the dock's
pose, stop at the dock, switch the estimator off. It reads /tf and detected_dock_pose
(geometry_msgs/PoseStamped) and publishes cmd_vel (geometry_msgs/Twist).
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped, Twist
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from scipy.spatial.transform import Rotation
from std_srvs.srv import Trigger

from uns_pose_ros.io.ros.transform_buffer import TransformTree
from uns_pose_ros.nodes.image_stamps import stamp_ns
from uns_pose_ros.nodes.tf_listener import TransformListener

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class DockSettings:
    """The parameters of SimpleChargingDock and of Nav2's graceful controller, with their names."""

    fixed_frame: str = "odom"
    base_frame: str = "base_link"
    detector_service_name: str = "/estimator/toggle"  # std_srvs/Trigger; empty: none
    external_detection_timeout: float = 1.0  # s
    external_detection_translation_x: float = -0.5  # m, of the base, seen from the dock
    external_detection_translation_y: float = 0.0  # m
    # rad; the dock's x points out of it, the robot looks into it
    external_detection_rotation_yaw: float = math.pi
    filter_coef: float = 0.3  # share of a new detection in the pose
    docking_threshold: float = 0.05  # m
    k_phi: float = 2.0
    k_delta: float = 1.0
    v_linear_max: float = 0.3  # m/s
    v_angular_max: float = 0.8  # rad/s


class DockingClient:
    """Drives a robot to its dock while `step` is called."""

    def __init__(self, node: Node, settings: DockSettings = DockSettings()) -> None:
        """Listen to /tf; the dock's poses come after `start`."""
        self._node = node
        self._settings = settings
        self._tree = TransformTree()
        self._listener = TransformListener(node, self._tree)
        self._commands = node.create_publisher(Twist, "cmd_vel", 1)
        name = settings.detector_service_name
        self._detector = node.create_client(Trigger, name) if name else None
        self._detected: PoseStamped | None = None
        self._dock: Floats | None = None  # x, y, yaw of the docked base in the fixed frame
        self._subscription: Subscription | None = None
        self.docked = False

    def start(self) -> None:
        """Switch the estimator on and subscribe: `startDetectionProcess`."""
        self._toggle()
        qos = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
        self._subscription = self._node.create_subscription(
            PoseStamped, "detected_dock_pose", self._on_pose, qos
        )

    def stop(self) -> None:
        """Stop the robot and switch the estimator off: `stopDetectionProcess`."""
        self._commands.publish(Twist())
        self._toggle()
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None

    def step(self) -> bool:
        """Send the next command; return whether the robot stands at the dock."""
        base = self._lookup(self._settings.base_frame)
        if base is None or not self._refine_pose() or self._dock is None:
            self._commands.publish(Twist())  # what is not seen is not driven to
            return False
        x, y = self._dock[:2] - base[:2, 3]
        heading = math.atan2(base[1, 0], base[0, 0])
        self.docked = math.hypot(x, y) < self._settings.docking_threshold
        if self.docked:
            self._commands.publish(Twist())
        else:
            self._drive(math.hypot(x, y), math.atan2(y, x), heading)
        return self.docked

    def _toggle(self) -> None:
        if self._detector is not None:
            self._detector.wait_for_service(5.0)
            self._detector.call_async(Trigger.Request())

    def _on_pose(self, message: PoseStamped) -> None:
        self._detected = message

    def _lookup(self, frame: str) -> Floats | None:
        """Return fixed_from_frame (4, 4) at the stamp of the newest detection."""
        if self._detected is None:
            return None
        stamp = stamp_ns(self._detected)
        found = self._tree.lookup(self._settings.fixed_frame, frame, stamp)
        return None if isinstance(found, str) else found

    def _refine_pose(self) -> bool:
        """Update the pose of the docked base; False if no detection is new enough."""
        settings, detected = self._settings, self._detected
        if detected is None:
            return False
        age = (self._node.get_clock().now().nanoseconds - stamp_ns(detected)) / 1e9
        fixed_from_camera = self._lookup(detected.header.frame_id)
        if age > settings.external_detection_timeout or fixed_from_camera is None:
            return False
        position, turn = detected.pose.position, detected.pose.orientation
        point = fixed_from_camera @ [position.x, position.y, position.z, 1.0]
        quaternion = [turn.x, turn.y, turn.z, turn.w]
        rotation = fixed_from_camera[:3, :3] @ Rotation.from_quat(quaternion).as_matrix()
        yaw = math.atan2(rotation[1, 0], rotation[0, 0])
        yaw += settings.external_detection_rotation_yaw
        forward = np.array([math.cos(yaw), math.sin(yaw)])
        left = np.array([-forward[1], forward[0]])
        place = (
            point[:2]
            + settings.external_detection_translation_x * forward
            + settings.external_detection_translation_y * left
        )
        new = np.array([*place, yaw])
        if self._dock is not None:
            change = new - self._dock
            change[2] = wrap(change[2])
            new = self._dock + settings.filter_coef * change
        self._dock = new
        return True

    def _drive(self, distance: float, bearing: float, heading: float) -> None:
        """Follow a smooth curve to the pose (Park and Kuipers, 2011), as Nav2's controller does."""
        assert self._dock is not None
        settings = self._settings
        phi = wrap(self._dock[2] - bearing)
        delta = wrap(heading - bearing)
        bend = settings.k_delta * (delta - math.atan(-settings.k_phi * phi))
        turn = 1 + settings.k_phi / (1 + (settings.k_phi * phi) ** 2)
        curvature = -(bend + turn * math.sin(delta)) / distance
        speed = min(settings.v_linear_max, 0.1 + distance)
        speed = min(speed, settings.v_angular_max / max(abs(curvature), 1e-6))
        command = Twist()
        command.linear.x = speed
        command.angular.z = curvature * speed
        self._commands.publish(command)


def wrap(angle: float) -> float:
    """Return the angle in [-pi, pi], rad."""
    return math.remainder(angle, 2 * math.pi)


def main() -> int:
    """Dock; return 1 if that takes longer than a minute."""
    rclpy.init()
    node = Node("docking_client")
    client = DockingClient(node)
    try:
        client.start()
        end = node.get_clock().now().nanoseconds + 60 * 10**9
        while rclpy.ok() and node.get_clock().now().nanoseconds < end:
            rclpy.spin_once(node, timeout_sec=0.05)
            if client.step():
                print("docked", flush=True)
                return 0
        print("not docked within 60 s", file=sys.stderr)
        return 1
    finally:
        client.stop()
        rclpy.spin_once(node, timeout_sec=0.5)
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    sys.exit(main())
