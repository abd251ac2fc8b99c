"""The robot's side of the demo.

A camera that publishes a video's frames over DDS, and ears for what the node answers.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import rclpy
import torch
from numpy.typing import NDArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage
from torch import Tensor
from vision_msgs.msg import Detection3D, Detection3DArray

from uns_pose_ros.core.types import Frame
from uns_pose_ros.io.images import read_image
from uns_pose_ros.io.ros import ros_messages
from uns_pose_ros.nodes.ros_compat import array_to_image

FRAME = "demo_camera"
PATIENCE = 90.0  # s for the node to load its models on a busy machine
LONGEST = 60.0  # s that the camera waits for an answer, also on a busy machine
QUIET = 5.0  # s after a stream in which late answers come


@dataclass(frozen=True, eq=False)
class Answer:
    """What came back for one image."""

    child: str  # TF frame of the object
    cam_from_canon: Tensor  # (4, 4) float64, from /tf
    score: float
    size: Tensor  # (3,) float64, m
    latency: float  # s from the image's stamp to its transform here
    overlay: NDArray[np.uint8] | None  # (H, W, 3) RGB as the node drew it


class LiveCamera:
    """A node of its own in this process; use it with `with`."""

    def __init__(self) -> None:
        rclpy.init()
        self._node = Node("demo_robot")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        sensor = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
        self._images = self._node.create_publisher(Image, "image", sensor)
        self._infos = self._node.create_publisher(CameraInfo, "camera_info", sensor)
        self._transforms: dict[
            int, list[tuple[Any, float]]
        ] = {}  # stamp (ns) -> transforms and when they came
        self._detections: dict[int, Detection3D | None] = {}
        self._overlays: dict[int, Image] = {}
        listening = QoSProfile(depth=20)
        self._node.create_subscription(TFMessage, "/tf", self._on_tf, listening)
        self._node.create_subscription(
            Detection3DArray, "/estimator/detections", self._on_detections, listening
        )
        self._node.create_subscription(
            Image, "/estimator/overlay", self._on_overlay, listening
        )

    def __enter__(self) -> LiveCamera:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.try_shutdown()

    def wait_for_node(self) -> None:
        """Until the estimator hears the camera and this end hears the estimator.

        RuntimeError where it does not come up.
        """
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            heard = all(
                self._node.count_publishers(f"/estimator/{name}")
                for name in ("detections", "overlay")
            )
            if (
                heard
                and self._images.get_subscription_count()
                and self._infos.get_subscription_count()
            ):
                self._spin(0.5)  # the other end discovers at its own pace
                return
            self._spin(0.1)
        raise RuntimeError(f"the estimator node did not listen within {PATIENCE:.0f} s")

    def film(self, frames: Sequence[Frame], period: float) -> list[Answer | None]:
        """Publish an image every `period` s, stamped with the present.

        The frames' answers in order, None where none came.

        What the node knows of objects seen before is reset: another film shows another object in
        the same place. Where the node needs longer than `period`, the next image waits for the
        answer to the last, LONGEST at most: no image is to be replaced by the next.
        """
        self._forget()
        stamps = []
        for frame in frames:
            began, stamp = time.monotonic(), self._publish(frame)
            stamps.append(stamp)
            self._spin(period)
            while not self._is_answered(stamp) and time.monotonic() < began + LONGEST:
                self._spin(0.05)
        return [self._answer(stamp) for stamp in stamps]

    def stream(
        self, frames: Sequence[Frame], rate: float, seconds: float
    ) -> tuple[int, int]:
        """Publish the frames round and round at `rate` Hz, waiting for nothing.

        How many were sent, and how many answered.
        """
        stamps, began = set[int](), time.monotonic()
        for number in range(int(rate * seconds)):
            stamps.add(self._publish(frames[number % len(frames)]))
            self._spin(began + (number + 1) / rate - time.monotonic())
        self._spin(QUIET)
        return len(stamps), len(stamps & self._detections.keys())

    def _forget(self) -> None:
        """Reset the node's tracks; RuntimeError where it does not answer."""
        client = self._node.create_client(Trigger, "/estimator/reset")
        if not client.wait_for_service(PATIENCE):
            raise RuntimeError(
                f"the estimator node offers no reset within {PATIENCE:.0f} s"
            )
        answer = client.call_async(Trigger.Request())
        self._executor.spin_until_future_complete(answer, PATIENCE)
        if not answer.done():
            raise RuntimeError(
                f"the estimator node did not reset its tracks within {PATIENCE:.0f} s"
            )
        self._node.destroy_client(client)

    def _publish(self, frame: Frame) -> int:
        image, camera = read_image(frame.image).numpy(), frame.camera
        now = self._node.get_clock().now()
        header = Header(stamp=now.to_msg(), frame_id=FRAME)
        info = CameraInfo(
            header=header,
            width=camera.width,
            height=camera.height,
            distortion_model="plumb_bob",
        )
        info.k = [float(value) for value in camera.matrix.flatten()]
        info.d = [float(value) for value in camera.distortion]
        self._infos.publish(info)
        self._images.publish(array_to_image(image, "rgb8", header))
        return int(now.nanoseconds)

    def _is_answered(self, stamp: int) -> bool:
        """Whether all that the node says of an image has come: its topics keep no order."""
        if stamp not in self._overlays or stamp not in self._detections:
            return False
        return self._detections[stamp] is None or self._transform(stamp) is not None

    def _transform(self, stamp: int) -> tuple[Any, float] | None:
        """The transform of an image's best detection, and when it came."""
        best = self._detections.get(stamp)
        if best is None:
            return None
        child = f"{best.results[0].hypothesis.class_id}_{best.id}"
        there = self._transforms.get(stamp, [])
        return next((entry for entry in there if entry[0].child_frame_id == child), None)

    def _answer(self, stamp: int) -> Answer | None:
        best, entry = self._detections.get(stamp), self._transform(stamp)
        if best is None or entry is None:
            return None
        hypothesis, (transform, arrived) = best.results[0].hypothesis, entry
        matrix = torch.eye(4, dtype=torch.float64)
        turn, shift = transform.transform.rotation, transform.transform.translation
        matrix[:3, :3] = torch.from_numpy(
            Rotation.from_quat([turn.x, turn.y, turn.z, turn.w]).as_matrix()
        )
        matrix[:3, 3] = torch.tensor([shift.x, shift.y, shift.z], dtype=torch.float64)
        size = torch.tensor(
            [best.bbox.size.x, best.bbox.size.y, best.bbox.size.z], dtype=torch.float64
        )
        image = self._overlays.get(stamp)
        overlay = None if image is None else ros_messages.decode_image(image)
        return Answer(
            transform.child_frame_id,
            matrix,
            float(hypothesis.score),
            size,
            arrived - stamp / 1e9,
            overlay,
        )

    def _on_tf(self, message: TFMessage) -> None:
        now = self._node.get_clock().now().nanoseconds / 1e9
        for transform in message.transforms:
            if transform.header.frame_id == FRAME:
                self._transforms.setdefault(_nanoseconds(transform.header), []).append(
                    (transform, now)
                )

    def _on_detections(self, message: Detection3DArray) -> None:
        best = max(
            message.detections,
            key=lambda d: float(d.results[0].hypothesis.score),
            default=None,
        )
        self._detections[_nanoseconds(message.header)] = best

    def _on_overlay(self, message: Image) -> None:
        self._overlays[_nanoseconds(message.header)] = message

    def _spin(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)


def node_command(model: Path) -> list[str]:
    """The estimator node as a process of its own on the topics above."""
    return [sys.executable, "-m", "uns_pose_ros.nodes.entry_points", str(model)]


def _nanoseconds(header: Header) -> int:
    return int(Time.from_msg(header.stamp).nanoseconds)
