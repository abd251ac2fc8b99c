"""Two cameras at once over DDS, each with a node of its own and two categories."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

pytest.importorskip("rclpy")
import numpy as np
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection3DArray

from ros_robot import Robot
from uns_pose_ros.nodes.ros_compat import array_to_image

COUNTS = {"left": 1, "right": 2}  # objects of each category before the camera


def test_each_answers_its_own_camera_with_both_categories(robot: Robot) -> None:
    received: dict[str, list[Any]] = {side: [] for side in COUNTS}
    cameras = {}
    for side in COUNTS:
        robot.start(
            "-r",
            f"__ns:=/{side}",
            "-p",
            "models:=[plain, size_truck]",
            "-p",
            f"frame_prefix:={side}/",
            "-p",
            f"qos_overrides./{side}/image.subscription.reliability:=reliable",
            reliable=False,
        )
        robot.node.create_subscription(
            Detection3DArray,
            f"/{side}/estimator/detections",
            received[side].append,
            QoSProfile(depth=50),
        )
        cameras[side] = (
            robot.node.create_publisher(Image, f"/{side}/image", 1),
            robot.node.create_publisher(CameraInfo, f"/{side}/camera_info", 1),
        )
    stamps = itertools.count(1)

    def show() -> bool:
        """Send images of both cameras with the same stamp; return whether all answers came."""
        seconds = next(stamps)
        for side, (images, infos) in cameras.items():
            header = Header(frame_id=f"{side}_eye")
            header.stamp.sec = seconds
            info = CameraInfo(header=header, width=640, height=480)
            info.k = [600.0, 0.0, 320.0, 0.0, 600.0, 240.0, 0.0, 0.0, 1.0]
            infos.publish(info)
            images.publish(
                array_to_image(
                    np.full((480, 640, 3), COUNTS[side], np.uint8), "rgb8", header
                )
            )
        sent = {
            transform.child_frame_id.split("/")[0]
            for transform in robot.transforms().values()
        }
        return all(len(messages) >= 5 for messages in received.values()) and sent == set(
            COUNTS
        )

    robot.wait("answers to both cameras", show)
    for side, count in COUNTS.items():
        for message in received[side]:
            assert message.header.frame_id == f"{side}_eye"
            results = [
                (d.results[0].hypothesis.class_id, round(d.bbox.size.x, 3))
                for d in message.detections
            ]
            assert sorted(results) == sorted(
                [("car", 0.8), ("truck", 0.2)] * count
            )  # a truck's model knows its size
            ids = [detection.id for detection in message.detections]
            assert len(set(ids)) == len(ids) == 2 * count
    for transform in robot.transforms().values():
        side, child = transform.child_frame_id.split("/")
        assert transform.header.frame_id == f"{side}_eye"
        assert child.split("_")[0] in ("car", "truck")
