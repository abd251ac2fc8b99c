"""Programs that want one pose of one category: its topic, the list of categories, on and off."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

pytest.importorskip("rclpy")
from geometry_msgs.msg import PoseStamped
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import Header, String
from std_srvs.srv import SetBool, Trigger

from ros_robot import Robot
from scripted_node import car
from streams import estimate, pose
from uns_pose_ros.nodes.estimator.on_demand.pose_topics import PoseTopics, topic_names

LASTING = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


@pytest.fixture
def poses(plain: Robot) -> Iterator[list[PoseStamped]]:
    received: list[PoseStamped] = []
    topic = "/estimator/pose/car"
    subscription = plain.node.create_subscription(PoseStamped, topic, received.append, 10)
    plain.wait("the publisher", lambda: plain.node.count_publishers(topic))
    yield received
    plain.node.destroy_subscription(subscription)


def test_the_best_tracked_object_of_a_category_is_a_pose_with_the_images_header(
    plain: Robot, poses: list[PoseStamped]
) -> None:
    robot = plain
    robot.calibrate()
    robot.show(2, 1, frame="left_eye")
    robot.results(1)
    for seconds in (
        2,
        3,
    ):  # tracked from the second image on; car 0 and 1 have the same score
        robot.show(2, seconds, frame="left_eye")
        robot.results(seconds)
    got = robot.wait("poses", lambda: len(poses) >= 2 and poses)
    assert [pose.header.stamp.sec for pose in got[:2]] == [2, 3]
    assert {pose.header.frame_id for pose in got} == {"left_eye"}
    assert [(pose.pose.position.x, pose.pose.position.z) for pose in got] == [(0, 3)] * 2
    # without the object nothing comes, and a reset begins anew
    robot.show(0, 4)
    robot.results(4)
    robot.reset()
    robot.show(1, 5)
    robot.results(5)
    assert len(poses) == 2


def test_the_object_that_was_chosen_stays_until_another_is_clearly_better() -> None:
    class Publisher:
        topic_name = "here"
        sent: ClassVar[list[float]] = []

        def publish(self, message: Any) -> None:
            if isinstance(message, PoseStamped):
                self.sent.append(message.pose.position.x)

    class Node:
        def create_publisher(self, *_: Any) -> Publisher:
            return Publisher()

        create_lifecycle_publisher = create_publisher

    topics = PoseTopics(Node(), [car(None)])  # type: ignore[arg-type]

    def send(*scores: float, tracked: bool = True) -> list[float]:
        Publisher.sent.clear()
        estimates = [
            estimate(pose((0.0, 0.0, 0.0), (float(k), 0.0, 1.0)), score)
            for k, score in enumerate(scores)
        ]
        topics.publish(
            Header(frame_id="camera"), estimates, [0, 1], [tracked] * len(scores)
        )
        return list(Publisher.sent)

    assert send(0.5, 0.6) == [1.0]
    assert send(0.65, 0.6) == [1.0]
    assert send(0.75, 0.6) == [0.0]
    assert send(0.75, 0.9, tracked=False) == []
    assert send(0.75, 0.9) == [1.0]
    topics.forget()
    assert send(0.75, 0.7) == [0.0]


def test_the_categories_are_a_list_that_late_subscribers_get(plain: Robot) -> None:
    robot = plain
    received: list[String] = []

    def listed() -> Any:
        subscription = robot.node.create_subscription(
            String, "/estimator/categories", received.append, LASTING
        )
        robot.wait("the list", lambda: received)
        robot.node.destroy_subscription(subscription)
        return json.loads(received.pop().data)

    assert listed() == [
        {
            "category": "car",
            "size": None,
            "symmetry": {"order": 1, "name": "none", "axis": [0.0, 0.0, 1.0]},
            "pose_topic": "/estimator/pose/car",
        }
    ]
    robot.renew(models=["size_truck", "plain"])
    trucks, cars = listed()
    assert (trucks["category"], cars["category"]) == ("truck", "car")
    assert trucks["size"] == pytest.approx([0.2, 0.1, 0.05])


def test_images_are_received_only_while_the_node_is_switched_on(plain: Robot) -> None:
    robot = plain

    def listeners() -> int:
        return robot.images.get_subscription_count()

    off = robot.call(SetBool, "/estimator/enable", SetBool.Request(data=False))
    assert (off.success, off.message) == (True, "off: no images are received")
    robot.wait("an end of the subscription", lambda: listeners() == 0)
    robot.diagnosis("off: no images are received")
    assert robot.call(SetBool, "/estimator/enable", SetBool.Request(data=False)).success
    # what a docking server calls at the start and at the end
    on = robot.call(Trigger, "/estimator/toggle", Trigger.Request())
    assert (on.success, on.message) == (True, "on: images are received")
    robot.wait_until_listening()
    robot.calibrate()
    robot.show(1, 7)
    assert len(robot.results(7)["detections"][0].detections) == 1
    assert robot.call(Trigger, "/estimator/toggle", Trigger.Request()).success
    robot.wait("an end of the subscription", lambda: listeners() == 0)
    robot.renew(enabled=True)


@pytest.mark.parametrize(
    ("categories", "topics"),
    [
        (["mug"], ["mug"]),
        (
            ["coffee mug", "3d-printer", "größe"],
            ["coffee_mug", "category_3d_printer", "gr_e"],
        ),
        (["a b", "a-b", "__", ""], ["a_b", "a_b_2", "category", "category_2"]),
    ],
)
def test_any_category_has_a_topic_of_its_own(
    categories: list[str], topics: list[str]
) -> None:
    names = topic_names(categories)
    assert names == dict(
        zip(categories, [f"~/pose/{topic}" for topic in topics], strict=True)
    )
