"""Parts of ROS that a machine may lack: what stands in for them is said."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import pytest

pytest.importorskip("rclpy")
import rclpy

from uns_pose_ros.nodes import ros_compat
from uns_pose_ros.nodes.estimator.estimator_node import EstimatorNode


def read_again() -> ModuleType:
    """Import a second copy of the module, with the packages of now."""
    spec = importlib.util.spec_from_file_location("ros_compat_again", ros_compat.__file__)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_broadcaster_of_tf2_ros_is_used_where_it_imports(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tf2_ros = ModuleType("tf2_ros")
    tf2_ros.TransformBroadcaster = object  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tf2_ros", tf2_ros)
    module = read_again()
    assert module.TransformBroadcaster is object
    assert module.BROADCASTER == "tf2_ros"


def test_a_stand_in_is_called_one_and_names_the_missing_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # what Python does when an import fails
    monkeypatch.setitem(sys.modules, "tf2_ros", None)
    module = read_again()
    assert module.TransformBroadcaster.__module__ == module.__name__
    assert "stand-in" in module.BROADCASTER and "tf2_ros_py" in module.BROADCASTER


def test_events_are_found_under_the_name_of_humble_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    humble = ModuleType("rclpy.qos_event")
    humble.SubscriptionEventCallbacks = dict  # type: ignore[attr-defined]
    humble.UnsupportedEventTypeError = KeyError  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "rclpy.event_handler", None)
    monkeypatch.setitem(sys.modules, "rclpy.qos_event", humble)
    module = read_again()
    assert module.SubscriptionEventCallbacks is dict
    assert module.UnsupportedEventTypeError is KeyError


def test_the_node_says_at_start_what_publishes_its_transforms(
    ros_domain: int, capfd: pytest.CaptureFixture[str]
) -> None:
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=ros_domain)
    node = EstimatorNode(context=context)
    node.destroy_node()
    rclpy.shutdown(context=context)
    said = f"transforms are published by {ros_compat.BROADCASTER}"
    assert said in "".join(capfd.readouterr())
