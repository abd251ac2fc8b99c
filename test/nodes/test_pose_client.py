"""Other packages get poses through the client over DDS; the example computes an approach pose."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy")
import numpy as np
from builtin_interfaces.msg import Time as Stamp
from geometry_msgs.msg import PoseStamped, TransformStamped
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.time import Time
from tf2_msgs.msg import TFMessage
from vision_msgs.msg import Detection3D, Detection3DArray, ObjectHypothesisWithPose

from grasp_approach import approach_pose
from ros_robot import Robot
from uns_pose_ros.nodes import ObjectPose, PoseClient
from warm_processes import start_warm

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "grasp_approach.py"
LASTING = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def film_until(robot: Robot, ready: Callable[[], Any]) -> Any:
    """Send images of two cars repeatedly until the condition holds."""
    stamps = itertools.count(10)

    def show() -> Any:
        robot.show(2, next(stamps))
        return ready()

    robot.calibrate()
    return robot.wait("an answer to the images", show)


def mount_camera(robot: Robot) -> Any:
    """The camera 1 m above base_link, looking down: camera z is base -z, camera x is base x."""
    message: Any = TransformStamped(child_frame_id="camera")
    message.header.frame_id = "base_link"
    message.transform.translation.z = 4.0
    turn = message.transform.rotation
    turn.x, turn.y, turn.z, turn.w = 1.0, 0.0, 0.0, 0.0
    publisher = robot.node.create_publisher(TFMessage, "/tf_static", LASTING)
    publisher.publish(TFMessage(transforms=[message]))
    return publisher


def test_wait_for_gives_the_next_image_that_shows_the_category_and_pose_at_an_earlier_one(
    plain: Robot,
) -> None:
    robot = plain
    # a busy node leaves out images of seconds: the cars keep their numbers
    robot.renew(**{"tracking.max_age": 3600.0})
    with PoseClient(context=robot.context) as client, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.wait_for, "car", 60.0)
        film_until(robot, waiting.done)
        pose = waiting.result()
        assert (pose.category, pose.frame) == ("car", "camera")
        assert pose.track == 0
        assert pose.frame_from_canon[:3, 3].tolist() == [0.0, 0.0, 3.0]
        assert pose.size.tolist() == pytest.approx([0.8, 0.4, 0.2])
        assert pose.covariance is None
        at = Stamp(sec=pose.stamp // 10**9)
        for stamp in (at, Time.from_msg(at), pose.stamp, pose.stamp + 3 * 10**7):
            again = client.pose_at("car", stamp)
            assert again is not None
            assert again.stamp == pose.stamp
        assert client.pose_at("car", pose.stamp + 5 * 10**8) is None
        assert client.pose_at("mug", pose.stamp) is None
        with pytest.raises(TimeoutError, match=r"no mug within 0\.2 s: "):
            client.wait_for("mug", 0.2)


def test_where_no_estimator_runs_the_error_says_that_nobody_publishes(robot: Robot) -> None:
    reason = r"no car within 0\.1 s: nothing on /estimator/detections \(0 publishers\)"
    with (
        PoseClient(context=robot.context) as client,
        pytest.raises(TimeoutError, match=reason),
    ):
        client.wait_for("car", 0.1)


def test_poses_come_in_the_frame_asked_for(plain: Robot) -> None:
    robot = plain
    with (
        PoseClient(frame="base_link", context=robot.context) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        robot.calibrate()
        robot.show(1, 5)
        robot.results(5)
        # the pose of the camera is not known yet
        assert client.pose_at("car", 5 * 10**9) is None
        publisher = mount_camera(robot)
        waiting = pool.submit(client.wait_for, "car", 60.0)
        film_until(robot, waiting.done)
        pose = waiting.result()
        assert pose.frame == "base_link"
        assert pose.frame_from_canon[:3, 3] == pytest.approx([0.0, 0.0, 1.0])
        assert pose.frame_from_canon[:3, 2] == pytest.approx([0.0, 0.0, -1.0])
    robot.node.destroy_publisher(publisher)


def test_the_gripper_stands_above_the_object_and_closes_across_its_narrower_side() -> None:
    upright = np.eye(4)
    upright[:3, 3] = 1.0, 2.0, 0.5
    target = ObjectPose(
        "mug",
        0,
        0,
        "base_link",
        upright,
        np.array([0.2, 0.1, 0.3]),
        np.array([1.0, 2.0, 0.6]),
        0.9,
        None,
    )
    pose = approach_pose(target, 0.1)
    assert pose[:3, 3] == pytest.approx([1.0, 2.0, 0.85])
    assert pose[:3, 2].tolist() == [0.0, 0.0, -1.0]
    assert pose[:3, 1].tolist() == [0.0, 1.0, 0.0]
    assert np.linalg.det(pose[:3, :3]) == pytest.approx(1.0)


def test_the_example_publishes_the_approach_pose(
    plain: Robot, monkeypatch: pytest.MonkeyPatch
) -> None:
    robot = plain
    received: list[PoseStamped] = []
    subscription = robot.node.create_subscription(
        PoseStamped, "/grasp_approach", received.append, LASTING
    )
    monkeypatch.setenv("ROS_DOMAIN_ID", str(robot.context.get_domain_id()))
    process = start_warm([str(EXAMPLE), "car", "--distance", "0.4", "--stay", "60"])
    try:
        film_until(robot, lambda: received)
    finally:
        process.kill()
        process.communicate()
        robot.node.destroy_subscription(subscription)
    pose = received[0].pose
    assert received[0].header.frame_id == "camera"
    # the car's own frame is the camera's; the center of its box of 0.2 m is in the middle
    assert [pose.position.x, pose.position.y, pose.position.z] == pytest.approx(
        [0.0, 0.0, 3.0 + 0.1 + 0.4]
    )


def test_detections_of_any_content_end_neither_the_client_nor_its_callers(
    robot: Robot,
) -> None:
    huge, nan = 1e300, float("nan")
    with PoseClient(frame="map", context=robot.context) as client:
        for sec in (0, -1, -(2**31), 2**31 - 1, 7):
            for number, identity in (
                (nan, "0"),
                (huge, "x"),
                (0.0, "-1"),
                (1.0, "9" * 400),
            ):
                detection = Detection3D(id=identity)
                detection.header.stamp.sec = sec
                result = ObjectHypothesisWithPose()
                result.hypothesis.class_id, result.hypothesis.score = "car", number
                result.pose.pose.orientation.w = number
                result.pose.pose.position.x = number
                for results in ([result], []):
                    message = Detection3DArray()
                    message.header.stamp.sec = sec
                    detection.results = results
                    message.detections = [detection]
                    client._on_detections(message)
            client.pose_at("car", sec * 10**9)
        with pytest.raises(TimeoutError):
            client.wait_for("mug", 0.05)
