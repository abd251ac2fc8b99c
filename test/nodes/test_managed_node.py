"""What both nodes share: their names in the ROS graph."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

pytest.importorskip("rclpy")
import rclpy
from rclpy.context import Context

from local_estimator import close, make_node
from ros_robot import PATIENCE
from uns_pose_ros.nodes.estimator.estimator_node import EstimatorNode


def test_two_nodes_of_one_name_are_warned_of_until_one_ends(
    ros_context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_node(ros_context)
    assert "are named" not in _diagnosis(first)
    other = rclpy.Context()  # as another process has
    rclpy.init(context=other, domain_id=int(os.environ["ROS_DOMAIN_ID"]))
    second = make_node(other, active=False)
    for node in (first, second):
        _wait(lambda node=node: "2 nodes are named /estimator" in _diagnosis(node))
    assert "give each a namespace or a name of its own" in _diagnosis(first)
    monkeypatch.setattr(first, "get_fully_qualified_node_names", lambda: ["/estimator"])
    assert "are named" not in _diagnosis(first)
    close(second)
    rclpy.shutdown(context=other)
    close(first)


def test_nodes_with_a_namespace_or_a_name_of_their_own_are_not_warned_of(
    ros_context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = make_node(ros_context, "-r", "__ns:=/left", active=False)
    graph = ["/left/estimator", "/estimator", "/left/estimator2", "/right/estimator"]
    monkeypatch.setattr(node, "get_fully_qualified_node_names", lambda: graph)
    assert "are named" not in _diagnosis(node)
    graph.append("/left/estimator")
    assert "2 nodes are named /left/estimator" in _diagnosis(node)
    close(node)


def _diagnosis(node: EstimatorNode) -> str:
    return str(node._diagnose("test", "cpu", {}).message)


def _wait(ready: Any) -> None:
    end = time.monotonic() + PATIENCE
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.05)
