"""Which camera_info an image gets."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("rclpy")
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from uns_pose_ros.nodes.diagnostics import NodeDiagnostics
from uns_pose_ros.nodes.estimator.image_subscriber import ImageSubscriber
from uns_pose_ros.nodes.image_stamps import StampWatch


def test_of_two_cameras_on_one_topic_an_image_gets_that_of_its_frame_else_the_newest() -> (
    None
):
    subscriber: Any = ImageSubscriber.__new__(ImageSubscriber)
    pairs: list[tuple[str, str]] = []
    clock = SimpleNamespace(now=lambda: SimpleNamespace(nanoseconds=0))
    subscriber._node = SimpleNamespace(get_clock=lambda: clock)
    subscriber._diagnostics, subscriber._watch = NodeDiagnostics(), StampWatch()
    subscriber._info, subscriber._waiting, subscriber._by_frame = None, None, {}
    subscriber._put = lambda pair: pairs.append(
        (pair[0].header.frame_id, pair[1].header.frame_id)
    )
    for frame in ("left", "right"):
        subscriber._on_info(CameraInfo(header=Header(frame_id=frame)))
    for frame in ("left", "right", "eye"):
        subscriber._on_image(Image(header=Header(frame_id=frame)))
    for number in range(100):
        subscriber._on_info(CameraInfo(header=Header(frame_id=str(number))))
    assert pairs == [("left", "left"), ("right", "right"), ("eye", "right")]
    assert len(subscriber._by_frame) == 16
