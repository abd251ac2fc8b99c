#!/usr/bin/env python3
"""Time of an estimate, from pixels to poses, against the bare backbone on crops of the same size,
side by side in one run.

    python benchmarks/estimate.py demo/out/chair/model --json -
    python benchmarks/estimate.py demo/out/chair/model --runtime openvino \\
        --sizes 224 448 --objects 1 5 16

Each round times, one after another, the backbone's forward on batches of crops, the estimator with
as many given regions, and the estimator that looks for the objects itself. Ratios are medians over
the rounds. The first size and runtime are those of the ratios; the image's decoding is measured
apart.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from common import LIVE, machine, milliseconds, politely, ratio, rounds, write
from uns_pose_ros.core.crops import crop, mask_box, square_around
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import CategoryModel
from uns_pose_ros.estimation.estimator import Estimator, EstimatorConfig
from uns_pose_ros.estimation.loaded_model import LoadedModel
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.images import read_image
from uns_pose_ros.io.video_folder import load_video, read_frame
from uns_pose_ros.networks.dinov2 import imagenet_normalize


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="folder that `uns-pose train` wrote")
    parser.add_argument(
        "--video",
        type=Path,
        default=LIVE,
        help="with masks; what is estimated (default: %(default)s)",
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--objects", type=int, nargs="+", default=[1, 5], help="in a image")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[224], help="px, sides of the crops"
    )
    parser.add_argument("--runtime", nargs="+", default=["torch"], help="of the backbone")
    parser.add_argument("--threads", type=int, help="of the CPU (default: all)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", help="write the figures here; - for standard output")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    model = artifacts.load_model(args.model)
    cases = [
        (runtime, size, args.objects) for runtime in args.runtime for size in args.sizes
    ]
    figures = benchmark(model, args.video, cases, args.rounds, args.device)
    if args.json != "-":
        print(table(figures), file=sys.stderr)
    write({"estimate": figures, "machine": machine()}, args.json)


def benchmark(
    model: CategoryModel,
    video: Path,
    cases: Sequence[tuple[str, int, Sequence[int]]],
    count: int,
    device: str,
) -> dict[str, Any]:
    """Figures of cases (runtime, px, objects), and the first one's ratios under their own names."""
    found = {
        f"{runtime} {size} px": measure(model, video, runtime, size, objects, count, device)
        for runtime, size, objects in cases
    }
    first = next(iter(found.values()))
    ratios = {name: value for name, value in first.items() if name.startswith("ratio")}
    return {**ratios, "device": first["device"], "cases": found}


def measure(
    model: CategoryModel,
    video: Path,
    runtime: str,
    size: int,
    objects: Sequence[int],
    count: int,
    device: str,
) -> dict[str, Any]:
    """Times and ratios in one runtime with crops of `size` px."""
    model = replace(model, provenance={**model.provenance, "crop_size": size})
    config = EstimatorConfig(score_threshold=0.0, runtime=runtime, max_instances=1)
    estimator = Estimator(model, device=device, config=config)
    frame = load_video(video).frames[0]
    image, mask, camera = read_frame(frame)
    if mask is None:
        raise InvalidInput(
            f"{video}: no mask of {frame.name}; name a video with masks by --video"
        )
    box = mask_box(mask)[None].double()
    one, _ = crop(
        image.permute(2, 0, 1).to(estimator.device),
        square_around(box, config.crop_margin),
        size,
    )
    layers = LoadedModel(model, estimator.device, False).layers

    def backbone(batch: int) -> None:
        with torch.inference_mode():
            estimator.backbone(imagenet_normalize(one.expand(batch, -1, -1, -1)), layers)

    work: dict[str, Callable[[], Any]] = {"decode": partial(read_image, frame.image)}
    for number in objects:
        work[f"backbone_{number}"] = partial(backbone, number)
        work[f"estimate_{number}"] = partial(
            estimator, image, camera, box.expand(number, 4)
        )
    work["search_and_estimate"] = partial(estimator, image, camera)
    answers = len(estimator(image, camera, box))
    if not answers:
        raise InvalidInput(
            f"{video}: the model sees no {model.category} in {frame.name}, so there is nothing "
            "to time"
        )
    seconds = rounds(work, count)
    ratios = {
        f"ratio_to_backbone_{k}": ratio(seconds, f"estimate_{k}", f"backbone_{k}")
        for k in objects
    }
    return {
        **ratios,
        "ratio_with_search": ratio(
            seconds, "search_and_estimate", f"backbone_{objects[0]}"
        ),
        "estimates_per_second": objects[0]
        / float(torch.tensor(seconds[f"estimate_{objects[0]}"]).median()),
        "precision": estimator.backbone.precision,
        "device": str(estimator.device),
        "milliseconds": {name: milliseconds(values) for name, values in seconds.items()},
    }


def table(figures: dict[str, Any]) -> str:
    lines = [
        f"{'estimate':22s} {'objects':>7s} {'p50 ms':>8s} {'p95 ms':>8s} {'max ms':>8s} "
        f"{'/ backbone':>10s}"
    ]
    for name, case in figures["cases"].items():
        for key, times in case["milliseconds"].items():
            if key.startswith("estimate_"):
                number = key.removeprefix("estimate_")
                three = " ".join(f"{times[p]:8.1f}" for p in ("p50", "p95", "max"))
                lines.append(
                    f"{name:22s} {number:>7s} {three} {case[f'ratio_to_backbone_{number}']:10.2f}"
                )
    return "\n".join(lines)


if __name__ == "__main__":
    politely(main)
