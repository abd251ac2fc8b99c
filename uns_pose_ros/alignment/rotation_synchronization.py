"""Rotations of many videos from modes of many pairs.

The consensus with most agreement, and how each vote stands to it.

A pair offers several modes; one is voted for, and never averaged with another. A pair may also be
one of a video with the mirrored twin of another (or of itself): it ties both through the canonical
frame's mirror plane y = 0, and so carries what one video saw on the left to another that saw the
right.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from uns_pose_ros.alignment.pairwise import closeness, closeness_of_traces
from uns_pose_ros.core.geometry import nearest_rotation

_CENTRES = 64  # votes that may be the centre of the others, at most


@dataclass(frozen=True)
class ConsensusConfig:
    """How votes become rotations."""

    width: float = 12.0  # degrees, disagreement at which a vote counts half
    roots: int = 16  # videos from which a consensus is grown, at most
    planes: int = 4  # mirror planes tried for each of them, at most
    finalists: int = 8  # grown consensuses that are settled to the end
    sweeps: int = 15  # over all videos, at most
    # of a mirrored vote in the last average: it decides between modes, not between degrees
    mirrored_share: float = 0.01


@dataclass(frozen=True, eq=False)
class Edges:
    """P pairs of N videos, each with K modes of source_from_target.

    canon_from_target = canon_from_source @ source_from_target; where mirrored, source_from_target
    is a reflection, and the right side is reflected in y = 0 once more.
    """

    count: int  # N
    source: Tensor  # (P,) int64
    target: Tensor  # (P,) int64; may equal the source where mirrored
    mirrored: Tensor  # (P,) bool
    source_from_target: Tensor  # (P, K, 3, 3) float64, orthogonal
    weight: Tensor  # (P, K) float64, 0: no such mode


@dataclass(frozen=True, eq=False)
class Consensus:
    """Rotations, and each pair's mode nearest to them."""

    canon_from_video: Tensor  # (N, 3, 3) float64
    # (P,) float64 in [0, 1]: closeness of that mode; 0 where the pair has none
    nearness: Tensor
    mode: Tensor  # (P,) int64


def synchronize(edges: Edges, config: ConsensusConfig = ConsensusConfig()) -> Consensus:
    """Grow consensuses from several videos and mirror planes, settle them, and refine the one with
    most agreement.
    """
    votes_by_video = Votes(edges)
    order = torch.stack([weight.sum() for weight in votes_by_video.weight]).argsort(
        descending=True, stable=True
    )
    rotation = _grow(
        votes_by_video, *_starts(edges, order[: config.roots], config.planes), config.width
    )
    agreement = votes_by_video.agreement(rotation, config.width)
    for sweep in range(config.sweeps):
        for video in order.tolist():
            weight = votes_by_video.weight[video].flatten().expand(len(rotation), -1)
            if bool(weight.any()):
                rotation[:, video] = densest_rotation(
                    votes_by_video.votes(rotation, video).flatten(1, 2),
                    weight,
                    config.width,
                )
        before, agreement = agreement, votes_by_video.agreement(rotation, config.width)
        if bool(((agreement - before).abs() <= 1e-7 * agreement).all()):
            break
        if sweep == 2:
            best = agreement.topk(min(config.finalists, len(agreement))).indices
            rotation, agreement = rotation[best], agreement[best]
    return settle(edges, rotation[agreement.argmax()], config)


def settle(
    edges: Edges,
    canon_from_video: Tensor,
    config: ConsensusConfig = ConsensusConfig(),
    steps: int = 10,
) -> Consensus:
    """Refine rotations (N, 3, 3) by the votes near them, none leaving its mode.

    Mirrored votes count little.
    """
    share = torch.where(edges.mirrored, config.mirrored_share, 1.0).double()[:, None]
    votes_by_video = Votes(Edges(**{**vars(edges), "weight": edges.weight * share}))
    rotation = canon_from_video[None].clone()
    for _ in range(steps):
        for video in range(edges.count):
            votes = votes_by_video.votes(rotation, video)
            near = (
                closeness(votes, rotation[:, video, None, None], config.width) ** 2
                * votes_by_video.weight[video]
            )
            if bool(near.any()):
                rotation[:, video] = nearest_rotation(
                    (near[..., None, None] * votes).sum((1, 2))
                )
    canon = rotation[0]
    mirror = torch.where(
        edges.mirrored[:, None, None], _mirror(), torch.eye(3, dtype=torch.float64)
    )
    said = (mirror @ canon[edges.source])[:, None] @ edges.source_from_target
    near = closeness(said, canon[edges.target, None], config.width).masked_fill(
        edges.weight <= 0, 0
    )
    return Consensus(canon, near.amax(1), near.argmax(1))


def agreement_shares(edges: Edges, consensus: Consensus) -> Tensor:
    """For each video the weighted fraction (N,) of its pairs whose votes agree with the consensus;
    0 for a video without any.

    A pair's say is its best mode's weight; it agrees with the weight of the mode nearest to the
    consensus.
    """
    agreeing = edges.weight.gather(1, consensus.mode[:, None])[:, 0] * consensus.nearness
    total, good = torch.zeros(2, edges.count, dtype=torch.float64)
    for end in (edges.source, edges.target):
        total.index_add_(0, end, edges.weight.amax(1))
        good.index_add_(0, end, agreeing)
    return good / total.clamp_min(1e-12)


def _mirror() -> Tensor:
    return torch.diag(torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64))


class Votes:
    """Votes by receiver: for each of N videos, what D partners say in K modes each."""

    def __init__(self, edges: Edges) -> None:
        """source (D,), mirrored (D,), source_from_target (D, K, 3, 3) and weight (D, K), lists
        with one tensor a video.
        """
        target = torch.cat([edges.target, edges.source])
        order = target.argsort(stable=True)
        counts = torch.bincount(target, minlength=edges.count).tolist()
        self.source = torch.cat([edges.source, edges.target])[order].split(counts)
        self.mirrored = torch.cat([edges.mirrored, edges.mirrored])[order].split(counts)
        self.source_from_target = torch.cat(
            [edges.source_from_target, edges.source_from_target.mT]
        )[order].split(counts)
        self.weight = torch.cat([edges.weight, edges.weight])[order].split(counts)

    def __len__(self) -> int:
        return len(self.source)

    def votes(self, rotation: Tensor, video: int) -> Tensor:
        """What the partners of a video say (S, D, K, 3, 3), given rotations (S, N, 3, 3)."""
        partner = rotation[:, self.source[video]]
        partner = torch.where(
            self.mirrored[video][:, None, None], _mirror() @ partner, partner
        )
        return partner[:, :, None] @ self.source_from_target[video]

    def agreement(self, rotation: Tensor, width: float) -> Tensor:
        """Sum (S,) over all votes: weight times closeness to rotations (S, N, 3, 3)."""
        total = torch.zeros(len(rotation), dtype=torch.float64)
        for video, weight in enumerate(self.weight):
            near = (
                closeness(
                    self.votes(rotation, video), rotation[:, video, None, None], width
                )
                * weight
            )
            total += near.amax(-1).sum(-1)
        return total


def densest_rotation(votes: Tensor, weight: Tensor, width: float) -> Tensor:
    """Where votes (B, M, 3, 3) with weights (B, M) are densest.

    The mean (B, 3, 3) of those around the best supported vote.

    Only the weightiest votes are looked at as centres, so that the cost grows with M and not with
    its square.
    """
    flat = votes.flatten(2)
    likely = weight.argsort(dim=1, descending=True, stable=True)[:, :_CENTRES]
    centres = torch.take_along_dim(flat, likely[..., None], 1)
    density = (closeness_of_traces(centres @ flat.mT, width) @ weight[..., None])[..., 0]
    density = density.masked_fill(weight.take_along_dim(likely, 1) <= 0, -1)
    centre = torch.take_along_dim(centres, density.argmax(1)[:, None, None], 1).unflatten(
        2, (3, 3)
    )[:, 0]
    for _ in range(4):
        share = closeness(votes, centre[:, None], width) ** 2 * weight
        centre = nearest_rotation((share[..., None, None] * votes).sum(1))
    return centre


def _starts(edges: Edges, roots: Tensor, planes: int) -> tuple[Tensor, Tensor]:
    """Videos (S,) to start from and their rotations (S, 3, 3), which bring a likely mirror plane
    of the video to y = 0.
    """
    videos, rotations = [], []
    for root in roots.tolist():
        own = (edges.mirrored & (edges.source == root) & (edges.target == root)).nonzero()[
            :1, 0
        ]
        reflections = [torch.eye(3, dtype=torch.float64)]
        if len(own):
            best = edges.weight[own[0]].argsort(descending=True, stable=True)[:planes]
            best = best[edges.weight[own[0], best] > 0]
            reflections = list(edges.source_from_target[own[0], best]) or reflections
        for reflection in reflections:
            normal = torch.linalg.eigh(reflection + reflection.T).eigenvectors[:, 0]
            across = torch.eye(3, dtype=torch.float64)[normal.abs().argmin()]
            across = normalize(across - (across @ normal) * normal, dim=0)
            rotations.append(
                torch.stack([across, normal, torch.linalg.cross(across, normal)])
            )
            videos.append(root)
    return torch.tensor(videos), torch.stack(rotations)


def _grow(
    votes_by_video: Votes, root: Tensor, root_rotation: Tensor, width: float
) -> Tensor:
    """Rotations (S, N, 3, 3) grown from videos (S,).

    Each time the video whose votes agree most joins, at their densest.
    """
    starts, count = torch.arange(len(root)), len(votes_by_video)
    rotation = torch.eye(3, dtype=torch.float64).repeat(len(root), count, 1, 1)
    known = torch.zeros(len(root), count, dtype=torch.bool)
    centre, support = rotation.clone(), torch.zeros(len(root), count, dtype=torch.float64)
    heard = torch.zeros(count, count, dtype=torch.bool)  # [a, b]: a has a say on b
    for target, (source, weight) in enumerate(
        zip(votes_by_video.source, votes_by_video.weight, strict=True)
    ):
        heard[source[weight.sum(1) > 0], target] = True
    rotation[starts, root], known[starts, root] = root_rotation, True
    joined, video = starts, root
    while len(joined):
        news = torch.zeros_like(known)
        news[joined] = heard[video]
        news &= ~known
        for changed in news.any(0).nonzero()[:, 0].tolist():
            start = news[:, changed].nonzero()[:, 0]
            weight = (
                votes_by_video.weight[changed]
                * known[start][:, votes_by_video.source[changed], None]
            ).flatten(1)
            votes = votes_by_video.votes(rotation[start], changed).flatten(1, 2)
            centre[start, changed] = densest_rotation(votes, weight, width)
            near = closeness(votes, centre[start, changed, None], width)
            support[start, changed] = (near * weight).sum(1)
        best, video = support.masked_fill(known, 0).max(1)
        joined = (best > 0).nonzero()[:, 0]
        video = video[joined]
        rotation[joined, video] = centre[joined, video]
        known[joined, video] = True
    return rotation
