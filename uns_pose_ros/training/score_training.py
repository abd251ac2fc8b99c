"""Learn the covariance and the threshold of a model from poses that were right and wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from uns_pose_ros.estimation.score_calibration import (
    FLOOR,
    REGION,
    Chance,
    ScoreCalibration,
)
from uns_pose_ros.estimation.solver.pose_evidence import EVIDENCE
from uns_pose_ros.training.common_chance import RIGHT, chance_of_right

# share of the scenes that may have an answer, and so that may lie beyond what counts as the likest
# scene: what lies beside the object may be another one
_FALSE = 0.02
# log odds that an object is there, for each unit of its likeness beyond the middle between the
# likest scene and half of the objects
_STEEPNESS = 8.0
_THRESHOLD = FLOOR / 2  # an object of whose pose nothing is known, where it is 1 to 1
# odds of an object in the middle, so that even the answer that is least like one is an object with
# the odds that answers have, where as many images show one as show none
_ODDS = (1 - _FALSE) / _FALSE / _THRESHOLD
_LOW = -1e6  # evidence is more than this
_TYPICAL = (math.radians(8.0), math.radians(90.0))  # errors of right and of wrong poses
_BOUNDS = (-8.0, 4.0)  # of the logarithm of a share
_FACTORS = (1e-3, 1e3)  # of covariances


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Estimates of N views whose videos the head has not seen, and of scenes without an object."""

    evidence: Tensor  # (N, F)
    error: Tensor  # (N, 3) rad, from the estimate to the truth, canonical axes
    fit: Tensor  # (N, 3, 3) rad^2, covariance of the fit alone, canonical axes
    hypothesis_spread: Tensor  # (N, 2, 3, 3) rad^2, see `PoseEstimate`
    false: Sequence[Tensor]  # (K, F) evidence of the K poses in each scene

    @staticmethod
    def join(parts: Sequence[HeldOut]) -> HeldOut:
        """Put several together."""
        return HeldOut(
            torch.cat([part.evidence for part in parts]),
            torch.cat([part.error for part in parts]),
            torch.cat([part.fit for part in parts]),
            torch.cat([part.hypothesis_spread for part in parts]),
            [scene for part in parts for scene in part.false],
        )


def calibrate(held_out: HeldOut) -> ScoreCalibration | None:
    """Fit covariance and threshold; None if all poses are wrong.

    The chance that a pose is right is the same for all models, see `common_chance`.

    The covariance of right poses is fitted to them alone: a fusion over images uses it. What all
    poses need beyond it is the doubt. Where no held-out pose is wrong, nothing tells how large it
    is: then it is what the chance says, with wrong poses in any direction.
    """
    evidence = held_out.evidence
    right = held_out.error.norm(dim=1) < math.radians(RIGHT)
    if not right.any():
        return None
    chance = chance_of_right()
    right_spread = second_moments(held_out.error[right], _TYPICAL[0])
    wrong_spread = second_moments(held_out.error[~right], _TYPICAL[1])
    near, far = held_out.hypothesis_spread.unbind(1)
    parts = torch.stack([right_spread.expand_as(near), held_out.fit, near])
    shares = fit_shares(parts[:, right], held_out.error[right])
    covariance = _sum(shares, parts)
    factor = conformal_factor(covariance[right], held_out.error[right])
    shares, covariance = factor * shares, factor * covariance
    parts = torch.stack([(1 - chance(evidence))[:, None, None] * wrong_spread, far])
    if right.all():
        doubts = torch.tensor([1.0, 0.0], dtype=torch.float64)
    else:
        doubts = fit_shares(parts, held_out.error, covariance)
        doubts *= conformal_factor(_sum(doubts, parts), held_out.error, covariance)
    return ScoreCalibration(
        right=chance,
        there=chance_of_object(held_out),
        right_spread=shares[0] * right_spread,
        wrong_spread=doubts[0] * wrong_spread,
        factor=1.0,  # the shares have it
        threshold=_THRESHOLD,
        fit_share=float(shares[1]),
        near_share=float(shares[2]),
        far_share=float(doubts[1]),
        odds=_ODDS,
    )


def chance_of_object(held_out: HeldOut) -> Chance:
    """The chance that an object is there, from its likeness alone.

    Other evidence tells held-out views from scenes too, but an object that something covers from
    the world less. The scenes are easier than the world: it begins far above them, in the middle
    between the likest one and half of the objects.
    """
    place = list(EVIDENCE).index("likeness")
    likest = [float(scene[:, place].max()) for scene in held_out.false if len(scene)]
    beyond = int(_FALSE * len(held_out.false))
    scene = sorted(likest, reverse=True)[beyond] if len(likest) > beyond else 0.0
    half = float(held_out.evidence[:, place].median())
    middle = (min(scene, half) + half) / 2
    weight = torch.zeros(len(EVIDENCE), dtype=torch.float64)
    weight[place] = _STEEPNESS
    everything = torch.cat([held_out.evidence, *held_out.false])
    # what is less like the object than any scene is none
    low = torch.full_like(weight, _LOW)
    return Chance(low, everything.amax(0), weight, -_STEEPNESS * middle)


def second_moments(turns: Tensor, typical: float) -> Tensor:
    """Compute the second moments (3, 3) of rotation vectors (N, 3), rad.

    Three vectors of the length `typical`, one about each axis, are added, because few vectors
    say little.
    """
    some = torch.eye(3, dtype=torch.float64) * typical**2
    return (turns.T @ turns + some) / (len(turns) + 3)


def fit_shares(parts: Tensor, error: Tensor, known: Tensor | None = None) -> Tensor:
    """Find the sum of covariances under which normally distributed errors are most likely.

    Args:
        parts: (K, N, 3, 3) float64, rad^2, covariances of each error.
        error: (N, 3) float64, rotation vectors, rad.
        known: (N, 3, 3) covariances whose share is 1; None: zero.

    Returns:
        Shares (K,) float64 of the parts; 1 where the errors tell nothing of it.
    """
    matrices, vectors = parts.numpy(), error.numpy()
    base = 0.0 if known is None else known.numpy()

    def loss(logs: np.ndarray) -> float:
        covariance = base + np.einsum("k,knij->nij", np.exp(logs), matrices)
        solved = np.linalg.solve(covariance, vectors[..., None])[..., 0]
        log_volume = np.linalg.slogdet(covariance)[1]
        return float(((vectors * solved).sum() + log_volume.sum() + (logs**2).sum()) / 2)

    logs = minimize(loss, np.full(len(parts), -1.0), bounds=[_BOUNDS] * len(parts)).x
    return torch.from_numpy(np.exp(logs))


def conformal_factor(
    covariance: Tensor, error: Tensor, known: Tensor | None = None
) -> float:
    """Find the factor of covariances (N, 3, 3) with 95 % of the errors (N, 3) in the regions.

    `known` (N, 3, 3) is added to them and has no factor.
    """
    base = torch.zeros_like(covariance) if known is None else known
    low, high = _FACTORS
    for _ in range(40):
        middle = math.sqrt(low * high)
        solved = torch.linalg.solve(base + middle * covariance, error[..., None])[..., 0]
        inside = ((error * solved).sum(1) <= REGION).double().mean()
        low, high = (low, middle) if inside >= 0.95 else (middle, high)
    return high


def _sum(shares: Tensor, parts: Tensor) -> Tensor:
    return torch.einsum("k,knij->nij", shares, parts)
