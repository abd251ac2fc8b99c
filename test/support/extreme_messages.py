"""Messages of extreme values, good ones, and a recorder that takes them."""

from __future__ import annotations

import array
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from geometry_msgs.msg import Point, TransformStamped
from rclpy.context import Context
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage
from vision_msgs.msg import (
    Detection2D,
    Detection2DArray,
    Detection3D,
    Detection3DArray,
    ObjectHypothesisWithPose,
)
from visualization_msgs.msg import Marker, MarkerArray

from uns_pose_ros.io.depth_images import encode_depth
from uns_pose_ros.nodes.recorder.recorder_node import RecorderNode
from uns_pose_ros.nodes.ros_compat import array_to_image

TEXTS = ("", "eye", "/eye", "a b//c", "\x00\u202e\U0001f697", "x" * 2**20)
NUMBERS = (0.0, 1.0, -1.0, 600.0, 1e-300, 1e300, float("inf"), float("-inf"), float("nan"))
SIZES = (0, 1, 2, 640, 2**31, 2**32 - 1)
SECONDS = (0, 1, -1, -(2**31), 2**31 - 1)
ENCODINGS = ("rgb8", "mono8", "16UC1", "32FC1", "nv12", "yuyv", "bayer_rggb16", *TEXTS)
ROUNDS = 120


class Extremes:
    """Makes messages of extreme values."""

    def __init__(self, seed: int) -> None:
        self.pick = random.Random(seed).choice

    def header(self) -> Header:
        header = Header(frame_id=self.pick(TEXTS))
        header.stamp.sec = self.pick(SECONDS)
        header.stamp.nanosec = self.pick((0, 1, 2**32 - 1))
        return header

    def numbers(self, length: int) -> list[float]:
        return [self.pick(NUMBERS) for _ in range(length)]

    def data(self) -> array.array[int]:
        return array.array("B", bytes(self.pick((0, 1, 12, 3000))))

    def image(self) -> Image:
        return Image(
            header=self.header(),
            width=self.pick(SIZES),
            height=self.pick(SIZES),
            step=self.pick(SIZES),
            encoding=self.pick(ENCODINGS),
            is_bigendian=self.pick((0, 1, 255)),
            data=self.data(),
        )

    def file(self) -> CompressedImage:
        starts = (b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\x00")
        data = array.array("B", self.pick(starts) + bytes(self.data()))
        return CompressedImage(header=self.header(), format=self.pick(TEXTS), data=data)

    def camera(self) -> CameraInfo:
        info = CameraInfo(header=self.header())
        info.width, info.height = self.pick(SIZES), self.pick(SIZES)
        info.binning_x, info.binning_y = self.pick(SIZES), self.pick(SIZES)
        info.roi.width, info.roi.height = self.pick(SIZES), self.pick(SIZES)
        info.roi.x_offset, info.roi.y_offset = self.pick(SIZES), self.pick(SIZES)
        info.k, info.p = self.numbers(9), self.numbers(12)
        info.d = self.numbers(self.pick((0, 1, 5, 8, 14, 3000)))
        info.distortion_model = self.pick(("plumb_bob", "equidistant", *TEXTS))
        return info

    def depth(self) -> Image:
        """A depth image, of which nearly every part may be right."""
        message = self.image()
        message.encoding = self.pick(("16UC1", "32FC1", "mono16", *TEXTS))
        if self.pick((True, False)):
            message.width, message.height, message.step = 640, 480, 4 * 640
            message.data = array.array(
                "B", (array.array("f", self.numbers(8)) * (640 * 60)).tobytes()
            )
        return message

    def packed_depth(self) -> CompressedImage:
        """A compressed depth image: 12 bytes of settings, and a PNG."""
        message = self.file()
        message.format = self.pick(
            ("16UC1; compressedDepth", "32FC1; compressedDepth png", *TEXTS)
        )
        settings = array.array("f", [0.0, *self.numbers(2)]).tobytes()
        ramp = np.arange(640 * 480, dtype=np.uint16).reshape(480, 640)
        if self.pick((True, False)):
            message.data = array.array("B", settings + encode_depth(ramp))
        return message

    def clock(self) -> Clock:
        return Clock(clock=self.header().stamp)

    def transforms(self) -> TFMessage:
        item = TransformStamped(header=self.header(), child_frame_id=self.pick(TEXTS))
        shift, turn = item.transform.translation, item.transform.rotation
        shift.x, shift.y, shift.z = self.numbers(3)
        turn.x, turn.y, turn.z, turn.w = self.numbers(4)
        return TFMessage(transforms=[item] * self.pick((0, 1, 3)))

    def boxes(self) -> Detection2DArray:
        box = Detection2D()
        box.bbox.center.position.x, box.bbox.center.position.y = self.numbers(2)
        box.bbox.size_x, box.bbox.size_y = self.numbers(2)
        result = ObjectHypothesisWithPose()
        result.hypothesis.class_id = self.pick(TEXTS)
        result.hypothesis.score = self.pick(NUMBERS)
        box.results = [result] * self.pick((0, 1, 2))
        return Detection2DArray(
            header=self.header(), detections=[box] * self.pick((0, 1, 3))
        )

    def detections(self) -> Detection3DArray:
        item = Detection3D(header=self.header(), id=self.pick(("", "0", "-1", "x" * 9)))
        result = ObjectHypothesisWithPose()
        result.hypothesis.class_id = self.pick(("car", *TEXTS))
        result.hypothesis.score = self.pick(NUMBERS)
        at, turn = result.pose.pose.position, result.pose.pose.orientation
        at.x, at.y, at.z = self.numbers(3)
        turn.x, turn.y, turn.z, turn.w = self.numbers(4)
        size = item.bbox.size
        size.x, size.y, size.z = self.numbers(3)
        item.results = [result] * self.pick((0, 1))
        return Detection3DArray(header=self.header(), detections=[item])

    def markers(self) -> MarkerArray:
        marker = Marker(type=Marker.TRIANGLE_LIST, ns=self.pick(("car", *TEXTS)))
        corners = [self.numbers(3) for _ in range(self.pick((0, 1, 3, 6)))]
        marker.points = [Point(x=x, y=y, z=z) for x, y, z in corners]
        return MarkerArray(markers=[marker])


def good(sec: int) -> tuple[Image, CameraInfo]:
    header = Header(frame_id="eye")
    header.stamp.sec = sec
    info = CameraInfo(header=header, width=640, height=480)
    info.k = [600.0, 0.0, 320.0, 0.0, 600.0, 240.0, 0.0, 0.0, 1.0]
    dark = np.random.default_rng(sec).integers(1, 3, (480, 640, 3)).astype(np.uint8)
    dark[0, 0] = 1
    return array_to_image(dark, "rgb8", header), info


def noise(second: int) -> tuple[Image, CameraInfo]:
    """An image that a recorder keeps, of another scene for each second."""
    image, info = good(second)
    pixels = np.random.default_rng(second).integers(0, 256, (480, 640, 3))
    return array_to_image(pixels.astype(np.uint8), "rgb8", image.header), info


def make_recorder(context: Context, folder: Path, *values: str) -> RecorderNode:
    """Make a recorder that records."""
    given = (f"category:={folder / 'mug'}", "record:=true", *values)
    arguments = [part for value in given for part in ("-p", value)]
    node = RecorderNode(context=context, cli_args=["--ros-args", *arguments])
    assert node.start()
    return node


def take_all(node: Any, extremes: Extremes) -> Iterator[tuple[Any, Any]]:
    """Give the node's callbacks extreme images and cameras; the worker's work is done at once."""
    images, synchronizer = node._stream._images, node._stream._synchronizer
    synchronizer._put = node._work
    for _ in range(ROUNDS):
        message = extremes.pick((extremes.image, extremes.file, lambda: good(1)[0]))()
        info = extremes.pick((extremes.camera, lambda: good(1)[1]))()
        images._on_info(info)
        images._on_image(message)
        yield message, synchronizer
    status = node._diagnostics.status("x", "cpu", {})
    assert len(status.message) < 20_000
    assert all(len(value.value) < 2000 for value in status.values)
    reasons = [value for value in status.values if value.key.startswith("unusable: ")]
    assert 5 < len(reasons) < 15
    assert all(len(value.key) < 300 for value in reasons)
    drops = node._diagnostics.drops["unusable image or camera_info"]
    assert sum(int(value.value) for value in reasons) == drops
