"""Messages with extreme values end no callback, and a good message afterwards is answered."""

from __future__ import annotations

import array
import random
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import Point, TransformStamped
from rclpy.context import Context
from rclpy.node import Node
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

from local_estimator import close, make_node
from uns_pose_ros.io.artifacts import read_json
from uns_pose_ros.io.depth_images import depth_path, encode_depth, read_depth
from uns_pose_ros.io.video_folder import image_names
from uns_pose_ros.nodes.estimator.live_viewer import LiveScene
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


@pytest.mark.parametrize("regions", ["search", "detections_2d", "mask"])
def test_an_estimator_drops_and_counts_what_it_cannot_read_and_answers_the_next_image(
    ros_context: Context, regions: str
) -> None:
    node = make_node(ros_context, "-p", f"regions:={regions}")
    extremes = Extremes(1)
    try:
        for message, synchronizer in take_all(node, extremes):
            if regions != "search":
                companion: Any = (
                    extremes.boxes() if regions == "detections_2d" else extremes.image()
                )
                companion.header.stamp = message.header.stamp
                synchronizer._on_companion(regions, companion)
            node._tick()
        drops = node._diagnostics.drops
        assert drops["unusable image or camera_info"] > 5
        assert drops["negative stamp"] > 5
        assert len(drops) < 10
        before = node._diagnostics._results
        image, info = good(2**31 - 2)
        node.reset("test")
        if regions != "search":
            companion = (
                Detection2DArray(header=image.header)
                if regions == "detections_2d"
                else array_to_image(np.zeros((480, 640), np.uint8), "mono8", image.header)
            )
            synchronizer._on_companion(regions, companion)
        assert node._stream is not None
        node._stream._images._on_info(info)
        node._stream._images._on_image(image)
        assert node._diagnostics._results == before + 1
    finally:
        close(node)


def test_a_recorder_drops_and_counts_what_it_cannot_read_and_keeps_the_next_image(
    ros_context: Context, tmp_path: Path
) -> None:
    node = make_recorder(ros_context, tmp_path, "keep_free:=0.0")
    extremes = Extremes(2)
    try:
        for _ in take_all(node, extremes):
            for static in (False, True):
                node._tree.take(extremes.transforms(), static=static)
            node._tick()
        assert node._diagnostics.drops["unusable image or camera_info"] > 5
        assert node._diagnostics.drops["negative stamp"] > 5
        image, info = noise(2**31 - 2)
        node._on_jump()
        assert node._stream is not None and node._session is not None
        node._stream._images._on_info(info)
        node._stream._images._on_image(image)
        assert node._outcome == "kept"
    finally:
        node.close()
        node.destroy_node()


@pytest.mark.parametrize("depth", ["raw", "compressed"])
def test_a_recorder_counts_depth_that_it_cannot_read_and_keeps_the_next_image_with_its_depth(
    ros_context: Context, tmp_path: Path, depth: str
) -> None:
    node = make_recorder(ros_context, tmp_path, "keep_free:=0.0", f"depth:={depth}")
    extremes = Extremes(4)
    make = extremes.depth if depth == "raw" else extremes.packed_depth
    try:
        assert node._stream is not None
        images, synchronizer = node._stream._images, node._stream._synchronizer
        synchronizer._put = node._work
        (topic,) = synchronizer._companions

        def offer(second: int, companion: Any) -> None:
            image, info = noise(second)
            companion.header = image.header
            images._on_info(info)
            images._on_image(image)
            synchronizer._on_companion(topic, companion)

        for second in range(1, 40):
            synchronizer._on_companion(topic, make())
            offer(second, make())
        assert node._diagnostics.drops["unusable image or camera_info"] > 5
        ramp = np.full((480, 640), 700, np.uint16)
        whole = array_to_image(ramp, "16UC1", Header())
        if depth == "compressed":
            data = array.array("B", bytes(12) + encode_depth(ramp))
            whole = CompressedImage(format="16UC1; compressedDepth png", data=data)
        offer(50, whole)
        assert node._outcome == "kept"
        session = node._session
        assert session is not None
        folder = session.recording.folder
        node._end()
        names = image_names(folder)
        for name in names:
            measured = read_depth(depth_path(folder, name), (640, 480))
            assert measured.shape == (480, 640)
        assert bool((measured == 700).all())
    finally:
        node.close()
        node.destroy_node()


@pytest.mark.parametrize("kind", ["estimator", "recorder"])
def test_times_of_the_clock_that_are_none_stop_neither_node(
    ros_context: Context, tmp_path: Path, kind: str
) -> None:
    node: Any = (
        make_node(ros_context, "-p", "use_sim_time:=true")
        if kind == "estimator"
        else make_recorder(ros_context, tmp_path, "use_sim_time:=true", "keep_free:=0.0")
    )
    extremes, refused = Extremes(5), 0
    try:
        images, synchronizer = node._stream._images, node._stream._synchronizer
        synchronizer._put = node._work
        for number in range(40):
            image, info = good(7)
            image.header.stamp.sec = info.header.stamp.sec = number
            with suppress(ValueError):  # what rclpy says of a negative time: it is reported
                refused += 1
                node._time_source.clock_callback(extremes.clock())
                refused -= 1
            images._on_info(info)
            images._on_image(image)
            node._tick()
        assert refused > 5
        assert node.get_clock().now().nanoseconds >= 0
    finally:
        node.close()
        node.destroy_node()


@pytest.mark.parametrize("frame", ["", "odom"])
def test_a_recorder_of_images_of_stamp_0_keeps_them_unless_their_poses_would_be_guessed(
    ros_context: Context, tmp_path: Path, frame: str
) -> None:
    values = ("keep_free:=0.0", "tf_wait:=0.0", f"fixed_frame:='{frame}'")
    node = make_recorder(ros_context, tmp_path, *values)
    try:
        assert node._stream is not None and node._session is not None
        images, synchronizer = node._stream._images, node._stream._synchronizer
        synchronizer._put = node._work
        folder = node._session.recording.folder
        outcomes = []
        for number in range(4):
            image, info = noise(number)
            image.header.stamp.sec = info.header.stamp.sec = 0
            place = np.array([0.3 * number, 0.0, 0.0])
            node._tree.add("odom", "eye", 10**9 * (number + 1), place, np.eye(4)[3])
            images._on_info(info)
            images._on_image(image)
            outcomes.append(node._outcome)
        missing = "no transform at the image's stamp"
        assert outcomes == [missing if frame else "kept"] * 4
        message = node._diagnostics.status("x", "cpu", {}).message
        assert not frame or "the image has no stamp of its own" in message
        node._tick()
        message = node._diagnostics.status("x", "cpu", {}).message
        assert "stamp 0: the driver does not stamp them" in message
        node._end()
        assert frame or [*read_json(folder / "video.json")["stamps_ns"].values()] == [0] * 4
    finally:
        node.close()
        node.destroy_node()


def test_a_live_node_warns_of_transforms_that_contradict_each_other(
    ros_context: Context, tmp_path: Path
) -> None:
    node = make_recorder(ros_context, tmp_path, "keep_free:=0.0", "fixed_frame:=odom")
    try:
        for parent in ("odom", "map"):
            item = TransformStamped(child_frame_id="eye")
            item.header.frame_id = parent
            item.header.stamp.sec = 1
            node._tree.take(TFMessage(transforms=[item]), static=False)
        loose = TransformStamped(child_frame_id="eye")
        loose.header.frame_id = "odom"
        loose.header.stamp.sec = 2
        loose.transform.rotation.w = float("nan")
        node._tree.take(TFMessage(transforms=[loose]), static=False)
        sent: list[Any] = []
        node._diagnostics_publisher = SimpleNamespace(publish=sent.append)  # type: ignore[assignment]
        node._tick()
        (status,) = sent[-1].status
        assert status.level == DiagnosticStatus.WARN
        assert "transforms: " in status.message
        counts = {v.key: v.value for v in status.values if v.key.startswith("transforms: ")}
        assert len(counts) == 2 and set(counts.values()) == {"1"}, counts
    finally:
        node.close()
        node.destroy_node()


def test_a_live_viewer_leaves_out_what_it_cannot_show(ros_context: Context) -> None:
    node = Node("viewer", context=ros_context)
    scene, extremes = LiveScene(node, "estimator", "/camera_info"), Extremes(3)
    image, info = good(7)
    try:
        for _ in range(ROUNDS):
            scene._on_markers(extremes.markers())
            scene._on_info(extremes.pick((extremes.camera(), info)))
            overlay = extremes.pick((extremes.image(), image))
            detections = extremes.detections()
            detections.header.stamp = overlay.header.stamp
            scene._keep(scene._overlays, overlay)
            scene._keep(scene._detections, detections)
        for number in range(200):
            corners = [Point(x=float(k), y=1.0, z=k * 2.0) for k in range(3)]
            marker = Marker(type=Marker.TRIANGLE_LIST, ns=f"{number}", points=corners)
            scene._on_markers(MarkerArray(markers=[marker]))
        assert len(scene.shapes) <= 100
        scene.newest = None
        scene._on_info(info)
        scene._keep(scene._overlays, image)
        scene._keep(scene._detections, Detection3DArray(header=image.header))
        assert scene.newest is not None
    finally:
        node.destroy_node()


def test_frames_without_end_fill_no_memory_and_faults_are_one_short_line() -> None:
    from uns_pose_ros.io.ros.transform_buffer import TransformTree
    from uns_pose_ros.nodes.diagnostics import NodeDiagnostics
    from uns_pose_ros.nodes.tf_listener import report_faults

    tree, numbers = TransformTree(), count()
    unit = np.array([0.0, 0, 0, 1])
    for _ in range(10_020):
        tree.add("world", f"f{next(numbers)}", 1, np.zeros(3), unit, static=True)
    assert len(tree.frames) == 10_001
    assert not tree.add("world", "x" * 2**20, 1, np.zeros(3), unit)
    for number in range(50):
        tree.add("world", f"f{number}", 1, np.ones(3), unit, static=True)
    diagnostics = NodeDiagnostics()
    report_faults(tree, diagnostics)
    text = diagnostics.status("x", "cpu", {}).message
    assert "static 'f0' has several poses" in text and len(text) <= 1001
    assert tree.faults["transforms of more than 10000 frames"] == 20
