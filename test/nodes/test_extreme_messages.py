"""Messages with extreme values end no callback, and a good message afterwards is answered."""

from __future__ import annotations

import array
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")
from geometry_msgs.msg import Point
from rclpy.context import Context
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray, Detection3DArray
from visualization_msgs.msg import Marker, MarkerArray

from extreme_messages import ROUNDS, Extremes, good, make_recorder, noise, take_all
from local_estimator import close, make_node
from uns_pose_ros.io.depth_images import depth_path, encode_depth, read_depth
from uns_pose_ros.io.video_folder import image_names
from uns_pose_ros.nodes.estimator.live_viewer import LiveScene
from uns_pose_ros.nodes.ros_compat import array_to_image


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
