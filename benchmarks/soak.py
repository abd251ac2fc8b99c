#!/usr/bin/env python3
"""The node for minutes behind a fast camera, each in a process of its own.

Memory, age of the answers, stamps, frames, its end.

    python benchmarks/soak.py demo/out/chair/model --minutes 10 --json soak.json

The camera sends the same object in images of 1280 x 720 px at 30 Hz, reliably, whatever the node
can take; the newest is answered. Camera and node have the shared memory that docs/large_images.md
advises, config/fastdds_large_images.xml, unless a profile is set; --small-memory: that of Fast
DDS. Every ten seconds the camera's frame is another, and an image's stamp tells which, in its last
three digits: an answer whose frame is not its stamp's, or whose stamp goes back or comes twice,
is counted as wrong. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
IMAGE = ROOT / "demo" / "data" / "live" / "live_01" / "images" / "0001.jpg"
FRAMES, CHANGE = 7, 300  # frames in turn, and images after which the next is due
WARM = 60.0  # s after which memory counts: by then every buffer has been filled once
os.environ.setdefault("ROS_DOMAIN_ID", "89")
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import rclpy  # noqa: E402
from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.qos import QoSProfile, ReliabilityPolicy  # noqa: E402
from rclpy.signals import SignalHandlerOptions  # noqa: E402
from rclpy.time import Time  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image  # noqa: E402
from std_msgs.msg import Header  # noqa: E402
from vision_msgs.msg import Detection3DArray  # noqa: E402

from uns_pose_ros.nodes.diagnostics import KEPT  # noqa: E402
from uns_pose_ros.nodes.image_loss import PROFILE_VARIABLES, profiles_file  # noqa: E402
from uns_pose_ros.nodes.ros_compat import array_to_image  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="folder that `uns-pose train` wrote")
    parser.add_argument(
        "--minutes", type=float, default=10.0, help="(default: %(default)s)"
    )
    parser.add_argument(
        "--image",
        type=Path,
        default=IMAGE,
        help="of an object of the model (default: %(default)s)",
    )
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        default=(1280, 720),
        help="width and height, px (default: 1280 720)",
    )
    parser.add_argument(
        "--rate", type=float, default=30.0, help="images a second (default: %(default)s)"
    )
    parser.add_argument(
        "--small-memory",
        action="store_true",
        help="keep the shared memory of Fast DDS: 512 kB, so that images are cut into parts",
    )
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument(
        "--camera", action="store_true", help=argparse.SUPPRESS
    )  # the camera's process
    args = parser.parse_args()
    if args.camera:
        camera(args.image, tuple(args.size), args.rate)
        return
    if not args.small_memory:
        for variable in PROFILE_VARIABLES:
            os.environ.setdefault(variable, str(profiles_file()))
    own = [sys.executable, __file__, *sys.argv[1:], "--camera"]
    reliable = "qos_overrides./image.subscription.reliability:=reliable"
    bringup = [
        sys.executable,
        "-m",
        "uns_pose_ros.nodes.entry_points",
        str(args.model),
        "--ros-args",
        "-p",
        reliable,
    ]
    node, eye = (
        subprocess.Popen(bringup),
        subprocess.Popen(own, stdout=subprocess.PIPE, text=True),
    )
    try:
        rclpy.init()
        listener = Listener(node.pid)
        listener.hear(60.0 * args.minutes)
        eye.send_signal(signal.SIGINT)
        sent = int(eye.communicate(timeout=60)[0])
        ended = time.monotonic()
        node.send_signal(signal.SIGINT)
        code = node.wait(120)
        record = {
            "model": str(args.model),
            "image": "{} x {}".format(*args.size),
            "rate_hz": args.rate,
            "profile": Path(os.environ.get(PROFILE_VARIABLES[0], "")).name or None,
            "cores": os.cpu_count(),
            "minutes": args.minutes,
            "sent": sent,
            **listener.figures(),
            "sigint": {"exit_code": code, "seconds": round(time.monotonic() - ended, 2)},
        }
    finally:
        node.kill()
        eye.kill()
        rclpy.try_shutdown()
    text = json.dumps(record, indent=1)
    print(text)
    if args.json is not None:
        args.json.write_text(text + "\n")


class Listener(Node):
    """Hears detections and diagnostics, and looks at the memory of the node's process."""

    def __init__(self, pid: int) -> None:
        super().__init__("soak")
        self._pid = pid
        self._ages: list[float] = []  # s, from the stamp to here
        self._ratios: list[
            float
        ] = []  # of median age and median time of an inference, once a second
        self._objects = 0
        self._stamps: list[int] = []  # ns
        self._wrong_frames = 0
        self._memory: list[tuple[float, float]] = []  # s since the first answer, MB
        self._values: dict[str, str] = {}
        self._message = "no diagnostics"
        self._levels: set[str] = set()
        listening = QoSProfile(depth=100)
        self.create_subscription(
            Detection3DArray, "/estimator/detections", self._on_detections, listening
        )
        self.create_subscription(
            DiagnosticArray, "/diagnostics", self._on_diagnostics, listening
        )

    def hear(self, seconds: float) -> None:
        """For so long after the first answer."""
        patience = time.monotonic() + 300
        while not self._stamps:
            if time.monotonic() > patience:
                raise SystemExit(f"the node has not answered for 300 s: {self._message}")
            rclpy.spin_once(self, timeout_sec=1.0)
        begun = looked = time.monotonic()
        while (now := time.monotonic()) < begun + seconds:
            rclpy.spin_once(self, timeout_sec=0.5)
            if now >= looked:
                self._memory.append((now - begun, resident(self._pid)))
                looked += 2.0

    def _on_detections(self, message: Detection3DArray) -> None:
        stamp = int(Time.from_msg(message.header.stamp).nanoseconds)
        self._ages.append((self.get_clock().now().nanoseconds - stamp) / 1e9)
        self._stamps.append(stamp)
        self._objects += bool(message.detections)
        self._wrong_frames += message.header.frame_id != f"camera_{stamp % 1000}"

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self._message = status.message
            self._values = {value.key: value.value for value in status.values}
            if self._stamps and status.level != b"\x00":
                self._levels.add(status.message)
            if len(self._ages) >= KEPT:  # what the node takes its percentiles from
                newest = np.median(self._ages[-KEPT:])
                self._ratios.append(
                    float(newest) / float(self._values["estimation p50 (s)"])
                )

    def figures(self) -> dict[str, Any]:
        inference = {p: float(self._values[f"estimation {p} (s)"]) for p in ("p50", "p95")}
        ages = {f"p{p}": float(np.percentile(self._ages, p)) for p in (50, 95, 100)}
        settled = [
            memory
            for second, memory in self._memory
            if second >= min(WARM, self._memory[-1][0] / 2)
        ]
        fifth = max(1, len(settled) // 5)
        first, last = float(np.median(settled[:fifth])), float(np.median(settled[-fifth:]))
        return {
            "received": int(self._values["images received"]),
            "answered": len(self._stamps),
            "answered_with_object": self._objects,
            "wrong_frames": self._wrong_frames,
            "stamps_back_or_twice": int((np.diff(self._stamps) <= 0).sum()),
            "inference_at_the_end_s": inference,
            "age_s": {p: round(age, 4) for p, age in ages.items()},
            "age_on_the_way_s": {  # medians of the last images
                "received": float(self._values["age when received p50 (s)"]),
                "begun": float(self._values["age when begun p50 (s)"]),
                "published": float(
                    self._values["latency p50, stamp to results published (s)"]
                ),
                "heard": round(float(np.median(self._ages[-KEPT:])), 4),
            },
            "age_over_inference": {
                name: round(float(np.percentile(self._ratios, p)), 3)
                for name, p in (("median", 50), ("max", 100))
                if self._ratios
            },
            "memory_mb": {
                "first": round(first, 1),
                "last": round(last, 1),
                "peak": round(max(settled), 1),
            },
            "memory_mb_each_minute": [round(memory, 1) for _, memory in self._memory[::30]],
            "memory_growth_percent": round(100 * (last / first - 1), 3),
            "warnings": sorted(self._levels),
            "drops": {
                key: value
                for key, value in self._values.items()
                if key.startswith("dropped")
            },
        }


def resident(pid: int) -> float:
    """MB that a process holds."""
    return (
        int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        * os.sysconf("SC_PAGE_SIZE")
        / 1e6
    )


def camera(path: Path, size: tuple[int, int], rate: float) -> None:
    """Send the image until a signal, then print how many times it was sent to somebody."""
    width, height = size
    photo = cv2.imread(str(path))
    if photo is None:
        raise SystemExit(f"{path}: no image")
    scale = min(width / photo.shape[1], height / photo.shape[0])
    photo = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)[
        :height, :width
    ]
    pixels = np.full((height, width, 3), 90, np.uint8)
    x, y = (width - photo.shape[1]) // 2, (height - photo.shape[0]) // 2
    pixels[y : y + photo.shape[0], x : x + photo.shape[1]] = photo
    ended = threading.Event()
    signal.signal(signal.SIGINT, lambda number, frame: ended.set())
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = Node("soak_camera")
    qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
    images, infos = (
        node.create_publisher(Image, "image", qos),
        node.create_publisher(CameraInfo, "camera_info", qos),
    )
    message = array_to_image(pixels, "bgr8", Header())
    info = CameraInfo(width=width, height=height, distortion_model="plumb_bob", d=[0.0] * 5)
    info.k = [float(width), 0.0, width / 2, 0.0, float(width), height / 2, 0.0, 0.0, 1.0]
    count, due = 0, time.monotonic()
    while not ended.is_set():
        number = count // CHANGE % FRAMES
        stamp = node.get_clock().now().nanoseconds // 1000 * 1000 + number
        message.header = info.header = Header(
            stamp=Time(nanoseconds=stamp).to_msg(), frame_id=f"camera_{number}"
        )
        infos.publish(info)
        images.publish(message)
        count, due = count + (images.get_subscription_count() > 0), due + 1 / rate
        time.sleep(max(0.0, due - time.monotonic()))
    print(count, flush=True)
    rclpy.shutdown()


if __name__ == "__main__":
    main()
