"""Videos added to a finished alignment.

Each costs a few pairs with references, and nothing that was decided changes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from uns_pose_ros.alignment.category_alignment import (
    AlignConfig,
    mode_weights,
    prepare_twins,
)
from uns_pose_ros.alignment.half_turns import turn_matrices
from uns_pose_ros.alignment.mesh_batch import MeshBatch, content_key
from uns_pose_ros.alignment.pairwise import align_pairs, closeness, view_likeness
from uns_pose_ros.alignment.rotation_synchronization import densest_rotation
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import (
    angle_between,
    from_parts,
    invert,
    nearest_rotation,
    split_similarity,
    transform,
)
from uns_pose_ros.core.types import Alignment, FeatureMesh, Progress

_NEAR = 0.3  # closeness from which a vote may pull a pose towards it


def add_videos(
    alignment: Alignment,
    meshes: Mapping[str, FeatureMesh],
    config: AlignConfig = AlignConfig(),
    seed: int = 0,
    progress: Progress | None = None,
) -> Alignment:
    """The alignment with every video of `meshes` that it lacks, each aligned to
    `config.references` videos it holds.

    `meshes` must hold the most confident kept videos too: those are the references. Raises
    InvalidInput where there are none.
    """
    new = [name for name in meshes if name not in alignment.videos]
    known = [
        k
        for k, name in enumerate(alignment.videos)
        if bool(alignment.kept[k]) and name in meshes
    ]
    if not known:
        raise InvalidInput(
            f"none of the aligned videos has a mesh; aligned: {', '.join(alignment.videos)}"
        )
    keys = {k: content_key(meshes[alignment.videos[k]]) for k in known}
    chosen = sorted(known, key=lambda k: (-float(alignment.confidence[k]), keys[k]))[
        : config.references
    ]
    references = {alignment.videos[k]: meshes[alignment.videos[k]] for k in chosen}
    columns: list[tuple[Tensor, ...]] = []
    for done, name in enumerate(new, 1):
        columns.append(
            _place(references, alignment.canon_from_obj[chosen], meshes[name], config, seed)
        )
        if progress is not None:
            progress("videos", done, len(new))
    if not columns:
        return alignment
    canon_from_obj, confidence, residual = (
        torch.stack(column) for column in zip(*columns, strict=True)
    )
    return Alignment(
        videos=(*alignment.videos, *new),
        canon_from_obj=torch.cat([alignment.canon_from_obj, canon_from_obj]),
        confidence=torch.cat([alignment.confidence, confidence]),
        kept=torch.cat([alignment.kept, confidence >= config.least_confidence]),
        residual=torch.cat([alignment.residual, residual]),
        symmetry=alignment.symmetry,
    )


def _place(
    references: Mapping[str, FeatureMesh],
    canon_from_obj: Tensor,
    mesh: FeatureMesh,
    config: AlignConfig,
    seed: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """canon_from_obj (4, 4), confidence () and residual () of one mesh by k references with
    canon_from_obj (k, 4, 4).
    """
    count = len(references)
    everything = {**{f"reference {name}": m for name, m in references.items()}, "new": mesh}
    shapes = prepare_twins(
        everything, config
    )  # stays on the CPU: a few pairs are not worth the way to the GPU
    pairs = torch.stack([torch.full((count,), count), torch.arange(count)], 1)
    modes = align_pairs(shapes, pairs, config.pair, seed)
    canon_from_reference = canon_from_obj @ torch.linalg.inv(shapes.shape_from_obj[:count])
    votes = canon_from_reference[:, None] @ modes.b_from_a
    weight = mode_weights(modes, config)
    rotation = split_similarity(votes)[0]
    start = densest_rotation(
        rotation.flatten(0, 1)[None], weight.flatten()[None], config.consensus.width
    )[0]
    best, likeness = _best_turn(
        _settled(start, votes, weight, config), canon_from_reference, shapes, config
    )
    canon_from_shape = best
    if bool(
        (
            closeness(rotation, split_similarity(best)[0], config.consensus.width)[
                weight > 0
            ]
            > _NEAR
        ).any()
    ):
        canon_from_shape = _settled(split_similarity(best)[0], votes, weight, config)
    centre = split_similarity(canon_from_shape)[0]
    agreeing = (closeness(rotation, centre, config.consensus.width) * weight).amax(1)
    residual = (
        angle_between(rotation, centre).masked_fill(weight <= 0, 180).amin(1).median()
    )
    fit = (
        (likeness / _usual(canon_from_reference, shapes, config).clamp_min(1e-6)).clamp(
            0, 1
        )
        if count > 1
        else 1.0
    )
    confidence = agreeing.sum() / weight.amax(1).sum().clamp_min(1e-12) * fit
    return canon_from_shape @ shapes.shape_from_obj[count], confidence, residual


def _settled(
    rotation: Tensor, votes: Tensor, weight: Tensor, config: AlignConfig, steps: int = 5
) -> Tensor:
    """The pose (4, 4) of the votes (k, K, 4, 4) near a rotation (3, 3).

    Their mean rotation, median translation and scale.
    """
    said, translation, scale = split_similarity(votes.flatten(0, 1))
    for _ in range(steps):
        share = closeness(said, rotation, config.consensus.width) ** 2 * weight.flatten()
        rotation = nearest_rotation((share[:, None, None] * said).sum(0))
    return from_parts(
        rotation,
        weighted_median(translation, share),
        weighted_median(scale[:, None], share)[0],
    )


def weighted_median(values: Tensor, weight: Tensor) -> Tensor:
    """Median (D,) of values (M, D), each of which counts by its weight (M,)."""
    ordered, order = values.sort(0)
    ladder = weight[order].cumsum(0)
    place = (ladder < ladder[-1:] / 2).sum(0, keepdim=True).clamp(max=len(values) - 1)
    return ordered.gather(0, place)[0]


def _best_turn(
    canon_from_shape: Tensor,
    canon_from_reference: Tensor,
    shapes: MeshBatch,
    config: AlignConfig,
) -> tuple[Tensor, Tensor]:
    """The pose (4, 4) of the new shape, or half a turn about a principal axis of the references
    away, and its likeness ().

    Every reference has a say, and so has its mirrored twin: it carries what the reference saw on
    one side to the other.
    """
    count = len(canon_from_reference)
    points = [
        transform(canon_from_reference[k], shapes.points[k, shapes.valid[k]].double())
        for k in range(count)
    ]
    frame = _principal_frame(torch.cat(points))
    poses = invert(frame) @ turn_matrices() @ frame @ canon_from_shape
    likeness, overlap = _compare(
        poses, count, canon_from_reference, torch.arange(count), shapes, config
    )
    evidence = _evidence(likeness, overlap)
    if len(shapes) > count + 1:
        twins = _twin_poses(frame, canon_from_reference, shapes, config)
        evidence += _evidence(
            *_compare(poses, count, twins, torch.arange(count) + count + 1, shapes, config)
        )
    best = int(evidence.argmax())
    return poses[best], (likeness * overlap).sum(0)[best] / overlap.sum(0)[best].clamp_min(
        1e-9
    )


def _principal_frame(points: Tensor) -> Tensor:
    """Rigid (4, 4) from the frame of points (M, 3) to their principal axes and the middle of their
    box.
    """
    centred = points - points.mean(0)
    axes = torch.linalg.eigh(centred.T @ centred).eigenvectors.flip(1)
    axes = axes * torch.sign(torch.linalg.det(axes))
    return from_parts(axes.T, -(axes.T @ (points.amin(0) + points.amax(0)) / 2))


def _compare(
    poses: Tensor,
    index: int,
    canon_from_other: Tensor,
    others: Tensor,
    shapes: MeshBatch,
    config: AlignConfig,
) -> tuple[Tensor, Tensor]:
    """Likeness and overlap (k, T) of one shape under poses (T, 4, 4) with others (k,) under
    canon_from_other (k, 4, 4).
    """
    rows = []
    for canon_from_b, other in zip(canon_from_other, others, strict=True):
        b_from_a = (torch.linalg.inv(canon_from_b) @ poses)[None]
        first, second = shapes.take(torch.tensor([index])), shapes.take(other[None])
        rows.append(
            torch.cat(view_likeness(b_from_a, first, second, config.pair.view_width))
        )
    likeness, overlap = torch.stack(rows, 1)
    return likeness, overlap


def _evidence(likeness: Tensor, overlap: Tensor) -> Tensor:
    """How much (T,) speaks for each of T turns over all pairs (k, T).

    Likeness above what is usual for the pair, where seen.
    """
    rival = likeness.topk(2).indices
    usual = (likeness * overlap).gather(1, rival).sum(1) / overlap.gather(1, rival).sum(
        1
    ).clamp_min(1e-9)
    return (overlap * (likeness - usual[:, None])).sum(0)


def _twin_poses(
    frame: Tensor, canon_from_reference: Tensor, shapes: MeshBatch, config: AlignConfig
) -> Tensor:
    """canon_from_twin (k, 4, 4) of the references' mirrored twins, across the principal plane that
    makes them most alike.
    """
    count = len(canon_from_reference)
    shape_from_obj = shapes.shape_from_obj[:count]
    flip = torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0], dtype=torch.float64))
    shape_from_twin = (
        shape_from_obj
        @ flip
        @ torch.linalg.inv(shapes.shape_from_obj[count + 1 : 2 * count + 1])
    )
    ways = []
    for plane in range(3):
        reflection = torch.eye(4, dtype=torch.float64)
        reflection[plane, plane] = -1
        twins = (
            torch.linalg.inv(frame)
            @ reflection
            @ frame
            @ canon_from_reference
            @ shape_from_twin
        )
        alike, seen = torch.zeros(2, dtype=torch.float64)
        for k in range(count):
            pose = canon_from_reference[k : k + 1]
            likeness, overlap = _compare(
                pose, k, twins, torch.arange(count) + count + 1, shapes, config
            )
            alike, seen = alike + (likeness * overlap).sum(), seen + overlap.sum()
        ways.append((float(alike / seen.clamp_min(1e-9)), twins))
    return max(ways, key=lambda way: way[0])[1]


def _usual(canon_from_reference: Tensor, shapes: MeshBatch, config: AlignConfig) -> Tensor:
    """How alike () the references are to each other."""
    count = len(canon_from_reference)
    alike, seen = torch.zeros(2, dtype=torch.float64)
    for k in range(count - 1):
        later = torch.arange(k + 1, count)
        pose = canon_from_reference[k : k + 1]
        likeness, overlap = _compare(
            pose, k, canon_from_reference[k + 1 :], later, shapes, config
        )
        alike, seen = alike + (likeness * overlap).sum(), seen + overlap.sum()
    return alike / seen.clamp_min(1e-9)
