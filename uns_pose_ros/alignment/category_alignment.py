"""Bring the videos of a category to one canonical frame, with a confidence for each.

The order of computation is made from the videos' contents and the frames from their meshes, so
names, order and obj frames of the videos do not change the result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import normalize

from uns_pose_ros.alignment.half_turns import (
    relative_turn,
    resolve_half_turns,
    swap_mirror_axis,
    turn_evidence,
    turn_matrices,
)
from uns_pose_ros.alignment.mesh_batch import (
    MeshBatch,
    build_mesh_batch,
    content_key,
    principal_axes,
    reflect,
)
from uns_pose_ros.alignment.pairs.pair_config import PairConfig
from uns_pose_ros.alignment.pairs.view_likeness import view_likeness
from uns_pose_ros.alignment.pairwise import PairModes, align_pairs
from uns_pose_ros.alignment.ray_executor import Cluster
from uns_pose_ros.alignment.rotation_synchronization import (
    Consensus,
    ConsensusConfig,
    Edges,
    agreement_shares,
    settle,
    synchronize,
)
from uns_pose_ros.alignment.symmetry import SymmetryConfig, find_symmetry
from uns_pose_ros.alignment.upright_refinement import UprightConfig, refine_upright
from uns_pose_ros.core.device import choose_device
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import (
    angle_between,
    from_parts,
    invert,
    split_similarity,
    transform,
)
from uns_pose_ros.core.types import Alignment, FeatureMesh, Progress

_CHUNK = 32  # pairs aligned at a time


@dataclass(frozen=True)
class AlignConfig:
    """How the videos of a category are brought to one canonical frame."""

    pair: PairConfig = field(default_factory=PairConfig)
    consensus: ConsensusConfig = field(default_factory=ConsensusConfig)
    symmetry: SymmetryConfig = field(default_factory=SymmetryConfig)
    upright: UprightConfig = field(default_factory=UprightConfig)
    all_pairs_up_to: int = 24  # videos; if more, they are aligned to references only
    references: int = 5  # number of references then
    # cosine; a mode whose likeness is this much lower weighs 1/e as a vote
    likeness_scale: float = 0.08
    least_confidence: float = 0.15  # a video below it is an outlier and is left out


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


def edges_of(pairs: Pairs, config: AlignConfig) -> Edges:
    """The modes as votes, each weighted by its overlap and its likeness."""
    a_from_b = split_similarity(pairs.modes.b_from_a)[0].mT
    reflected = a_from_b @ pairs.twin_from_shape[pairs.b, None, :3, :3]
    source_from_target = torch.where(
        pairs.mirrored[:, None, None, None], reflected, a_from_b
    )
    return Edges(
        pairs.count,
        pairs.a,
        pairs.b,
        pairs.mirrored,
        source_from_target,
        mode_weights(pairs.modes, config),
    )


def mode_weights(modes: PairModes, config: AlignConfig) -> Tensor:
    """Weight (B, K) of each mode as a vote, at most 1; 0 for no mode."""
    exists = modes.energy.isfinite()
    best = modes.likeness[exists].max()
    return (
        (modes.overlap + 1e-6)
        * torch.exp((modes.likeness - best) / config.likeness_scale)
        * exists
    )


def similarities(consensus: Consensus, pairs: Pairs) -> Tensor:
    """Similarities canon_from_shape (N, 4, 4) with the rotations of the consensus.

    Scales and translations have the least absolute residuals over the unmirrored pairs, weighted by
    the nearness of each pair to the consensus. The origin is the mean of the shapes' origins.
    """
    rotation, plain = consensus.canon_from_video, ~pairs.mirrored
    a, b = pairs.a[plain], pairs.b[plain]
    weight = consensus.nearness[plain]
    _, translation, scale = split_similarity(
        pairs.modes.b_from_a[plain, consensus.mode[plain]]
    )
    difference = torch.zeros(len(a), pairs.count, dtype=torch.float64)
    difference[torch.arange(len(a)), a] = 1
    difference[torch.arange(len(a)), b] = -1
    log_scale = _solve_robustly(difference, scale.log()[:, None], weight)[:, 0]
    step = log_scale.exp()[b, None] * (rotation[b] @ translation[..., None])[..., 0]
    return from_parts(rotation, _solve_robustly(difference, step, weight), log_scale.exp())


def _solve_robustly(
    matrix: Tensor, value: Tensor, weight: Tensor, steps: int = 10
) -> Tensor:
    """Solve matrix @ x = value for least absolute, weighted residuals, by reweighting.

    Args:
        matrix: Coefficients (P, N).
        value: Right-hand sides (P, D).
        weight: Weight (P,) of each row.
        steps: Steps of reweighting.

    Returns:
        The solution x (N, D), the smallest one if several solve it.
    """
    reweighted = weight
    solution = matrix.new_zeros(matrix.shape[1], value.shape[1])
    for _ in range(steps):
        root = (reweighted + 1e-6).sqrt()[:, None]
        solution = torch.linalg.lstsq(root * matrix, root * value, driver="gelsd").solution
        reweighted = weight / ((matrix @ solution - value).norm(dim=1) + 0.02)
    return solution


def correct_turns(
    canon_from_shape: Tensor, shapes: MeshBatch, pairs: Pairs, config: AlignConfig
) -> tuple[Consensus, Tensor]:
    """Put every video into the best of its half turns about the canonical axes.

    All pairs are compared in their poses under the consensus, so what two videos show counts
    wherever they meet, and nothing counts where they show different sides.

    Args:
        canon_from_shape: Poses (N, 4, 4) under the consensus.
        shapes: The meshes and their mirrored twins.
        pairs: The pairs with their modes.
        config: Settings.

    Returns:
        The corrected consensus, and confidences (N,): the share of a video's votes that agree,
        times its likeness to the others where that is below the median.
    """
    frame = torch.eye(4, dtype=torch.float64)
    frame[:3, :3] = rotation_about_mirror_normal(canon_from_shape, shapes)
    canon_from_shape = frame @ canon_from_shape
    poses = _turned_poses(canon_from_shape, pairs)
    likeness, overlap = _compare_pairs(poses, shapes, pairs, config)
    evidence = turn_evidence(likeness, overlap)
    turns = resolve_half_turns(pairs.count, pairs.a, pairs.b, pairs.mirrored, evidence)
    rotation = split_similarity(turn_matrices()[turns.video] @ canon_from_shape)[0]
    rotation = swap_mirror_axis(rotation, turns.mirror)
    edges = edges_of(pairs, config)
    consensus = settle(edges, rotation, config.consensus)
    chosen = relative_turn(turns.video[pairs.a], turns.video[pairs.b])[:, None]
    fit = mean_likeness(
        pairs,
        ~pairs.mirrored,
        likeness.gather(1, chosen)[:, 0],
        overlap.gather(1, chosen)[:, 0],
    )
    relative_fit = (fit / fit.median().clamp_min(1e-6)).clamp(0, 1)
    return consensus, agreement_shares(edges, consensus) * relative_fit


def _turned_poses(canon_from_shape: Tensor, pairs: Pairs) -> Tensor:
    """Poses b_from_a (P, 4, 4, 4) of each pair's meshes, one for each relative half turn.

    The poses canon_from_shape (N, 4, 4) are those of the consensus.
    """
    twin_from_shape = torch.linalg.inv(pairs.twin_from_shape)
    canon_from_twin = canonical_reflection() @ canon_from_shape @ twin_from_shape
    canon_from_b = torch.where(
        pairs.mirrored[:, None, None], canon_from_twin[pairs.b], canon_from_shape[pairs.b]
    )
    canon_from_a = canon_from_shape[pairs.a, None]
    return invert(canon_from_b)[:, None] @ turn_matrices() @ canon_from_a


def _compare_pairs(
    poses: Tensor, shapes: MeshBatch, pairs: Pairs, config: AlignConfig
) -> tuple[Tensor, Tensor]:
    """Likeness and overlap (P, T) of P pairs under T poses b_from_a (P, T, 4, 4) each."""
    second = pairs.b + pairs.mirrored * pairs.count
    device = shapes.points.device
    likeness, overlap = torch.empty(2, *poses.shape[:2], dtype=torch.float64)
    for k in range(len(poses)):
        a = shapes.take(pairs.a[k : k + 1].to(device))
        b = shapes.take(second[k : k + 1].to(device))
        b_from_a = poses[k : k + 1].to(device)
        alike, seen = view_likeness(b_from_a, a, b, config.pair.view_width)
        likeness[k] = alike[0].cpu()
        overlap[k] = seen[0].cpu()
    return likeness, overlap


def mean_likeness(
    pairs: Pairs, chosen: Tensor, likeness: Tensor, overlap: Tensor
) -> Tensor:
    """Mean likeness (N,) of each video to the others in its chosen pairs, weighted by the overlap.

    Args:
        pairs: The P pairs.
        chosen: (P,) bool, the pairs that count.
        likeness: Likeness (P,) of the pair's videos.
        overlap: Overlap (P,) of the pair's videos.
    """
    total, weight = torch.zeros(2, pairs.count, dtype=torch.float64)
    for end in (pairs.a[chosen], pairs.b[chosen]):
        total.index_add_(0, end, (likeness * overlap)[chosen])
        weight.index_add_(0, end, overlap[chosen])
    return total / weight.clamp_min(1e-9)


def canonical_reflection() -> Tensor:
    """Reflection (4, 4) in the canonical frame's plane y = 0."""
    return torch.diag(torch.tensor([1.0, -1.0, 1.0, 1.0], dtype=torch.float64))


def rotation_about_mirror_normal(canon_from_shape: Tensor, shapes: MeshBatch) -> Tensor:
    """Rotation (3, 3) of the canonical frame about y that makes x the longest axis across y.

    The axis is the first principal axis of all vertices, projected to the mirror plane y = 0.
    """
    count = len(canon_from_shape)
    points = transform(canon_from_shape, shapes.points[:count].cpu().double())
    flat = points[shapes.valid[:count].cpu()]
    flat = flat - flat.mean(0)
    flat[:, 1] = 0
    longest = torch.linalg.eigh(flat.T @ flat).eigenvectors[:, 2]
    y = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    return torch.stack([longest, y, torch.linalg.cross(longest, y)])


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


def residuals(consensus: Consensus, pairs: Pairs) -> Tensor:
    """Median angle (N,) in degrees between a video's rotation and its plain pairs' votes."""
    plain = ~pairs.mirrored
    a, b = pairs.a[plain], pairs.b[plain]
    b_from_a = split_similarity(pairs.modes.b_from_a[plain, consensus.mode[plain]])[0]
    angle = angle_between(
        consensus.canon_from_video[b] @ b_from_a, consensus.canon_from_video[a]
    )
    return torch.stack([angle[(a == k) | (b == k)].median() for k in range(pairs.count)])
