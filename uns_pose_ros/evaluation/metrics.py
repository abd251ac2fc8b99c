"""Accuracy figures of rotations and scores."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from uns_pose_ros.core.geometry import angle_between, symmetry_rotations
from uns_pose_ros.core.types import Symmetry

ANGLES = (30, 15, 10)  # degrees, of the accuracies
WRONG = 30.0  # degrees; an estimate with a larger error is wrong
MISSING = 180.0  # degrees, the error of an image without an estimate


def symmetric_angle(a: Tensor, b: Tensor, symmetry: Symmetry) -> Tensor:
    """Angle (...), degrees, between rotations a and b up to the symmetry of the category.

    For a finite symmetry it is the least angle from a to g b over all rotations g of the group. For
    a continuous symmetry it is the angle between the two axes, because a turn about the axis
    removes the rest (swing-twist decomposition).

    Args:
        a: (..., 3, 3), into the canonical frame.
        b: (..., 3, 3), into the canonical frame.
        symmetry: symmetry of the category.
    """
    if symmetry.order == 0:
        axis = symmetry.axis / symmetry.axis.norm()
        chord = ((a.transpose(-1, -2) - b.transpose(-1, -2)) @ axis).norm(dim=-1) / 2
        return torch.rad2deg(2 * torch.asin(chord.clamp(max=1.0)))
    group = symmetry_rotations(symmetry.order, symmetry.axis)
    return angle_between(a[..., None, :, :], group @ b[..., None, :, :]).amin(-1)


def accuracies(errors: Tensor) -> dict[str, float | None]:
    """acc30, acc15, acc10 (percent below the angle) and median_deg of errors (N,), degrees.

    Each is None if errors is empty.
    """
    percent = {
        f"acc{angle}": float((errors < angle).double().mean()) * 100
        if len(errors)
        else None
        for angle in ANGLES
    }
    return percent | {"median_deg": float(errors.quantile(0.5)) if len(errors) else None}


def reliability(scored: Sequence[tuple[float, float]]) -> list[dict[str, float]]:
    """The accuracy at each tenth of the scores.

    Args:
        scored: pairs of score and error, degrees.

    Returns:
        from (the lowest score), count and acc30 of each tenth that has any estimate.
    """
    tenths = [min(9, int(score * 10)) for score, _ in scored]
    groups = {
        k: [error for tenth, (_, error) in zip(tenths, scored, strict=True) if tenth == k]
        for k in sorted(set(tenths))
    }
    return [
        {
            "from": k / 10,
            "count": len(errors),
            "acc30": 100 * sum(error < WRONG for error in errors) / len(errors),
        }
        for k, errors in groups.items()
    ]


def auroc(scored: Sequence[tuple[float, float]]) -> float | None:
    """Probability that a right estimate scores above a wrong one; ties count half.

    An estimate is wrong above 30 degrees. The result is None unless both kinds exist.
    """
    right = torch.tensor(
        [score for score, error in scored if error <= WRONG], dtype=torch.float64
    )
    wrong = torch.tensor(
        [score for score, error in scored if error > WRONG], dtype=torch.float64
    )
    if not len(right) or not len(wrong):
        return None
    difference = right[:, None] - wrong[None]
    return float(((difference > 0).double() + (difference == 0).double() / 2).mean())
