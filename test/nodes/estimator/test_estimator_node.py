"""The estimator node in a process of its own, over real DDS, with scripted estimates."""

from __future__ import annotations

import array
import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

pytest.importorskip("rclpy")
import numpy as np
from builtin_interfaces.msg import Time
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Header
from visualization_msgs.msg import Marker

from ros_robot import Robot
from uns_pose_ros.nodes.ros_compat import array_to_image

PLAIN = ("-p", "models:=[plain]")


def stream(robot: Robot, ready: Callable[[], Any]) -> None:
    """Send one car and camera_info repeatedly until the condition holds."""
    stamps = itertools.count(1000)

    def send_and_look() -> Any:
        robot.calibrate()
        robot.show(1, seconds=next(stamps))
        return ready()

    robot.wait("an answer to a stream of images", send_and_look)


def test_an_image_gives_a_transform_with_its_stamp_and_frame(robot: Robot) -> None:
    robot.start(*PLAIN, "-p", "frame_prefix:=robot1/")
    robot.wait_until_listening()
    robot.calibrate()
    robot.show(2, seconds=7, frame="left_eye")
    results = robot.results(7)
    transform = robot.wait(
        "the transform", lambda: robot.transforms().get((7, "robot1/car_1"))
    )
    assert transform.header.frame_id == "left_eye"
    assert [transform.transform.translation.x, transform.transform.translation.z] == [
        1.0,
        3.0,
    ]
    # one message has both transforms
    assert len([message for message in robot.received["tf"] if message.transforms]) == 1
    (detections,) = results["detections"]
    assert [
        (d.id, d.results[0].hypothesis.class_id, d.results[0].hypothesis.score)
        for d in detections.detections
    ] == [
        ("0", "car", 0.9),
        ("1", "car", 0.9),
    ]
    assert set(detections.detections[0].results[0].pose.covariance) == {-1.0}
    poses = robot.wait("poses", lambda: robot.received["poses"])[0]
    assert (poses.header.frame_id, len(poses.poses)) == ("left_eye", 2)
    overlay = robot.wait("the overlay", lambda: robot.received["overlay"])[0]
    assert (overlay.width, overlay.height, overlay.encoding, overlay.header.frame_id) == (
        640,
        480,
        "rgb8",
        "left_eye",
    )


def test_a_best_effort_stream_is_heard_by_default(robot: Robot) -> None:
    robot.start(*PLAIN, reliable=False)
    robot.wait_until_listening()
    stream(robot, lambda: robot.received["detections"])


def test_ids_stay_markers_of_lost_objects_are_deleted_and_reset_starts_anew(
    plain: Robot,
) -> None:
    robot = plain
    robot.calibrate()

    def markers(seconds: int) -> list[tuple[int, str, int]]:
        got = robot.wait(
            "markers",
            lambda: [
                m
                for m in robot.received["markers"]
                if m.markers and m.markers[0].header.stamp.sec == seconds
            ],
        )
        return [(marker.id, marker.ns, marker.action) for marker in got[0].markers]

    # the node makes markers as soon as it knows of a subscriber
    stream(robot, lambda: robot.received["markers"])
    assert robot.reset().success
    robot.show(2, seconds=1)
    assert markers(1) == [
        (0, "car", Marker.ADD),
        (0, "car/text", Marker.ADD),
        (1, "car", Marker.ADD),
        (1, "car/text", Marker.ADD),
    ]
    robot.show(1, seconds=2)
    assert markers(2) == [
        (1, "car", Marker.DELETE),
        (1, "car/text", Marker.DELETE),
        (1, "car/box", Marker.DELETE),
        (0, "car", Marker.ADD),
        (0, "car/text", Marker.ADD),
    ]
    robot.show(2, seconds=3)
    assert [d.id for d in robot.results(3)["detections"][0].detections] == ["0", "1"]
    # car 1 is out of sight for longer than the tracks' memory: when it comes back, it is a new one
    robot.show(1, seconds=20)
    robot.results(20)
    robot.show(2, seconds=22)
    assert [d.id for d in robot.results(22)["detections"][0].detections] == ["2", "3"]
    assert {action for _, _, action in markers(22)} == {Marker.ADD}
    assert robot.reset().success
    robot.wait(
        "deleted markers",
        lambda: (
            {m.action for m in robot.received["markers"][-1].markers} == {Marker.DELETE}
        ),
    )
    robot.show(1, seconds=23)
    assert [d.id for d in robot.results(23)["detections"][0].detections] == ["0"]


def test_stamps_that_jump_back_reset_the_tracks_and_no_stamp_is_sent_twice(
    plain: Robot,
) -> None:
    robot = plain
    robot.calibrate()
    robot.show(1, seconds=100)
    robot.results(100)
    robot.show(3, seconds=100)
    robot.diagnosis("dropped: stamp seen before")
    robot.show(2, seconds=101)
    assert [d.id for d in robot.results(101)["detections"][0].detections] == ["0", "1"]
    robot.show(1, seconds=105)
    assert [d.id for d in robot.results(105)["detections"][0].detections] == ["2"]
    robot.show(1, seconds=50)
    assert [d.id for d in robot.results(50)["detections"][0].detections] == ["0"]
    assert len(robot.results(100)["detections"]) == 1


def test_an_uncalibrated_camera_is_an_error_in_diagnostics_and_publishes_nothing(
    robot: Robot,
) -> None:
    node = robot.start(*PLAIN)
    robot.wait_until_listening()
    robot.calibrate(k=[0.0] * 9)
    for seconds in (1, 2):
        robot.show(1, seconds)
        status = robot.diagnosis("uncalibrated")
        assert status.level == b"\x02"
    assert not robot.received["detections"]
    stream(robot, lambda: robot.received["detections"])
    code, log = robot.interrupt(node)
    assert code == 0, log
    assert log.count("uncalibrated") == 1


def test_an_image_waits_for_the_first_camera_info(plain: Robot) -> None:
    robot = plain
    robot.show(1, seconds=4)
    robot.diagnosis("images wait for the first camera_info on /camera_info (1 publishers)")
    robot.calibrate()
    assert len(robot.results(4)["detections"][0].detections) == 1


def test_an_image_that_breaks_the_estimation_does_not_end_the_node(plain: Robot) -> None:
    robot = plain
    robot.calibrate()
    robot.show(255, seconds=1)
    status = robot.diagnosis("RuntimeError: scripted fault")
    assert status.level == b"\x02"
    assert "dropped: estimation failed" in [value.key for value in status.values]
    robot.show(1, seconds=2)
    robot.results(2)


@pytest.mark.parametrize(
    ("model", "diameter", "x", "warned"),
    [("plain", 0.0, 1.0, True), ("plain", 0.4, 0.4, False), ("size", 0.4, 0.25, False)],
)
def test_lengths_are_metres_of_the_model_else_of_the_parameter_else_diameters_with_a_warning(
    plain: Robot, model: str, diameter: float, x: float, warned: bool
) -> None:
    robot = plain
    robot.renew(models=[model], object_diameter=diameter)
    robot.calibrate()
    robot.show(2, seconds=1)
    detection = robot.results(1)["detections"][0].detections[1]
    assert detection.results[0].pose.pose.position.x == pytest.approx(x)
    assert detection.bbox.size.x == pytest.approx(0.8 * x)
    status = robot.diagnosis("state")
    assert ("its diameter is published as 1 m" in status.message) == warned
    assert status.level != b"\x00" or not warned


def test_a_publisher_with_an_incompatible_qos_is_named_in_diagnostics(robot: Robot) -> None:
    robot.start(
        *PLAIN, "-p", "qos_overrides./image.subscription.durability:=transient_local"
    )
    status = robot.diagnosis(
        "a publisher of /image offers an incompatible QoS (DURABILITY)"
    )
    assert status.level == b"\x02"


def test_unusable_images_and_cameras_are_reported_and_do_not_end_the_node(
    plain: Robot,
) -> None:
    robot = plain
    robot.calibrate()
    ordinary = np.full((480, 640, 3), 1, np.uint8)
    faults: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("image encoding 'yuv9' is not supported", {"encoding": "yuv9"}, {}),
        (
            "image of 0 x 0 px",
            {"width": 0, "height": 0, "step": 0, "data": array.array("B")},
            {},
        ),
        ("a row needs 1920 bytes", {"step": 7}, {}),
        (
            "a camera matrix K that is not finite",
            {},
            {"k": [math.nan, 0.0, 320.0, 0.0, 600.0, 240.0, 0.0, 0.0, 1.0]},
        ),
        (
            "distortion coefficients that are not finite",
            {},
            {"d": [math.inf, 0.0, 0.0, 0.0, 0.0]},
        ),
        (
            "camera_info has K[0] = -600",
            {},
            {"k": [-600.0, 0.0, 320.0, 0.0, 600.0, 240.0, 0.0, 0.0, 1.0]},
        ),
        ("camera_info describes 320 x 100 px", {}, {"width": 320, "height": 100}),
    ]
    stamps = itertools.count(1)

    def send_and_look(text: str, image: dict[str, Any], camera: dict[str, Any]) -> bool:
        """Send both repeatedly: camera_info and image may overtake each other."""
        robot.calibrate(**camera)
        message = array_to_image(ordinary, "rgb8", Header(frame_id="camera"))
        message.header.stamp.sec = next(stamps)
        for name, value in image.items():
            setattr(message, name, value)
        robot.images.publish(message)
        return any(
            text in status.message
            for array in robot.received["diagnostics"]
            for status in array.status
        )

    for fault in faults:
        robot.wait(f"diagnostics with {fault[0]!r}", partial(send_and_look, *fault))
    robot.received["detections"].clear()
    stream(robot, lambda: robot.received["detections"])


def test_a_camera_that_is_started_again_is_heard_again(plain: Robot) -> None:
    robot = plain
    robot.calibrate()
    robot.show(1, seconds=1)
    robot.results(1)
    robot.restart_camera()
    robot.wait_until_listening()
    robot.show(1, seconds=2)  # the camera's calibration is still known
    robot.results(2)


def test_time_that_jumps_back_forgets_the_objects(robot: Robot) -> None:
    robot.start(*PLAIN, "-p", "use_sim_time:=true")
    robot.wait_until_listening()
    clock = robot.node.create_publisher(Clock, "/clock", 10)
    robot.wait("the node on /clock", clock.get_subscription_count)

    def time_arrived(seconds: int) -> bool:
        """Publish the time until the node's diagnostics have it; early messages may be lost."""
        clock.publish(Clock(clock=Time(sec=seconds)))
        return any(
            message.header.stamp.sec == seconds
            for message in robot.received["diagnostics"][-1:]
        )

    robot.wait("the time in the node", lambda: time_arrived(100))
    robot.calibrate()
    robot.show(2, seconds=100)
    assert [d.id for d in robot.results(100)["detections"][0].detections] == ["0", "1"]
    robot.show(1, seconds=110)
    assert [d.id for d in robot.results(110)["detections"][0].detections] == ["2"]
    robot.wait("the markers of 110 s", lambda: len(robot.received["markers"]) >= 2)
    robot.received["markers"].clear()
    robot.wait("the time in the node", lambda: time_arrived(20))
    robot.wait(
        "deleted markers",
        lambda: any(
            {marker.action for marker in message.markers} == {Marker.DELETE}
            for message in robot.received["markers"]
        ),
    )
    robot.show(1, seconds=111)
    assert [d.id for d in robot.results(111)["detections"][0].detections] == ["0"]


def test_images_without_time_are_answered_with_a_warning_and_a_negative_stamp_is_dropped(
    plain: Robot,
) -> None:
    robot = plain
    robot.calibrate()
    robot.show(1, seconds=-5)
    status = robot.diagnosis("a negative stamp: they are dropped")
    assert status.level == b"\x01"
    assert "dropped: negative stamp" in [value.key for value in status.values]
    robot.received["detections"].clear()

    def answers() -> bool:
        robot.calibrate(header=Header(stamp=Time(sec=-7)))
        robot.show(1, seconds=0)
        return len(robot.received["detections"]) >= 3

    robot.wait("answers to images of stamp 0", answers)
    assert {m.header.stamp.sec for m in robot.received["detections"]} == {0}
    status = robot.diagnosis("stamp 0: the driver does not stamp them")
    assert status.level == b"\x01"
