"""No message, no request and no callback ends the spinning of a node."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("rclpy")
from rclpy.context import Context
from rclpy.node import Node
from rclpy.serialization import serialize_message
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from uns_pose_ros.nodes.steady_executor import SteadyExecutor


@pytest.fixture
def node(ros_context: Context) -> Iterator[Node]:
    made = Node("steady", context=ros_context)
    yield made
    made.destroy_node()


def spin_until(executor: SteadyExecutor, ready: Callable[[], Any]) -> None:
    end = time.monotonic() + 60
    while not ready():
        assert time.monotonic() < end
        executor.spin_once(0.05)


def test_errors_of_callbacks_and_messages_that_cannot_be_read_are_reported(
    node: Node,
) -> None:
    reports: list[tuple[str, str]] = []
    executor = SteadyExecutor(
        lambda where, error: reports.append((where, type(error).__name__)), node.context
    )
    executor.add_node(node)
    names: list[str] = []

    def on_header(message: Header) -> None:
        if message.frame_id == "bad":
            raise ValueError("no")
        names.append(message.frame_id)

    def on_request(
        request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        raise ArithmeticError("no")

    node.create_subscription(Header, "/header", on_header, 10)
    node.create_service(Trigger, "/fails", on_request)
    publisher = node.create_publisher(Header, "/header", 10)
    clients = [node.create_client(Trigger, "/fails") for _ in range(3)]
    spin_until(executor, publisher.get_subscription_count)
    spin_until(executor, lambda: all(client.service_is_ready() for client in clients))
    broken = serialize_message(Header(frame_id="xyz"))[:10]
    for message in (Header(frame_id="bad"), broken, Header(frame_id="good")):
        publisher.publish(message)
    for client in clients:
        client.call_async(Trigger.Request())
    spin_until(executor, lambda: "good" in names and len(reports) >= 4)
    assert sorted(report for report in reports if report[0] == "a callback") == [
        *[("a callback", "ArithmeticError")] * 3,
        ("a callback", "ValueError"),
    ]
    unreadable = SimpleNamespace(topic_name="/unreadable")  # has no handle
    assert executor._take_subscription(unreadable) is None
    assert reports[-1] == ("/unreadable", "AttributeError")
    executor.shutdown()
