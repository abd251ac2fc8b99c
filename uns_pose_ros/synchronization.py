"""From pairs of videos to one canonical frame: robust synchronisation of rotations, then scales and translations.

A pair offers several modes; a mode is voted for, never averaged with another. Everything is computed in an order made from
the videos' contents and in frames made from their meshes, so names, order and obj frames change nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import normalize

from uns_pose_ros.alignment import Modes, PairConfig, align_pairs, closeness
from uns_pose_ros.datatypes import Alignment, FeatureMesh, InvalidInput, Progress
from uns_pose_ros.device import choose_device
from uns_pose_ros.geometry import angle_between, from_parts, nearest_rotation, split_similarity, transform
from uns_pose_ros.shapes import Shapes, content_key, prepare


@dataclass(frozen=True)
class AlignConfig:
    """How the videos of a category come to one canonical frame."""

    pair: PairConfig = field(default_factory=PairConfig)
    all_pairs_up_to: int = 24  # videos; more are aligned to references only
    references: int = 5  # where there are more videos
    width: float = 12.0  # degrees, disagreement at which a vote counts half
    temperature: float = 0.02  # energy; a mode this far above the pair's best weighs 1/e as a vote
    starts: int = 16  # videos from which a consensus is grown, at most; the one with most agreement wins
    sweeps: int = 20  # over all videos, at most
    least_confidence: float = 0.25  # a video below is an outlier and left out
    device: str = "auto"


@dataclass(frozen=True, eq=False)
class Edges:
    """What P pairs of N videos say: modes b_from_a of each pair (a, b), as rotations with weights."""

    count: int  # N
    pairs: Tensor  # (P, 2) int64
    b_from_a: Tensor  # (P, K, 3, 3) float64
    weight: Tensor  # (P, K) float64, 0: no such mode


@dataclass(frozen=True, eq=False)
class Consensus:
    """Rotations that most votes agree with."""

    canon_from_video: Tensor  # (N, 3, 3) float64
    agreement: Tensor  # (P,) float64 in [0, 1]: how near each pair's nearest mode is
    mode: Tensor  # (P,) int64, each pair's nearest mode
    confidence: Tensor  # (N,) float64 in [0, 1]: weighted fraction of a video's votes that agree


def align(
    meshes: Mapping[str, FeatureMesh], config: AlignConfig = AlignConfig(), seed: int = 0, progress: Progress | None = None
) -> Alignment:
    """Bring all videos of a category to one canonical frame of diameter 1.

    The frame is fixed by the shapes: origin at the middle, principal axes. Raises InvalidInput for fewer than two videos.
    """
    if len(meshes) < 2:
        raise InvalidInput(f"{len(meshes)} video given, at least 2 are needed to align a category")
    order = sorted(meshes, key=lambda name: content_key(meshes[name]))
    shapes = prepare({name: meshes[name] for name in order}, config.pair.shapes)
    pairs = choose_pairs(shapes, config)
    working = shapes.to(choose_device(config.device))
    parts = []
    for start in range(0, len(pairs), 32):
        parts.append(align_pairs(working, pairs[start : start + 32], config.pair, seed))
        if progress is not None:
            progress("pairs", min(start + 32, len(pairs)), len(pairs))
    modes = Modes(torch.cat([p.b_from_a for p in parts]), torch.cat([p.energy for p in parts]))
    consensus = synchronize(edges_of(len(shapes), pairs, modes, config.temperature), config)
    canon_from_shape = similarities(consensus, pairs, modes)
    canon_from_shape = centred(canon_from_shape, shapes, consensus.confidence) @ canon_from_shape
    canon_from_obj = canon_from_shape @ shapes.shape_from_obj
    place = torch.tensor([order.index(name) for name in meshes])
    confidence = consensus.confidence[place]
    return Alignment(
        videos=tuple(meshes),
        canon_from_obj=canon_from_obj[place],
        confidence=confidence,
        kept=confidence >= min(config.least_confidence, float(confidence.max())),
        residual=residuals(consensus, pairs, modes)[place],
    )


def choose_pairs(shapes: Shapes, config: AlignConfig) -> Tensor:
    """Pairs (P, 2) of videos to align, a < b: all of a small set, else every video with the references.

    References are the videos that best stand for all others by their mean feature (greedy facility location).
    """
    count = len(shapes)
    if count <= config.all_pairs_up_to:
        return torch.combinations(torch.arange(count), 2)
    mean = normalize((shapes.features * shapes.share[..., None]).sum((1, 2)), dim=-1)
    likeness = (mean - mean.mean(0)) @ (mean - mean.mean(0)).T
    covered, chosen = torch.full((count,), float(likeness.min())), []
    for _ in range(config.references):
        gain = (likeness - covered[:, None]).clamp_min(0).sum(0)
        gain[chosen] = -1
        chosen.append(int(gain.argmax()))
        covered = torch.maximum(covered, likeness[:, chosen[-1]])
    pairs = {(min(i, j), max(i, j)) for i in range(count) for j in chosen if i != j}
    return torch.tensor(sorted(pairs))


def edges_of(count: int, pairs: Tensor, modes: Modes, temperature: float) -> Edges:
    """Votes of modes, weighted by how little their energy exceeds that of the pair's best."""
    weight = torch.exp((modes.energy[:, :1] - modes.energy) / temperature)
    return Edges(count, pairs, split_similarity(modes.b_from_a)[0], weight)


def synchronize(edges: Edges, config: AlignConfig) -> Consensus:
    """Rotations on which the votes agree best.

    From several videos a consensus is grown outwards, each new video taking the densest of its votes; then every video in
    turn moves to the densest of its votes until none changes. The consensus with the greatest agreement wins.
    """
    ballot = _Ballot(edges)
    order = ballot.weight.sum((1, 2)).argsort(descending=True, stable=True)
    roots = order[: config.starts]
    rotation = torch.eye(3, dtype=torch.float64).repeat(len(roots), edges.count, 1, 1)
    known = torch.zeros(len(roots), edges.count, dtype=torch.bool)
    known[torch.arange(len(roots)), roots] = True
    while True:
        weight = ballot.weight * known[:, ballot.source][..., None]
        start, video = ((weight.sum((-1, -2)) > 0) & ~known).nonzero(as_tuple=True)
        if not len(start):
            break
        votes = ballot.votes(rotation)[start, video]
        rotation[start, video] = densest(votes.flatten(1, 2), weight[start, video].flatten(1), config.width)
        known[start, video] = True
    agreement = ballot.agreement(rotation, config.width)
    for _ in range(config.sweeps):
        for video in order[ballot.weight.sum((1, 2))[order] > 0].tolist():
            votes = rotation[:, ballot.source[video], None] @ ballot.rotation[video]
            weight = ballot.weight[video].flatten().expand(len(roots), -1)
            rotation[:, video] = densest(votes.flatten(1, 2), weight, config.width)
        before, agreement = agreement, ballot.agreement(rotation, config.width)
        if bool(((agreement - before).abs() < 1e-9 * agreement).all()):
            break
    best = rotation[agreement.argmax()]
    near = closeness(best[edges.pairs[:, 1], None] @ edges.b_from_a, best[edges.pairs[:, 0], None], config.width)
    near = near.masked_fill(edges.weight <= 0, -1)
    return Consensus(best, near.amax(1).clamp_min(0), near.argmax(1), ballot.confidence(best, config.width))


class _Ballot:
    """Votes by receiver: (N, D, K), D the most partners that a video has; weight 0 pads."""

    def __init__(self, edges: Edges) -> None:
        source, target = torch.cat([edges.pairs, edges.pairs.flip(1)]).T
        target_from_source = torch.cat([edges.b_from_a, edges.b_from_a.mT])
        weight = torch.cat([edges.weight, edges.weight])
        target, order = target.sort(stable=True)
        partners = torch.bincount(target, minlength=edges.count)
        slot = torch.arange(len(target)) - (partners.cumsum(0) - partners)[target]
        shape = (edges.count, int(partners.max()), weight.shape[1])
        self.source = torch.zeros(shape[:2], dtype=torch.int64)
        self.rotation = torch.eye(3, dtype=torch.float64).repeat(*shape, 1, 1)  # source_from_target
        self.weight = torch.zeros(shape, dtype=torch.float64)
        self.source[target, slot] = source[order]
        self.rotation[target, slot] = target_from_source[order].mT
        self.weight[target, slot] = weight[order]

    def votes(self, rotation: Tensor) -> Tensor:
        """What each video's partners say (S, N, D, K, 3, 3) it should be, given rotations (S, N, 3, 3)."""
        return rotation[:, self.source, None] @ self.rotation

    def agreement(self, rotation: Tensor, width: float) -> Tensor:
        """Sum (S,) of the votes' weights times their nearness."""
        return (closeness(self.votes(rotation), rotation[:, :, None, None], width) * self.weight).amax(-1).sum((-1, -2))

    def confidence(self, rotation: Tensor, width: float) -> Tensor:
        """Weighted fraction (N,) of each video's votes that agree with its rotation (N, 3, 3); 0 without votes."""
        near = closeness(self.votes(rotation[None])[0], rotation[:, None, None], width) * self.weight
        return near.amax(-1).sum(-1) / self.weight.amax(-1).sum(-1).clamp_min(1e-9)


def densest(votes: Tensor, weight: Tensor, width: float) -> Tensor:
    """Where votes (B, M, 3, 3) with weights (B, M) are densest: the mean (B, 3, 3) of those around the best supported vote."""
    near = closeness(votes[:, :, None], votes[:, None], width)
    density = (near * weight[:, None]).sum(-1).masked_fill(weight <= 0, -1)
    centre = torch.take_along_dim(votes, density.argmax(1)[:, None, None, None], 1)[:, 0]
    for _ in range(4):
        near = closeness(votes, centre[:, None], width) ** 2 * weight
        centre = nearest_rotation((near[..., None, None] * votes).sum(1))
    return centre


def similarities(consensus: Consensus, pairs: Tensor, modes: Modes) -> Tensor:
    """canon_from_video (N, 4, 4): the consensus rotations with the scales and translations that fit the pairs' agreeing modes.

    Weighted least squares, reweighted for outliers; the first video has scale 1 and translation 0 for now.
    """
    rotation = consensus.canon_from_video
    count = len(rotation)
    b_from_a = modes.b_from_a[torch.arange(len(pairs)), consensus.mode]
    _, translation, scale = split_similarity(b_from_a)
    a, b = pairs.T
    difference = torch.zeros(len(pairs), count, dtype=torch.float64)
    difference[torch.arange(len(pairs)), a] = 1
    difference[torch.arange(len(pairs)), b] = -1
    log_scale = _robust_solve(difference, scale.log()[:, None], consensus.agreement)[:, 0]
    step = log_scale.exp()[b, None] * (rotation[b] @ translation[..., None])[..., 0]
    return from_parts(rotation, _robust_solve(difference, step, consensus.agreement), log_scale.exp())


def _robust_solve(matrix: Tensor, value: Tensor, weight: Tensor, steps: int = 10) -> Tensor:
    """x (N, D) of least absolute, weighted residuals matrix @ x - value (P, D), by reweighting; smallest x where undetermined."""
    reweighted = weight
    solution = matrix.new_zeros(matrix.shape[1], value.shape[1])
    for _ in range(steps):
        root = (reweighted + 1e-9).sqrt()[:, None]
        solution = torch.linalg.lstsq(root * matrix, root * value, driver="gelsd").solution
        reweighted = weight / ((matrix @ solution - value).norm(dim=1) + 0.02)
    return solution


def centred(canon_from_shape: Tensor, shapes: Shapes, confidence: Tensor) -> Tensor:
    """Similarity (4, 4) that brings the aligned shapes to origin, principal axes and diameter 1."""
    points = transform(canon_from_shape, shapes.points.double())
    weight = (shapes.valid * confidence[:, None]).flatten()
    weight = weight / weight.sum()
    flat = points.flatten(0, 1)
    mean = weight @ flat
    axes = torch.linalg.eigh((flat - mean).T @ (weight[:, None] * (flat - mean))).eigenvectors.flip(1)
    axes = axes * torch.where(weight @ ((flat - mean) @ axes).pow(3) < 0, -1.0, 1.0)
    axes[:, 2] = torch.linalg.cross(axes[:, 0], axes[:, 1])
    turned = (points - mean) @ axes
    real = shapes.valid[..., None]
    low = turned.masked_fill(~real, torch.inf).amin(1).median(0).values
    high = turned.masked_fill(~real, -torch.inf).amax(1).median(0).values
    scale = 1 / (high - low).norm()
    return from_parts(axes.T, scale * (-(axes.T @ mean) - (low + high) / 2), scale)


def residuals(consensus: Consensus, pairs: Tensor, modes: Modes) -> Tensor:
    """Median angle (N,) in degrees between what each video's partners say and its rotation."""
    chosen = split_similarity(modes.b_from_a[torch.arange(len(pairs)), consensus.mode])[0]
    angle = angle_between(consensus.canon_from_video[pairs[:, 1]] @ chosen, consensus.canon_from_video[pairs[:, 0]])
    return torch.stack([angle[(pairs == k).any(1)].median() for k in range(len(consensus.canon_from_video))])
