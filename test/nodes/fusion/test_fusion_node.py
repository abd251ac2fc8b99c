"""The fusion node over DDS, with cameras whose estimators answer by a script."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

pytest.importorskip("rclpy")
import torch
from rclpy.context import Context
from rclpy.parameter import Parameter
from rclpy.time import Time
from std_msgs.msg import Header, String
from torch import Tensor
from visualization_msgs.msg import Marker

from fusion_scene import CAMERAS, CENTER, LASTING, PATIENCE, Scene
from streams import HALF_TURN, estimate, pose
from uns_pose_ros.core.geometry import angle_between
from uns_pose_ros.core.named_frames import NamedFrame, PlacedFrame
from uns_pose_ros.core.types import PoseEstimate, PoseMode
from uns_pose_ros.nodes import entry_points
from uns_pose_ros.nodes.fusion.camera_input import estimate_of
from uns_pose_ros.nodes.fusion.frame_list import (
    frame_list,
    place_frame,
    read_frame_list,
)
from uns_pose_ros.nodes.fusion.fusion_node import FusionNode
from uns_pose_ros.nodes.image_stamps import stamp_ns
from uns_pose_ros.nodes.message_conversions import detection_array

WORLD = pose((0.0, 0.0, 40.0), (0.03, -0.02, 0.05))  # odom_from_canon


@pytest.fixture
def scene(ros_context: Context) -> Iterator[Scene]:
    scene = Scene(ros_context)
    yield scene
    scene.close()


def seen(camera: str, place: Tensor = WORLD, score: float = 0.8) -> PoseEstimate:
    return estimate(CAMERAS[camera] @ place, score)


def off(detection: Any, truth: Tensor) -> float:
    found, _ = estimate_of(detection, estimate(truth).symmetry)
    return float(angle_between(found.cam_from_canon[:3, :3], truth[:3, :3]))


def test_cameras_give_one_object_in_the_fixed_frame_and_decide_what_one_cannot_see(
    scene: Scene,
) -> None:
    scene.start("left", "right", "top", frame_prefix="all/", max_difference=10.0)
    hidden = PoseMode(CAMERAS["left"] @ WORLD, -0.1)
    flipped = estimate(CAMERAS["left"] @ WORLD @ HALF_TURN, 0.5, (hidden,))
    beside = pose((0.0, 0.0, 0.0), (0.8, 0.0, 0.05))

    def is_there(stamp: Any) -> bool:
        return any(each.header.stamp == stamp for each in scene.received["detections"])

    for _ in range(2):  # the order in which the cameras see the objects does not matter
        scene.send("left", flipped, seen("left", beside))
        scene.send("right", seen("right", beside), seen("right"), tracks=[7, 8])
        stamp = scene.send("top", seen("top"))
        newest = Time(nanoseconds=stamp).to_msg()
        scene.wait(
            "results of the newest image",
            partial(is_there, newest),
        )
    message = scene.received["detections"][-1]
    assert message.header.frame_id == "odom"
    assert [detection.id for detection in message.detections] == ["0", "1"]
    first, second = message.detections
    assert off(first, WORLD) < 2 and off(second, beside) < 2
    assert 0.5 < first.results[0].hypothesis.score < 0.8
    # the box is where its center is in the object's own frame
    _, center = estimate_of(first, estimate(WORLD).symmetry)
    assert center.tolist() == pytest.approx((0.2 * CENTER).tolist(), abs=1e-6)
    names = {
        (transform.child_frame_id, transform.header.frame_id)
        for received in scene.received["tf"]
        for transform in received.transforms
    }
    assert names == {("all/car_0", "odom"), ("all/car_1", "odom")}
    stamps = [
        (t.child_frame_id, t.header.stamp.sec, t.header.stamp.nanosec)
        for received in scene.received["tf"]
        for t in received.transforms
    ]
    assert len(stamps) == len(set(stamps))
    scene.wait("poses", lambda: scene.received["poses"])
    assert len(scene.received["poses"][-1].poses) == 2
    scene.diagnosis("car_0 (left right top)")


CANON_FROM_GRIP = pose((0.0, 0.0, 30.0), (0.08, 0.0, 0.03))


def gripped(camera: str, shift: float, is_seen: bool, sigma: float) -> PoseEstimate:
    """An estimate with a grasp, `shift` m off in the camera's x."""
    whole = seen(camera)
    placed = (
        pose((0.0, 0.0, 0.0), (shift, 0.0, 0.0)) @ whole.cam_from_canon @ CANON_FROM_GRIP
    )
    grip = NamedFrame("grip", CANON_FROM_GRIP[:3, 3], CANON_FROM_GRIP[:3, :3], 0.05)
    covariance = sigma**2 * torch.eye(3, dtype=torch.float64)
    frame = PlacedFrame(
        grip, "grip", CANON_FROM_GRIP, placed, covariance, is_seen, width=0.06
    )
    return replace(whole, frames=(frame,))


def test_markers_grasps_and_named_frames_of_fused_objects_lie_where_a_camera_sees_them(
    scene: Scene,
) -> None:
    scene.start("left", "right")
    after_both: set[int] = set()

    def grasps() -> Any:
        scene.send("left", gripped("left", 0.1, False, 0.001))
        after_both.add(scene.send("right", gripped("right", 0.01, True, 0.01)))
        scene.latest()
        arrays = [m for m in scene.received["grasps"] if stamp_ns(m) in after_both]
        return arrays and scene.received["markers"] and arrays[-1]

    message = scene.wait("grasps", grasps)
    assert message.header.frame_id == "odom"
    (grasp,) = message.poses
    found = torch.tensor([grasp.position.x, grasp.position.y, grasp.position.z]).double()
    wanted = (WORLD @ CANON_FROM_GRIP)[:3, 3]
    assert float((found - wanted).norm()) == pytest.approx(0.01, abs=2e-3)
    children = {
        transform.child_frame_id: transform.header.frame_id
        for received in scene.received["tf"]
        for transform in received.transforms
    }
    assert children == {"car_0": "odom", "car_0/grip": "car_0"}

    def shown() -> dict[str, Any]:
        scene.send("right", gripped("right", 0.0, True, 0.01))
        scene.latest()
        markers = {m.ns: m for array in scene.received["markers"] for m in array.markers}
        return markers if {"car", "car/text", "car/grip"} <= markers.keys() else {}

    markers = scene.wait("markers", shown)
    box = markers["car"]
    assert (box.type, len(box.points)) == (Marker.TRIANGLE_LIST, 36)
    assert [box.scale.x, box.scale.y] == pytest.approx([0.2 / 3**0.5] * 2)
    assert markers["car/text"].pose.position.z > float(WORLD[2, 3])
    assert {marker.header.frame_id for marker in markers.values()} == {"odom"}

    def gone() -> bool:
        scene.send("right")
        scene.send("left")
        scene.latest()
        deleted = [
            marker
            for array in scene.received["markers"]
            for marker in array.markers
            if marker.action == Marker.DELETE
        ]
        return {"car", "car/text", "car/grip"} <= {marker.ns for marker in deleted}

    scene.wait("deleted markers", gone)


def test_a_list_of_frames_is_read_as_it_was_written_and_anything_else_is_refused() -> None:
    whole = gripped("left", 0.0, True, 0.01)
    stamp, frames = read_frame_list(frame_list(7, [whole, seen("left")], [3, 4]))
    assert stamp == 7 and list(frames) == [3]
    placed = place_frame(frames[3][0], whole)
    assert torch.allclose(placed.cam_from_frame, whole.frames[0].cam_from_frame)
    assert torch.allclose(placed.canon_from_frame, CANON_FROM_GRIP)
    assert (placed.name, placed.width, placed.seen) == ("grip", 0.06, True)
    good = json.loads(frame_list(7, [whole], [3]))
    entry = good["objects"]["3"][0]
    for spoiled in (
        "",
        "[]",
        "{}",
        json.dumps({"stamp": 1, "objects": {"x": []}}),
        *(
            json.dumps({"stamp": 1, "objects": {"3": [entry | change]}})
            for change in (
                {"pose": [[1.0]]},
                {"pose": [[float("nan")] * 4] * 4},
                {"name": "a b"},
                {"width": -1},
                {"covariance": "x"},
            )
        ),
    ):
        with pytest.raises(ValueError):
            read_frame_list(spoiled)


def test_the_outage_of_a_camera_is_survived_said_and_over_when_it_is_back(
    scene: Scene,
) -> None:
    scene.start("left", "right", outage=1.0)

    def film(*cameras: str) -> list[Any]:
        for camera in cameras:
            scene.send(camera, seen(camera))
        return scene.latest()

    assert [each.id for each in film("left", "right")] == ["0"]
    warning = "no results of left for 1 s on /left/estimator/detections (1 publishers)"

    def look(*cameras: str) -> None:
        (one,) = film(*cameras)
        assert (one.id, off(one, WORLD) < 1) == ("0", True)

    assert scene.diagnosis(warning, lambda: look("right")).level == b"\x01"

    def is_over() -> bool:
        look("left", "right")
        (status,) = scene.diagnostics[-1].status
        both = any("car_0 (left right)" in value.value for value in status.values)
        return both and "no results of" not in status.message

    scene.wait("results of both", is_over)


def test_results_that_come_before_the_transform_of_their_camera_wait_for_it(
    scene: Scene,
) -> None:
    scene.start("left", outage=PATIENCE)
    header = Header(frame_id="late_left_eye", stamp=scene.node.get_clock().now().to_msg())
    scene._outputs["left"].publish(detection_array(header, [seen("left")], [0], [CENTER]))
    scene.diagnosis("left is left out: ")
    scene.place_cameras("late_")
    (detection,) = scene.latest()
    assert off(detection, WORLD) < 1
    status = scene.diagnosis("images received 1")
    assert "left is left out" not in status.message
    assert {v.key: v.value for v in status.values}["dropped: left: no transform"] == "1"


def test_a_clock_that_is_wrong_and_a_transform_that_is_missing_are_in_diagnostics(
    scene: Scene,
) -> None:
    scene.start("left", "right", max_difference=0.4)

    def film() -> None:
        scene.send("left", seen("left"), late=1.5)
        scene.send("right", seen("right"))

    film()
    assert len(scene.latest()) == 1  # of the right one alone
    scene.diagnosis("s older than those of others: a clock is wrong", film)
    header = Header(frame_id="nowhere", stamp=scene.node.get_clock().now().to_msg())
    scene._outputs["left"].publish(detection_array(header, [seen("left")], [0], [CENTER]))
    scene.diagnosis("left is left out: ")
    sizes = scene.node.create_publisher(String, "/right/estimator/categories", LASTING)
    symmetry = {"order": 0, "axis": [0, 0, 1]}
    record = {"category": "car", "size": None, "symmetry": symmetry}
    sizes.publish(String(data=json.dumps([record])))
    scene.diagnosis("right does not know the size of car")
    endless = '[{"category": "car", "size": null, "symmetry": {"order": Infinity}}]'
    for spoiled in ("no list", "[" * 100_000, endless):
        sizes.publish(String(data=spoiled))
    scene.send("right", seen("right"))
    assert len(scene.latest()) == 1


def test_detections_of_any_content_and_stamps_that_go_back_do_not_end_the_node(
    scene: Scene,
) -> None:
    scene.start("left", "right")
    scene.send("left", seen("left"))
    assert [each.id for each in scene.latest()] == ["0"]
    for number in (float("nan"), 1e300, -1.0):
        stamp = scene.now()
        header = Header(frame_id="left_eye", stamp=Time(nanoseconds=stamp).to_msg())
        message = detection_array(header, [seen("left")], [0], [CENTER])
        (bad,) = message.detections
        bad.bbox.size.x = bad.results[0].pose.pose.position.x = number
        bad.results[0].pose.covariance[0] = number
        scene._outputs["left"].publish(message)
        assert len(scene.latest()) <= 1
    # the clock of a bag begins anew: so do the numbers
    scene.send("left", seen("left"), late=100.0)
    assert [each.id for each in scene.latest()] == ["0"]


def test_what_is_not_set_is_one_line_and_wrong_values_are_refused(
    ros_context: Context, scene: Scene
) -> None:
    node = FusionNode(context=ros_context)
    scene._nodes.append(node)
    scene._executor.add_node(node)
    assert not node.start()
    scene.diagnosis("cannot configure: set cameras: the namespaces of the estimators")
    for name, value, reason in (
        ("cameras", ["left", "/left/"], "cameras left, left: each once is valid"),
        ("rate", 0.0, "out of range"),
        ("frame_prefix", "/all", "no leading slash"),
    ):
        result = node.set_parameters([Parameter(name, value=value)])[0]
        assert reason in result.reason
    for name, value in (("cameras", ["left"]), ("fixed_frame", "odom")):
        assert node.set_parameters([Parameter(name, value=value)])[0].successful
    assert node.start()
    refused = node.set_parameters([Parameter("fixed_frame", value="map")])[0]
    assert "read by activate only" in refused.reason


def test_the_command_gives_cameras_and_frame_as_parameters() -> None:
    given = ["left", "right", "--fixed-frame", "odom", "--ros-args", "-p", "rate:=5.0"]
    assert entry_points.fusion_arguments(given) == [
        "--ros-args",
        "-p",
        "cameras:=['left', 'right']",
        "-p",
        "fixed_frame:='odom'",
        "-p",
        "rate:=5.0",
    ]
