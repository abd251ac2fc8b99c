"""The videos of a category brought to one canonical frame, with a confidence each.

Everything is computed in an order made from the videos' contents and in frames made from their
meshes, so names, order and obj frames change nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import normalize

from uns_pose_ros.alignment.half_turns import resolve_half_turns, turn_matrices
from uns_pose_ros.alignment.mesh_batch import (
    MeshBatch,
    build_mesh_batch,
    content_key,
    reflect,
)
from uns_pose_ros.alignment.pairwise import (
    PairConfig,
    PairModes,
    align_pairs,
    view_likeness,
)
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
    """How the videos of a category come to one canonical frame."""

    pair: PairConfig = field(default_factory=PairConfig)
    consensus: ConsensusConfig = field(default_factory=ConsensusConfig)
    symmetry: SymmetryConfig = field(default_factory=SymmetryConfig)
    all_pairs_up_to: int = 24  # videos; more are aligned to references only
    references: int = 5  # where there are more videos
    # cosine; a mode that shows this much less likeness weighs 1/e as a vote
    likeness_scale: float = 0.08
    least_confidence: float = 0.15  # a video below is an outlier and left out


@dataclass(frozen=True, eq=False)
class Pairs:
    """P pairs of N videos with their modes.

    The second of a mirrored pair is the mirrored twin of video `b`.
    """

    count: int  # N
    a: Tensor  # (P,) int64
    b: Tensor  # (P,) int64
    mirrored: Tensor  # (P,) bool
    modes: PairModes  # of the shapes, b (or its twin) from a
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

    Diameter 1, origin in the middle, y across the mirror plane.

    cluster: where the pairs are aligned; None: here, on `device`.
    Raises InvalidInput for fewer than two videos.
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
    canon_from_shape = similarities(consensus, pairs)
    canon_from_shape = centred(canon_from_shape, shapes, confidence) @ canon_from_shape
    symmetry = find_symmetry(
        shapes, canon_from_shape, config.pair.view_width, config.symmetry
    )
    place = torch.tensor([order.index(name) for name in meshes])
    return Alignment(
        videos=tuple(meshes),
        canon_from_obj=(canon_from_shape @ shapes.shape_from_obj[: len(order)])[place],
        confidence=confidence[place],
        kept=confidence[place] >= min(config.least_confidence, float(confidence.max())),
        residual=residuals(consensus, pairs)[place],
        symmetry=symmetry,
    )


def prepare_twins(meshes: Mapping[str, FeatureMesh], config: AlignConfig) -> MeshBatch:
    """Shapes of N meshes and, where all have features of the mirrored images, of their N mirrored
    twins after them.
    """
    twins = {}
    if all(mesh.mirrored is not None for mesh in meshes.values()):
        twins = {f"{name} mirrored": reflect(mesh) for name, mesh in meshes.items()}
    return build_mesh_batch({**meshes, **twins}, config.pair.shapes)


def choose_pairs(shapes: MeshBatch, count: int, config: AlignConfig) -> Tensor:
    """Pairs (P, 2) of `count` videos to align, a < b.

    All of a small set, else every video with the references.

    References are the videos that best stand for all others by their mean feature (greedy facility
    location).
    """
    if count <= config.all_pairs_up_to:
        return torch.combinations(torch.arange(count), 2)
    mean = normalize(
        (shapes.features[:count] * shapes.share[:count, ..., None]).sum((1, 2)), dim=-1
    ).cpu()
    likeness = (mean - mean.mean(0)) @ (mean - mean.mean(0)).T
    covered, chosen = likeness.new_full((count,), float(likeness.min())), list[int]()
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
    """Modes of the chosen pairs of `count` videos, and of every first one with the mirrored twin
    of the second, and of every video with its own twin, where the shapes hold twins.
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
    """The modes as votes, each with the weight of what it shows from the same side and of how
    alike that is.
    """
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
    """What each mode counts (B, K) as a vote, at most 1; 0 where there is no mode."""
    exists = modes.energy.isfinite()
    best = modes.likeness[exists].max()
    return (
        (modes.overlap + 1e-6)
        * torch.exp((modes.likeness - best) / config.likeness_scale)
        * exists
    )


def similarities(consensus: Consensus, pairs: Pairs) -> Tensor:
    """canon_from_shape (N, 4, 4).

    The consensus rotations with the scales and translations that fit the unmirrored pairs.

    Least absolute residuals, weighted by how near each pair is to the consensus; the origin is the
    mean of the shapes' own.
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
    """x (N, D) of least absolute, weighted residuals matrix @ x - value (P, D), by reweighting.

    Smallest x where it is open.
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
    """The consensus with every video in the best of its half turns about the canonical axes, and
    confidences (N,): the share of a video's votes that agree, times how alike it is to the
    others where that is less than usual.

    All pairs are compared in their poses under the consensus, so what two videos saw counts
    wherever it meets, and nothing counts where the two saw different sides.
    """
    frame = torch.eye(4, dtype=torch.float64)
    frame[:3, :3] = across_mirror(canon_from_shape, shapes)
    canon_from_shape = frame @ canon_from_shape
    canon_from_twin = (
        canonical_reflection() @ canon_from_shape @ torch.linalg.inv(pairs.twin_from_shape)
    )
    second = torch.where(
        pairs.mirrored[:, None, None], canon_from_twin[pairs.b], canon_from_shape[pairs.b]
    )
    poses = invert(second)[:, None] @ turn_matrices() @ canon_from_shape[pairs.a, None]
    other = pairs.b + pairs.mirrored * pairs.count
    device = shapes.points.device
    likeness, overlap = torch.empty(2, len(poses), 4, dtype=torch.float64)
    for k in range(len(poses)):
        a, b = (
            shapes.take(pairs.a[k : k + 1].to(device)),
            shapes.take(other[k : k + 1].to(device)),
        )
        likeness[k], overlap[k] = (
            x[0].cpu()
            for x in view_likeness(
                poses[k : k + 1].to(device), a, b, config.pair.view_width
            )
        )
    rival = likeness.topk(
        2
    ).indices  # what is usual for this pair: odd videos are unlike all others in any turn
    usual = (likeness * overlap).gather(1, rival).sum(1) / overlap.gather(1, rival).sum(
        1
    ).clamp_min(1e-9)
    turns = resolve_half_turns(
        pairs.count, pairs.a, pairs.b, pairs.mirrored, overlap * (likeness - usual[:, None])
    )
    rotation = split_similarity(turn_matrices()[turns.video] @ canon_from_shape)[0]
    rotation = torch.roll(
        rotation, {0: 0, 1: -1, 3: 1}[turns.mirror], dims=1
    )  # the mirror's normal becomes y again
    edges = edges_of(pairs, config)
    consensus = settle(edges, rotation, config.consensus)
    relative = (
        turns.video[pairs.a] ^ turns.video[pairs.b]
    )  # turn after turn: the numbers of turns combine by exclusive or
    stands = ~pairs.mirrored
    fit = usual_likeness(
        pairs, stands, *(x.gather(1, relative[:, None])[:, 0] for x in (likeness, overlap))
    )
    return consensus, agreement_shares(edges, consensus) * (
        fit / fit.median().clamp_min(1e-6)
    ).clamp(0, 1)


def usual_likeness(
    pairs: Pairs, chosen: Tensor, likeness: Tensor, overlap: Tensor
) -> Tensor:
    """How alike (N,) each video is to the others in its chosen pairs (P,), by how much of each
    pair is seen.
    """
    total, weight = torch.zeros(2, pairs.count, dtype=torch.float64)
    for end in (pairs.a[chosen], pairs.b[chosen]):
        total.index_add_(0, end, (likeness * overlap)[chosen])
        weight.index_add_(0, end, overlap[chosen])
    return total / weight.clamp_min(1e-9)


def canonical_reflection() -> Tensor:
    """Reflection (4, 4) in the canonical frame's plane y = 0."""
    return torch.diag(torch.tensor([1.0, -1.0, 1.0, 1.0], dtype=torch.float64))


def across_mirror(canon_from_shape: Tensor, shapes: MeshBatch) -> Tensor:
    """Rotation (3, 3) of the canonical frame that keeps y and makes x and z the principal axes
    across it.
    """
    points = transform(
        canon_from_shape, shapes.points[: len(canon_from_shape)].cpu().double()
    )
    flat = points[shapes.valid[: len(canon_from_shape)].cpu()]
    flat = flat - flat.mean(0)
    flat[:, 1] = 0
    long = torch.linalg.eigh(flat.T @ flat).eigenvectors[:, 2]
    y = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    return torch.stack([long, y, torch.linalg.cross(long, y)])


def centred(canon_from_shape: Tensor, shapes: MeshBatch, confidence: Tensor) -> Tensor:
    """Similarity (4, 4) that brings the aligned shapes to origin, principal axes and diameter 1."""
    points = transform(
        canon_from_shape, shapes.points[: len(canon_from_shape)].cpu().double()
    )
    valid = shapes.valid[: len(canon_from_shape)].cpu()
    weight = (valid * confidence[:, None]).flatten()
    weight = weight / weight.sum()
    flat = points.flatten(0, 1)
    mean = weight @ flat
    axes = torch.linalg.eigh(
        (flat - mean).T @ (weight[:, None] * (flat - mean))
    ).eigenvectors.flip(1)
    axes = axes * torch.where(weight @ ((flat - mean) @ axes).pow(3) < 0, -1.0, 1.0)
    axes[:, 2] = torch.linalg.cross(axes[:, 0], axes[:, 1])
    turned = (points - mean) @ axes
    low = turned.masked_fill(~valid[..., None], torch.inf).amin(1).median(0).values
    high = turned.masked_fill(~valid[..., None], -torch.inf).amax(1).median(0).values
    scale = 1 / (high - low).norm()
    return from_parts(axes.T, scale * (-(axes.T @ mean) - (low + high) / 2), scale)


def residuals(consensus: Consensus, pairs: Pairs) -> Tensor:
    """Median angle (N,) in degrees between what each video's unmirrored pairs say and its
    rotation.
    """
    plain = ~pairs.mirrored
    a, b = pairs.a[plain], pairs.b[plain]
    b_from_a = split_similarity(pairs.modes.b_from_a[plain, consensus.mode[plain]])[0]
    angle = angle_between(
        consensus.canon_from_video[b] @ b_from_a, consensus.canon_from_video[a]
    )
    return torch.stack([angle[(a == k) | (b == k)].median() for k in range(pairs.count)])
