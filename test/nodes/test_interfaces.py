"""The message packages of tools/interfaces have the type hashes of robots (REP-2016)."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from rclpy.node import Node

rclpy = pytest.importorskip("rclpy")

HASHES = {  # of the released packages
    "tf2_msgs.msg.TFMessage": "RIHS01_e369d0f05a23ae52508854b66f6aa043"
    "7f3449d652e8cbf22d5abe85d020f087",
    "vision_msgs.msg.Detection2DArray": "RIHS01_214274120007f4a683866481336b7031"
    "0268cfa107aebe9d594a6acf75bda968",
    "vision_msgs.msg.Detection3DArray": "RIHS01_793f5eab9595ac1c0da07873cc859db4"
    "2eae51f0ee76056db8562515d830e018",
}


@pytest.fixture
def node(ros_domain: int) -> Iterator[Node]:
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=ros_domain)
    node = rclpy.create_node("hashes", context=context)
    yield node
    node.destroy_node()
    context.shutdown()


@pytest.mark.parametrize("name", HASHES)
def test_a_topic_announces_the_type_hash_of_robots(node: Node, name: str) -> None:
    module, _, message = name.rpartition(".")
    publisher = node.create_publisher(
        getattr(import_module(module), message), "announced", 1
    )
    [endpoint] = node.get_publishers_info_by_topic(publisher.topic_name)
    assert str(endpoint.topic_type_hash) == HASHES[name]
