"""Estimates of an object as a network would give them, from known poses.

Noise, flips, alternatives, symmetry.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from uns_pose_ros.core.geometry import from_parts, rotation_from_vector
from uns_pose_ros.core.types import PoseEstimate, PoseMode, Symmetry

HALF_TURN = from_parts(
    rotation_from_vector(torch.tensor([0.0, 0.0, math.pi], dtype=torch.float64)),
    torch.zeros(3).double(),
)
TURN, SHIFT = math.radians(6), 0.02  # standard deviations: rad about each axis, m


def pose(
    angles: tuple[float, float, float], position: tuple[float, float, float]
) -> Tensor:
    """(4, 4) rigid of a rotation vector (degrees) and a position (m)."""
    vector = torch.deg2rad(torch.tensor(angles, dtype=torch.float64))
    return from_parts(
        rotation_from_vector(vector), torch.tensor(position, dtype=torch.float64)
    )


def noisy(truth: Tensor, generator: torch.Generator) -> Tensor:
    """A rigid pose (4, 4) with rotation and position disturbed by TURN and SHIFT."""
    turn, shift = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    return from_parts(
        rotation_from_vector(TURN * turn) @ truth[:3, :3], truth[:3, 3] + SHIFT * shift
    )


def estimate(
    cam_from_canon: Tensor,
    score: float = 0.6,
    alternatives: tuple[PoseMode, ...] = (),
    symmetry: Symmetry | None = None,
    category: str = "car",
    size: float = 0.2,
    metric: bool = True,
) -> PoseEstimate:
    """An estimate whose covariance is that of `noisy`."""
    covariance = torch.diag(
        torch.tensor([SHIFT**2] * 3 + [TURN**2] * 3, dtype=torch.float64)
    )
    extents = torch.full((3,), size / 3**0.5, dtype=torch.float64)
    return PoseEstimate(
        category,
        cam_from_canon,
        size,
        metric,
        extents,
        score,
        covariance,
        symmetry or Symmetry(),
        50,
        1.0,
        torch.tensor([0.0, 0, 9, 9], dtype=torch.float64),
        alternatives,
    )


def orbit(count: int, step: float = 12.0) -> list[Tensor]:
    """cam_from_world (4, 4) of a camera that walks around a world whose origin is 1 m before it,
    `step` degrees a time.
    """
    return [
        pose((0.0, 0.0, 0.0), (0.0, 0.0, 1.0))
        @ pose((-110.0, 0.0, 0.0), (0.0, 0.0, 0.0))
        @ pose((0.0, 0.0, step * k), (0.0, 0.0, 0.0))
        for k in range(count)
    ]


def motions(cameras: list[Tensor]) -> list[Tensor]:
    """cam_after_from_cam_before (4, 4) between neighbours."""
    return [
        after @ torch.linalg.inv(before) for before, after in itertools.pairwise(cameras)
    ]
