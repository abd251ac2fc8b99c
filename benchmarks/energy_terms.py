"""Terms of the energy of our alignment: the default with other terms, all else alike.

Which of them should the default keep? A term is a weighted mean over the vertices, in diameters:

    geometry   from the transformed vertex to the nearest vertex of the other mesh
    features   the feature distance to that same vertex (our default, with geometry)
    space      from the transformed vertex to its partner by features, which is fixed (published)

`cut` truncates distances in space. Each pose of least energy is also refined by the published steps
of Adam ("refined"). `benchmarks/alignment.py --terms` runs all of them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from uns_pose_ros.alignment import pairwise
from uns_pose_ros.alignment.category.align_config import AlignConfig
from uns_pose_ros.alignment.category_alignment import align_videos
from uns_pose_ros.alignment.mesh_batch import MeshBatch, build_mesh_batch, nearest_vertices
from uns_pose_ros.alignment.pairs import correspondences
from uns_pose_ros.alignment.pairs.pair_config import PairConfig
from uns_pose_ros.alignment.published_alignment import (
    PublishedConfig,
    descend_on_se3,
    find_partners,
)
from uns_pose_ros.core.geometry import angle_between, invert, split_similarity
from uns_pose_ros.core.types import FeatureMesh
from uns_pose_ros.evaluation.metrics import accuracies
from uns_pose_ros.evaluation.rotation_labels import evaluate_alignment

KEYS = ("acc30", "acc15", "acc10", "median_deg")


@dataclass(frozen=True)
class Terms:
    """Terms of the energy; geometry weighs 1 - alpha, each other one its factor times alpha."""

    features: float = 0.0
    space: float = 0.0
    cut: float = float("inf")  # diameters


TERMS = {
    "features": Terms(features=1.0),  # the default
    "space": Terms(space=1.0),
    "both": Terms(features=1.0, space=1.0),
    "geometry alone": Terms(),
    "features, truncated": Terms(features=1.0, cut=0.1),
    "space, truncated": Terms(space=1.0, cut=0.1),
    "both, truncated": Terms(features=1.0, space=1.0, cut=0.1),
}


def term_energies(
    terms: Terms,
    b_from_a: Tensor,
    a: MeshBatch,
    b: MeshBatch,
    distances: Tensor,
    weights: Sequence[Tensor],
    config: PairConfig,
    vertices: int | None = None,
) -> Tensor:
    """Energy (B, H) as `hypothesis_energy.energies`, of other terms."""
    ways = (
        (b_from_a, a.points, b, distances, weights[0]),
        (invert(b_from_a), b.points, a, distances.mT, weights[1]),
    )
    return sum(
        (_one_way(terms, *way, config.alpha, vertices) for way in ways),
        torch.zeros(()),
    ) / len(ways)


def _one_way(
    terms: Terms,
    b_from_a: Tensor,
    points: Tensor,
    b: MeshBatch,
    distances: Tensor,
    weight: Tensor,
    alpha: float,
    vertices: int | None,
) -> Tensor:
    count = points.shape[1]
    chosen = torch.arange(count)
    if vertices is not None and vertices < count:
        chosen = torch.linspace(0, count - 1, vertices).round().long()
    points, weight, distances = (t[:, chosen] for t in (points, weight, distances))
    weight = weight / weight.sum(1, keepdim=True).clamp_min(1e-9)
    partner = torch.take_along_dim(b.points, distances.argmin(2)[..., None], 1)
    costs = []
    for part in b_from_a.split(max(1, 2**19 // len(chosen)), 1):
        moved = part[..., :3, :3] @ points.mT[:, None] + part[..., :3, 3:]  # (B, h, 3, n)
        nearest = nearest_vertices(moved, b)  # (B, h, n)
        rows = nearest.flatten(1)[..., None]
        near = torch.take_along_dim(b.points, rows, 1).view(*nearest.shape, 3)
        cost = (1 - alpha) * (moved.mT - near).norm(dim=3).clamp(max=terms.cut)
        if terms.features:
            unlike = torch.take_along_dim(distances[:, None], nearest[..., None], 3)
            cost = cost + alpha * terms.features * unlike[..., 0]
        if terms.space:
            apart = (moved.mT - partner[:, None]).norm(dim=3).clamp(max=terms.cut)
            cost = cost + alpha * terms.space * apart
        costs.append((cost @ weight[..., None])[..., 0])
    return torch.cat(costs, 1)


def compare_terms(
    meshes: Mapping[str, FeatureMesh],
    labels: Mapping[str, Tensor],
    seed: int,
    most: int,
    consensus: bool,
    done: Mapping[str, Any] = {},
    config: AlignConfig = AlignConfig(),
) -> dict[str, Any]:
    """Errors of every set of terms.

    Args:
        meshes: Feature mesh of each video.
        labels: Label of each video.
        seed: Seed of the pairs and hypotheses.
        most: Number of pairs that are aligned by themselves, at most.
        consensus: Whether all videos are aligned too.
        done: What was computed before, by terms.
        config: Settings of the alignment.
    """
    names = [name for name in meshes if name in labels]
    every = torch.combinations(torch.arange(len(names)))
    generator = torch.Generator().manual_seed(seed)
    chosen = every[torch.randperm(len(every), generator=generator)[:most].sort().values]
    shapes = build_mesh_batch(meshes, config.pair.shapes)
    turn = split_similarity(shapes.shape_from_obj)[0]
    place = torch.tensor([list(meshes).index(name) for name in names])
    pairs = place[chosen]
    figures = {name: dict(row) for name, row in done.items()}
    for name, terms in TERMS.items():
        row = figures.setdefault(name, {})
        with mock.patch.object(pairwise, "energies", partial(term_energies, terms)):
            if "errors" not in row:
                start = time.process_time()
                modes = pairwise.align_pairs(shapes, pairs, config.pair, seed)
                row["seconds_per_pair"] = (time.process_time() - start) / len(pairs)
                best = modes.energy.argmin(1)[:, None, None, None]
                poses = torch.take_along_dim(modes.b_from_a, best, 1)[:, 0]
                label = torch.stack([labels[name] for name in names])
                truth = label[chosen[:, 1]].mT @ label[chosen[:, 0]]
                for key, some in (
                    ("errors", poses),
                    ("refined_errors", refine(poses, shapes, pairs)),
                ):
                    rotation = split_similarity(some)[0]
                    rotation = turn[pairs[:, 1]].mT @ rotation @ turn[pairs[:, 0]]
                    row[key] = angle_between(rotation, truth).tolist()
            if consensus and "consensus" not in row:
                together = align_videos(meshes, config, seed, device="cpu")
                found = evaluate_alignment(together, labels)
                row["consensus"] = {key: found[key] for key in KEYS}
    return figures


def refine(poses: Tensor, shapes: MeshBatch, pairs: Tensor) -> Tensor:
    """Poses b_from_a (P, 4, 4) after the published steps of Adam, whose energy is in space."""
    config = PublishedConfig(steps=20)
    refined = []
    for pose, pair in zip(poses, pairs, strict=True):
        a, b = shapes.take(pair[:1]), shapes.take(pair[1:])
        seen_a, seen_b = a.valid[0], b.valid[0]
        distances = correspondences.feature_distances(a, b)[0][seen_a][:, seen_b]
        points = (a.points[0, seen_a], b.points[0, seen_b])
        partners = find_partners(distances, points[0], points[1], config.tau)
        refined.append(
            descend_on_se3(pose.float(), points[0], points[1], partners, config).double()
        )
    return torch.stack(refined)


def summarize_terms(runs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Accuracies of every set of terms over the seeds of one category."""
    figures = {}
    for name in next(iter(runs.values())):
        rows = [run[name] for run in runs.values() if name in run]
        errors = torch.tensor([e for row in rows for e in row["errors"]]).double()
        refined = torch.tensor([e for row in rows for e in row["refined_errors"]]).double()
        figures[name] = {
            "pairs": accuracies(errors)
            | {"mean_deg": float(errors.mean()), "count": len(errors)},
            "refined": accuracies(refined) | {"mean_deg": float(refined.mean())},
        }
        together = [row["consensus"] for row in rows if "consensus" in row]
        if together:
            figures[name]["consensus"] = {
                key: sum(row[key] for row in together) / len(together) for key in KEYS
            }
    return figures
