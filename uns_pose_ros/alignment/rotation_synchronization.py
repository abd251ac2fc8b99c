"""Rotation synchronization: rotations of many videos from the modes of many pairs.

The result is the consensus with the most agreement, and the nearness of each vote to it.

A pair offers several modes. One of them counts, and modes are never averaged with each other. A
pair may also consist of a video and the mirrored twin of another video (or of itself). It relates
both through the canonical frame's mirror plane y = 0, and so relates a video that shows the left
side to another that shows the right side.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from uns_pose_ros.alignment.pairs.pose_modes import closeness, closeness_of_traces
from uns_pose_ros.core.geometry import nearest_rotation

_CENTERS = 64  # votes that may be the center of the others, at most


@dataclass(frozen=True)
class ConsensusConfig:
    """How rotations are computed from votes."""

    width: float = 12.0  # degrees, disagreement at which a vote counts half
    roots: int = 16  # videos from which a consensus is grown, at most
    planes: int = 4  # mirror planes tried for each of them, at most
    finalists: int = 8  # grown consensuses that are settled to the end
    sweeps: int = 15  # over all videos, at most
    # weight of a mirrored vote in the last average: it decides between modes, not between degrees
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
    """Rotations, and the mode of each pair that is nearest to them."""

    canon_from_video: Tensor  # (N, 3, 3) float64
    # (P,) float64 in [0, 1]: closeness of that mode; 0 where the pair has none
    nearness: Tensor
    mode: Tensor  # (P,) int64


def synchronize(edges: Edges, config: ConsensusConfig = ConsensusConfig()) -> Consensus:
    """Find the rotations of all videos on which the votes agree most.

    Consensuses grow from several videos and mirror planes. All are improved, and the one with the
    most agreement is refined.
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
    """Refine rotations by the votes near them; no rotation leaves its mode.

    Mirrored votes count little.

    Args:
        edges: The pairs with their modes.
        canon_from_video: Rotations (N, 3, 3) to start from.
        config: Settings.
        steps: Sweeps over all videos.
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
    voted = (mirror @ canon[edges.source])[:, None] @ edges.source_from_target
    near = closeness(voted, canon[edges.target, None], config.width).masked_fill(
        edges.weight <= 0, 0
    )
    return Consensus(canon, near.amax(1), near.argmax(1))


def agreement_shares(edges: Edges, consensus: Consensus) -> Tensor:
    """Weighted fraction (N,) of each video's pairs that agree with the consensus.

    A pair counts with the weight of its best mode, and agrees with the weight of the mode nearest
    to the consensus. The fraction is 0 for a video without pairs.
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
    """Votes by the video that receives them: for each of N videos, K modes of D partners each."""

    def __init__(self, edges: Edges) -> None:
        """Sort the votes by receiver, in both directions of every pair.

        The attributes are lists with one tensor for each video: source (D,), mirrored (D,),
        source_from_target (D, K, 3, 3) and weight (D, K).
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
        """Votes (S, D, K, 3, 3) of a video's partners, given rotations (S, N, 3, 3)."""
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
    """The rotation (B, 3, 3) at which the votes are densest.

    It is the mean of the votes around the best supported vote. Only the votes with the largest
    weights are candidates, so the cost grows with M and not with its square.

    Args:
        votes: Rotations (B, M, 3, 3).
        weight: Weight (B, M) of each vote.
        width: Degrees at which the closeness of two votes is 1/2.
    """
    flat = votes.flatten(2)
    likely = weight.argsort(dim=1, descending=True, stable=True)[:, :_CENTERS]
    centers = torch.take_along_dim(flat, likely[..., None], 1)
    density = (closeness_of_traces(centers @ flat.mT, width) @ weight[..., None])[..., 0]
    density = density.masked_fill(weight.take_along_dim(likely, 1) <= 0, -1)
    center = torch.take_along_dim(centers, density.argmax(1)[:, None, None], 1).unflatten(
        2, (3, 3)
    )[:, 0]
    for _ in range(4):
        share = closeness(votes, center[:, None], width) ** 2 * weight
        center = nearest_rotation((share[..., None, None] * votes).sum(1))
    return center


def _starts(edges: Edges, roots: Tensor, planes: int) -> tuple[Tensor, Tensor]:
    """Choose rotations of the first videos that bring a likely mirror plane of each to y = 0.

    Args:
        edges: The pairs with their modes.
        roots: The videos to start from.
        planes: Mirror planes for each video, at most.

    Returns:
        The videos (S,) and their rotations (S, 3, 3).
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
    """Grow the rotations (S, N, 3, 3) of all videos from S starts.

    In every step, the video whose votes agree most joins each start, at the densest rotation of its
    votes.

    Args:
        votes_by_video: The votes for each video.
        root: The first video (S,) of each start.
        root_rotation: Its rotation (S, 3, 3).
        width: Degrees at which the closeness of two votes is 1/2.
    """
    starts = torch.arange(len(root))
    count = len(votes_by_video)
    rotation = torch.eye(3, dtype=torch.float64).repeat(len(root), count, 1, 1)
    is_placed = torch.zeros(len(root), count, dtype=torch.bool)
    center, support = rotation.clone(), torch.zeros(len(root), count, dtype=torch.float64)
    votes_for = torch.zeros(count, count, dtype=torch.bool)  # [a, b]: a votes for b
    for target, (source, weight) in enumerate(
        zip(votes_by_video.source, votes_by_video.weight, strict=True)
    ):
        votes_for[source[weight.sum(1) > 0], target] = True
    rotation[starts, root], is_placed[starts, root] = root_rotation, True
    joined, video = starts, root
    while len(joined):
        pending = torch.zeros_like(is_placed)
        pending[joined] = votes_for[video]
        pending &= ~is_placed
        for changed in pending.any(0).nonzero()[:, 0].tolist():
            start = pending[:, changed].nonzero()[:, 0]
            weight = (
                votes_by_video.weight[changed]
                * is_placed[start][:, votes_by_video.source[changed], None]
            ).flatten(1)
            votes = votes_by_video.votes(rotation[start], changed).flatten(1, 2)
            center[start, changed] = densest_rotation(votes, weight, width)
            near = closeness(votes, center[start, changed, None], width)
            support[start, changed] = (near * weight).sum(1)
        best, video = support.masked_fill(is_placed, 0).max(1)
        joined = (best > 0).nonzero()[:, 0]
        video = video[joined]
        rotation[joined, video] = center[joined, video]
        is_placed[joined, video] = True
    return rotation
