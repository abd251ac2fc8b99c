#!/usr/bin/env python3
"""Time of an estimate, from pixels to poses, against the bare backbone on crops of the same size, side by side in one run.

    python benchmarks/estimate.py demo/out/chair/model --json -

Each round times the backbone's forward on 1 and 5 crops, the estimator with 1 and 5 given regions, and the estimator that looks
for the objects itself, one after another, so that all see the same machine. Ratios are of medians.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from uns_pose_ros import storage
from uns_pose_ros.backbone import normalise
from uns_pose_ros.crops import crop, mask_box, square_around
from uns_pose_ros.inference import Estimator, EstimatorConfig
from uns_pose_ros.video import load_video, read_frame

VIDEO = Path(__file__).resolve().parents[1] / "demo" / "data" / "live" / "live_01"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder that `uns-pose train` wrote")
    parser.add_argument("--video", type=Path, default=VIDEO, help="with masks; what is estimated (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, help="of the CPU (default: all)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", help="write the figures here; - for standard output")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    model = storage.load_model(args.model)
    estimator = Estimator(model, device=args.device, config=EstimatorConfig(score_threshold=0.0))
    size = int(model.provenance["crop_size"])  # type: ignore[call-overload]
    image, mask, camera = read_frame(load_video(args.video).frames[0])
    assert mask is not None
    box = mask_box(mask)[None].double()
    one, _ = crop(image.permute(2, 0, 1).to(estimator.device), square_around(box, 0.15), size)
    layers = tuple(model.provenance["network"]["layers"])  # type: ignore[index]

    def backbone(count: int) -> None:
        with torch.inference_mode():
            estimator.backbone(normalise(one.expand(count, -1, -1, -1)), layers=layers)

    work: dict[str, Callable[[], Any]] = {
        "backbone_1": lambda: backbone(1),
        "estimate_1": lambda: estimator(image, camera, box),
        "backbone_5": lambda: backbone(5),
        "estimate_5": lambda: estimator(image, camera, box.expand(5, 4)),
        "search_and_estimate": lambda: estimator(image, camera),
    }
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(args.rounds + 2):
        for name, function in work.items():
            start = time.perf_counter()
            function()
            if estimator.device.type == "cuda":
                torch.cuda.synchronize()
            if turn >= 2:  # the first ones fill caches
                seconds[name].append(time.perf_counter() - start)
    times = {name: torch.tensor(values) for name, values in seconds.items()}
    middle = {name: float(values.median()) for name, values in times.items()}
    figures = {
        "ratio_to_backbone_1": middle["estimate_1"] / middle["backbone_1"],
        "ratio_to_backbone_5": middle["estimate_5"] / middle["backbone_5"],
        "ratio_with_search": middle["search_and_estimate"] / middle["backbone_1"],
        "milliseconds": {
            name: {"p50": 1e3 * middle[name], "p95": 1e3 * float(values.quantile(0.95)), "max": 1e3 * float(values.max())}
            for name, values in times.items()
        },
        "machine": {
            "name": platform.node(), "processor": platform.processor(), "cores": os.cpu_count(),
            "threads": torch.get_num_threads(), "device": str(estimator.device),
        },
    }  # fmt: skip
    text = json.dumps({"estimate": figures}, indent=1)
    if args.json == "-":
        print(text)
        return
    for name, value in figures.items():
        print(name, value, file=sys.stderr)
    if args.json:
        Path(args.json).write_text(text)


if __name__ == "__main__":
    main()
