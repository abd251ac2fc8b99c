"""Half turns about the canonical axes: one turn for every video, decided over all pairs at once.

Symmetric-looking objects that were seen from one half only agree with each other in wrong poses,
most often half a turn off. The four turns (none, about x, y, z) form a group, so the evidence of a
pair needs four numbers, one for each relative turn, and the assignment of turns to videos is a
small discrete problem.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_TURNS = torch.arange(4)
# by `HalfTurns.mirror`: the shift of the canonical axes that makes the mirror's normal y again
_AXIS_SHIFT = {0: 0, 1: -1, 3: 1}


def turn_matrices() -> Tensor:
    """The turns (4, 4, 4) float64, canonical frame: none, half a turn about x, y and z."""
    signs = [
        [1.0, 1.0, 1.0, 1.0],
        [1.0, -1.0, -1.0, 1.0],
        [-1.0, 1.0, -1.0, 1.0],
        [-1.0, -1.0, 1.0, 1.0],
    ]
    return torch.diag_embed(torch.tensor(signs, dtype=torch.float64))


def relative_turn(first: Tensor, second: Tensor) -> Tensor:
    """The turn between two turns, and equally their product; indices into `turn_matrices`.

    Every turn is its own inverse, and the product of two turns has the exclusive or of their
    indices.
    """
    return first ^ second


def turn_evidence(likeness: Tensor, overlap: Tensor) -> Tensor:
    """Evidence (P, 4) of P pairs for each relative turn.

    It is the likeness above the usual likeness of the pair, weighted by the overlap. Usual is the
    mean of the two likeliest turns: an odd video is unlike all others in any turn.

    Args:
        likeness: Likeness (P, 4) of the pair's videos in each turn.
        overlap: Share (P, 4) of the views that both videos have in each turn.
    """
    rival = likeness.topk(2).indices
    seen = overlap.gather(1, rival)
    usual = (likeness * overlap).gather(1, rival).sum(1) / seen.sum(1).clamp_min(1e-9)
    return overlap * (likeness - usual[:, None])


def swap_mirror_axis(rotation: Tensor, mirror: int) -> Tensor:
    """Rotations (N, 3, 3) to the canonical frame whose axis y is the normal of the mirror plane.

    Args:
        rotation: Rotations (N, 3, 3) to the present canonical frame.
        mirror: The mirror plane in that frame, as in `HalfTurns`.
    """
    return torch.roll(rotation, _AXIS_SHIFT[mirror], dims=1)


@dataclass(frozen=True, eq=False)
class HalfTurns:
    """A turn for every video and one for the mirror."""

    video: Tensor  # (N,) int64, into `turn_matrices`
    mirror: int  # 0: the mirror plane stays y = 0; 1: it becomes z = 0; 3: x = 0
    # (N, 4) float64: sum of the evidence over a video's pairs if it alone took each turn instead
    evidence: Tensor


def resolve_half_turns(
    count: int,
    source: Tensor,
    target: Tensor,
    mirrored: Tensor,
    evidence: Tensor,
    sweeps: int = 20,
) -> HalfTurns:
    """Choose the turns of N videos with the largest sum of evidence.

    Each video takes its best turn, video after video, until none changes. The search starts once
    from no turn at all, and once from each video outward.

    Args:
        count: Number N of videos.
        source: First video (P,) of each pair.
        target: Second video (P,) of each pair.
        mirrored: (P,) bool, whether the pair's second mesh is mirrored.
        evidence: Evidence (P, 4); column k is for the relative turn k of the pair's videos.
        sweeps: Sweeps over all videos, at most.
    """
    candidates: list[tuple[float, HalfTurns]] = []
    partners = [_partners(video, source, target) for video in range(count)]
    mirrors = (0, 1, 3) if bool(mirrored.any()) else (0,)
    for mirror in mirrors:
        table = evidence.clone()
        table[mirrored] = evidence[mirrored][:, relative_turn(torch.tensor(mirror), _TURNS)]
        own = float(table[source == target, 0].sum())
        for root in range(-1, count):
            state, decided = _improve_turns(partners, table, root, sweeps)
            totals = torch.stack([_totals(p, state, decided, table) for p in partners])
            total = own + float(totals.gather(1, state[:, None]).sum()) / 2
            candidates.append((total, HalfTurns(state, mirror, totals)))
    return max(candidates, key=lambda candidate: candidate[0])[1]


def _improve_turns(
    partners: list[tuple[Tensor, Tensor]], table: Tensor, root: int, sweeps: int
) -> tuple[Tensor, Tensor]:
    """Improve the turns of all videos from one start, until none changes.

    Args:
        partners: For each video, its pairs and its partners, as in `_partners`.
        table: Evidence (P, 4) of the pairs for each relative turn.
        root: The video to start from; -1: all videos start without a turn.
        sweeps: Sweeps over all videos, at most.

    Returns:
        The turns (N,) int64, and (N,) bool, whether the turn of a video is decided.
    """
    state = torch.zeros(len(partners), dtype=torch.int64)
    decided = torch.full((len(partners),), root < 0)
    decided[max(root, 0)] = True
    for _ in range(sweeps):
        state_before = state.clone()
        decided_before = decided.clone()
        totals = torch.stack([_totals(p, state, decided, table) for p in partners])
        order = totals.amax(1).argsort(descending=True, stable=True).tolist()
        for video in order:
            _, others = partners[video]
            if bool(decided[others].any()):
                state[video] = _totals(partners[video], state, decided, table).argmax()
                decided[video] = True
        if torch.equal(state_before, state) and torch.equal(decided_before, decided):
            break
    return state, decided


def _partners(video: int, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The pairs (D,) of a video with other videos, and those other videos (D,)."""
    pair = (((source == video) | (target == video)) & (source != target)).nonzero()[:, 0]
    return pair, source[pair] + target[pair] - video


def _totals(
    partners: tuple[Tensor, Tensor], state: Tensor, decided: Tensor, table: Tensor
) -> Tensor:
    """Evidence (4,) for each turn of a video, given the turns of its decided partners.

    Args:
        partners: The pairs (D,) and the partners (D,) of the video.
        state: Turns (N,) of all videos.
        decided: (N,) bool, whether the turn of a video is decided.
        table: Evidence (P, 4) of the pairs for each relative turn.
    """
    pair, other = partners
    relative = relative_turn(
        state[other][:, None], _TURNS
    )  # (D, 4): by the video's own turn
    return (table[pair].gather(1, relative) * decided[other][:, None]).sum(0)
