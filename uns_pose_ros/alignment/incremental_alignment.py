"""Add videos to a finished alignment.

Each new video is aligned to a few references; the poses of the other videos do not change.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from uns_pose_ros.alignment.category.align_config import AlignConfig
from uns_pose_ros.alignment.category.pair_votes import mode_weights
from uns_pose_ros.alignment.category.video_pairs import prepare_twins
from uns_pose_ros.alignment.half_turns import turn_evidence, turn_matrices
from uns_pose_ros.alignment.mesh_batch import MeshBatch, content_key, principal_axes
from uns_pose_ros.alignment.pairs.pose_modes import closeness
from uns_pose_ros.alignment.pairs.view_likeness import view_likeness
from uns_pose_ros.alignment.pairwise import align_pairs
from uns_pose_ros.alignment.rotation_synchronization import densest_rotation
from uns_pose_ros.alignment.upright_refinement import refine_upright
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

_NEAR = 0.3  # closeness above which a vote may pull a pose toward it


def add_videos(
    alignment: Alignment,
    meshes: Mapping[str, FeatureMesh],
    config: AlignConfig = AlignConfig(),
    seed: int = 0,
    progress: Progress | None = None,
) -> Alignment:
    """Add every video of `meshes` that the alignment lacks.

    Each is aligned to `config.references` kept videos, the most confident ones.

    Args:
        alignment: The finished alignment.
        meshes: Feature meshes by video name: the new videos and the possible references.
        config: Settings.
        seed: Seed of the random hypotheses.
        progress: Receives the number of added videos.

    Raises:
        InvalidInput: No kept video of the alignment has a mesh.
    """
    new = [name for name in meshes if name not in alignment.videos]
    candidates = [
        k
        for k, name in enumerate(alignment.videos)
        if bool(alignment.kept[k]) and name in meshes
    ]
    if not candidates:
        raise InvalidInput(
            f"none of the aligned videos has a mesh; aligned: {', '.join(alignment.videos)}"
        )
    keys = {k: content_key(meshes[alignment.videos[k]]) for k in candidates}
    ranked = sorted(candidates, key=lambda k: (-float(alignment.confidence[k]), keys[k]))
    chosen = ranked[: config.references]
    references = {alignment.videos[k]: meshes[alignment.videos[k]] for k in chosen}
    reference_poses = alignment.canon_from_obj[chosen]
    rows: list[tuple[Tensor, ...]] = []
    for done, name in enumerate(new, 1):
        rows.append(
            _align_to_references(references, reference_poses, meshes[name], config, seed)
        )
        if progress is not None:
            progress("videos", done, len(new))
    if not rows:
        return alignment
    canon_from_obj, confidence, residual = (
        torch.stack(column) for column in zip(*rows, strict=True)
    )
    return Alignment(
        videos=(*alignment.videos, *new),
        canon_from_obj=torch.cat([alignment.canon_from_obj, canon_from_obj]),
        confidence=torch.cat([alignment.confidence, confidence]),
        kept=torch.cat([alignment.kept, confidence >= config.least_confidence]),
        residual=torch.cat([alignment.residual, residual]),
        symmetry=alignment.symmetry,
    )


def _align_to_references(
    references: Mapping[str, FeatureMesh],
    canon_from_obj: Tensor,
    mesh: FeatureMesh,
    config: AlignConfig,
    seed: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Align one mesh to k references.

    Args:
        references: The references by name.
        canon_from_obj: Poses (k, 4, 4) of the references.
        mesh: The mesh to align.
        config: Settings.
        seed: Seed of the random hypotheses.

    Returns:
        canon_from_obj (4, 4), confidence () and residual () in degrees of the mesh.
    """
    count = len(references)
    width = config.consensus.width
    named = {f"reference {name}": m for name, m in references.items()}
    # stays on the CPU: the transfer to the GPU costs more than a few pairs
    shapes = prepare_twins({**named, "new": mesh}, config)
    pairs = torch.stack([torch.full((count,), count), torch.arange(count)], 1)
    modes = align_pairs(shapes, pairs, config.pair, seed)
    canon_from_reference = canon_from_obj @ torch.linalg.inv(shapes.shape_from_obj[:count])
    votes = canon_from_reference[:, None] @ modes.b_from_a
    weight = mode_weights(modes, config)
    rotation = split_similarity(votes)[0]
    start = densest_rotation(rotation.flatten(0, 1)[None], weight.flatten()[None], width)[0]
    pose = _refine_pose(start, votes, weight, config)
    pose, likeness = _best_turn(pose, canon_from_reference, shapes, config)
    near = closeness(rotation, split_similarity(pose)[0], width)[weight > 0]
    if bool((near > _NEAR).any()):
        pose = _refine_pose(split_similarity(pose)[0], votes, weight, config)
    center = split_similarity(pose)[0]
    agreeing = (closeness(rotation, center, width) * weight).amax(1)
    angle = angle_between(rotation, center).masked_fill(weight <= 0, 180)
    residual = angle.amin(1).median()
    confidence = agreeing.sum() / weight.amax(1).sum().clamp_min(1e-12)
    if count > 1:
        usual = _reference_likeness(canon_from_reference, shapes, config)
        confidence = confidence * (likeness / usual.clamp_min(1e-6)).clamp(0, 1)
    poses = refine_upright(
        [*references.values(), mesh],
        shapes,
        torch.cat([canon_from_reference, pose[None]]),
        torch.ones(count + 1, dtype=torch.float64),
        pairs,
        config.upright,
        fixed=count,
    )
    return poses[count] @ shapes.shape_from_obj[count], confidence, residual


def _refine_pose(
    rotation: Tensor, votes: Tensor, weight: Tensor, config: AlignConfig, steps: int = 5
) -> Tensor:
    """Pose (4, 4) from the votes near a rotation: their mean rotation, median shift and scale.

    Args:
        rotation: Rotation (3, 3) to start from.
        votes: Poses (k, K, 4, 4), one for each mode of each reference.
        weight: Weight (k, K) of the votes.
        config: Settings.
        steps: Steps of the mean rotation.
    """
    rotations, translation, scale = split_similarity(votes.flatten(0, 1))
    for _ in range(steps):
        near = closeness(rotations, rotation, config.consensus.width)
        share = near**2 * weight.flatten()
        rotation = nearest_rotation((share[:, None, None] * rotations).sum(0))
    return from_parts(
        rotation,
        weighted_median(translation, share),
        weighted_median(scale[:, None], share)[0],
    )


def weighted_median(values: Tensor, weight: Tensor) -> Tensor:
    """Median (D,) of values (M, D), each of which counts by its weight (M,)."""
    ordered, order = values.sort(0)
    ladder = weight[order].cumsum(0)
    row = (ladder < ladder[-1:] / 2).sum(0, keepdim=True).clamp(max=len(values) - 1)
    return ordered.gather(0, row)[0]


def _best_turn(
    canon_from_shape: Tensor,
    canon_from_reference: Tensor,
    shapes: MeshBatch,
    config: AlignConfig,
) -> tuple[Tensor, Tensor]:
    """Choose the best half turn of the new mesh about the principal axes of the references.

    Every reference counts, and so does its mirrored twin: the twin shows on one side what the
    reference shows on the other.

    Args:
        canon_from_shape: Pose (4, 4) of the new mesh.
        canon_from_reference: Poses (k, 4, 4) of the references.
        shapes: The references, the new mesh, and the mirrored twins.
        config: Settings.

    Returns:
        The pose (4, 4) after the turn, and its likeness () to the references.
    """
    count = len(canon_from_reference)
    references = torch.arange(count)
    points = [
        transform(canon_from_reference[k], shapes.points[k, shapes.valid[k]].double())
        for k in range(count)
    ]
    frame = _principal_frame(torch.cat(points))
    poses = invert(frame) @ turn_matrices() @ frame @ canon_from_shape
    likeness, overlap = _compare(
        poses, count, canon_from_reference, references, shapes, config
    )
    evidence = turn_evidence(likeness, overlap).sum(0)
    if len(shapes) > count + 1:
        twins = _twin_poses(frame, canon_from_reference, shapes, config)
        compared = _compare(poses, count, twins, references + count + 1, shapes, config)
        evidence += turn_evidence(*compared).sum(0)
    best = int(evidence.argmax())
    weighted = (likeness * overlap).sum(0)[best]
    return poses[best], weighted / overlap.sum(0)[best].clamp_min(1e-9)


def _principal_frame(points: Tensor) -> Tensor:
    """Rigid (4, 4) from the frame of points (M, 3) to their principal axes and box center."""
    axes = principal_axes(points - points.mean(0))
    return from_parts(axes.T, -(axes.T @ (points.amin(0) + points.amax(0)) / 2))


def _compare(
    poses: Tensor,
    index: int,
    canon_from_other: Tensor,
    others: Tensor,
    shapes: MeshBatch,
    config: AlignConfig,
) -> tuple[Tensor, Tensor]:
    """Likeness and overlap (k, T) of one mesh with k others under T poses.

    Args:
        poses: Poses (T, 4, 4) of the mesh.
        index: Index of the mesh.
        canon_from_other: Poses (k, 4, 4) of the others.
        others: Indices (k,) of the others.
        shapes: All meshes.
        config: Settings.
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


def _twin_poses(
    frame: Tensor, canon_from_reference: Tensor, shapes: MeshBatch, config: AlignConfig
) -> Tensor:
    """Poses canon_from_twin (k, 4, 4) of the references' mirrored twins.

    The mirror plane is the principal plane under which twins and references are most alike.

    Args:
        frame: Rigid (4, 4) from the canonical frame to the principal axes.
        canon_from_reference: Poses (k, 4, 4) of the references.
        shapes: The references, the new mesh, and the mirrored twins.
        config: Settings.
    """
    count = len(canon_from_reference)
    shape_from_obj = shapes.shape_from_obj[:count]
    flip = torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0], dtype=torch.float64))
    shape_from_twin = (
        shape_from_obj
        @ flip
        @ torch.linalg.inv(shapes.shape_from_obj[count + 1 : 2 * count + 1])
    )
    candidates = []
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
            alike = alike + (likeness * overlap).sum()
            seen = seen + overlap.sum()
        candidates.append((float(alike / seen.clamp_min(1e-9)), twins))
    return max(candidates, key=lambda candidate: candidate[0])[1]


def _reference_likeness(
    canon_from_reference: Tensor, shapes: MeshBatch, config: AlignConfig
) -> Tensor:
    """Mean likeness () of the references to each other, weighted by the overlap."""
    count = len(canon_from_reference)
    alike, seen = torch.zeros(2, dtype=torch.float64)
    for k in range(count - 1):
        later = torch.arange(k + 1, count)
        pose = canon_from_reference[k : k + 1]
        likeness, overlap = _compare(
            pose, k, canon_from_reference[k + 1 :], later, shapes, config
        )
        alike = alike + (likeness * overlap).sum()
        seen = seen + overlap.sum()
    return alike / seen.clamp_min(1e-9)
