"""The estimator node fuses its poses over images; each result belongs to one image."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

pytest.importorskip("rclpy")
import numpy as np
from geometry_msgs.msg import TransformStamped
from rclpy.qos import QoSProfile
from scipy.spatial.transform import Rotation
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import Marker

from ros_robot import Robot


def degrees_off(
    robot: Robot, seconds: int, wanted: Rotation, child: str = "car_0"
) -> float:
    """Angle between the transform of an image and a rotation, degrees."""
    sent = robot.wait("the transform", lambda: robot.transforms().get((seconds, child)))
    assert sent.header.frame_id == "camera"
    turn = sent.transform.rotation
    return float(
        np.degrees(
            (
                Rotation.from_quat([turn.x, turn.y, turn.z, turn.w]).inv() * wanted
            ).magnitude()
        )
    )


UPRIGHT, FLIPPED = Rotation.identity(), Rotation.from_euler("y", 180, degrees=True)


def test_a_flip_is_outvoted_by_earlier_images_and_sent_as_seen_where_fusion_is_off(
    plain: Robot,
) -> None:
    robot = plain
    robot.calibrate()
    for seconds in (1, 2, 4):
        robot.show(1, seconds)
        assert degrees_off(robot, seconds, UPRIGHT) < 0.1
        robot.results(seconds)
    robot.show(1, 5, flipped=True)
    assert degrees_off(robot, 5, UPRIGHT) < 0.1
    (detections,) = robot.results(5)["detections"]
    pose = detections.detections[0].results[0].pose.pose
    assert abs(pose.orientation.w) == pytest.approx(1.0)
    robot.diagnosis("1 tracked, 0 lost")
    robot.renew(**{"tracking.fuse": False})
    robot.calibrate()
    robot.show(1, 11)
    assert degrees_off(robot, 11, UPRIGHT) < 0.1
    robot.results(11)
    robot.show(1, 12, flipped=True)
    assert degrees_off(robot, 12, FLIPPED) < 0.1


def test_every_pose_that_is_possible_is_a_hypothesis_and_a_fan_until_an_image_decides(
    plain: Robot,
) -> None:
    robot = plain
    robot.calibrate()

    def namespaces(seconds: int) -> set[tuple[str, int]] | None:
        for message in robot.received["markers"]:
            if message.markers and message.markers[0].header.stamp.sec == seconds:
                return {(marker.ns, marker.action) for marker in message.markers}
        return None

    stamps = itertools.count(1000)

    def show_and_look() -> Any:
        robot.show(1, next(stamps))
        return robot.received["markers"]

    # the node makes markers as soon as it knows of a subscriber
    robot.wait("markers", show_and_look)
    robot.reset()
    robot.show(1, 1, hidden=True)
    (detection,) = robot.results(1)["detections"][0].detections
    scores = [result.hypothesis.score for result in detection.results]
    assert scores == pytest.approx([0.6, 0.6 * np.exp(-0.7)])
    turns = [result.pose.pose.orientation for result in detection.results]
    assert [abs(turns[0].w), abs(turns[1].y)] == pytest.approx([1.0, 1.0])
    fan = robot.wait("markers", lambda: namespaces(1))
    assert ("car/alternatives", Marker.ADD) in fan
    for seconds in range(2, 8):  # these images rule the half turn out
        robot.show(1, seconds)
        (detection,) = robot.results(seconds)["detections"][0].detections
    scores = [result.hypothesis.score for result in detection.results]
    assert 0.6 < scores[0] < 0.9
    assert not scores[1:] or scores[1] < 0.05
    gone = [namespaces(seconds) or set() for seconds in range(2, 8)]
    assert ("car/alternatives", Marker.DELETE) in set.union(*gone)
    assert ("car/alternatives", Marker.ADD) not in gone[-1]


def test_a_flip_is_outvoted_while_the_camera_turns_with_its_motion_from_tf(
    plain: Robot,
) -> None:
    robot = plain
    robot.renew(
        **{"tracking.fixed_frame": "odom", "tracking.transform_timeout": 10.0}
    )  # they may come after the image
    transforms = robot.node.create_publisher(TFMessage, "/tf", QoSProfile(depth=100))
    robot.wait(
        "the node on /tf", lambda: transforms.get_subscription_count() == 2
    )  # this end hears it too

    def turn_camera(seconds: int, roll: float) -> None:
        message: Any = TransformStamped(child_frame_id="camera")
        message.header.frame_id, message.header.stamp.sec = "odom", seconds
        x, y, z, w = Rotation.from_euler("z", -roll, degrees=True).as_quat()
        turn = message.transform.rotation
        turn.x, turn.y, turn.z, turn.w = float(x), float(y), float(z), float(w)
        transforms.publish(TFMessage(transforms=[message]))

    robot.calibrate()
    for seconds, roll in ((1, 0), (2, 35), (3, 70)):
        turn_camera(seconds, roll)
        robot.show(1, seconds, roll=roll)
        robot.results(seconds)
    turn_camera(4, 130)
    robot.show(1, 4, flipped=True, roll=130)
    assert degrees_off(robot, 4, Rotation.from_euler("z", 130, degrees=True)) < 1


def test_unknown_motion_of_the_camera_is_in_diagnostics_and_poses_still_come(
    plain: Robot,
) -> None:
    robot = plain
    robot.renew(**{"tracking.fixed_frame": "odom"})
    robot.calibrate()
    for seconds in (1, 2):
        robot.show(1, seconds)
        assert len(robot.results(seconds)["detections"][0].detections) == 1
    status = robot.diagnosis("the camera's motion is not known")
    assert status.level == b"\x01"


def test_objects_not_yet_confirmed_are_held_back_on_demand(plain: Robot) -> None:
    robot = plain
    robot.renew(**{"tracking.tentative": False, "tracking.min_hits": 3})
    robot.calibrate()
    counts = []
    for seconds in (1, 2, 3, 4):
        robot.show(2 if seconds > 1 else 1, seconds)
        counts.append(len(robot.results(seconds)["detections"][0].detections))
    assert counts == [0, 0, 1, 2]
