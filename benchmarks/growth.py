#!/usr/bin/env python3
"""How the time of `uns-pose align` grows with the number of videos, each aligned to the same
number of references.

    python benchmarks/growth.py car horse --json -

Takes category folders whose videos have been through `uns-pose reconstruct`, and makes more videos
of each by taking every n-th view of it and turning its frame. Times are CPU seconds of one thread,
so a busy machine does not change them.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from common import politely
from uns_pose_ros.alignment.category.align_config import AlignConfig
from uns_pose_ros.alignment.category_alignment import align_videos
from uns_pose_ros.core.geometry import random_rotations
from uns_pose_ros.core.types import FeatureMesh
from uns_pose_ros.io.artifacts import load_feature_mesh
from uns_pose_ros.io.video_folder import list_videos


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("categories", type=Path, nargs="+")
    parser.add_argument("--videos", type=int, nargs="+", default=[10, 20, 40])
    parser.add_argument("--json", help="write the figures here; - for standard output")
    args = parser.parse_args()
    torch.set_num_threads(1)
    config = AlignConfig(all_pairs_up_to=0)
    figures: dict[str, Any] = {"machine": platform.node(), "references": config.references}
    for category in args.categories:
        meshes = [load_feature_mesh(folder) for folder in list_videos(category)]
        seconds = {}
        for count in args.videos:
            more = videos(meshes, count)
            start = time.process_time()
            align_videos(more, config, device="cpu")
            seconds[count] = time.process_time() - start
            each = seconds[count] / count
            print(
                f"{category.name}: {count} videos, {seconds[count]:.1f} s, {each:.2f} s a video",
                file=sys.stderr,
            )
        figures[category.name] = {
            "seconds": seconds,
            "seconds_per_video": {n: s / n for n, s in seconds.items()},
        }
    text = json.dumps(figures, indent=1)
    if args.json == "-":
        print(text)
    elif args.json:
        Path(args.json).write_text(text)


def videos(meshes: list[FeatureMesh], count: int) -> dict[str, FeatureMesh]:
    """`count` videos: parts of the given ones, in frames of their own."""
    parts = -(-count // len(meshes))
    turns = random_rotations(count, torch.Generator().manual_seed(0)).float()
    return {
        f"{k:03d}": part_of(meshes[k % len(meshes)], k // len(meshes), parts, turns[k])
        for k in range(count)
    }


def part_of(mesh: FeatureMesh, part: int, parts: int, turn: torch.Tensor) -> FeatureMesh:
    """The mesh as views part, part + parts, … saw it, in a frame turned by (3, 3)."""
    shown = mesh.view_index % parts == part
    back = torch.eye(4)
    back[:3, :3] = turn.T
    return replace(
        mesh,
        vertices=mesh.vertices @ turn.T,
        features=mesh.features[shown],
        vertex_index=mesh.vertex_index[shown],
        view_index=mesh.view_index[shown],
        cameras_in_obj=mesh.cameras_in_obj @ back,
        mirrored=None if mesh.mirrored is None else mesh.mirrored[shown],
    )


if __name__ == "__main__":
    politely(main)
