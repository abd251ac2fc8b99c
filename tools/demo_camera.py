"""Handheld camera paths around an object.

Deterministic in the seed, smooth in time, full of small faults.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class PathConfig:
    """What a hand does.

    Angles in degrees, distances relative to the mean distance or to the object's size.
    """

    sweep: tuple[float, float] = (335.0, 375.0)  # degrees walked around the object
    elevation: tuple[float, float] = (14.0, 38.0)  # degrees above the horizon
    distance: float = 0.1  # slow change, part of the mean distance
    roll: float = 5.0  # degrees
    aim: float = 0.07  # the aim wanders off the object's middle, part of its height
    tremor: float = 0.3  # degrees of quick shaking
    uneven: float = 0.55  # part of a mean step by which steps differ


class Wander:
    """A smooth random curve (n,) -> values in about [-1, 1], from a few sines."""

    def __init__(self, random: np.random.Generator, cycles: float = 2.5) -> None:
        self.frequency = random.uniform(0.4, cycles, 4)
        self.phase = random.uniform(0, 2 * np.pi, 4)

    def __call__(self, time: Array) -> Array:
        return np.asarray(
            np.sin(2 * np.pi * time[:, None] * self.frequency + self.phase).sum(1) / 2.2
        )


@dataclass(frozen=True)
class HandheldPath:
    """Camera poses at any time in [0, 1]; frame k of n is at `times[k]`."""

    times: Array  # (F,) uneven
    azimuth: tuple[float, float]  # radians: start, signed sweep
    distance: float  # m
    center: Array  # (3,) m, the middle of the object
    height: float  # m, of the object
    config: PathConfig
    curves: tuple[Wander, ...]
    shake: tuple[Wander, ...]

    def poses(self, time: Array) -> Array:
        """cam_from_canon (n, 4, 4) at times (n,); camera: x right, y down, z forward."""
        walk, raise_, near, roll, aim_x, aim_y, aim_z = (
            curve(time) for curve in self.curves
        )
        start, sweep = self.azimuth
        azimuth = start + sweep * (time + 0.03 * walk)
        low, high = np.radians(self.config.elevation)
        elevation = (low + high) / 2 + (high - low) / 2 * np.clip(raise_, -1, 1)
        distance = self.distance * (1 + self.config.distance * near)
        away = np.stack(
            [
                np.cos(azimuth) * np.cos(elevation),
                np.sin(azimuth) * np.cos(elevation),
                np.sin(elevation),
            ],
            1,
        )
        aim = self.center + self.config.aim * self.height * np.stack(
            [aim_x, aim_y, aim_z], 1
        )
        eye = self.center + distance[:, None] * away
        forward = aim - eye
        forward /= np.linalg.norm(forward, axis=1, keepdims=True)
        right = np.cross(forward, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right, axis=1, keepdims=True)
        rotation = np.stack([right, np.cross(forward, right), forward], 1)
        tremor = [np.radians(self.config.tremor) * curve(time) for curve in self.shake]
        turn = _rotation_vector(
            np.stack(
                [
                    tremor[0],
                    tremor[1],
                    tremor[2] + np.radians(self.config.roll) * roll / 1.5,
                ],
                1,
            )
        )
        rotation = turn @ rotation
        matrix = np.tile(np.eye(4), (len(time), 1, 1))
        matrix[:, :3, :3] = rotation
        matrix[:, :3, 3] = -(rotation @ eye[..., None])[..., 0]
        return matrix


def handheld(
    random: np.random.Generator,
    frames: int,
    low: Array,
    high: Array,
    half_fov: float,
    config: PathConfig,
    fill: float = 1.05,
) -> HandheldPath:
    """A path around the box low..high (3,) m that shows it at about `fill` of the image's half
    angle (radians).
    """
    steps = 1 + config.uneven * random.uniform(-1, 1, frames)
    times = np.cumsum(steps) / steps.sum() * (1 - 1 / frames)
    radius = float(np.linalg.norm(high - low)) / 2
    sweep = np.radians(random.uniform(*config.sweep)) * random.choice([-1, 1])
    return HandheldPath(
        times,
        (random.uniform(0, 2 * np.pi), sweep),
        radius / np.sin(half_fov * fill),
        (low + high) / 2,
        float(high[2] - low[2]),
        config,
        tuple(Wander(random) for _ in range(7)),
        tuple(Wander(random, max(frames / 3, 4.0)) for _ in range(3)),
    )


def _rotation_vector(vector: Array) -> Array:
    """Rotations (n, 3, 3) of rotation vectors (n, 3), by Rodrigues' formula."""
    angle = np.maximum(np.linalg.norm(vector, axis=1), 1e-12)[:, None, None]
    x, y, z = (vector / angle[:, 0]).T
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).reshape(-1, 3, 3)
    return np.asarray(
        np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    )


def random_rotation(random: np.random.Generator) -> Array:
    """A rotation (3, 3), uniform on SO(3)."""
    q, r = np.linalg.qr(random.standard_normal((3, 3)))
    q = q * np.sign(np.diag(r))
    return np.asarray(q * np.sign(np.linalg.det(q)))
