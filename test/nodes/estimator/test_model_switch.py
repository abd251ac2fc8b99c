"""A running node gets other models and categories, and its device fails, over real DDS."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

pytest.importorskip("rclpy")
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.parameter import Parameter
from visualization_msgs.msg import Marker

from ros_robot import Robot
from scripted_node import FULL


def classes(robot: Robot, seconds: int) -> list[str]:
    """Categories that the node finds in an image, with a stamp, of one object of each."""
    robot.show(1, seconds)
    return [
        d.results[0].hypothesis.class_id
        for d in robot.results(seconds)["detections"][0].detections
    ]


def test_models_can_be_set_while_the_node_runs_and_bad_ones_change_nothing(
    plain: Robot,
) -> None:
    robot, seconds = plain, itertools.count(1)
    robot.calibrate()
    robot.wait(
        "markers", lambda: classes(robot, next(seconds)) and robot.received["markers"]
    )
    refused = robot.set(Parameter("models", value=["plain", "nothing_there"]))
    assert not refused.successful
    assert (
        "models stay as they are: ['plain', 'nothing_there']: there is no model"
        in refused.reason
    )
    assert (
        "two models are of one category"
        in robot.set(Parameter("models", value=["plain", "size"])).reason
    )
    assert classes(robot, next(seconds)) == ["car"]
    assert robot.set(Parameter("models", value=["plain", "size_truck"])).successful
    robot.wait(
        "deleted markers",
        lambda: (
            {m.action for m in robot.received["markers"][-1].markers} == {Marker.DELETE}
        ),
    )
    assert classes(robot, next(seconds)) == ["car", "truck"]
    first = robot.results(1)["detections"][0].detections
    assert [d.id for d in first] == ["0"]
    robot.diagnosis("plain, size_truck")
    assert robot.state() == "active"


def test_categories_can_be_set_while_the_node_runs(plain: Robot) -> None:
    robot = plain
    robot.renew(models=["plain", "size_truck"])
    robot.calibrate()
    assert classes(robot, 1) == ["car", "truck"]
    assert robot.set(Parameter("categories", value=["truck"])).successful
    assert classes(robot, 2) == ["truck"]
    refused = robot.set(Parameter("categories", value=["truck", "cup"]))
    assert (
        refused.reason == "categories cup: no model; car, truck are valid, and none for all"
    )
    refused = robot.set(Parameter("models", value=["plain"]))
    assert (
        refused.reason
        == "models stay as they are: categories truck: no model; car are valid, and none for all"
    )
    both = [Parameter("models", value=["plain"]), Parameter("categories", value=["car"])]
    request = SetParametersAtomically.Request(
        parameters=[parameter.to_parameter_msg() for parameter in both]
    )
    result: Any = robot.call(
        SetParametersAtomically, f"{robot.target}/set_parameters_atomically", request
    ).result
    assert result.successful, result.reason
    assert classes(robot, 3) == ["car"]
    assert robot.set(Parameter("categories", value=[""])).successful


def test_without_device_memory_the_processor_answers_until_the_device_works_again(
    robot: Robot,
) -> None:
    robot.start("-p", "models:=[plain_gpu]")
    robot.wait_until_listening()
    robot.calibrate()
    robot.show(1, 1)
    robot.results(1)
    assert robot.diagnosis("images received").hardware_id == "cuda"
    robot.show(FULL, 2)
    assert len(robot.results(2)["detections"][0].detections) == 1
    status = robot.diagnosis("cuda: out of memory; the processor works in its place")
    assert (status.level, status.hardware_id) == (b"\x01", "cpu")
    seconds = itertools.count(3)

    def recovered() -> bool:
        robot.show(1, next(seconds))
        newest = robot.received["diagnostics"][-1].status[0]
        return newest.hardware_id == "cuda" and "out of memory" not in newest.message

    robot.wait("the device in use again", recovered)
