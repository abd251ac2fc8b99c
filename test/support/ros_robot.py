"""The other end of the estimator node's topics, in the test's process."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage
from vision_msgs.msg import Detection3DArray
from visualization_msgs.msg import MarkerArray

from scripted_node import FLIPPED, HELD, HIDDEN, HOLDS
from uns_pose_ros.core.types import Camera
from uns_pose_ros.nodes.ros_compat import array_to_image
from warm_processes import WarmProcess, start_warm

# s after which a message will not come any more; only a failing test waits so long
PATIENCE = 200.0
SCRIPTED = str(Path(__file__).with_name("scripted_node.py"))
TOPICS = {
    "tf": (TFMessage, "/tf"),
    "detections": (Detection3DArray, "/estimator/detections"),
    "poses": (PoseArray, "/estimator/poses"),
    "grasps": (PoseArray, "/estimator/grasps"),
    "markers": (MarkerArray, "/estimator/markers"),
    "overlay": (Image, "/estimator/overlay"),
    "diagnostics": (DiagnosticArray, "/diagnostics"),
}


class Robot:
    """Publishes images and camera_info, receives the results, starts and stops the node."""

    target = "/estimator"  # the node

    def __init__(self, domain: int) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = Node("robot", context=self.context)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self.received: dict[str, list[Any]] = {name: [] for name in TOPICS}
        self._results = [
            self.node.create_subscription(
                kind, topic, self.received[name].append, QoSProfile(depth=50)
            )
            for name, (kind, topic) in TOPICS.items()
        ]
        self._start_camera()
        self._processes: list[WarmProcess] = []

    def _start_camera(self) -> None:
        qos = QoSProfile(
            depth=1,
            reliability=ReliabilityPolicy.RELIABLE,
            durability=DurabilityPolicy.VOLATILE,
        )
        self.images = self.node.create_publisher(Image, "/image", qos)
        self.infos = self.node.create_publisher(CameraInfo, "/camera_info", qos)

    def restart_camera(self) -> None:
        """Replace the publishers."""
        self.node.destroy_publisher(self.images)
        self.node.destroy_publisher(self.infos)
        self._start_camera()

    def start(
        self, *arguments: str, program: Sequence[str] = (SCRIPTED,), reliable: bool = True
    ) -> WarmProcess:
        """Start a process of the node with ROS arguments.

        Args:
            arguments: ROS arguments.
            program: Python's arguments before them.
            reliable: Ask for reliable images: a single one that is sent best effort may be lost
                while both ends discover each other.
        """
        overrides = [
            f"qos_overrides./{topic}.subscription.reliability:=reliable"
            for topic in (
                "image",
                "camera_info",
                "detections_2d",
                "mask",
                "depth",
                "depth/compressedDepth",
            )
        ]
        given = [item for override in overrides if reliable for item in ("-p", override)]
        process = start_warm([*program, "--ros-args", *arguments, *given])
        self._processes.append(process)
        return process

    def wait(self, what: str, ready: Callable[[], Any]) -> Any:
        """Spin until `ready` returns a true value, and return it."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            value = ready()
            if value:
                return value
            self._executor.spin_once(timeout_sec=0.05)
        counts = {name: len(got) for name, got in self.received.items()}
        raise AssertionError(
            f"{what} did not come; received {counts}; {self.received['diagnostics'][-1:]}"
        )

    def wait_until_listening(self) -> None:
        """Wait until both ends know each other's publishers and subscriptions."""
        results = [
            TOPICS[name][1] for name in ("detections", "poses", "markers", "overlay")
        ]
        self.wait(
            "a listening node",
            lambda: (
                self.images.get_subscription_count() and self.infos.get_subscription_count()
            ),
        )
        self.wait(
            "the results' publishers",
            lambda: all(self.node.count_publishers(topic) for topic in results),
        )
        # DDS makes subscriptions known in their order: who can answer knows those of the results
        self.state()

    def calibrate(self, **fields: Any) -> None:
        """Send camera_info of a 640 x 480 px pinhole."""
        info = CameraInfo(
            header=Header(frame_id="camera"),
            width=640,
            height=480,
            distortion_model="plumb_bob",
            d=[0.0] * 5,
        )
        info.k = [600.0, 0.0, 320.0, 0.0, 600.0, 240.0, 0.0, 0.0, 1.0]
        for name, value in fields.items():
            setattr(info, name, value)
        self.infos.publish(info)

    def show(
        self,
        cars: int,
        seconds: int,
        frame: str = "camera",
        flipped: bool = False,
        roll: int = 0,
        hidden: bool = False,
        held: bool = False,
    ) -> None:
        """Send an image of cars.

        Args:
            cars: Number of cars.
            seconds: Stamp of the image, s.
            frame: TF frame of the image.
            flipped: Turn the cars by half a turn, see scripted_node.
            roll: Roll of the cars about the optical axis, degrees.
            hidden: The half turn is as possible, see scripted_node.
            held: The estimation lasts until a request comes, see scripted_node.
        """
        header = Header(frame_id=frame)
        header.stamp.sec = seconds
        image = np.full((480, 640, 3), cars, np.uint8)
        image[..., 1] = FLIPPED if flipped else HIDDEN if hidden else HELD * held
        image[..., 2] = roll
        self.images.publish(array_to_image(image, "rgb8", header))

    def photograph(
        self, pixels: np.ndarray, camera: Camera, seconds: int, frame: str = "camera"
    ) -> None:
        """Send camera_info and an image (H, W, 3) uint8 RGB, both with the stamp `seconds`."""
        header = Header(frame_id=frame)
        header.stamp.sec = seconds
        k = [float(value) for value in camera.matrix.flatten()]
        d = [float(value) for value in camera.distortion]
        self.calibrate(header=header, width=camera.width, height=camera.height, k=k, d=d)
        self.images.publish(array_to_image(pixels, "rgb8", header))

    def results(self, seconds: int) -> dict[str, Any]:
        """Wait for the detections of the image with the stamp `seconds`.

        Returns:
            All messages of this stamp, by topic.
        """

        def stamped(name: str) -> list[Any]:
            return [
                message
                for message in self.received[name]
                if message.header.stamp.sec == seconds
            ]

        self.wait(f"detections of {seconds} s", lambda: stamped("detections"))
        return {name: stamped(name) for name in ("detections", "poses")}

    def transforms(self) -> dict[tuple[int, str], Any]:
        """Return every transform received, by stamp (s) and child frame."""
        return {
            (t.header.stamp.sec, t.child_frame_id): t
            for message in self.received["tf"]
            for t in message.transforms
        }

    def diagnosis(self, part: str) -> Any:
        """Wait for a diagnostic status of the node whose message or values hold `part`."""

        def find() -> Any:
            for array in reversed(self.received["diagnostics"]):
                for status in array.status:
                    if part in status.message or any(
                        part in value.key or part in value.value for value in status.values
                    ):
                        return status
            return None

        return self.wait(f"diagnostics with {part!r}", find)

    def call(self, kind: type, name: str, request: Any) -> Any:
        """Call a service of the node and wait for its answer."""
        client = self.node.create_client(kind, name)
        self.wait(f"service {name}", client.service_is_ready)
        future = client.call_async(request)
        self.wait(f"answer of {name}", future.done)
        self.node.destroy_client(client)
        return future.result()

    def transition(self, number: int) -> bool:
        """Start a lifecycle transition; return whether it succeeded."""
        request = ChangeState.Request()
        request.transition.id = number
        return bool(self.call(ChangeState, f"{self.target}/change_state", request).success)

    def renew(self, **parameters: Any) -> None:
        """Deactivate, clean up, set parameters, configure and activate the node."""
        assert self.transition(Transition.TRANSITION_DEACTIVATE)
        assert self.transition(Transition.TRANSITION_CLEANUP)
        for name, value in parameters.items():
            assert self.set(Parameter(name, value=value)).successful
        assert self.transition(Transition.TRANSITION_CONFIGURE)
        assert self.transition(Transition.TRANSITION_ACTIVATE)
        if parameters.get("enabled", True):
            self.wait_until_listening()
        self.forget()

    def forget(self) -> None:
        """Forget all messages that have come, also those that no callback has had yet.

        Images that are sent with every spin have more results than a spin takes.
        """
        for subscription in self._results:
            with subscription.handle:
                while subscription.handle.take_message(subscription.msg_type, False):
                    pass
        for received in self.received.values():
            received.clear()

    def state(self) -> str:
        """Return the lifecycle state of the node."""
        return str(
            self.call(
                GetState, f"{self.target}/get_state", GetState.Request()
            ).current_state.label
        )

    def reset(self) -> Any:
        """Call ~/reset."""
        return self.call(Trigger, f"{self.target}/reset", Trigger.Request())

    def set(self, parameter: Parameter) -> Any:
        """Set a parameter of the node; the result has the reason of a refusal."""
        request = SetParameters.Request(parameters=[parameter.to_parameter_msg()])
        return self.call(SetParameters, f"{self.target}/set_parameters", request).results[0]

    def wait_for_line(self, process: WarmProcess, line: str) -> None:
        """Wait until the process has written a line to stdout."""
        for text in process.stdout:
            if text.strip() == line:
                return
        raise AssertionError(f"{line} did not come: {process.communicate()[1]}")

    def wait_until_held(self) -> None:
        """Wait until the node that was started last is in the midst of a held estimation."""
        self.wait_for_line(self._processes[-1], HOLDS)

    def interrupt(self, process: WarmProcess) -> tuple[int, str]:
        """Send SIGINT to the node; return its exit code and its stderr."""
        process.send_signal(signal.SIGINT)
        _, log = process.communicate(timeout=PATIENCE)
        return process.wait(), log

    def close(self) -> None:
        """Destroy the node and kill the processes.

        In this order: Fast DDS 2.14 crashes where it closes the port of shared memory to which a
        process that was killed was just writing.
        """
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)
        for process in self._processes:
            if process.poll() is None:
                process.kill()
                process.communicate()
