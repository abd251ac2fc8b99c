#!/usr/bin/env python3
"""Time from an image's stamp to its transform on /tf, camera and node in two processes, against
the direct call; start-up.

    python benchmarks/node.py demo/out/chair/model --json node.json

Each image is estimated directly, then sent: both see the same machine. The camera waits for the
answer, so no image is replaced by the next. Then the images come at 30 Hz, whether the node
keeps up or not.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from common import LIVE, ROOT, machine, milliseconds, politely, write

sys.path.insert(0, str(ROOT / "demo"))
os.environ.setdefault("ROS_DOMAIN_ID", "88")
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")

import numpy as np

from live import LiveCamera, node_command
from uns_pose_ros.estimation.estimator import Estimator, EstimatorConfig
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.images import read_image
from uns_pose_ros.io.video_folder import load_video

RATE, SECONDS = 30.0, 5.0  # Hz, s of images that come too fast


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="folder that `uns-pose train` wrote")
    parser.add_argument(
        "--video",
        type=Path,
        default=LIVE,
        help="whose images are sent (default: %(default)s)",
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="how often each image is sent"
    )
    parser.add_argument("--json", help="write the figures here; - for standard output")
    args = parser.parse_args()
    figures = benchmark(args.model, args.video, args.rounds)
    if args.json != "-":
        print(table(figures), file=sys.stderr)
    write({"node": figures, "machine": machine()}, args.json)


def benchmark(model: Path, video: Path, turns: int) -> dict[str, Any]:
    frames = load_video(video).frames
    estimator = Estimator(
        artifacts.load_model(model), config=EstimatorConfig(score_threshold=0.0)
    )
    images = [(read_image(frame.image), frame.camera) for frame in frames]
    estimator(*images[0])  # memory, kernels
    started = time.perf_counter()
    everything = [
        "--ros-args",
        "--log-level",
        "warn",
        "-p",
        "solver.score_threshold:=0.0",
    ]  # the estimates of a model trained for seconds too
    node = subprocess.Popen([*node_command(model), *everything])
    direct, latency, sent = list[float](), list[float](), 0
    try:
        with LiveCamera() as robot:
            robot.wait_for_node()
            start_up = time.perf_counter() - started
            robot.film(frames[:2], 0.0)  # the node's first images
            for _ in range(turns):
                for frame, (pixels, camera) in zip(frames, images, strict=True):
                    began = time.perf_counter()
                    estimator(pixels, camera)
                    duration = time.perf_counter() - began
                    (answer,) = robot.film([frame], 0.0)
                    sent += 1
                    if answer is not None:
                        direct.append(duration)
                        latency.append(answer.latency)
            began, used = time.perf_counter(), cpu_seconds(node.pid)
            published, answered = robot.stream(frames, RATE, SECONDS)
            share = (cpu_seconds(node.pid) - used) / (time.perf_counter() - began)
            memory = peak_megabytes(node.pid)
    finally:
        node.send_signal(signal.SIGINT)
        node.wait(60)
    if not latency:
        raise RuntimeError(f"the node answered none of {sent} images")
    overhead = np.subtract(latency, direct)
    image = images[0][0]
    return {
        "overhead_ms": 1e3 * float(np.median(overhead)),
        "overhead_share": float(np.median(overhead / np.array(direct))),
        "image": f"{image.shape[1]} x {image.shape[0]}",
        "sent": sent,
        "answered": len(latency),
        "milliseconds": {
            "direct": milliseconds(direct),
            "stamp_to_tf": milliseconds(latency),
        },
        "at_30_hz": {
            "sent": published,
            "answered": answered,
            "cpu_share": share,
            "peak_megabytes": memory,
        },
        "start_up_seconds": start_up,
        "import_seconds": import_seconds(),
    }


def cpu_seconds(process: int) -> float:
    """User and system time of a process so far."""
    words = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def peak_megabytes(process: int) -> float:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def import_seconds() -> dict[str, float]:
    """Of the node's module, and of the command line's help, each in a process of its own."""
    code = {
        "node": "import uns_pose_ros.nodes.estimator.estimator_node",
        "help": "from uns_pose_ros.cli.main import main; main(['--help'])",
    }
    seconds = {}
    for name, text in code.items():
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", text], check=True, stdout=subprocess.DEVNULL)
        seconds[name] = time.perf_counter() - start
    return seconds


def table(figures: dict[str, Any]) -> str:
    times, fast, started = (
        figures["milliseconds"],
        figures["at_30_hz"],
        figures["import_seconds"],
    )
    return "\n".join(
        [
            f"node: {times['stamp_to_tf']['p50']:.0f} ms from stamp to /tf, the direct call "
            f"{times['direct']['p50']:.0f} ms: "
            f"overhead {figures['overhead_ms']:.1f} ms, {figures['overhead_share']:.0%}",
            f"node at 30 Hz: {fast['answered']} of {fast['sent']} images answered, the "
            "others gave way to newer ones; "
            f"{fast['cpu_share']:.1f} cores, {fast['peak_megabytes']:.0f} MB",
            f"node: listens after {figures['start_up_seconds']:.1f} s, import "
            f"{started['node']:.1f} s; "
            f"uns-pose --help {started['help']:.2f} s",
        ]
    )


if __name__ == "__main__":
    politely(main)
