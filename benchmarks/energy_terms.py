"""Terms of the energy of our alignment: the default with other terms, all else alike.

Which of them should the default keep? A term is a weighted mean over the vertices, in diameters:

    geometry   from the transformed vertex to the nearest vertex of the other mesh
    features   the feature distance to that same vertex (our default, with geometry)
    space      from the transformed vertex to its partner by features, which is fixed (published)

`cut` truncates distances in space. `benchmarks/alignment.py --terms` runs all of them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from uns_pose_ros.alignment import category_alignment, pairwise
from uns_pose_ros.alignment.category_alignment import AlignConfig, Pairs, align_videos
from uns_pose_ros.alignment.mesh_batch import MeshBatch
from uns_pose_ros.alignment.pairwise import PairConfig, nearest_vertices
from uns_pose_ros.core.geometry import angle_between, invert, split_similarity
from uns_pose_ros.core.types import FeatureMesh
from uns_pose_ros.evaluation.metrics import accuracies, evaluate_alignment


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
    """Energy (B, H) as `pairwise.energies`, of other terms."""
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


@contextmanager
def energy_of(terms: Terms) -> Iterator[list[Pairs]]:
    """Align with other terms; yields a list that gets the pairs of every alignment."""
    made: list[Pairs] = []

    def align_and_keep(*words: Any, **named: Any) -> Pairs:
        made.append(align_all(*words, **named))
        return made[-1]

    align_all = category_alignment.align_all
    with (
        mock.patch.object(pairwise, "energies", partial(term_energies, terms)),
        mock.patch.object(category_alignment, "align_all", align_and_keep),
    ):
        yield made


def compare_terms(
    meshes: Mapping[str, FeatureMesh],
    labels: Mapping[str, Tensor],
    seeds: Sequence[int],
    config: AlignConfig = AlignConfig(),
) -> dict[str, Any]:
    """Accuracies of every set of terms: of the pairs by themselves, and of the consensus."""
    figures: dict[str, Any] = {}
    for name, terms in TERMS.items():
        start = time.process_time()
        rows = []
        for seed in seeds:
            with energy_of(terms) as made:
                alignment = align_videos(meshes, config, seed, device="cpu")
            errors = pair_errors(meshes, labels, made[0], config)
            rows.append((errors, evaluate_alignment(alignment, labels)))
        every = torch.cat([errors for errors, _ in rows])
        figures[name] = {
            "pairs": accuracies(every) | {"mean_deg": float(every.mean())},
            "consensus": {
                key: sum(figure[key] for _, figure in rows) / len(rows)
                for key in ("acc30", "acc15", "acc10", "median_deg")
            },
            "seconds": time.process_time() - start,
        }
    return figures


def pair_errors(
    meshes: Mapping[str, FeatureMesh],
    labels: Mapping[str, Tensor],
    pairs: Pairs,
    config: AlignConfig,
) -> Tensor:
    """Errors (P,) of the plain pairs' modes of least energy, degrees."""
    order = sorted(meshes, key=lambda name: category_alignment.content_key(meshes[name]))
    shapes = category_alignment.prepare_twins(
        {name: meshes[name] for name in order}, config
    )
    turn = split_similarity(shapes.shape_from_obj[: len(order)])[0]
    errors = []
    for row in (~pairs.mirrored).nonzero()[:, 0].tolist():
        a, b = int(pairs.a[row]), int(pairs.b[row])
        best = pairs.modes.b_from_a[row, int(pairs.modes.energy[row].argmin())]
        rotation = turn[b].T @ split_similarity(best)[0] @ turn[a]
        truth = labels[order[b]].T @ labels[order[a]]
        errors.append(angle_between(rotation, truth))
    return torch.stack(errors)
