"""Bring the videos of a category to one canonical frame, with a confidence for each.

The order of computation is made from the videos' contents and the frames from their meshes, so
names, order and obj frames of the videos do not change the result.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from uns_pose_ros.alignment.category.align_config import AlignConfig
from uns_pose_ros.alignment.category.pair_votes import edges_of, residuals, similarities
from uns_pose_ros.alignment.category.turn_correction import correct_turns
from uns_pose_ros.alignment.category.video_pairs import align_all, prepare_twins
from uns_pose_ros.alignment.mesh_batch import MeshBatch, content_key, principal_axes
from uns_pose_ros.alignment.ray_executor import Cluster
from uns_pose_ros.alignment.rotation_synchronization import synchronize
from uns_pose_ros.alignment.symmetry import find_symmetry
from uns_pose_ros.alignment.upright_refinement import refine_upright
from uns_pose_ros.core.device import choose_device
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import from_parts, transform
from uns_pose_ros.core.types import Alignment, FeatureMesh, Progress


def align_videos(
    meshes: Mapping[str, FeatureMesh],
    config: AlignConfig = AlignConfig(),
    seed: int = 0,
    progress: Progress | None = None,
    device: str = "auto",
    cluster: Cluster | None = None,
) -> Alignment:
    """Bring all videos of a category to one canonical frame.

    The frame has diameter 1, its origin in the middle, and y across the mirror plane.

    Args:
        meshes: Feature mesh of each video, by name.
        config: Settings.
        seed: Seed of the random hypotheses.
        progress: Receives the number of aligned pairs.
        device: Device for the pairs; ignored with a cluster.
        cluster: Ray cluster that aligns the pairs; None: this process does.

    Raises:
        InvalidInput: Fewer than two videos are given.
    """
    if len(meshes) < 2:
        raise InvalidInput(
            f"{len(meshes)} video given, at least 2 are needed to align a category"
        )
    order = sorted(meshes, key=lambda name: content_key(meshes[name]))
    chosen = choose_device("cpu" if cluster else device)
    shapes = prepare_twins({name: meshes[name] for name in order}, config).to(chosen)
    pairs = align_all(shapes, len(order), config, seed, progress, cluster)
    consensus = synchronize(edges_of(pairs, config), config.consensus)
    canon_from_shape = similarities(consensus, pairs)
    consensus, confidence = correct_turns(canon_from_shape, shapes, pairs, config)
    canon_from_shape = refine_upright(
        [meshes[name] for name in order],
        shapes,
        similarities(consensus, pairs),
        confidence,
        torch.stack([pairs.a, pairs.b], 1)[~pairs.mirrored],
        config.upright,
    )
    new_from_canon = normalizing_similarity(canon_from_shape, shapes, confidence)
    canon_from_shape = new_from_canon @ canon_from_shape
    symmetry = find_symmetry(
        shapes, canon_from_shape, config.pair.view_width, config.symmetry
    )
    row = torch.tensor([order.index(name) for name in meshes])
    return Alignment(
        videos=tuple(meshes),
        canon_from_obj=(canon_from_shape @ shapes.shape_from_obj[: len(order)])[row],
        confidence=confidence[row],
        kept=confidence[row] >= min(config.least_confidence, float(confidence.max())),
        residual=residuals(consensus, pairs)[row],
        symmetry=symmetry,
    )


def normalizing_similarity(
    canon_from_shape: Tensor, shapes: MeshBatch, confidence: Tensor
) -> Tensor:
    """Similarity (4, 4) that brings the aligned meshes to origin, principal axes and diameter 1.

    Args:
        canon_from_shape: Poses (N, 4, 4) of the aligned meshes.
        shapes: The meshes.
        confidence: Confidence (N,) of each mesh, its weight.
    """
    count = len(canon_from_shape)
    points = transform(canon_from_shape, shapes.points[:count].cpu().double())
    valid = shapes.valid[:count].cpu()
    weight = (valid * confidence[:, None]).flatten()
    weight = weight / weight.sum()
    mean = weight @ points.flatten(0, 1)
    axes = principal_axes(points.flatten(0, 1) - mean, weight)
    turned = (points - mean) @ axes
    low = turned.masked_fill(~valid[..., None], torch.inf).amin(1).median(0).values
    high = turned.masked_fill(~valid[..., None], -torch.inf).amax(1).median(0).values
    scale = 1 / (high - low).norm()
    translation = scale * (-(axes.T @ mean) - (low + high) / 2)
    return from_parts(axes.T, translation, scale)
