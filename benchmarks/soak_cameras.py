#!/usr/bin/env python3
"""Three estimators and the fusion node for minutes, each in a process; one estimator is killed.

    python benchmarks/soak_cameras.py demo/out/chair/model --minutes 10 --json soak.json

Three cameras at known places see the object of a film, each with one image of it, which it sends
again and again. After a third of the time the first camera's estimator is killed, and after two
thirds it is started again. Counted are the fused results, their age, gaps between them, numbers of
objects, stamps that go back, the spread of the fused position, and the memory of the processes.
What went wrong stands under `faults`; the exit code is 1 then. Linux only.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cameras import object_in_film
from common import LIVE, machine, politely, write

os.environ.setdefault("ROS_DOMAIN_ID", "87")
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")

import numpy as np
import rclpy
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage
from torch import Tensor
from vision_msgs.msg import Detection3DArray

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import invert
from uns_pose_ros.core.types import Frame
from uns_pose_ros.estimation.estimator import Estimator
from uns_pose_ros.io.artifacts import load_model
from uns_pose_ros.io.images import read_image
from uns_pose_ros.io.ros.ros_messages import nanoseconds
from uns_pose_ros.io.video_folder import load_video
from uns_pose_ros.nodes.message_conversions import camera_info_message, transform_message
from uns_pose_ros.nodes.ros_compat import array_to_image

CAMERAS = ("left", "right", "top")
MAP = "map"
WARM = 30.0  # s after which memory counts
PATIENCE = 180.0  # s for the nodes to start
MOST_GROWTH = 100.0  # MB of a process, after it is warm
# settings of the fusion node for a machine that gives a camera an answer in some seconds
SLOW = ("-p", "max_difference:=5.0", "-p", "object_memory:=10.0")
BRINGUP = (sys.executable, "-m", "uns_pose_ros.nodes.entry_points")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="folder that `uns-pose train` wrote")
    parser.add_argument(
        "--minutes", type=float, default=10.0, help="(default: %(default)s)"
    )
    parser.add_argument("--video", type=Path, default=LIVE, help="with poses")
    parser.add_argument(
        "--rate", type=float, default=5.0, help="images a second of a camera"
    )
    parser.add_argument("--json", help="write the figures here; - for standard output")
    args = parser.parse_args()
    figures = soak(args.model, args.video, 60 * args.minutes, args.rate)
    faults = faults_of(figures)
    if args.json != "-":
        print(figures)
    write({"soak_cameras": {**figures, "faults": faults}, "machine": machine()}, args.json)
    for fault in faults:
        print(f"fault: {fault}", file=sys.stderr)
    if faults:
        sys.exit(1)


def faults_of(figures: Mapping[str, Any]) -> list[str]:
    """What must not happen, one line each."""
    faults = [f"{name} has ended" for name, here in figures["alive"].items() if not here]
    for name, (before, after) in figures["megabytes"].items():
        if after - before > MOST_GROWTH:
            faults.append(f"{name} grew from {before:.0f} to {after:.0f} MB")
    if not figures["results_while_a_camera_is_away"]:
        faults.append("no result while a camera was away")
    if not figures["results_after_its_return"]:
        faults.append("no result after its return")
    if figures["stamps_that_go_back"]:
        faults.append(f"{figures['stamps_that_go_back']} stamps went back")
    return faults


def estimator_command(model: Path, camera: str, diameter: float) -> list[str]:
    """The estimator of a camera."""
    words = [*BRINGUP, str(model), "--namespace", camera, "--image", "image_raw"]
    words += ["--camera-info", "camera_info", "--ros-args"]
    return [
        *words,
        "-p",
        f"object_diameter:={diameter}",
        "-p",
        f"tracking.fixed_frame:={MAP}",
    ]


def measure_object(model: Path, frames: Sequence[Frame]) -> tuple[float, Tensor]:
    """Diameter and position (3,) of the object in the film's frame and unit."""
    estimator = Estimator(load_model(model))
    truths, places = [], []
    for frame in frames:
        found = estimator(read_image(frame.image).numpy(), frame.camera)
        if found and frame.cam_from_obj is not None:
            truths.append(frame.cam_from_obj)
            places.append(found[0].cam_from_canon[:3, 3] / found[0].scale)
    return object_in_film(truths, places)


def soak(model: Path, video: Path, seconds: float, rate: float) -> dict[str, Any]:
    """Run all processes; returns what was counted."""
    frames = load_video(video).frames
    chosen = [frames[k * len(frames) // len(CAMERAS)] for k in range(len(CAMERAS))]
    diameter, place = measure_object(model, chosen)
    processes = {
        camera: subprocess.Popen(estimator_command(model, camera, diameter))
        for camera in CAMERAS
    }
    processes["fusion"] = subprocess.Popen(
        [*BRINGUP, "fusion", *CAMERAS, "--fixed-frame", MAP, "--ros-args", *SLOW]
    )
    rclpy.init()
    try:
        scene = Scene(chosen)
        scene.run(PATIENCE, rate, until_result=True)
        if not scene.stamps:
            ended = [name for name, process in processes.items() if process.poll()]
            reason = f"; {', '.join(ended)} ended" if ended else ""
            raise InvalidInput(f"no fused result in {PATIENCE:.0f} s{reason}")
        scene.forget()
        scene.run(min(WARM, seconds / 6), rate)
        before = {name: memory(process.pid) for name, process in processes.items()}
        scene.run(seconds / 3, rate)
        first = processes["left"]
        first.send_signal(signal.SIGKILL)
        first.wait(60)
        away = len(scene.stamps)
        scene.run(seconds / 3, rate)
        away = len(scene.stamps) - away
        processes["left"] = subprocess.Popen(estimator_command(model, "left", diameter))
        back = len(scene.stamps)
        scene.run(seconds / 3, rate)
        back = len(scene.stamps) - back
        alive = {name: process.poll() is None for name, process in processes.items()}
        after = {
            name: memory(process.pid) for name, process in processes.items() if alive[name]
        }
        return {
            "seconds": seconds,
            "diameter": diameter,
            "position": place.tolist(),
            "alive": alive,
            "results_while_a_camera_is_away": away,
            "results_after_its_return": back,
            "megabytes": {
                name: [before[name], after[name]] for name in after if name != "left"
            },
            "growth_megabytes": {
                name: round(after[name] - before[name], 1)
                for name in after
                if name != "left"
            },
            **scene.figures(),
        }
    finally:
        for process in processes.values():
            process.send_signal(signal.SIGINT)
        for process in processes.values():
            process.wait(60)
        rclpy.try_shutdown()


class Scene:
    """Sends the images of three cameras, and hears the fusion node."""

    def __init__(self, frames: Sequence[Frame]) -> None:
        self._node = Node("soak_scene")
        reliable = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
        lasting = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._static = self._node.create_publisher(TFMessage, "/tf_static", lasting)
        self._frames = [
            (camera, read_image(frame.image).numpy(), frame)
            for camera, frame in zip(CAMERAS, frames, strict=True)
        ]
        self._images = {
            camera: self._node.create_publisher(Image, f"/{camera}/image_raw", reliable)
            for camera in CAMERAS
        }
        self._infos = {
            camera: self._node.create_publisher(
                CameraInfo, f"/{camera}/camera_info", reliable
            )
            for camera in CAMERAS
        }
        self._node.create_subscription(
            Detection3DArray, "/fusion/detections", self._hear, reliable
        )
        transforms = []
        for camera, _, frame in self._frames:
            assert frame.cam_from_obj is not None
            place = invert(frame.cam_from_obj)
            transforms.append(
                transform_message(Header(frame_id=MAP), f"{camera}_eye", place)
            )
        self._static.publish(TFMessage(transforms=transforms))
        self.forget()

    def forget(self) -> None:
        """Count from now on."""
        self.stamps: list[int] = []
        self._arrivals: list[float] = []
        self._ages: list[float] = []  # s, of results when they arrive
        self._numbers: set[str] = set()
        self._places: list[list[float]] = []

    def run(self, seconds: float, rate: float, until_result: bool = False) -> None:
        """Send and listen for a time, or until the first result."""
        end, following = time.monotonic() + seconds, time.monotonic()
        while time.monotonic() < end and not (until_result and self.stamps):
            if time.monotonic() >= following:
                following += 1 / rate
                self._send()
            rclpy.spin_once(self._node, timeout_sec=0.02)

    def figures(self) -> dict[str, Any]:
        """What was heard."""
        gaps = np.diff(self._arrivals) if len(self._arrivals) > 1 else np.zeros(1)
        places = np.array(self._places).reshape(-1, 3)
        spread = np.linalg.norm(places - np.median(places, 0), axis=1)
        return {
            "results": len(self.stamps),
            "stamps_that_go_back": int((np.diff(self.stamps) <= 0).sum()),
            "longest_gap_s": float(gaps.max()),
            "age_s": {
                name: round(float(np.percentile(self._ages, share)), 3)
                if self._ages
                else None
                for name, share in (("median", 50), ("p95", 95), ("max", 100))
            },
            "numbers": len(self._numbers),
            "position_spread_p95": float(np.percentile(spread, 95))
            if len(spread)
            else None,
        }

    def _send(self) -> None:
        now = self._node.get_clock().now().to_msg()
        for camera, image, frame in self._frames:
            header = Header(stamp=now, frame_id=f"{camera}_eye")
            self._infos[camera].publish(camera_info_message(header, frame.camera))
            self._images[camera].publish(array_to_image(image, "rgb8", header))

    def _hear(self, message: Detection3DArray) -> None:
        self.stamps.append(nanoseconds(message.header.stamp))
        self._arrivals.append(time.monotonic())
        now = self._node.get_clock().now().nanoseconds
        self._ages.append((now - self.stamps[-1]) / 1e9)
        for detection in message.detections:
            self._numbers.add(detection.id)
            place = detection.results[0].pose.pose.position
            self._places.append([place.x, place.y, place.z])


def memory(pid: int) -> float:
    """Resident memory of a process, MB."""
    text = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in text.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1000


if __name__ == "__main__":
    politely(main)
