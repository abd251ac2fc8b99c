"""Accuracy and time of aligning pairs of videos, side by side with the published algorithm written
out plainly, on one thread.

    python benchmarks/alignment.py car horse --pairs 15 --json -

Takes category folders whose videos have been through `uns-pose reconstruct`, with labels.json in
each (or --labels). Both algorithms get the same pairs and the same features; each pair is scored by
itself, without any synchronisation. `--align` also aligns all videos of each category, with their
mirrored twins. Times are seconds of the one thread's own (CPU time), so a busy machine does not
change them.

The published algorithm (Sommer et al., CVPR 2024): every vertex keeps the feature of every view
that sees it; cycle-consistent nearest vertices with weights; 1000 similarities through four
correspondences each (Umeyama); the lowest energy wins.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from uns_pose_ros.alignment.category_alignment import AlignConfig, align_videos
from uns_pose_ros.alignment.mesh_batch import build_mesh_batch
from uns_pose_ros.alignment.pairwise import PairConfig, align_pairs
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import (
    angle_between,
    fit_similarity,
    invert,
    split_similarity,
    transform,
)
from uns_pose_ros.core.types import FeatureMesh
from uns_pose_ros.evaluation.metrics import accuracies, evaluate_alignment, load_labels
from uns_pose_ros.io.artifacts import load_feature_mesh

ALPHA, TAU, HYPOTHESES = 0.2, 0.9, 1000  # published
CHUNK = 25  # hypotheses scored at once: 25 * 500 * 500 distances are 25 MB


@dataclass(frozen=True)
class Contender:
    """Errors and times of one algorithm."""

    errors: list[float] = field(default_factory=list)  # degrees
    seconds: list[float] = field(default_factory=list)  # a pair

    def figures(self) -> dict[str, Any]:
        return {
            **accuracies(torch.tensor(self.errors, dtype=torch.float64)),
            "mean_deg": sum(self.errors) / len(self.errors),
            "seconds_per_pair": sum(self.seconds) / len(self.seconds),
        }


def published_rotation(
    a: FeatureMesh, b: FeatureMesh, generator: torch.Generator
) -> Tensor:
    """b_from_a rotation (3, 3) by the published algorithm."""
    points_a, points_b = _unit_size(a.vertices), _unit_size(b.vertices)
    distances = all_view_distances(a, b)
    to_b, to_a = distances.argmin(1), distances.argmin(0)
    weight_a = torch.exp(-(points_a - points_a[to_a[to_b]]).norm(dim=1) / TAU)
    weight_b = torch.exp(-(points_b - points_b[to_b[to_a]]).norm(dim=1) / TAU)
    weight_a, weight_b = weight_a / weight_a.mean(), weight_b / weight_b.mean()
    best, lowest = torch.eye(4), float("inf")
    for _ in range(HYPOTHESES // CHUNK):
        drawn = torch.stack(
            [torch.multinomial(weight_a, 4, generator=generator) for _ in range(CHUNK)]
        )
        poses = fit_similarity(points_a[drawn], points_b[to_b[drawn]])
        cost = energy(poses, points_a, points_b, distances, weight_a, weight_b)
        if float(cost.min()) < lowest:
            best, lowest = poses[cost.argmin()], float(cost.min())
    return split_similarity(best.double())[0]


def all_view_distances(a: FeatureMesh, b: FeatureMesh) -> Tensor:
    """Feature distances (V, W).

    Mean over one vertex's views of the distance to the other's nearest, both ways.
    """
    there, back = _one_way_distances(a, b), _one_way_distances(b, a)
    distances = (there + back.T) / 2
    return torch.where(
        distances.isfinite(), distances, distances[distances.isfinite()].max()
    )


def _one_way_distances(a: FeatureMesh, b: FeatureMesh) -> Tensor:
    result = torch.full((len(a.vertices), len(b.vertices)), torch.inf)
    features_a, features_b = a.features.float(), b.features.float()
    for vertex in range(len(a.vertices)):
        views = features_a[a.vertex_index == vertex]
        if len(views):
            nearest = torch.full((len(views), len(b.vertices)), torch.inf)
            nearest.scatter_reduce_(
                1,
                b.vertex_index.expand(len(views), -1),
                torch.cdist(views, features_b),
                "amin",
            )
            result[vertex] = nearest.mean(0)
    return result


def energy(
    poses: Tensor,
    a: Tensor,
    b: Tensor,
    distances: Tensor,
    weight_a: Tensor,
    weight_b: Tensor,
) -> Tensor:
    """Energy (H,) of similarities b_from_a (H, 4, 4) over points a (V, 3) and b (W, 3)."""
    total = torch.zeros(len(poses))
    for matrix, source, target, table, weight in (
        (poses, a, b, distances, weight_a),
        (invert(poses), b, a, distances.T, weight_b),
    ):
        moved = transform(matrix, source)
        gap, nearest = torch.cdist(moved, target.expand(len(matrix), -1, -1)).min(2)
        appearance = torch.gather(table.expand(len(matrix), -1, -1), 2, nearest[..., None])[
            ..., 0
        ]
        total += (((1 - ALPHA) * gap + ALPHA * appearance) * weight).mean(1) / 2
    return total


def _unit_size(vertices: Tensor) -> Tensor:
    centred = vertices - vertices.mean(0)
    return centred / torch.cdist(centred, centred).max()


def compare(
    meshes: dict[str, FeatureMesh], labels: dict[str, Tensor], most: int, seed: int
) -> tuple[Contender, Contender, float]:
    """Both algorithms over at most `most` pairs.

    Returns their errors and times, and the time to prepare one video of ours.
    """
    published, ours = Contender(), Contender()
    names = [name for name in meshes if name in labels]
    start = time.process_time()
    shapes = build_mesh_batch(meshes)
    preparation = (time.process_time() - start) / len(meshes)
    shape_from_obj = split_similarity(shapes.shape_from_obj)[0]
    every = torch.combinations(torch.arange(len(names)))
    generator = torch.Generator().manual_seed(seed)
    chosen = every[torch.randperm(len(every), generator=generator)[:most].sort().values]
    index = {name: k for k, name in enumerate(meshes)}
    align_pairs(
        shapes, torch.tensor([[0, 1]]), PairConfig(), seed
    )  # first use of torch's libraries
    for done, (i, j) in enumerate(chosen.tolist(), 1):
        truth = labels[names[j]].T @ labels[names[i]]
        a, b = index[names[i]], index[names[j]]
        start = time.process_time()
        modes = align_pairs(shapes, torch.tensor([[a, b]]), PairConfig(), seed)
        ours.seconds.append(time.process_time() - start)
        best = modes.b_from_a[0, int(modes.energy[0].argmin())]
        rotation = shape_from_obj[b].T @ split_similarity(best)[0] @ shape_from_obj[a]
        ours.errors.append(float(angle_between(rotation, truth)))
        start = time.process_time()
        rotation = published_rotation(meshes[names[i]], meshes[names[j]], generator)
        published.seconds.append(time.process_time() - start)
        published.errors.append(float(angle_between(rotation, truth)))
        print(
            f"pair {done} of {len(chosen)}: published {published.errors[-1]:.0f} deg in "
            f"{published.seconds[-1]:.1f} s, "
            f"ours {ours.errors[-1]:.0f} deg in {ours.seconds[-1]:.2f} s",
            file=sys.stderr,
        )
    return published, ours, preparation


def benchmark(
    folders: list[Path], labels_file: Path | None, most: int, all_videos: bool, seed: int
) -> dict[str, Any]:
    """The figures over all categories together, and of each."""
    published, ours, preparations, categories = Contender(), Contender(), [], {}
    for folder in folders:
        meshes = {
            path.parent.name: load_feature_mesh(path.parent)
            for path in sorted(folder.glob("*/features.safetensors"))
        }
        if len(meshes) < 2:
            raise InvalidInput(
                f"{folder}: {len(meshes)} videos with features, 2 needed; `uns-pose "
                "reconstruct` makes them"
            )
        labels = load_labels(labels_file or folder / "labels.json", tuple(meshes))
        print(f"{folder.name}: {len(meshes)} videos", file=sys.stderr)
        theirs, mine, preparation = compare(meshes, labels, most, seed)
        categories[folder.name] = {
            "pairs": len(mine.errors),
            "published": theirs.figures(),
            "ours": mine.figures(),
        }
        for total, part in ((published, theirs), (ours, mine)):
            total.errors.extend(part.errors)
            total.seconds.extend(part.seconds)
        preparations.append(preparation)
        if all_videos:
            start = time.process_time()
            alignment = align_videos(meshes, AlignConfig(), seed, device="cpu")
            seconds = time.process_time() - start
            categories[folder.name]["align"] = {
                **evaluate_alignment(alignment, labels),
                "seconds": seconds,
                "symmetry": alignment.symmetry.name,
            }
    figures = {"published": published.figures(), "ours": ours.figures()}
    speedup = figures["published"]["seconds_per_pair"] / figures["ours"]["seconds_per_pair"]
    extra = {
        "pairs": len(ours.errors),
        "preparation_seconds_per_video": sum(preparations) / len(preparations),
    }
    return {"speedup": speedup, **figures, **extra, "categories": categories}


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    lines = (
        Path("/proc/cpuinfo").read_text().splitlines()
        if Path("/proc/cpuinfo").exists()
        else []
    )
    names = [
        line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
    ]
    return {
        "cpu": names[0] if names else platform.processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "categories",
        type=Path,
        nargs="+",
        help="category folders with reconstructed videos",
    )
    parser.add_argument(
        "--labels", type=Path, help="labels for all of them (default: labels.json in each)"
    )
    parser.add_argument(
        "--pairs",
        type=int,
        default=15,
        help="pairs of each category that are timed (default: 15)",
    )
    parser.add_argument(
        "--align", action="store_true", help="also align all videos of each category"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--json",
        metavar="FILE",
        help="write the figures there; - prints them and nothing else on stdout",
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    try:
        figures = benchmark(
            arguments.categories,
            arguments.labels,
            arguments.pairs,
            arguments.align,
            arguments.seed,
        )
    except InvalidInput as error:
        raise SystemExit(f"error: {error}") from None
    text = json.dumps({"pair_alignment": figures, "machine": machine()}, indent=2)
    print(f"{figures['speedup']:.1f} times faster a pair", file=sys.stderr)
    if arguments.json == "-":
        print(text)
    elif arguments.json:
        Path(arguments.json).write_text(text + "\n")


if __name__ == "__main__":
    main()
