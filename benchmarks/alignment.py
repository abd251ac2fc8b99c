#!/usr/bin/env python3
"""The published alignment and ours on the same videos: accuracy, time and memory, on one thread.

    python benchmarks/alignment.py car horse --seeds 3 --json alignment.json
    python benchmarks/alignment.py car horse --seeds 1 --terms --json terms.json

Takes category folders whose videos have been through `uns-pose reconstruct`, with labels.json in
each (or --labels). Every seed takes another video as the reference. Each other video is aligned to
it by the published method (`align --method published`, with and without its 20 steps of Adam) and
by one pair of ours, on the same features.

    pairs        the pairs with the reference, each scored by itself
    category     over all pairs of videos: published through its reference, ours by its consensus

--terms aligns pairs, at most --pairs a category and seed, by our default with other terms of the
energy instead (benchmarks/energy_terms.py); with --consensus all videos of each category too.
Times are seconds of the one thread's own (CPU time), so a busy machine does not change them much.
Seeds and terms that are in the JSON file are not run again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common import machine, peak_megabytes, politely, write
from energy_terms import KEYS, compare_terms, summarize_terms
from uns_pose_ros.alignment.category.align_config import AlignConfig
from uns_pose_ros.alignment.category_alignment import align_videos
from uns_pose_ros.alignment.mesh_batch import build_mesh_batch
from uns_pose_ros.alignment.pairs.pair_config import PairConfig
from uns_pose_ros.alignment.pairwise import align_pairs
from uns_pose_ros.alignment.published_alignment import (
    PublishedConfig,
    align_published,
)
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import angle_between, invert, split_similarity
from uns_pose_ros.core.types import Alignment, FeatureMesh
from uns_pose_ros.evaluation.metrics import accuracies
from uns_pose_ros.evaluation.rotation_labels import evaluate_alignment, load_labels
from uns_pose_ros.io.artifacts import load_feature_mesh

METHODS = {
    "published": PublishedConfig(),
    "published, 20 steps": PublishedConfig(steps=20),
}


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

    def add(self, error: Tensor, start: float) -> None:
        self.seconds.append(time.process_time() - start)
        self.errors.append(float(error))


def compare(
    meshes: dict[str, FeatureMesh], labels: dict[str, Tensor], most: int, seed: int
) -> tuple[Contender, Contender, float]:
    """Both algorithms over at most `most` pairs.

    Returns their errors and times, and the time to prepare one video of ours.
    """
    published, ours = Contender(), Contender()
    names = [name for name in meshes if name in labels]
    every = torch.combinations(torch.arange(len(names)))
    generator = torch.Generator().manual_seed(seed)
    chosen = every[torch.randperm(len(every), generator=generator)[:most].sort().values]
    pair_of, preparation = prepare_ours(meshes, seed)
    for i, j in chosen.tolist():
        a, b = names[i], names[j]
        truth = labels[b].T @ labels[a]
        start = time.process_time()
        ours.add(angle_between(pair_of(a, b), truth), start)
        start = time.process_time()
        pose = align_published(meshes[a], meshes[b], PublishedConfig(), seed)
        published.add(angle_between(split_similarity(pose)[0], truth), start)
    return published, ours, preparation


def prepare_ours(
    meshes: Mapping[str, FeatureMesh], seed: int
) -> tuple[Callable[[str, str], Tensor], float]:
    """Our alignment of a pair by names, b_from_a (3, 3), and the seconds to prepare one video."""
    start = time.process_time()
    shapes = build_mesh_batch(meshes)
    preparation = (time.process_time() - start) / len(meshes)
    turn = split_similarity(shapes.shape_from_obj)[0]
    index = {name: k for k, name in enumerate(meshes)}
    align_pairs(shapes, torch.tensor([[0, 1]]), PairConfig(), seed)  # fills caches

    def rotation(first: str, second: str) -> Tensor:
        a, b = index[first], index[second]
        modes = align_pairs(shapes, torch.tensor([[a, b]]), PairConfig(), seed)
        best = modes.b_from_a[0, int(modes.energy[0].argmin())]
        return turn[b].T @ split_similarity(best)[0] @ turn[a]

    return rotation, preparation


def run_seed(
    meshes: Mapping[str, FeatureMesh], labels: Mapping[str, Tensor], seed: int
) -> dict[str, Any]:
    """All methods of one category with one seed and its reference."""
    names = [name for name in meshes if name in labels]
    reference = names[seed % len(names)]
    contenders = {name: Contender() for name in (*METHODS, "ours")}
    pair_of, preparation = prepare_ours(meshes, seed)
    poses: dict[str, dict[str, Tensor]] = {
        name: {reference: torch.eye(4, dtype=torch.float64)} for name in METHODS
    }
    for name in names:
        if name == reference:
            continue
        truth = labels[name].T @ labels[reference]
        start = time.process_time()
        contenders["ours"].add(angle_between(pair_of(reference, name), truth), start)
        for method, config in METHODS.items():
            start = time.process_time()
            pose = align_published(meshes[reference], meshes[name], config, seed)
            error = angle_between(split_similarity(pose)[0], truth)
            contenders[method].add(error, start)
            poses[method][name] = invert(pose)
        print(
            f"seed {seed}, {reference} to {name}: "
            + ", ".join(f"{k} {c.errors[-1]:.0f}°" for k, c in contenders.items()),
            file=sys.stderr,
        )
    categories = {}
    for method, rows in poses.items():
        ones = torch.ones(len(rows), dtype=torch.float64)
        one_frame = torch.stack(list(rows.values()))
        through = Alignment(tuple(rows), one_frame, ones, ones.bool(), 0 * ones)
        categories[method] = evaluate_alignment(through, labels)
    start = time.process_time()
    together = align_videos(meshes, AlignConfig(), seed, device="cpu")
    seconds = (time.process_time() - start) / len(meshes)
    categories["ours"] = evaluate_alignment(together, labels)
    return {
        "reference": reference,
        "preparation_seconds_per_video": preparation,
        "consensus_seconds_per_video": seconds,
        "methods": {
            name: vars(contender)
            | {"category": {key: categories[name][key] for key in KEYS}}
            | {"peak_megabytes": peak_of_pair(meshes, name)}
            for name, contender in contenders.items()
        },
    }


def summarize(runs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The figures of one category over its seeds."""
    seeds = list(runs.values())
    figures: dict[str, Any] = {"seeds": len(seeds)}
    for key in ("preparation_seconds_per_video", "consensus_seconds_per_video"):
        figures[key] = sum(run[key] for run in seeds) / len(seeds)
    for name in seeds[0]["methods"]:
        rows = [run["methods"][name] for run in seeds]
        every = Contender(
            [error for row in rows for error in row["errors"]],
            [second for row in rows for second in row["seconds"]],
        )
        figures[name] = {
            "pairs": every.figures() | {"count": len(every.errors)},
            "category": {
                key: sum(row["category"][key] for row in rows) / len(rows) for key in KEYS
            },
            "category_acc30_by_seed": [row["category"]["acc30"] for row in rows],
            "peak_megabytes": rows[0]["peak_megabytes"],
        }
    return figures


def peak_of_pair(meshes: Mapping[str, FeatureMesh], method: str) -> float | None:
    """How far the memory rises during one pair, MB."""
    first = dict(list(meshes.items())[:2])
    if method == "ours":
        shapes = build_mesh_batch(first)
        return peak_megabytes(
            lambda: align_pairs(shapes, torch.tensor([[0, 1]]), PairConfig())
        )
    a, b = first.values()
    return peak_megabytes(lambda: align_published(a, b, METHODS[method]))


def load_category(
    folder: Path, labels_file: Path | None
) -> tuple[dict[str, FeatureMesh], dict[str, Tensor]]:
    """Feature meshes and labels of the videos of a category."""
    meshes = {
        path.parent.name: load_feature_mesh(path.parent)
        for path in sorted(folder.glob("*/features.safetensors"))
    }
    if len(meshes) < 2:
        raise InvalidInput(
            f"{folder}: {len(meshes)} videos with features, 2 needed; `uns-pose "
            "reconstruct` makes them"
        )
    return meshes, load_labels(labels_file or folder / "labels.json", tuple(meshes))


def table(figures: Mapping[str, Any]) -> str:
    """One line for each category and method."""
    lines = []
    for category, record in figures["categories"].items():
        for name, part in record.items():
            if not isinstance(part, Mapping):
                continue
            cells = [f"{category} {name}".ljust(34)]
            for kind in ("pairs", "refined", "category", "consensus"):
                if kind in part:
                    row = part[kind]
                    accurate = "/".join(f"{row[key]:.0f}" for key in KEYS[:3])
                    cells.append(f"{kind} {accurate} ({row['median_deg']:.1f}°)".ljust(32))
            if "category" in part:
                cells.append(f"{part['pairs']['seconds_per_pair']:.2f} s")
                cells.append(f"{part['peak_megabytes'] or 0:.0f} MB")
            lines.append("  ".join(cells))
    return "\n".join(lines)


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
        "--seeds", type=int, default=3, help="and references (default: %(default)s)"
    )
    parser.add_argument(
        "--terms", action="store_true", help="compare terms of our energy instead"
    )
    parser.add_argument(
        "--pairs", type=int, default=15, help="of --terms (default: %(default)s)"
    )
    parser.add_argument(
        "--consensus", action="store_true", help="of --terms, over all videos too"
    )
    parser.add_argument(
        "--json", metavar="FILE", help="write the figures there; - for standard output"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    figures = benchmark(arguments)
    print(table(figures), file=sys.stderr if arguments.json == "-" else sys.stdout)


def benchmark(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run all categories that the JSON file lacks."""
    settings = {"terms": arguments.terms}
    figures: dict[str, Any] = {"settings": settings, "runs": {}}
    target = None if arguments.json in (None, "-") else Path(arguments.json)
    if target is not None and target.exists():
        figures = json.loads(target.read_text())
        if figures.get("settings") != settings:
            raise InvalidInput(f"{target}: made with other settings; another file is valid")
    for seed in range(arguments.seeds):
        for folder in arguments.categories:
            runs = figures["runs"].setdefault(folder.name, {})
            work = run_seed
            if arguments.terms:
                work = partial(run_terms, runs.get(str(seed), {}), arguments)
            elif str(seed) in runs:
                continue
            meshes, labels = load_category(folder, arguments.labels)
            print(f"{folder.name}: {len(meshes)} videos, seed {seed}", file=sys.stderr)
            runs[str(seed)] = work(meshes, labels, seed)
            combine = summarize_terms if arguments.terms else summarize
            figures["categories"] = {
                name: combine(some) for name, some in figures["runs"].items() if some
            }
            figures["machine"] = machine()
            write(figures, None if target is None else str(target))
    write(figures, "-" if arguments.json == "-" else None)
    return figures


def run_terms(
    done: Mapping[str, Any],
    arguments: argparse.Namespace,
    meshes: Mapping[str, FeatureMesh],
    labels: Mapping[str, Tensor],
    seed: int,
) -> dict[str, Any]:
    """All terms that a run lacks."""
    return compare_terms(meshes, labels, seed, arguments.pairs, arguments.consensus, done)


if __name__ == "__main__":
    politely(main)
