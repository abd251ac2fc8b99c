"""Two cameras at once over DDS, each with a node of its own and two categories."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest

pytest.importorskip("rclpy")
import numpy as np
from rclpy.context import Context
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage
from vision_msgs.msg import Detection3DArray

from local_estimator import assign, close, make_node, send
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
    parents = parents_of(robot.received["tf"])
    assert all(len(frames) == 1 for frames in parents.values()), parents
    for child, (parent,) in parents.items():
        side, name = child.split("/")
        assert parent == f"{side}_eye"
        assert name.split("_")[0] in ("car", "truck")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-r", "__ns:=/left"], "left/car_0"),
        (["-r", "__ns:=/robot1/left"], "robot1/left/car_0"),
        ([], "car_0"),
        (["-r", "__node:=other"], "car_0"),
        (["-r", "__ns:=/left", "-p", "frame_prefix:=near_"], "near_car_0"),
        (["-r", "__ns:=/left", "-p", "frame_prefix:=/"], "car_0"),
    ],
)
def test_the_prefix_is_the_namespace_unless_it_is_given(
    ros_context: Context, arguments: list[str], expected: str
) -> None:
    node = make_node(ros_context, *arguments)
    assert [sent.child_frame_id for sent in send(node, 1, 1.0)] == [expected]
    close(node)


def test_a_prefix_that_is_set_holds_from_the_next_image(ros_context: Context) -> None:
    node = make_node(ros_context, "-r", "__ns:=/left")
    for prefix, expected in (("a/", "a/car_0"), ("/", "car_0"), ("", "left/car_0")):
        assert not assign(node, frame_prefix=prefix)
        node.reset("test")
        assert [sent.child_frame_id for sent in send(node, 1, 1.0)] == [expected]
    close(node)


def test_two_robots_with_a_tf_of_their_own_publish_and_read_nothing_else(
    ros_context: Context,
) -> None:
    robots = "robot1", "robot2"
    own = [
        "-r",
        "/tf:=tf",
        "-r",
        "/tf_static:=tf_static",
        "-p",
        "tracking.fixed_frame:=odom",
    ]
    nodes = [make_node(ros_context, "-r", f"__ns:=/{robot}", *own) for robot in robots]
    for node in nodes:
        assert node.count_publishers("/tf") == node.count_subscribers("/tf") == 0
        assert node.count_subscribers("/tf_static") == 0
        for robot in robots:
            assert node.count_publishers(f"/{robot}/tf") == 1
            assert node.count_subscribers(f"/{robot}/tf") == 1
            assert node.count_subscribers(f"/{robot}/tf_static") == 1
    for node in nodes:
        close(node)


def parents_of(messages: Sequence[TFMessage]) -> dict[str, set[str]]:
    """Return the parents of each child frame."""
    parents: dict[str, set[str]] = {}
    for message in messages:
        for transform in message.transforms:
            frames = parents.setdefault(transform.child_frame_id, set())
            frames.add(transform.header.frame_id)
    return parents
