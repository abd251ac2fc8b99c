"""A docking client, written after opennav_docking's documented interface, docks over DDS."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest

pytest.importorskip("rclpy")
import numpy as np
from geometry_msgs.msg import TransformStamped, Twist
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from scipy.spatial.transform import Rotation
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from docking_client import DockingClient, DockSettings
from ros_robot import Robot
from scripted_node import posed_pixels
from uns_pose_ros.nodes.image_stamps import stamp_ns
from uns_pose_ros.nodes.ros_compat import array_to_image

LASTING = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
DOCK = (2.0, 0.4, math.pi - 0.3)  # x, y, direction out of it, in odom
STEP = 0.1  # s of the simulated time for each image


class World:
    """A robot with a camera before a dock: it drives, and sends what its camera sees."""

    def __init__(self, robot: Robot) -> None:
        self.robot = robot
        self.x, self.y, self.heading = 0.0, 0.0, 0.0
        self.drives: list[Twist] = []
        self.fastest = 0.0  # m/s
        self.looked = -1  # ns, stamp of the newest image
        node = robot.node
        self._tf = node.create_publisher(TFMessage, "/tf", 10)
        self._static = node.create_publisher(TFMessage, "/tf_static", LASTING)
        # x right, y down, z forward
        self._static.publish(
            TFMessage(
                transforms=[self._transform("base_link", "camera", 0, 0, [-1, 1, -1, 1])]
            )
        )
        self._drive = node.create_subscription(Twist, "cmd_vel", self._on_command, 10)

    def close(self) -> None:
        self.robot.node.destroy_publisher(self._tf)
        self.robot.node.destroy_publisher(self._static)
        self.robot.node.destroy_subscription(self._drive)

    def look(self) -> None:
        """Send the robot's pose and the image of the dock."""
        now = self.robot.node.get_clock().now()
        stamp, self.looked = now.to_msg(), now.nanoseconds
        turn = [0.0, 0.0, math.sin(self.heading / 2), math.cos(self.heading / 2)]
        moved = self._transform("odom", "base_link", self.x, self.y, turn)
        moved.header.stamp = stamp
        self._tf.publish(TFMessage(transforms=[moved]))
        east, north = DOCK[0] - self.x, DOCK[1] - self.y
        cos, sin = math.cos(self.heading), math.sin(self.heading)
        ahead, left = cos * east + sin * north, -sin * east + cos * north
        pixels = np.zeros((480, 640, 3), np.uint8)
        pixels[0, :5] = posed_pixels(-left, ahead, DOCK[2] - self.heading - math.pi)
        header = Header(frame_id="camera", stamp=stamp)
        self.robot.images.publish(array_to_image(pixels, "rgb8", header))

    def _on_command(self, command: Twist) -> None:
        self.drives.append(command)

    def advance(self) -> None:
        """Drive for STEP s with the newest command."""
        if not self.drives:
            return
        command = self.drives.pop()
        self.fastest = max(self.fastest, command.linear.x)
        self.drives.clear()
        self.heading += command.angular.z * STEP
        self.x += command.linear.x * STEP * math.cos(self.heading)
        self.y += command.linear.x * STEP * math.sin(self.heading)

    @staticmethod
    def _transform(parent: str, child: str, x: float, y: float, turn: list[float]) -> Any:
        message: Any = TransformStamped(child_frame_id=child)
        message.header.frame_id = parent
        message.transform.translation.x = float(x)
        message.transform.translation.y = float(y)
        quaternion = Rotation.from_quat(turn).as_quat()
        for name, value in zip("xyzw", quaternion, strict=True):
            setattr(message.transform.rotation, name, float(value))
        return message


def test_a_docking_client_switches_the_node_on_docks_and_switches_it_off(
    plain: Robot,
) -> None:
    robot = plain
    robot.renew(**{"tracking.fixed_frame": "odom", "enabled": False})
    world = World(robot)
    node = Node(
        "docking",
        context=robot.context,
        cli_args=["--ros-args", "-r", "detected_dock_pose:=/estimator/pose/car"],
    )
    robot._executor.add_node(node)
    client = DockingClient(node, DockSettings())
    try:
        client.start()
        robot.wait_until_listening()
        robot.wait("the drive", lambda: node.count_subscribers("/cmd_vel"))
        robot.calibrate()
        answered, looked = 0, 0.0

        def follow() -> bool:
            """Answer the newest image by a command, and every command by the next image."""
            nonlocal answered, looked
            detected = client._detected
            # the answer to an image that was given up would be a second command at once
            if detected is not None and answered < stamp_ns(detected) == world.looked:
                answered = world.looked
                client.step()
            if world.drives or time.monotonic() - looked > 0.5:
                world.advance()
                world.look()
                looked = time.monotonic()
            return client.docked

        robot.wait("the dock", follow)
        client.stop()
        robot.wait(
            "the end of the subscription",
            lambda: robot.images.get_subscription_count() == 0,
        )
        robot.wait("a halt", lambda: world.drives and world.drives[-1] == Twist())
    finally:
        robot._executor.remove_node(node)
        node.destroy_node()
        world.close()
        robot.renew(**{"tracking.fixed_frame": "", "enabled": True})
    wanted = (DOCK[0] + 0.5 * math.cos(DOCK[2]), DOCK[1] + 0.5 * math.sin(DOCK[2]))
    assert math.dist((world.x, world.y), wanted) < 0.08
    off = math.remainder(world.heading - DOCK[2] - math.pi, 2 * math.pi)
    assert abs(math.degrees(off)) < 12
    assert 0.1 < world.fastest <= 0.3
