"""Boxes, masks and depth of other nodes, combined with images by their stamp, over DDS."""

from __future__ import annotations

import array
import itertools
import math
from collections import Counter

import pytest

pytest.importorskip("rclpy")
import cv2
import numpy as np
import torch
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from vision_msgs.msg import (
    Detection2D,
    Detection2DArray,
    Detection3D,
    ObjectHypothesisWithPose,
)

from ros_robot import Robot
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Camera
from uns_pose_ros.nodes.estimator.region_inputs import region_boxes
from uns_pose_ros.nodes.ros_compat import array_to_image

K = torch.tensor([[600.0, 0, 320], [0, 600, 240], [0, 0, 1]], dtype=torch.float64)
CAMERA = Camera(K, 640, 480)
RELIABLE = QoSProfile(
    depth=5, reliability=ReliabilityPolicy.RELIABLE
)  # a best-effort reader takes it too


def header(seconds: int) -> Header:
    made = Header(frame_id="camera")
    made.stamp.sec = seconds
    return made


def detections(
    seconds: int, *boxes: tuple[str, float, tuple[float, float, float, float]]
) -> Detection2DArray:
    """Of class, score and x0 y0 x1 y1."""
    message = Detection2DArray(header=header(seconds))
    for name, score, (x0, y0, x1, y1) in boxes:
        one = Detection2D(header=message.header)
        one.bbox.center.position.x, one.bbox.center.position.y = (
            (x0 + x1) / 2,
            (y0 + y1) / 2,
        )
        one.bbox.size_x, one.bbox.size_y = x1 - x0, y1 - y0
        result = ObjectHypothesisWithPose()
        result.hypothesis.class_id, result.hypothesis.score = name, score
        one.results = [result]
        message.detections.append(one)
    return message


CAR, CUP, LEFT = (
    ("car", 0.5, (10.0, 20.0, 110.0, 90.0)),
    ("cup", 0.9, (300.0, 30.0, 360.0, 90.0)),
    ("car", 0.8, (-50.0, 0.0, 60.0, 40.0)),
)


def test_boxes_come_by_score_filtered_by_class_and_cut_at_the_edge_of_the_image() -> None:
    message = detections(1, CAR, CUP, LEFT)
    assert region_boxes(message, CAMERA, [], 5).tolist() == [
        [300, 30, 360, 90],
        [0, 0, 60, 40],
        [10, 20, 110, 90],
    ]
    assert region_boxes(message, CAMERA, ["car"], 5).tolist() == [
        [0, 0, 60, 40],
        [10, 20, 110, 90],
    ]
    assert region_boxes(message, CAMERA, [], 1).tolist() == [[300, 30, 360, 90]]
    assert region_boxes(message, CAMERA, ["bus"], 5).shape == (0, 4)


def test_boxes_that_are_empty_outside_or_not_finite_are_left_out() -> None:
    bad = [
        ("car", 1.0, box)
        for box in (
            (700.0, 10.0, 800.0, 90.0),
            (10.0, 10.0, 11.0, 90.0),
            (math.nan, 0.0, 50.0, 50.0),
        )
    ]
    assert region_boxes(detections(1, *bad, CAR), CAMERA, [], 5).tolist() == [
        [10, 20, 110, 90]
    ]


def test_regions_that_are_left_out_are_counted_by_reason() -> None:
    bad = [
        ("car", 1.0, (math.nan, 0.0, 50.0, 50.0)),
        ("car", math.nan, (0.0, 0.0, 9.0, 9.0)),
    ]
    bad.append(("car", 1.0, (700.0, 10.0, 800.0, 90.0)))
    counts: Counter[str] = Counter()
    region_boxes(detections(1, *bad, CAR, CAR, CUP), CAMERA, ["car"], 1, counts)
    mask = np.zeros((480, 640), np.uint8)
    mask[5:7, 5:7] = 255
    region_boxes(array_to_image(mask, "mono8", header(1)), CAMERA, [], 5, counts)
    assert +counts == {
        "a box that is not finite": 1,
        "a score that is not finite": 1,
        "another class": 1,
        "outside the image or narrower than 4 px": 1,
        "more than max_instances": 1,
        "specks of the mask": 1,
    }


def test_boxes_in_a_distorted_image_are_undistorted() -> None:
    lens = Camera(K, 640, 480, torch.tensor([-0.3, 0.1, 0.0, 0.0], dtype=torch.float64))
    (box,) = region_boxes(
        detections(1, ("car", 1.0, (10.0, 10.0, 110.0, 110.0))), lens, [], 5
    ).tolist()
    assert box[0] < 0 and box[1] < 0  # barrel distortion had pulled the corner in
    (central,) = region_boxes(
        detections(1, ("car", 1.0, (315.0, 235.0, 325.0, 245.0))), lens, [], 5
    ).tolist()
    assert central == pytest.approx([315, 235, 325, 245], abs=0.01)


def test_every_connected_part_of_a_mask_is_a_region_and_specks_are_not() -> None:
    mask = np.zeros((480, 640), np.uint8)
    mask[100:150, 200:230], mask[300:400, 20:140], mask[5:7, 5:7] = 255, 1, 255
    boxes = region_boxes(array_to_image(mask, "mono8", header(1)), CAMERA, [], 5)
    assert boxes.tolist() == [[20, 300, 140, 400], [200, 100, 230, 150]]
    assert (
        len(region_boxes(array_to_image(0 * mask, "mono8", header(1)), CAMERA, [], 5)) == 0
    )


def test_masks_of_another_size_or_encoding_are_refused() -> None:
    with pytest.raises(
        InvalidInput, match="the mask is 64 x 48 px, the image 640 x 480 px"
    ):
        region_boxes(
            array_to_image(np.zeros((48, 64), np.uint8), "mono8", header(1)), CAMERA, [], 5
        )
    with pytest.raises(InvalidInput, match="'rgb8': mono8 is valid"):
        region_boxes(
            array_to_image(np.zeros((48, 64, 3), np.uint8), "rgb8", header(1)),
            CAMERA,
            [],
            5,
        )


def test_an_image_waits_for_the_boxes_of_its_stamp_and_may_come_after_them(
    plain: Robot,
) -> None:
    robot = plain
    robot.renew(regions="detections_2d", detection_classes=["car"])
    boxes = robot.node.create_publisher(Detection2DArray, "/detections_2d", RELIABLE)
    robot.wait("the node on /detections_2d", boxes.get_subscription_count)
    robot.calibrate()

    def count(seconds: int) -> int:
        return len(robot.results(seconds)["detections"][0].detections)

    text = "images wait for detections_2d of their stamp on /detections_2d (1 publishers)"
    stamps = itertools.count(100)

    def show_and_look() -> bool:
        robot.show(5, next(stamps))
        return any(
            text in status.message
            for array in robot.received["diagnostics"]
            for status in array.status
        )

    robot.wait("the warning", show_and_look)
    robot.diagnosis("dropped: no detections_2d of its stamp")
    assert not robot.received["detections"]
    robot.show(5, seconds=1000)
    boxes.publish(detections(1000, CAR, CUP))
    assert count(1000) == 1  # not five, as without regions
    boxes.publish(detections(1001, CAR, CUP, LEFT))
    robot.show(5, seconds=1001)
    assert count(1001) == 2
    boxes.publish(detections(1002))
    robot.show(5, seconds=1002)
    assert count(1002) == 0


def test_masks_say_where_the_objects_are(plain: Robot) -> None:
    robot = plain
    robot.renew(regions="mask")
    masks = robot.node.create_publisher(Image, "/mask", RELIABLE)
    robot.wait("the node on /mask", masks.get_subscription_count)
    robot.calibrate()
    mask = np.zeros((480, 640), np.uint8)
    mask[100:200, 100:200], mask[100:200, 300:400] = 255, 255
    masks.publish(array_to_image(mask, "mono8", header(1)))
    robot.show(5, seconds=1)
    assert len(robot.results(1)["detections"][0].detections) == 2
    masks.publish(array_to_image(mask[:48, :64].copy(), "mono8", header(2)))
    robot.show(5, seconds=2)
    robot.diagnosis("the mask is 64 x 48 px")


def test_depth_gives_meters_with_or_without_a_mask_and_missing_depth_is_reported(
    plain: Robot,
) -> None:
    robot, stamps = plain, itertools.count(1)
    masks, depths = (
        robot.node.create_publisher(Image, topic, RELIABLE) for topic in ("/mask", "/depth")
    )
    mask, shown = np.zeros((480, 640), np.uint8), np.full((480, 640), 750, np.uint16)
    mask[100:200, 100:200], shown[:, :300] = 1, 0

    def send(depth: np.ndarray, encoding: str) -> None:
        """Send an image with everything that belongs to it; the node may not listen yet."""
        stamp = next(stamps)
        robot.calibrate()
        depths.publish(array_to_image(depth, encoding, header(stamp)))
        masks.publish(array_to_image(mask, "mono8", header(stamp)))
        robot.show(1, stamp)

    def received_detections(depth: np.ndarray, encoding: str) -> list[Detection3D]:
        send(depth, encoding)
        return [
            detection
            for message in robot.received["detections"]
            for detection in message.detections
        ]

    def is_reported(part: str, depth: np.ndarray) -> bool:
        send(depth, "32FC1")
        return any(
            part in status.message
            for array in robot.received["diagnostics"]
            for status in array.status
        )

    robot.renew(use_depth=True, regions="mask")
    (detection, *_) = robot.wait(
        "an object in meters", lambda: received_detections(shown, "16UC1")
    )
    assert detection.results[0].pose.pose.position.z == pytest.approx(
        0.75
    )  # three diameters of 0.25 m
    assert detection.bbox.size.x == pytest.approx(0.2)
    robot.renew(use_depth=True, regions="search")
    depth_in_meters = np.where(shown > 0, np.float32(1.5), np.float32(np.nan))
    (detection, *_) = robot.wait(
        "an object in meters", lambda: received_detections(depth_in_meters, "32FC1")
    )
    assert detection.bbox.size.x == pytest.approx(0.4)
    robot.wait(
        "the warning",
        lambda: is_reported(
            "depth says nothing of 1 of 1 objects", np.zeros((480, 640), np.float32)
        ),
    )
    robot.wait(
        "the refusal",
        lambda: is_reported(
            "the depth is 64 x 48 px, the image 640 x 480 px", np.ones((48, 64), np.float32)
        ),
    )


def test_compressed_depth_gives_meters_too(plain: Robot) -> None:
    robot, stamps = plain, itertools.count(1)
    depths = robot.node.create_publisher(
        CompressedImage, "/depth/compressedDepth", RELIABLE
    )
    robot.renew(use_depth=True, depth_transport="compressed")
    data = (
        bytes(12) + cv2.imencode(".png", np.full((480, 640), 750, np.uint16))[1].tobytes()
    )

    def received_detections() -> list[Detection3D]:
        stamp = next(stamps)
        robot.calibrate()
        depths.publish(
            CompressedImage(
                header=header(stamp),
                format="16UC1; compressedDepth png",
                data=array.array("B", data),
            )
        )
        robot.show(1, stamp)
        return [
            detection
            for message in robot.received["detections"]
            for detection in message.detections
        ]

    (detection, *_) = robot.wait("an object in meters", received_detections)
    assert detection.results[0].pose.pose.position.z == pytest.approx(0.75)
