"""Videos added to a finished alignment: each costs a few pairs with references, and nothing that was decided changes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from uns_pose_ros.alignment import align_pairs, closeness, view_likeness
from uns_pose_ros.consensus import densest
from uns_pose_ros.datatypes import Alignment, FeatureMesh, InvalidInput, Progress
from uns_pose_ros.geometry import angle_between, from_parts, invert, split_similarity, transform
from uns_pose_ros.shapes import Shapes, content_key, prepare
from uns_pose_ros.synchronization import AlignConfig, mode_weights
from uns_pose_ros.turns import turn_matrices


def extend(
    alignment: Alignment,
    meshes: Mapping[str, FeatureMesh],
    config: AlignConfig = AlignConfig(),
    seed: int = 0,
    progress: Progress | None = None,
) -> Alignment:
    """The alignment with every video of `meshes` that it lacks, each aligned to `config.references` videos it holds.

    `meshes` must hold the most confident kept videos too: those are the references. Raises InvalidInput where there are none.
    """
    new = [name for name in meshes if name not in alignment.videos]
    known = [k for k, name in enumerate(alignment.videos) if bool(alignment.kept[k]) and name in meshes]
    if not known:
        raise InvalidInput(f"none of the aligned videos has a mesh; aligned: {', '.join(alignment.videos)}")
    keys = {k: content_key(meshes[alignment.videos[k]]) for k in known}
    chosen = sorted(known, key=lambda k: (-float(alignment.confidence[k]), keys[k]))[: config.references]
    references = {alignment.videos[k]: meshes[alignment.videos[k]] for k in chosen}
    columns: list[tuple[Tensor, ...]] = []
    for done, name in enumerate(new, 1):
        columns.append(_place(references, alignment.canon_from_obj[chosen], meshes[name], config, seed))
        if progress is not None:
            progress("videos", done, len(new))
    if not columns:
        return alignment
    canon_from_obj, confidence, residual = (torch.stack(column) for column in zip(*columns, strict=True))
    return Alignment(
        videos=(*alignment.videos, *new),
        canon_from_obj=torch.cat([alignment.canon_from_obj, canon_from_obj]),
        confidence=torch.cat([alignment.confidence, confidence]),
        kept=torch.cat([alignment.kept, confidence >= config.least_confidence]),
        residual=torch.cat([alignment.residual, residual]),
        symmetry=alignment.symmetry,
    )


def _place(
    references: Mapping[str, FeatureMesh], canon_from_obj: Tensor, mesh: FeatureMesh, config: AlignConfig, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """canon_from_obj (4, 4), confidence () and residual () of one mesh by k references with canon_from_obj (k, 4, 4)."""
    count = len(references)
    shapes = prepare({**{f"reference {name}": m for name, m in references.items()}, "new": mesh}, config.pair.shapes)
    pairs = torch.stack([torch.full((count,), count), torch.arange(count)], 1)
    modes = align_pairs(shapes, pairs, config.pair, seed)
    canon_from_reference = canon_from_obj @ torch.linalg.inv(shapes.shape_from_obj[:count])
    votes = canon_from_reference[:, None] @ modes.b_from_a
    weight = mode_weights(modes, config)
    rotation, translation, scale = split_similarity(votes)
    centre = densest(rotation.flatten(0, 1)[None], weight.flatten()[None], config.consensus.width)[0]
    near = closeness(rotation, centre, config.consensus.width) * weight
    share = (near / near.sum()).flatten()
    start = from_parts(
        centre, weighted_median(translation.flatten(0, 1), share), weighted_median(scale.flatten()[:, None], share)[0]
    )
    canon_from_shape, likeness = _best_turn(start, canon_from_reference, shapes, config)
    centre = split_similarity(canon_from_shape)[0]
    agreeing = (closeness(rotation, centre, config.consensus.width) * weight).amax(1)
    residual = angle_between(rotation, centre).masked_fill(weight <= 0, 180).amin(1).median()
    fit = (likeness / _usual(canon_from_reference, shapes, config).clamp_min(1e-6)).clamp(0, 1) if count > 1 else 1.0
    confidence = agreeing.sum() / weight.amax(1).sum().clamp_min(1e-12) * fit
    return canon_from_shape @ shapes.shape_from_obj[count], confidence, residual


def weighted_median(values: Tensor, weight: Tensor) -> Tensor:
    """Median (D,) of values (M, D), each of which counts by its weight (M,)."""
    ordered, order = values.sort(0)
    ladder = weight[order].cumsum(0)
    place = (ladder < ladder[-1:] / 2).sum(0, keepdim=True).clamp(max=len(values) - 1)
    return ordered.gather(0, place)[0]


def _best_turn(
    canon_from_shape: Tensor, canon_from_reference: Tensor, shapes: Shapes, config: AlignConfig
) -> tuple[Tensor, Tensor]:
    """The pose (4, 4) of the last shape, or half a turn about a principal axis of the references away, and its likeness ()."""
    count = len(canon_from_reference)
    points = [transform(canon_from_reference[k], shapes.points[k, shapes.valid[k]].double()) for k in range(count)]
    cloud = torch.cat(points)
    axes = torch.linalg.eigh((cloud - cloud.mean(0)).T @ (cloud - cloud.mean(0))).eigenvectors.flip(1)
    middle = (cloud.amin(0) + cloud.amax(0)) / 2
    axes = axes * torch.sign(torch.linalg.det(axes))
    frame = from_parts(axes.T, -(axes.T @ middle))
    poses = invert(frame) @ turn_matrices() @ frame @ canon_from_shape
    total, likenesses, overlaps = torch.zeros(3, 4, dtype=torch.float64)
    for k in range(count):
        reference_from_shape = (invert(canon_from_reference[k]) @ poses)[None]
        likeness, overlap = view_likeness(
            reference_from_shape,
            shapes.take(torch.tensor([count])),
            shapes.take(torch.tensor([k])),
            config.pair.view_width,
        )
        best = likeness[0].topk(2).indices
        usual = (likeness[0] * overlap[0])[best].sum() / overlap[0][best].sum().clamp_min(1e-9)
        total += overlap[0] * (likeness[0] - usual)
        likenesses += overlap[0] * likeness[0]
        overlaps += overlap[0]
    best_turn = int(total.argmax())
    return poses[best_turn], (likenesses / overlaps.clamp_min(1e-9))[best_turn]


def _usual(canon_from_reference: Tensor, shapes: Shapes, config: AlignConfig) -> Tensor:
    """How alike () the references are to each other."""
    total, weight = torch.zeros(2, dtype=torch.float64)
    for pair in torch.combinations(torch.arange(len(canon_from_reference))):
        a, b = pair.tolist()
        b_from_a = (invert(canon_from_reference[b]) @ canon_from_reference[a])[None, None]
        likeness, overlap = view_likeness(b_from_a, shapes.take(pair[:1]), shapes.take(pair[1:]), config.pair.view_width)
        total, weight = total + likeness[0, 0] * overlap[0, 0], weight + overlap[0, 0]
    return total / weight.clamp_min(1e-9)
