"""What speaks for the best pose of a crop: numbers from which its score is computed.

The numbers have no unit, and those of a right pose are alike for near and far objects.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from uns_pose_ros.core.geometry import nearest_equivalent, vector_from_rotation
from uns_pose_ros.estimation.solver.pose_hypotheses import Correspondences

# name of each number, and whether it grows (1) or shrinks (-1) for right poses
EVIDENCE = {
    "explained": 1,  # log share of the cells that are inliers
    "likelihood": 1,  # mean log likelihood of the cells
    "covered": 1,  # mean log presence at the visible vertices
    "covered_best": 1,  # the same without the worst third of the vertices
    "outside": -1,  # share of the cells that lie beside the projected template
    "filled": 1,  # log length of the projected template over that of the cells
    "mass": 1,  # log odds of the hypotheses near the pose, against all others
    "mass_sharp": 1,  # the same, at a lower temperature
    "modes": 1,  # log weight of the pose among the refined modes
    "likeness": 1,  # mean log odds that the cells show the category, of the better half of them
    "coarse_rotation": 1,  # log likelihood of the coarse rotation that all tokens tell
    "spread": -1,  # log mean square angle of all hypotheses, rad^2
    "error": -1,  # median distance of the inliers to their vertices, lengths of the template
}
_WORST = 1 / 3
_NEAR = 30.0  # degrees
_ODDS = 6.0  # largest log odds
_TEMPERATURES = (6.0, 24.0)
_LEAST_SQUARE = 1e-6  # rad^2
_FAR = 1e4


def collect_evidence(
    correspondences: Correspondences,
    presence: Tensor,
    likeness: Tensor,
    grid_from_view: Tensor,
    tangents: Tensor,
    seen: Tensor,
    inlier: Tensor,
    error: Tensor,
    likelihood: Tensor,
    weight: Tensor,
    turns: Tensor,
    rating: Tensor,
    spread: Tensor,
    coarse: Tensor,
) -> Tensor:
    """Compute the numbers (B, F) that `EVIDENCE` lists, for the best pose of each of B crops.

    Args:
        correspondences: The cells of the crops, P each.
        presence: (B, h, w) probability that a cell shows the object.
        likeness: (B, P) log odds that the cells show the category.
        grid_from_view: See `CropObservation`.
        tangents: (B, 2, V) of the projected template.
        seen: (B, V) bool, the vertices that are visible.
        inlier: (B, P) bool.
        error: (B,) median distance of the inliers, tangents.
        likelihood: (B,) mean log likelihood.
        weight: (B,) log weight of the pose among the modes.
        turns: (B, H, 3) see `turns_to_hypotheses`.
        rating: (B, H) scores of all hypotheses.
        spread: (B, 2, 3, 3) see `spread_of_hypotheses`.
        coarse: (B,) log likelihood of the rotation that all tokens together tell.
    """
    there = correspondences.presence > 0  # (B, P)
    count = there.sum(1).clamp_min(1)
    mapped = grid_from_view[..., :2] @ tangents + grid_from_view[..., 2:]
    where = mapped[:, :2] / mapped[:, 2:].clamp_min(1e-9)  # (B, 2, V)
    inside = seen & (where.abs() < 1).all(1)
    sampled = grid_sample(
        presence[:, None],
        where.mT[:, :, None],
        align_corners=False,
        padding_mode="border",
    )[:, 0, :, 0]
    value = (sampled + 0.1).clamp_max(1).log()
    shown = inside.sum(1).clamp_min(1)
    covered = (value * inside).sum(1) / shown
    ordered = torch.where(inside, value, _FAR).sort(1).values
    place = torch.arange(ordered.shape[1], device=ordered.device)
    best = (place >= (_WORST * shown)[:, None]) & (place < shown[:, None])
    covered_best = (ordered * best).sum(1) / best.sum(1).clamp_min(1)

    points = torch.where(seen[:, None], tangents, _FAR)
    low = torch.where(seen[:, None], tangents, _FAR).amin(2)
    high = torch.where(seen[:, None], tangents, -_FAR).amax(2)
    length = (high - low).amax(1).clamp_min(1e-9)
    gap = torch.cdist(correspondences.tangents, points.mT).amin(2)  # (B, P)
    limit = 1.5 * correspondences.cell + length / 12
    beside = (gap > limit[:, None]) & there
    outside = beside.sum(1) / count
    at = correspondences.tangents
    cells_low = torch.where(there[..., None], at, _FAR).amin(1)
    cells_high = torch.where(there[..., None], at, -_FAR).amax(1)
    extent = (cells_high - cells_low).amax(1) + correspondences.cell
    filled = (length / extent.clamp_min(1e-9)).log()

    near = _is_near(turns)
    odds = []
    for temperature in _TEMPERATURES:
        score = temperature * rating
        mine = torch.where(near, score, -torch.inf).logsumexp(1)
        rest = torch.where(near, -torch.inf, score).logsumexp(1)
        odds.append((mine - rest).nan_to_num(0.0).clamp(-_ODDS, _ODDS))
    mean_square = spread.sum(1).diagonal(dim1=1, dim2=2).sum(1)
    return torch.stack(
        [
            ((inlier.sum(1) + 0.5) / count).log(),
            likelihood,
            covered,
            covered_best,
            outside,
            filled,
            *odds,
            weight,
            mean_of_better_half(likeness, there),
            coarse,
            mean_square.clamp_min(_LEAST_SQUARE).log(),
            error.nan_to_num(0.0) / length,
        ],
        1,
    )


def mean_of_better_half(values: Tensor, counted: Tensor) -> Tensor:
    """Compute the mean of the better half of the values, the middle one included.

    Something that covers up to half of an object does not change it much.

    Args:
        values: (..., P), better where they are larger.
        counted: (..., P) bool, the values that count.

    Returns:
        (...); -1e4 where none counts.
    """
    count = counted.sum(-1, keepdim=True).clamp_min(1)
    ordered = torch.where(counted, values, -_FAR).sort(-1, descending=True).values
    half = torch.arange(ordered.shape[-1], device=ordered.device) < (count + 1) // 2
    return (ordered * half).sum(-1) / half.sum(-1)


def turns_to_hypotheses(
    rotation: Tensor, hypotheses: Tensor, order: int, axis: Tensor
) -> Tensor:
    """Compute how all hypotheses of a crop are rotated against its pose.

    Args:
        rotation: (B, 3, 3) of the poses.
        hypotheses: Rotations (B, H, 3, 3).
        order: Order of the category's symmetry: the nearest equivalent rotation counts.
        axis: Its axis (3,).

    Returns:
        Rotation vectors (B, H, 3), rad, in the canonical frame.
    """
    pose = rotation[:, None]
    equivalent = nearest_equivalent(hypotheses, pose, order, axis)
    return vector_from_rotation(pose.mT @ equivalent)


def spread_of_hypotheses(turns: Tensor, rating: Tensor) -> Tensor:
    """Compute how far the hypotheses lie apart that explain a crop about as well as its pose.

    Args:
        turns: (B, H, 3) see `turns_to_hypotheses`.
        rating: (B, H) their scores; not finite: they do not count.

    Returns:
        Second moments (B, 2, 3, 3), rad^2, of those within 30 degrees of the pose and of all
        others, weighted by the exponentials of 6 times their scores. The sum of both is that of
        all hypotheses.
    """
    counted = rating.isfinite()
    score = torch.where(counted, _TEMPERATURES[0] * rating, -_FAR)
    weight = score.softmax(1) * counted
    turns = turns.nan_to_num(0.0)
    near = _is_near(turns)
    weights = torch.stack([weight * near, weight * ~near], 1)  # (B, 2, H)
    return (weights[..., None] * turns[:, None]).mT @ turns[:, None]


def _is_near(turns: Tensor) -> Tensor:
    return turns.square().sum(-1) < math.radians(_NEAR) ** 2
