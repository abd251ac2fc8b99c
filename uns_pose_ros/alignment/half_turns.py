"""Half turns about the canonical axes.

Which of the four a video stands in, decided over all pairs at once.

Symmetric-looking objects seen from one half only agree with each other in wrong poses, most often
half a turn off. The four turns (none, about x, y, z) form a group, so a pair's evidence needs four
numbers, one for each relative turn, and the assignment of turns to videos is a small discrete
problem.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_PRODUCT = torch.tensor(
    [[0, 1, 2, 3], [1, 0, 3, 2], [2, 3, 0, 1], [3, 2, 1, 0]]
)  # turn after turn


def turn_matrices() -> Tensor:
    """The turns (4, 4, 4) float64, canonical frame: none, half a turn about x, y and z."""
    signs = [
        [1.0, 1.0, 1.0, 1.0],
        [1.0, -1.0, -1.0, 1.0],
        [-1.0, 1.0, -1.0, 1.0],
        [-1.0, -1.0, 1.0, 1.0],
    ]
    return torch.diag_embed(torch.tensor(signs, dtype=torch.float64))


@dataclass(frozen=True, eq=False)
class HalfTurns:
    """A turn for every video and one for the mirror."""

    video: Tensor  # (N,) int64, into `turn_matrices`
    mirror: int  # 0: the mirror plane stays y = 0; 1: it becomes z = 0; 3: x = 0
    # (N, 4) float64: the sum over a video's pairs if it alone took each turn instead
    evidence: Tensor


def resolve_half_turns(
    count: int,
    source: Tensor,
    target: Tensor,
    mirrored: Tensor,
    evidence: Tensor,
    sweeps: int = 20,
) -> HalfTurns:
    """The turns of N videos with the largest sum of evidence (P, 4), column k for a relative turn
    k of each pair's videos.

    Pairs are given by source and target (P,) and whether they are mirrored (P,). Every video in
    turn takes its best, until none changes; from no turns at all and from each video outwards.
    """
    ways: list[tuple[float, HalfTurns]] = []
    partners = [_partners(video, source, target) for video in range(count)]
    for mirror in (0, 1, 3) if bool(mirrored.any()) else (0,):
        table = evidence.clone()
        table[mirrored] = evidence[mirrored][:, _PRODUCT[mirror]]
        own = float(table[source == target, 0].sum())
        for root in range(-1, count):
            state = torch.zeros(count, dtype=torch.int64)
            known = torch.full((count,), root < 0)
            known[max(root, 0)] = True
            for _ in range(sweeps):
                before = (state.clone(), known.clone())
                totals = torch.stack(
                    [
                        _totals(partners[video], state, known, table)
                        for video in range(count)
                    ]
                )
                for video in totals.amax(1).argsort(descending=True, stable=True).tolist():
                    if bool(known[partners[video][1]].any()):
                        state[video] = int(
                            _totals(partners[video], state, known, table).argmax()
                        )
                        known[video] = True
                if torch.equal(before[0], state) and torch.equal(before[1], known):
                    break
            totals = torch.stack(
                [_totals(partners[video], state, known, table) for video in range(count)]
            )
            total = own + float(totals.gather(1, state[:, None]).sum()) / 2
            ways.append((total, HalfTurns(state, mirror, totals)))
    return max(ways, key=lambda way: way[0])[1]


def _partners(video: int, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs of a video with others, and the others."""
    pair = (((source == video) | (target == video)) & (source != target)).nonzero()[:, 0]
    return pair, source[pair] + target[pair] - video


def _totals(
    partners: tuple[Tensor, Tensor], state: Tensor, known: Tensor, table: Tensor
) -> Tensor:
    """Evidence (4,) for each turn of a video, given the turns of those of its partners that are
    known.
    """
    pair, other = partners
    relative = _PRODUCT[state[other]]  # (D, 4): by the video's own turn
    return (table[pair].gather(1, relative) * known[other][:, None]).sum(0)
