"""Named frames reach ROS: transforms below the object's, grasps and markers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("rclpy")
from geometry_msgs.msg import Point, PoseArray, Quaternion
from rclpy.context import Context
from std_msgs.msg import Header
from visualization_msgs.msg import Marker, MarkerArray

from local_estimator import assign, close, make_node, send
from ros_robot import Robot
from scripted_node import HANDLE, ScriptedEstimator, car
from uns_pose_ros.core.named_frames import PlacedFrame
from uns_pose_ros.core.types import PoseEstimate
from uns_pose_ros.estimation.frame_placement import carry_frames
from uns_pose_ros.nodes.estimator.estimator_node import EstimatorNode
from uns_pose_ros.nodes.estimator.frame_messages import (
    MarkerKey,
    add_frame_markers,
    grasp_array,
)

QUARTER = Quaternion(x=0.0, y=0.0, z=0.5**0.5, w=0.5**0.5)


def near(a: Any, b: Any) -> None:
    for part in a.get_fields_and_field_types():
        assert getattr(a, part) == pytest.approx(getattr(b, part), abs=1e-9), (a, b)


@pytest.fixture
def node(ros_context: Context) -> Iterator[EstimatorNode]:
    made = make_node(ros_context, "-p", "models:=[size_handle]")
    yield made
    close(made)


def test_a_frame_is_a_child_of_its_object_and_can_be_switched_off(
    node: EstimatorNode,
) -> None:
    grasps: list[PoseArray] = []
    assert node._results is not None
    node._results._grasps = SimpleNamespace(publish=grasps.append)
    sent = send(node, 2, 1.0)
    assert [(one.header.frame_id, one.child_frame_id) for one in sent] == [
        ("eye", "car_0"),
        ("car_0", "car_0/handle"),
        ("eye", "car_1"),
        ("car_1", "car_1/handle"),
    ]
    assert len({one.header.stamp.sec for one in sent}) == 1
    place, turn = sent[1].transform.translation, sent[1].transform.rotation
    assert [place.x, place.y, place.z] == pytest.approx([0.1, 0.0, 0.025])
    near(turn, QUARTER)
    assert len(grasps[-1].poses) == 2 and grasps[-1].header.frame_id == "eye"
    near(grasps[-1].poses[1].position, Point(x=0.35, y=0.0, z=0.775))
    assert not assign(node, only_seen_grasps=True)
    assert len(send(node, 1, 2.0)) == 2
    assert grasps[-1].poses == []  # the scripted pose alone places them
    assert not assign(node, named_frames=False, only_seen_grasps=False)
    assert [one.child_frame_id for one in send(node, 1, 3.0)] == ["car_0"]
    assert grasps[-1].poses == []


def two_cars() -> list[PoseEstimate]:
    model = car(0.25, frames=(HANDLE, replace(HANDLE, name="top", width=None)))
    estimator = ScriptedEstimator([model])
    return [estimator._estimate(model, i, torch.eye(3).double()) for i in range(2)]


def placed(one: PoseEstimate) -> tuple[PlacedFrame, ...]:
    first, second = carry_frames(one, [HANDLE, replace(HANDLE, name="top", width=None)])
    return replace(first, seen=True), second


def test_grasps_are_the_frames_with_a_width_and_may_be_those_that_are_seen() -> None:
    one, two = two_cars()
    one = replace(one, frames=placed(one))
    assert len(grasp_array(Header(), [one, two]).poses) == 2
    assert len(grasp_array(Header(), [one, two], only_seen=True).poses) == 1


def test_markers_of_frames_keep_their_ids_and_go_with_them() -> None:
    one, two = two_cars()
    one = replace(one, frames=placed(one))
    message = MarkerArray()
    shown: set[MarkerKey] = add_frame_markers(message, Header(), [one, two], [3, 5], set())
    added = {(marker.ns, marker.id): marker for marker in message.markers}
    assert shown == set(added) and len(added) == 8
    lines, text = added["car/handle", 3], added["car/handle/text", 3]
    assert len(lines.points) == len(lines.colors) == 8  # three axes and the opening
    assert len(added["car/top", 3].points) == 6
    assert lines.points[7].y - lines.points[6].y == pytest.approx(0.05)
    assert text.text == "handle" and lines.colors[0].a == 1.0
    assert added["car/top/text", 3].text == "top (carried)"
    assert added["car/top", 3].colors[0].a < 0.5
    later = MarkerArray()
    assert add_frame_markers(later, Header(), [two], [5], shown) == {
        key for key in shown if key[1] == 5
    }
    gone = {(m.ns, m.id) for m in later.markers if m.action == Marker.DELETE}
    assert gone == {key for key in shown if key[1] == 3}


def test_the_grasps_of_a_node_reach_another_process(plain: Robot) -> None:
    plain.renew(models=["size_handle"])
    plain.calibrate()
    plain.show(1, seconds=7)
    grasps = plain.wait("grasps", lambda: plain.received["grasps"])[0]
    assert (grasps.header.stamp.sec, len(grasps.poses)) == (7, 1)
    near(grasps.poses[0].position, Point(x=0.1, y=0.0, z=0.775))
    transform = plain.wait(
        "the transform", lambda: plain.transforms().get((7, "car_0/handle"))
    )
    assert transform.header.frame_id == "car_0"
    names = plain.wait(
        "markers of the handle",
        lambda: {m.ns for a in plain.received["markers"] for m in a.markers},
    )
    assert {"car/handle", "car/handle/text"} <= names
