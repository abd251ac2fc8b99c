"""A recorder guesses no pose: images without a stamp, and transforms that contradict each other."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import TransformStamped
from rclpy.context import Context
from tf2_msgs.msg import TFMessage

from extreme_messages import make_recorder, noise
from uns_pose_ros.io.artifacts import read_json


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
