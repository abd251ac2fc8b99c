#!/usr/bin/env python3
"""What each part of the method is worth, on one category: a JSON file and a figure for each part.

    python benchmarks/ablations.py demo/data/chair --work /tmp/ablations

CATEGORY has images, masks, sparse and labels.json. Every setting is computed once: a run that was
stopped goes on where it was. The sizes are small, so that all of it takes less than 20 minutes on
two cores; they stand in every JSON file. --brief takes sizes for some minutes, whose figures are
rough; --full takes the sizes of the pipeline.

    alpha_tau     published alignment: weight of appearance x length of the cycle weight
    cycle_weight  both alignments with and without the weight
    references    our alignment: videos that every video is aligned to
    videos        training on 3, 5 and 10 videos (or all but the test videos)
    loss          cross-entropy over vertices against regression of coordinates, by the same PnP
    clutter       training with and without features of the background
    surface       meshes: visual hull against alpha shape, where sparse/ has points

Alignments are scored over all pairs of videos, trainings on the last videos, which are not aligned
and not trained on, with the true box.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ablation_category import BRIEF, FULL, OFF, Category, Row, Sizes
from ablation_loss import expected_points, regressed_points, score_by_pnp
from common import DEMO, machine, politely, write
from uns_pose_ros.alignment.category.align_config import AlignConfig
from uns_pose_ros.alignment.category_alignment import align_videos
from uns_pose_ros.alignment.mesh_batch import shape_frame
from uns_pose_ros.alignment.published_alignment import (
    PublishedConfig,
    align_to_reference,
    all_view_distances,
    draw_uniformly,
    find_partners,
    published_energies,
)
from uns_pose_ros.core.crops import mask_box
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import angle_between, invert, split_similarity, transform
from uns_pose_ros.core.types import CategoryModel, FeatureMesh
from uns_pose_ros.estimation.estimator import Estimator
from uns_pose_ros.evaluation.metrics import MISSING, accuracies
from uns_pose_ros.evaluation.rotation_labels import evaluate_alignment, fit_label_from_canon
from uns_pose_ros.io.video_folder import read_frame
from uns_pose_ros.networks.correspondence_head import NetworkConfig
from uns_pose_ros.reconstruction.feature_mesh import Surface

KEYS = ("acc30", "acc15", "acc10")
Setting = tuple[str, Callable[[], Row]]


def alpha_tau(category: Category) -> Iterator[Setting]:
    """The pairs with the first video, by the same hypotheses for all settings."""
    sizes = category.sizes
    table: list[Tensor] = []  # errors (alphas, taus) of each pair

    def compute() -> Tensor:
        if not table:
            first, *others = category.names
            for name in others:
                table.append(_errors_by_setting(category, first, name))
        return torch.stack(table)

    def rated(i: int, j: int) -> Row:
        return accuracies(compute()[:, i, j])

    for i, alpha in enumerate(sizes.alphas):
        for j, tau in enumerate(sizes.taus):
            label = f"alpha {alpha:g}, tau {'off' if tau == OFF else f'{tau:g}'}"
            yield label, partial(rated, i, j)


def _errors_by_setting(category: Category, first: str, second: str) -> Tensor:
    """Errors (A, T) of one pair, degrees, for all alphas and taus."""
    a, b = category.hulls[first], category.hulls[second]
    unit_from_a, unit_from_b = shape_frame(a.vertices), shape_frame(b.vertices)
    points_a = transform(unit_from_a, a.vertices.double()).float()
    points_b = transform(unit_from_b, b.vertices.double()).float()
    distances = all_view_distances(a, b)
    truth = category.labels[second].T @ category.labels[first]
    sizes = category.sizes
    errors = torch.empty(len(sizes.alphas), len(sizes.taus), dtype=torch.float64)
    for j, tau in enumerate(sizes.taus):
        partners = find_partners(distances, points_a, points_b, tau)
        drawn = draw_uniformly(points_a, points_b, partners, sizes.hypotheses, seed=0)
        near, apart = (
            published_energies(drawn, points_a, points_b, partners, alpha)
            for alpha in (0.0, 1.0)
        )
        for i, alpha in enumerate(sizes.alphas):
            best = drawn[((1 - alpha) * near + alpha * apart).argmin()].double()
            pose = invert(unit_from_b) @ best @ unit_from_a
            errors[i, j] = angle_between(split_similarity(pose)[0], truth)
    return errors


def cycle_weight(category: Category) -> Iterator[Setting]:
    sizes = category.sizes
    for label, tau in (("on", PublishedConfig().tau), ("off", OFF)):
        published = replace(sizes.published, tau=tau)
        ours = replace(sizes.align, pair=replace(sizes.align.pair, tau=tau))
        yield f"published, {label}", partial(_published, category, published)
        yield f"ours, {label}", partial(_ours, category, ours)


def references(category: Category) -> Iterator[Setting]:
    yield "published, 1", lambda: _published(category, category.sizes.published)
    for count in category.sizes.references:
        if count < len(category.names):
            config = replace(category.sizes.align, all_pairs_up_to=0, references=count)
            yield f"ours, {count}", partial(_ours, category, config)
    yield "ours, all pairs", lambda: _ours(category, category.sizes.align)


def surface(category: Category) -> Iterator[Setting]:
    def published_on(config: PublishedConfig, kind: Surface) -> Row:
        return _published(category, config, category.meshes(kind))

    def ours_on(config: AlignConfig, kind: Surface) -> Row:
        return _ours(category, config, category.meshes(kind))

    kinds: tuple[Surface, ...] = ("hull", "alpha")
    for kind in kinds:
        published, ours = category.sizes.published, category.sizes.align
        yield (
            f"published, {kind}",
            partial(published_on, published, kind),
        )
        yield (
            f"ours, {kind}",
            partial(ours_on, ours, kind),
        )


def _published(
    category: Category,
    config: PublishedConfig,
    meshes: Mapping[str, FeatureMesh] | None = None,
) -> Row:
    """The published alignment through the first video."""
    meshes = category.hulls if meshes is None else meshes
    alignment = align_to_reference(meshes, category.names[0], config, device="cpu")
    return evaluate_alignment(alignment, category.labels)


def _ours(
    category: Category,
    config: AlignConfig,
    meshes: Mapping[str, FeatureMesh] | None = None,
) -> Row:
    meshes = category.hulls if meshes is None else meshes
    return evaluate_alignment(align_videos(meshes, config, device="cpu"), category.labels)


def videos(category: Category) -> Iterator[Setting]:
    most = len(category.training)
    for count in sorted({min(count, most) for count in category.sizes.videos}):
        names = category.training[:count]

        def score(names: Sequence[str] = names) -> Row:
            if len(names) == most:
                return _pose_row(category, category.all_videos())
            key = f"{len(names)}_videos"
            return _pose_row(category, category.trained(names, category.sizes.train, key))

        yield f"{count} videos", score


def clutter(category: Category) -> Iterator[Setting]:
    config = replace(category.sizes.train, background=0.0, network=NetworkConfig(clutter=1))
    yield "with clutter", lambda: _pose_row(category, category.all_videos())
    yield (
        "without",
        lambda: _pose_row(
            category, category.trained(category.training, config, "without_clutter")
        ),
    )


def _pose_row(category: Category, model: CategoryModel) -> Row:
    """The estimator's accuracy on the held-out images, with the true box."""
    estimator = Estimator(model, device="cpu")
    estimator.config = replace(estimator.config, score_threshold=0.0)
    label_from_canon = fit_label_from_canon(model, category.labels)
    errors = []
    for video, frame in category.tests():
        image, mask, camera = read_frame(frame)
        assert mask is not None
        found = estimator(image, camera, mask_box(mask)[None])
        true = frame.cam_from_obj[:3, :3] @ category.labels[video.name].T @ label_from_canon
        best = max(found, key=lambda estimate: estimate.score, default=None)
        errors.append(
            MISSING
            if best is None
            else float(angle_between(best.cam_from_canon[:3, :3], true))
        )
    return accuracies(torch.tensor(errors, dtype=torch.float64)) | {"images": len(errors)}


def loss(category: Category) -> Iterator[Setting]:
    yield "cross-entropy", lambda: score_by_pnp(category, expected_points)
    yield "regression", lambda: score_by_pnp(category, regressed_points(category))


ABLATIONS: dict[str, Callable[[Category], Iterator[Setting]]] = {
    "alpha_tau": alpha_tau,
    "cycle_weight": cycle_weight,
    "references": references,
    "surface": surface,
    "videos": videos,
    "loss": loss,
    "clutter": clutter,
}


def run_ablation(name: str, category: Category) -> dict[str, Any]:
    """Compute the settings of an ablation that its JSON file lacks, and draw its figure."""
    path = category.work / f"{name}.json"
    sizes = json.loads(json.dumps(asdict(category.sizes)))
    wanted = {"ablation": name, "videos": category.names, "sizes": sizes}
    record: dict[str, Any] = {**wanted, "rows": {}}
    if path.exists():
        record = json.loads(path.read_text())
        if {key: record.get(key) for key in wanted} != wanted:
            raise InvalidInput(
                f"{path}: made of other videos or sizes; another --work is valid"
            )
    for label, compute in ABLATIONS[name](category):
        if label in record["rows"]:
            continue
        start = time.process_time()
        try:
            row = compute()
        except InvalidInput as error:
            row = {"left_out": str(error)}
        record["rows"][label] = row | {"cpu_seconds": time.process_time() - start}
        record["machine"] = machine()
        write(record, str(path))
        print(f"{name}: {line_of(label, row)}", file=sys.stderr)
    draw(record).savefig(path.with_suffix(".png"), dpi=120)
    return record


def line_of(label: str, row: Mapping[str, Any]) -> str:
    if "left_out" in row:
        return f"{label}: left out: {row['left_out']}"
    accurate = "/".join(f"{row[key]:.0f}" for key in KEYS)
    return f"{label}: {accurate} @30/@15/@10, median {row['median_deg']:.1f}°"


def draw(record: Mapping[str, Any]) -> Figure:
    """Bars of the accuracies of all settings."""
    rows = {k: row for k, row in record["rows"].items() if "left_out" not in row}
    figure = Figure(figsize=(5, 0.8 + 0.35 * max(len(rows), 1)), layout="constrained")
    axes = figure.add_subplot(xlabel="percent", title=record["ablation"], xlim=(0, 100))
    for k, key in enumerate(KEYS):
        places = [i + 0.27 * (k - 1) for i in range(len(rows))]
        axes.barh(places, [row[key] for row in rows.values()], 0.25, label=f"@{key[3:]}°")
    axes.set_yticks(range(len(rows)), list(rows))
    axes.invert_yaxis()
    axes.legend(frameon=False, fontsize="small")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("category", type=Path, nargs="?", default=DEMO)
    parser.add_argument("--work", type=Path, required=True, help="folder for all files")
    parser.add_argument("--only", help="names of ablations, comma separated")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--full", action="store_true", help="sizes of the pipeline")
    chosen.add_argument("--brief", action="store_true", help="sizes for some minutes")
    args = parser.parse_args()
    names = args.only.split(",") if args.only else list(ABLATIONS)
    if unknown := [name for name in names if name not in ABLATIONS]:
        raise InvalidInput(f"--only {', '.join(unknown)}: {', '.join(ABLATIONS)} are valid")
    args.work.mkdir(parents=True, exist_ok=True)
    sizes = FULL if args.full else BRIEF if args.brief else Sizes()
    category = Category(args.category, args.work, sizes)
    for name in names:
        for label, row in run_ablation(name, category)["rows"].items():
            print(f"{name:14} {line_of(label, row)}")


if __name__ == "__main__":
    politely(main)
