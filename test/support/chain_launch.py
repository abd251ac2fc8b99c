"""For launch_testing.

What the recorder films is played to the estimator, both started by their launch files.

test_launch.py runs it. A model's folder comes in UNS_POSE_TEST_MODEL, one to record into in
UNS_POSE_TEST_FOLDER.
"""

from __future__ import annotations

import itertools
import os
import time
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any

import launch_testing.actions
import launch_testing.asserts
import launch_testing.markers
import rclpy
from ament_index_python.packages import get_package_share_directory
from diagnostic_msgs.msg import DiagnosticStatus
from launch.actions import IncludeLaunchDescription
from launch.launch_description import LaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from std_srvs.srv import Trigger
from vision_msgs.msg import Detection3DArray

from small_model import CLIP
from uns_pose_ros.core.types import Frame
from uns_pose_ros.io.images import read_image
from uns_pose_ros.io.video_folder import load_video
from uns_pose_ros.nodes.ros_compat import array_to_image

PATIENCE = 120.0  # s
LASTING = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def include(name: str, **arguments: str) -> IncludeLaunchDescription:
    path = f"{get_package_share_directory('uns_pose_ros')}/launch/{name}.launch.py"
    return IncludeLaunchDescription(
        PythonLaunchDescriptionSource(path), launch_arguments=arguments.items()
    )


@launch_testing.markers.keep_alive
def generate_test_description() -> LaunchDescription:
    recorder = include(
        "record", category=os.environ["UNS_POSE_TEST_FOLDER"], clip="clip_01", record="true"
    )
    estimator = include(
        "estimate",
        models=os.environ["UNS_POSE_TEST_MODEL"],
        device="cpu",
        namespace="replayed",
    )
    return LaunchDescription([recorder, estimator, launch_testing.actions.ReadyToTest()])


class TestChain(unittest.TestCase):
    """While both run."""

    def setUp(self) -> None:
        rclpy.init()
        self.node = rclpy.create_node("chain")
        self.status: list[DiagnosticStatus] = []
        self.answers: list[Detection3DArray] = []
        self.node.create_subscription(
            DiagnosticStatus, "/recorder/status", self.status.append, LASTING
        )
        self.node.create_subscription(
            Detection3DArray, "/replayed/estimator/detections", self.answers.append, 50
        )

    def tearDown(self) -> None:
        self.node.destroy_node()
        rclpy.shutdown()

    def wait(self, what: str, ready: Callable[[], Any]) -> Any:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if value := ready():
                return value
            rclpy.spin_once(self.node, timeout_sec=0.1)
        raise AssertionError(f"{what} did not come; {self.status[-1:]} {self.answers[-1:]}")

    def play(self, namespace: str, frames: list[Frame], ready: Callable[[], Any]) -> Any:
        """Show the frames to the camera topics of a namespace, one after the other and again,
        until something has come.
        """
        infos = self.node.create_publisher(CameraInfo, f"{namespace}/camera_info", 5)
        images = self.node.create_publisher(Image, f"{namespace}/image", 5)
        order, due = itertools.cycle(frames), [0.0]

        def show() -> Any:
            if time.monotonic() > due[0]:
                due[0] = time.monotonic() + 0.5
                frame = next(order)
                header = Header(
                    frame_id="camera", stamp=self.node.get_clock().now().to_msg()
                )
                info = CameraInfo(
                    header=header, width=frame.camera.width, height=frame.camera.height
                )
                info.k = [float(value) for value in frame.camera.matrix.flatten()]
                infos.publish(info)
                images.publish(
                    array_to_image(read_image(frame.image).numpy(), "rgb8", header)
                )
            return ready()

        return self.wait(f"what is to come of {namespace}/image", show)

    def kept(self) -> int:
        values = (
            {value.key: value.value for value in self.status[-1].values}
            if self.status
            else {}
        )
        return int(values.get("images in the folder", "0"))

    def test_what_is_recorded_and_played_is_found(self) -> None:
        self.play("", list(load_video(CLIP).frames[::2]), lambda: self.kept() >= 5)
        client = self.node.create_client(Trigger, "/recorder/stop")
        self.wait("the recorder's service", client.service_is_ready)
        stopped = client.call_async(Trigger.Request())
        self.wait("the recorder's answer", stopped.done)
        assert stopped.result().success
        folder = Path(os.environ["UNS_POSE_TEST_FOLDER"]) / "clip_01"
        recorded = load_video(folder, need_masks=False, need_poses=False).frames
        assert len(recorded) >= 5
        found = self.play(
            "/replayed", list(recorded), lambda: [m for m in self.answers if m.detections]
        )
        assert {
            one.results[0].hypothesis.class_id for m in found for one in m.detections
        } == {"chair"}
        assert {message.header.frame_id for message in found} == {"camera"}


@launch_testing.post_shutdown_test()
class TestEnd(unittest.TestCase):
    """After both have been interrupted."""

    def test_both_end_clean(self, proc_info: Any) -> None:
        assert len(proc_info.processes()) == 2
        launch_testing.asserts.assertExitCodes(proc_info)
