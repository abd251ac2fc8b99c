#!/usr/bin/env python3
"""Time from an image's stamp to its transform on /tf, camera and node in two processes, against the direct call.

    python benchmarks/node.py demo/out/chair/model --json node.json

The pictures are one video's. The newest is answered, so the camera is slower than the node: no picture is to be replaced.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VIDEO = ROOT / "demo" / "data" / "live" / "live_01"
sys.path.insert(0, str(ROOT / "demo"))
os.environ.setdefault("ROS_DOMAIN_ID", "88")
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")

import numpy as np  # noqa: E402
import torch  # noqa: E402

from live import LiveCamera, node_command  # noqa: E402
from uns_pose_ros import storage  # noqa: E402
from uns_pose_ros.inference import Estimator  # noqa: E402
from uns_pose_ros.video import load_video, read_image  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder that `uns-pose train` wrote")
    parser.add_argument("--video", type=Path, default=VIDEO, help="whose pictures are sent (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    args = parser.parse_args()
    frames = load_video(args.video).frames
    estimator = Estimator(storage.load_model(args.model))
    pictures = [(read_image(frame.image), frame.camera) for frame in frames]
    estimator(*pictures[0])  # memory, kernels
    direct = []
    for image, camera in pictures:
        start = time.perf_counter()
        estimator(image, camera)
        direct.append(time.perf_counter() - start)
    device = str(estimator.device)
    del estimator
    node = subprocess.Popen(node_command(args.model))
    try:
        with LiveCamera() as robot:
            robot.wait_for_node()
            answers = robot.film(frames, period=2 * float(np.median(direct)))
    finally:
        node.send_signal(signal.SIGINT)
        node.wait(30)
    latency = [answer.latency for answer in answers if answer is not None]
    image, camera = pictures[0]
    record = {
        "machine": f"{platform.machine()}, {_processor()}, {os.cpu_count()} cores, {device}",
        "torch": torch.__version__,
        "image": f"{camera.width} x {camera.height}",
        "pictures": len(frames),
        "answered": len(latency),
        "direct_call_s": _percentiles(direct),
        "stamp_to_tf_s": _percentiles(latency),
    }
    text = json.dumps(record, indent=1)
    print(text)
    if args.json is not None:
        args.json.write_text(text + "\n")


def _percentiles(seconds: list[float]) -> dict[str, float | None]:
    return {f"p{p}": round(float(np.percentile(seconds, p)), 4) if seconds else None for p in (50, 95)}


def _processor() -> str:
    """The processor's name, where the system tells it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    named = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or "unknown processor"


if __name__ == "__main__":
    main()
