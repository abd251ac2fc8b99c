#!/usr/bin/env python3
"""Objects followed over a film: where they are expected, against a search of every image.

    python benchmarks/stream.py demo/out/chair/model
    python benchmarks/stream.py demo/out/chair/model --video /tmp/long/live_01 --json -

Each image is estimated in both ways, one after the other, so that both see the same machine. A pass
is 256 tokens of the backbone, a crop of 224 px. Accuracy and losses are those of `uns-pose evaluate
bag`, with the film's poses as the truth. tools/make_demo_data.py renders long films.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common import LIVE, machine, politely, write
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import invert
from uns_pose_ros.core.types import CategoryModel, Frame
from uns_pose_ros.estimation.config import EstimatorConfig
from uns_pose_ros.estimation.estimator import Estimator
from uns_pose_ros.estimation.stream.stream_estimator import StreamConfig, StreamEstimator
from uns_pose_ros.estimation.tracker import Tracker
from uns_pose_ros.evaluation.bag_figures import (
    FrameResult,
    fit_truth_from_canon,
    summarize_bag,
)
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.images import read_image
from uns_pose_ros.io.video_folder import load_video
from uns_pose_ros.networks.backbone_runtimes import Backbone
from uns_pose_ros.networks.dinov2 import PATCH

PASS = 256  # tokens


class CountedBackbone:
    """A backbone that counts its passes."""

    def __init__(self, backbone: Backbone) -> None:
        self.precision = backbone.precision
        self.passes = 0.0
        self._backbone = backbone

    def __call__(self, images: Tensor, layers: Sequence[int]) -> Tensor:
        self.passes += len(images) * images[0, 0].numel() / PATCH**2 / PASS
        return self._backbone(images, layers)


class Follower:
    """One way to follow the objects of a film, with what it took."""

    def __init__(self, estimator: Estimator, every: int) -> None:
        self._estimator = estimator
        self._stream = StreamEstimator(Tracker(), StreamConfig(every))
        self.results: list[FrameResult] = []
        self.passes = 0.0
        self._before: Frame | None = None

    def estimate(self, frame: Frame, stamp: int, moving: bool) -> None:
        """Estimate an image; `moving`: the camera's motion is known."""
        image, backbone = read_image(frame.image).numpy(), self._estimator.backbone
        assert isinstance(backbone, CountedBackbone)
        truth, motion = frame.cam_from_obj, None
        if self._before is not None and self._before.cam_from_obj is not None:
            assert truth is not None
            motion = truth @ invert(self._before.cam_from_obj)
        known = motion if moving else None
        backbone.passes, start = 0.0, time.perf_counter()
        expected = self._stream.expect(stamp, known)
        estimates = self._estimator(image, frame.camera, expected=expected)
        seconds = time.perf_counter() - start
        tracks = self._stream.update(estimates, expected, stamp, known)
        self.passes += backbone.passes
        self.results.append(
            FrameResult(
                stamp,
                "camera",
                tuple(track.estimate for track in tracks),
                tuple(track.number for track in tracks),
                seconds,
                truth,
                motion,
            )
        )
        self._before = frame


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="folder that `uns-pose train` wrote")
    parser.add_argument(
        "--video", type=Path, default=LIVE, help="with poses (default: %(default)s)"
    )
    parser.add_argument("--every", type=int, default=StreamConfig.every)
    parser.add_argument("--rate", type=float, default=30.0, help="Hz of the film")
    parser.add_argument("--motion", action="store_true", help="the camera's is known")
    parser.add_argument("--runtime", default=EstimatorConfig.runtime)
    parser.add_argument("--json", help="write the figures here; - for standard output")
    args = parser.parse_args()
    model = artifacts.load_model(args.model)
    figures = benchmark(model, args.video, args.every, args.rate, args.motion, args.runtime)
    if args.json != "-":
        print(table(figures))
    write({"stream": figures, "machine": machine()}, args.json)


def benchmark(
    model: CategoryModel,
    video: Path,
    every: int = StreamConfig.every,
    rate: float = 30.0,
    motion: bool = False,
    runtime: str = EstimatorConfig.runtime,
) -> dict[str, Any]:
    """Figures of both ways on a film with poses."""
    frames = load_video(video).frames
    if any(frame.cam_from_obj is None for frame in frames):
        raise InvalidInput(f"{video}: a video with the pose of every image is valid")
    estimator = Estimator(model, config=replace(EstimatorConfig(), runtime=runtime))
    estimator.backbone = CountedBackbone(estimator.backbone)
    estimator(read_image(frames[0].image), frames[0].camera)  # the first one fills caches
    ways = {1: Follower(estimator, 1), every: Follower(estimator, every)}
    for k, frame in enumerate(frames):
        for way in ways.values():
            way.estimate(frame, round(k * 1e9 / rate), motion)
    turn = fit_truth_from_canon(ways[1].results, model)
    return {
        "images": len(frames),
        "runtime": runtime,
        "every": {str(number): _figures(way, model, turn) for number, way in ways.items()},
        "speedup": sum(result.seconds for result in ways[1].results)
        / sum(result.seconds for result in ways[every].results),
    }


def _figures(way: Follower, model: CategoryModel, turn: Tensor) -> dict[str, Any]:
    seconds = torch.tensor([result.seconds for result in way.results])
    return {
        "answers_per_second": float(len(seconds) / seconds.sum()),
        "passes_per_image": way.passes / len(seconds),
        "bag": summarize_bag(way.results, model, turn),
    }


def table(figures: dict[str, Any]) -> str:
    lines = [
        f"{'search.every':>12s} {'answers/s':>9s} {'passes':>6s} {'answered':>8s} {'acc30':>6s} "
        f"{'acc15':>6s} {'median °':>8s} {'jitter °':>8s} {'lost':>4s} {'ids':>3s}"
    ]
    for every, way in figures["every"].items():
        bag = way["bag"]
        jitter = bag["jitter"]["deg"] or {"p50": float("nan")}
        lines.append(
            f"{every:>12s} {way['answers_per_second']:9.2f} {way['passes_per_image']:6.2f} "
            f"{bag['estimated']:4d}/{bag['images']:<3d} {bag['acc30']:6.1f} {bag['acc15']:6.1f} "
            f"{bag['median_deg']:8.1f} {jitter['p50']:8.1f} {bag['tracks']['gaps']:4d} "
            f"{bag['tracks']['ids']:3d}"
        )
    return "\n".join([*lines, f"speedup: {figures['speedup']:.2f}"])


if __name__ == "__main__":
    politely(main)
