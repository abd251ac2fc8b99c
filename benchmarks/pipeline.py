#!/usr/bin/env python3
"""Time of the pipeline's stages a video, against what the backbone takes of it.

Pair alignment and feature distances.

    python benchmarks/pipeline.py demo/data/chair --videos 3 --json -

Takes a category folder whose videos have masks and poses (a demo's by default), with labels.json in
it; nothing is written there. Pair alignment: the published algorithm (vectorized) against
ours, times and errors of one thread (for whole categories: benchmarks/alignment.py). Feature
distances: from every single view, and from clusters of views as `align` does, against the time that
the machine needs for the multiplications alone.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alignment import compare
from common import DEMO, machine, peak_megabytes, politely, rounds, write
from growth import videos as more_videos
from uns_pose_ros.alignment.category.align_config import AlignConfig
from uns_pose_ros.alignment.category_alignment import align_videos
from uns_pose_ros.alignment.mesh_batch import build_mesh_batch
from uns_pose_ros.alignment.pairs.correspondences import (
    exact_feature_distances,
    feature_distances,
)
from uns_pose_ros.alignment.pairs.pair_config import PairConfig
from uns_pose_ros.alignment.pairwise import align_pairs
from uns_pose_ros.alignment.published_alignment import align_published
from uns_pose_ros.core.device import choose_device, choose_precision
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import CategoryModel, FeatureMesh, Video
from uns_pose_ros.evaluation.rotation_labels import load_labels
from uns_pose_ros.io.video_folder import list_videos, load_video
from uns_pose_ros.networks.dinov2 import DinoV2, load_backbone
from uns_pose_ros.reconstruction.feature_mesh import ReconstructConfig, build_feature_mesh
from uns_pose_ros.reconstruction.visual_hull import HullConfig
from uns_pose_ros.training.category_training import train_model
from uns_pose_ros.training.training_views import TrainConfig

QUICK_TRAINING = TrainConfig(views=2, steps=150, batch=8, learning_rate=4e-3)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "category", type=Path, nargs="?", default=DEMO, help="default: %(default)s"
    )
    parser.add_argument("--videos", type=int, default=3, help="so many of the category's")
    parser.add_argument("--pairs", type=int, default=2, help="that both algorithms align")
    parser.add_argument(
        "--full",
        action="store_true",
        help="train with the defaults, align copies to 40 videos",
    )
    parser.add_argument("--json", help="write the figures here; - for standard output")
    args = parser.parse_args()
    figures, _ = benchmark(args.category, args.videos, args.pairs, args.full)
    if args.json != "-":
        print(table(figures), file=sys.stderr)
    write({**figures, "machine": machine()}, args.json)


def benchmark(
    category: Path, count: int, pairs: int, full: bool
) -> tuple[dict[str, Any], CategoryModel]:
    """The figures, and the model that the training made."""
    chosen = list_videos(category)[:count]
    if len(chosen) < 2:
        raise InvalidInput(f"{category}: {len(chosen)} videos, 2 needed")
    videos = {folder.name: load_video(folder) for folder in chosen}
    device = choose_device("auto")
    backbone = load_backbone(precision=choose_precision(device))
    made, meshes = reconstruction(videos, backbone)
    labels = load_labels(
        category / "labels.json", [folder.name for folder in list_videos(category)]
    )
    figures: dict[str, Any] = {"reconstruct": made}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    figures["pair_alignment"] = pair_alignment(meshes, labels, pairs)
    first = dict(list(videos.items())[:2])
    _, fine = reconstruction(
        first, backbone, ReconstructConfig(hull=HullConfig(vertices=1000))
    )
    figures["pair_alignment"]["vertices_1000"] = pair_alignment(fine, labels, 1)
    figures["feature_distance"] = distances(meshes)
    figures["align"] = growth(list(meshes.values()), [1, 10, 40] if full else [1, 5])
    torch.set_num_threads(threads)
    alignment = align_videos(meshes)
    took: list[float] = []
    with timed(backbone, took):
        start = time.perf_counter()
        model = train_model(
            category.name,
            videos,
            meshes,
            alignment,
            backbone,
            TrainConfig() if full else QUICK_TRAINING,
        )
        seconds = time.perf_counter() - start
    figures["train"] = {
        "videos": count,
        "seconds": seconds,
        "backbone_seconds": sum(took),
        "backbone_share": sum(took) / seconds,
    }
    return figures, model


@contextmanager
def timed(backbone: DinoV2, seconds: list[float]) -> Iterator[None]:
    """Collect the seconds that each forward of the backbone takes."""
    started: list[float] = []

    def before(*_: object) -> None:
        started.append(time.perf_counter())

    def after(*_: object) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started.pop())

    hooks = [
        backbone.register_forward_pre_hook(before),
        backbone.register_forward_hook(after),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def reconstruction(
    videos: dict[str, Video],
    backbone: DinoV2,
    config: ReconstructConfig = ReconstructConfig(),
) -> tuple[dict[str, Any], dict[str, FeatureMesh]]:
    """Seconds a video and the backbone's share, and the meshes."""
    took: list[float] = []
    start = time.perf_counter()
    with timed(backbone, took):
        meshes = {
            name: build_feature_mesh(video, backbone, config)
            for name, video in videos.items()
        }
    seconds = time.perf_counter() - start
    figures = {
        "frames": sum(len(video.frames) for video in videos.values()) / len(videos),
        "seconds_per_video": seconds / len(videos),
        "backbone_seconds_per_video": sum(took) / len(videos),
        "backbone_share": sum(took) / seconds,
    }
    return figures, meshes


def pair_alignment(
    meshes: dict[str, FeatureMesh], labels: dict[str, torch.Tensor], pairs: int
) -> dict[str, Any]:
    """Both algorithms on the same pairs.

    CPU seconds of one thread, errors, and how far the memory rises.

    The floor is the time that the multiplications of the features alone take at the rate measured
    here.
    """
    published, ours, preparation = compare(meshes, labels, pairs, 0)
    theirs, mine = published.figures(), ours.figures()
    a, b = list(meshes.values())[:2]
    shapes = build_mesh_batch(dict(list(meshes.items())[:2]))
    theirs["peak_megabytes"] = peak_megabytes(lambda: align_published(a, b))
    mine["peak_megabytes"] = peak_megabytes(
        lambda: align_pairs(shapes, torch.tensor([[0, 1]]), PairConfig(), 0)
    )
    square = torch.randn(1024, 1024)
    rate = (
        2 * 1024**3 / float(np.median(rounds({"gemm": lambda: square @ square}, 5)["gemm"]))
    )
    _, vertices, kept, channels = shapes.features.shape
    floor = 2 * (vertices * kept) ** 2 * channels / rate
    return {
        "speedup": theirs["seconds_per_pair"] / mine["seconds_per_pair"],
        "floor_seconds": floor,
        "times_floor": mine["seconds_per_pair"] / floor,
        "vertices": max(len(mesh.vertices) for mesh in meshes.values()),
        "pairs": len(ours.errors),
        "published": theirs,
        "ours": mine,
        "preparation_seconds_per_video": preparation,
    }


def distances(meshes: dict[str, FeatureMesh]) -> dict[str, Any]:
    """Seconds of a pair's feature distances in one thread, and of the bare multiplications at the
    rate measured here.
    """
    a, b = list(meshes.values())[:2]
    shapes = build_mesh_batch(dict(list(meshes.items())[:2]))
    one, other = shapes.take(torch.tensor([0])), shapes.take(torch.tensor([1]))
    square = torch.randn(1024, 1024)
    work: dict[str, Callable[[], Any]] = {
        "every_view": lambda: exact_feature_distances(a, b),
        "clusters": lambda: feature_distances(one, other),
        "gemm": lambda: square @ square,
    }
    seconds = {
        name: float(np.median(times)) for name, times in rounds(work, 3, warm=1).items()
    }
    rate = 2 * 1024**3 / seconds["gemm"]
    channels = a.features.shape[1]
    _, vertices, kept, _ = one.features.shape
    floors = {
        "every_view": 2 * len(a.features) * len(b.features) * channels,
        "clusters": 2 * (vertices * kept) ** 2 * channels,
    }
    figures: dict[str, Any] = {"gemm_gflops": rate / 1e9}
    for name, operations in floors.items():
        floor = operations / rate
        figures[name] = {
            "seconds": seconds[name],
            "floor_seconds": floor,
            "times_floor": seconds[name] / floor,
        }
    return {**figures, "speedup": seconds["every_view"] / seconds["clusters"]}


def growth(meshes: list[FeatureMesh], counts: list[int]) -> dict[str, Any]:
    """CPU seconds of one thread that aligning so many videos takes, parts of the given ones."""
    seconds = {}
    for count in counts:
        some = more_videos(meshes, count)
        start = time.process_time()
        if count > 1:
            align_videos(some, replace(AlignConfig(), all_pairs_up_to=0), device="cpu")
        else:
            build_mesh_batch(some)  # there is no pair
        seconds[str(count)] = time.process_time() - start
    return {"cpu_seconds": seconds}


def table(figures: dict[str, Any]) -> str:
    made, trained, pair = (
        figures["reconstruct"],
        figures["train"],
        figures["pair_alignment"],
    )
    grown = ", ".join(f"{n}: {s:.1f}" for n, s in figures["align"]["cpu_seconds"].items())
    lines = [
        f"reconstruct: {made['seconds_per_video']:.1f} s for {made['frames']:.0f} views, "
        f"backbone {made['backbone_share']:.0%}",
        f"train: {trained['seconds']:.1f} s of {trained['videos']} videos, backbone "
        f"{trained['backbone_share']:.0%}",
        f"align, CPU seconds by videos: {grown}",
    ]
    for one in (pair, pair["vertices_1000"]):
        sides = (one["published"], one["ours"])
        seconds = " against ".join(f"{side['seconds_per_pair']:.2f} s" for side in sides)
        errors = " against ".join(f"{side['mean_deg']:.0f} deg" for side in sides)
        memory = " against ".join(
            "?" if side["peak_megabytes"] is None else f"{side['peak_megabytes']:.0f} MB"
            for side in sides
        )
        ratios = f"{one['speedup']:.0f} x as fast, {one['times_floor']:.1f} x its floor"
        lines.append(
            f"pair alignment, {one['vertices']} vertices: {seconds} ({ratios}), {errors}, {memory}"
        )
    told = figures["feature_distance"]
    parts = [
        f"{k} {told[k]['seconds']:.2f} s ({told[k]['times_floor']:.1f} x its floor)"
        for k in ("every_view", "clusters")
    ]
    return "\n".join([*lines, f"feature distance: {', '.join(parts)}"])


if __name__ == "__main__":
    politely(main)
