"""The pairs of videos that are aligned, with each other and with mirrored twins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import normalize

from uns_pose_ros.alignment.category.align_config import AlignConfig
from uns_pose_ros.alignment.mesh_batch import MeshBatch, build_mesh_batch, reflect
from uns_pose_ros.alignment.pairs.pair_config import PairConfig
from uns_pose_ros.alignment.pairwise import PairModes, align_pairs
from uns_pose_ros.alignment.ray_executor import Cluster
from uns_pose_ros.core.types import FeatureMesh, Progress

_CHUNK = 32  # pairs aligned at a time


@dataclass(frozen=True, eq=False)
class Pairs:
    """P pairs of N videos with their modes.

    The second mesh of a mirrored pair is the mirrored twin of video `b`.
    """

    count: int  # N
    a: Tensor  # (P,) int64
    b: Tensor  # (P,) int64
    mirrored: Tensor  # (P,) bool
    modes: PairModes  # of the meshes, b (or its twin) from a
    # (N, 4, 4) float64, reflection from a video's shape frame to its twin's
    twin_from_shape: Tensor


def prepare_twins(meshes: Mapping[str, FeatureMesh], config: AlignConfig) -> MeshBatch:
    """Build the batch of N meshes, and of their N mirrored twins after them.

    The batch has no twins if a mesh lacks the features of the mirrored images.
    """
    twins = {}
    if all(mesh.mirrored is not None for mesh in meshes.values()):
        twins = {f"{name} mirrored": reflect(mesh) for name, mesh in meshes.items()}
    return build_mesh_batch({**meshes, **twins}, config.pair.shapes)


def choose_pairs(shapes: MeshBatch, count: int, config: AlignConfig) -> Tensor:
    """Choose the pairs (P, 2) of `count` videos to align, a < b.

    All pairs of a small set are chosen, else the pairs of every video with the references. The
    references are the videos whose mean features represent all others best (greedy facility
    location).
    """
    if count <= config.all_pairs_up_to:
        return torch.combinations(torch.arange(count), 2)
    mean = normalize(
        (shapes.features[:count] * shapes.share[:count, ..., None]).sum((1, 2)), dim=-1
    ).cpu()
    mean = mean - mean.mean(0)
    likeness = mean @ mean.T
    covered = likeness.new_full((count,), float(likeness.min()))
    chosen = list[int]()
    for _ in range(config.references):
        gain = (likeness - covered[:, None]).clamp_min(0).sum(0)
        gain[chosen] = -1
        chosen.append(int(gain.argmax()))
        covered = torch.maximum(covered, likeness[:, chosen[-1]])
    return torch.tensor(
        sorted({(min(i, j), max(i, j)) for i in range(count) for j in chosen if i != j})
    )


def align_all(
    shapes: MeshBatch,
    count: int,
    config: AlignConfig,
    seed: int,
    progress: Progress | None,
    cluster: Cluster | None = None,
) -> Pairs:
    """Align the chosen pairs of `count` videos, and pairs with mirrored twins.

    If the batch holds twins, the first video of each pair is also aligned with the twin of the
    second, and every video with its own twin.

    Args:
        shapes: The meshes, and the mirrored twins after them.
        count: Number of videos.
        config: Settings.
        seed: Seed of the random hypotheses.
        progress: Receives the number of aligned pairs.
        cluster: Ray cluster that aligns the pairs; None: this process does.
    """
    ab = choose_pairs(shapes, count, config)
    twins = ab[:0]
    if len(shapes) > count:
        twins = torch.cat([ab, torch.arange(count)[:, None].expand(count, 2)])
    wanted = torch.cat([ab, twins + torch.tensor([0, count])])
    chunks = wanted.split(_CHUNK)
    if cluster is not None:
        parts = cluster.map(
            partial(_align_chunk, config.pair, seed),
            shapes,
            chunks,
            progress,
            f"{_CHUNK} pairs",
        )
    else:
        parts = []
        for done, chunk in enumerate(chunks, 1):
            parts.append(align_pairs(shapes, chunk, config.pair, seed))
            if progress is not None:
                progress("pairs", min(done * _CHUNK, len(wanted)), len(wanted))
    modes = PairModes(
        *(
            torch.cat(column)
            for column in zip(*(vars(part).values() for part in parts), strict=True)
        )
    )
    shape_from_obj = shapes.shape_from_obj.cpu()
    flip = torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0], dtype=torch.float64))
    twin_from_shape = (
        shape_from_obj[-count:] @ flip @ torch.linalg.inv(shape_from_obj[:count])
    )
    return Pairs(
        count,
        wanted[:, 0],
        wanted[:, 1] % count,
        wanted[:, 1] >= count,
        modes,
        twin_from_shape,
    )


def _align_chunk(
    config: PairConfig, seed: int, shapes: MeshBatch, pairs: Tensor
) -> PairModes:
    return align_pairs(shapes, pairs, config, seed)
