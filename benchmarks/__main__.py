#!/usr/bin/env python3
"""All figures of speed in one run, with the machine's name: what `make bench` runs.

    python benchmarks
        # on the demo's videos, about five minutes on two idle cores
    python benchmarks --category mug --full
        # on your own (masks, poses, labels.json), with the default training

Prints a table and writes benchmarks/out.json. The ratios are of times measured side by side.
"""

from __future__ import annotations

import argparse
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

import estimate
import pipeline
from common import DEMO, LIVE, ROOT, machine, politely, write
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.video_folder import list_videos

OUT = ROOT / "benchmarks" / "out.json"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--category",
        type=Path,
        default=DEMO,
        help="folder of videos (default: %(default)s)",
    )
    parser.add_argument(
        "--model",
        type=Path,
        help="that estimates are timed with (default: one trained here)",
    )
    parser.add_argument(
        "--full",
        action="store_true",
        help="default training, more videos, pairs and rounds",
    )
    parser.add_argument("--json", default=str(OUT), help="default: %(default)s")
    args = parser.parse_args()
    rounds = 50 if args.full else 10
    figures: dict[str, Any] = {"machine": machine(), "full": args.full}
    made, model = pipeline.benchmark(
        args.category, 10 if args.full else 3, 6 if args.full else 2, args.full
    )
    figures |= made
    print(pipeline.table(made), flush=True)
    if args.model is not None:
        model = artifacts.load_model(args.model)
    video = LIVE if args.category == DEMO else list_videos(args.category)[-1]
    others = [
        name
        for name, package in (("openvino", "openvino"), ("onnx", "onnxruntime"))
        if find_spec(package)
    ]
    if torch.cuda.is_available():
        others = ["torch-compile"]
    cases = [
        ("torch", 224, [1, 5, 16]),
        ("torch", 448, [1]),
        ("torch-fp32", 224, [1, 5]),
        *((name, 224, [1]) for name in others),
    ]
    figures["estimate"] = estimate.benchmark(model, video, cases, rounds, "auto")
    print(estimate.table(figures["estimate"]), flush=True)
    if find_spec("rclpy") is None:
        print("node: not measured, there is no ROS here")
    else:
        import node

        with tempfile.TemporaryDirectory() as folder:
            artifacts.save_model(model, Path(folder) / "model")
            figures["node"] = node.benchmark(
                Path(folder) / "model", video, 5 if args.full else 2
            )
        print(node.table(figures["node"]), flush=True)
    write(figures, args.json)
    told = figures["machine"]
    print(
        f"on {told['processor']} ({told['instructions']}), {told['threads']} of "
        f"{told['cores']} cores, load {told['load_average']}, GPU: {told['gpu']}"
    )
    print(f"written: {args.json}")


if __name__ == "__main__":
    politely(main)
