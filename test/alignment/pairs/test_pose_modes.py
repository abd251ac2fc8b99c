"""The modes of pose hypotheses."""

from __future__ import annotations

import math

import pytest
import torch

from uns_pose_ros.alignment.pairs.pair_config import PairConfig
from uns_pose_ros.alignment.pairs.pose_modes import closeness, find_modes
from uns_pose_ros.core.geometry import (
    angle_between,
    from_parts,
    rotation_from_vector,
    split_similarity,
)

CONFIG = PairConfig()


def test_two_clusters_of_hypotheses_are_two_modes_and_never_their_mean() -> None:
    generator = torch.Generator().manual_seed(1)
    half_turn = torch.diag(torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64))
    jitter = rotation_from_vector(
        torch.randn(60, 3, generator=generator, dtype=torch.float64) * math.radians(3)
    )
    rotation = torch.cat([jitter[:30], jitter[30:] @ half_turn])
    energy = torch.cat([torch.full((30,), 0.30), torch.full((30,), 0.31)])
    modes, lowest = find_modes(
        from_parts(rotation, torch.zeros(60, 3, dtype=torch.float64))[None],
        energy[None],
        CONFIG,
    )
    rotation = split_similarity(modes[0, :2])[0]
    assert float(angle_between(rotation[0], torch.eye(3, dtype=torch.float64))) < 2
    assert float(angle_between(rotation[1], half_turn)) < 2
    torch.testing.assert_close(
        lowest[0, :2], torch.tensor([0.30, 0.31], dtype=torch.float64), atol=1e-6, rtol=0.0
    )
    assert not bool(lowest[0, 2:].isfinite().any())


def test_closeness_is_one_half_at_its_width() -> None:
    axis = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    turned = rotation_from_vector(
        torch.deg2rad(torch.tensor([[0.0], [12.0], [180.0]], dtype=torch.float64)) * axis
    )
    near = closeness(turned, torch.eye(3, dtype=torch.float64), 12.0)
    assert near[:2].tolist() == pytest.approx([1.0, 0.5])
    assert float(near[2]) < 0.02
