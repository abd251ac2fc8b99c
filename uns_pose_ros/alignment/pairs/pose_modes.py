"""The modes of pose hypotheses: weighted means around the best ones, far from each other."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from uns_pose_ros.alignment.pairs.pair_config import PairConfig
from uns_pose_ros.core.geometry import from_parts, nearest_rotation, split_similarity


def closeness(a: Tensor, b: Tensor, width: float) -> Tensor:
    """Closeness of rotations a (..., 3, 3) and b (..., 3, 3), a Cauchy kernel of their angle.

    It is 1 if they are equal, and 1/2 at `width` degrees.
    """
    return closeness_of_traces((a * b).sum((-2, -1)), width)


def closeness_of_traces(trace: Tensor, width: float) -> Tensor:
    """Closeness of rotations a and b, given trace(a.T b)."""
    sine = (3 - trace).clamp_min(0) / 4  # squared sine of half the angle
    return 1 / (1 + sine / math.sin(math.radians(width) / 2) ** 2)


def find_modes(
    b_from_a: Tensor, energy: Tensor, config: PairConfig
) -> tuple[Tensor, Tensor]:
    """Find the modes of the hypotheses.

    A mode is the weighted mean of the hypotheses around the best one. The next mode starts from the
    best hypothesis farther than `mode_distance` from every mode before.

    Args:
        b_from_a: Hypotheses (B, H, 4, 4).
        energy: Energy (B, H) of the hypotheses.
        config: Settings.

    Returns:
        The modes (B, K, 4, 4) float64, and the energy (B, K) of the best hypothesis of each, inf
        for no mode.
    """
    rotation, translation, scale = split_similarity(b_from_a.double())
    energy = energy.double()
    free = torch.ones_like(energy, dtype=torch.bool)
    modes = []
    lowest = []
    for _ in range(config.modes):
        least, best = energy.masked_fill(~free, torch.inf).min(1)
        weight = torch.exp((least[:, None] - energy) / config.temperature).clamp_max(1)
        center = torch.take_along_dim(rotation, best[:, None, None, None], 1)[:, 0]
        for _ in range(5):
            share = closeness(rotation, center[:, None], config.mode_width) ** 2 * weight
            share = share / share.sum(1, keepdim=True)
            center = nearest_rotation((share[..., None, None] * rotation).sum(1))
        modes.append(
            from_parts(
                center,
                (share[..., None] * translation).sum(1),
                (share * scale.log()).sum(1).exp(),
            )
        )
        lowest.append(least)
        free = free & (closeness(rotation, center[:, None], config.mode_distance) < 0.5)
    return torch.stack(modes, 1), torch.stack(lowest, 1)
