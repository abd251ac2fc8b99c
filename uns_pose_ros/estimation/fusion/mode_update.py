"""Modes over time: the prediction for the next image, and the update with what it shows.

The motion of the camera transforms all modes to the camera of the next image. There each mode is
compared with the modes of the image: its log weight gains the evidence, its score is pooled, and
a Kalman step on the manifold updates its pose and covariance.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from uns_pose_ros.core.geometry import (
    angle_between,
    from_parts,
    nearest_equivalent,
    rotation_from_vector,
    vector_from_rotation,
)
from uns_pose_ros.core.types import Symmetry
from uns_pose_ros.estimation.fusion.fusion_config import FusionConfig
from uns_pose_ros.estimation.fusion.pose_modes import (
    LEAST_SCORE,
    PoseModes,
    merge_modes,
    select_modes,
)

_NEAR_UNLISTED = 0.05  # probability that a pose that no mode shows is near a given one
_NOTHING = 1e6  # variance of a quantity that an image does not measure
_REACH = (
    1.5  # standard deviations of a mode's rotation by which the distance of one mode grows
)
# squared Mahalanobis distance that one in a thousand innovations of six dimensions exceeds
_SURPRISE = 22.5


def predict(
    modes: PoseModes,
    motion: Tensor | None,
    seconds: float,
    metric: bool,
    config: FusionConfig,
) -> PoseModes:
    """Predict the modes in the camera of a later image, with larger covariances.

    Args:
        modes: The modes in the camera of the image before.
        motion: (4, 4) cam_now_from_cam_before, m. None: the motion is unknown, and the object is
            expected at its position in the image before.
        seconds: Time between the images.
        metric: The poses are in m. If not, only the motion's rotation is used; it is exact for the
            object's rotation.
        config: Settings of the fusion.
    """
    turn, shift = (
        (config.unknown_motion_rotation_noise, config.unknown_motion_translation_noise)
        if motion is None
        else (config.rotation_process_noise, config.translation_process_noise)
    )
    if motion is not None and not metric:
        shift = config.unknown_motion_translation_noise
    pose, covariance = modes.pose.clone(), modes.covariance
    if motion is not None:
        pose[:, :3, :3] = motion[:3, :3] @ pose[:, :3, :3]
        lift = torch.block_diag(motion[:3, :3], motion[:3, :3])
        covariance = lift @ covariance @ lift.T
        if metric:
            pose[:, :3, 3] = pose[:, :3, 3] @ motion[:3, :3].T + motion[:3, 3]
    evidence_decay = (
        config.unknown_motion_evidence_decay if motion is None else config.evidence_decay
    )
    distance = pose[:, :3, 3].norm(dim=-1, keepdim=True)
    sigma = torch.cat(
        [
            shift * distance.expand(-1, 3),
            torch.full_like(pose[:, :3, 3], math.radians(turn)),
        ],
        -1,
    )
    return replace(
        modes,
        pose=pose,
        covariance=covariance + torch.diag_embed(sigma**2 * seconds),
        evidence_decay=evidence_decay,
    )


def update(
    modes: PoseModes, seen: PoseModes, symmetry: Symmetry, config: FusionConfig
) -> PoseModes:
    """Update the modes with the modes that `observe` returns for one more image."""
    before, image = modes.pose[:, None, :3, :3], seen.pose[None, :, :3, :3]
    turned = nearest_equivalent(
        image, before, symmetry.order, symmetry.axis
    )  # (K, J, 3, 3)
    angle = angle_between(before, turned)
    # what may have turned meanwhile, for all that is known, may show itself further from where it
    # was
    doubt = torch.rad2deg(modes.covariance.diagonal(dim1=1, dim2=2)[:, 3:].mean(1).sqrt())[
        :, None
    ]
    same = config.merge_angle_deg + _REACH * doubt
    likely = (seen.log_weight.exp() - config.outlier_probability).clamp_min(0)
    support = likely * torch.exp(
        -0.5 * angle**2 / (config.measurement_sigma_deg**2 + doubt**2)
    )
    best = torch.where(angle < same, support, -1.0).argmax(1)
    row = torch.arange(len(best))
    matched = angle[row, best] < same[:, 0]
    filtered = _kalman_update(modes, seen, turned[row, best], best, matched)
    weight = (
        modes.evidence_decay * modes.log_weight
        + (config.outlier_probability + support.sum(1)).log()
    )
    new = (angle >= same).all(0)
    unseen = modes.evidence_decay * modes.unseen
    scored = _pool_scores(modes, seen, angle, same, new)
    together = PoseModes(
        torch.cat([filtered.pose, seen.pose[new]]),
        torch.cat([filtered.covariance, seen.covariance[new]]),
        torch.cat([filtered.common_covariance, seen.common_covariance[new]]),
        torch.cat([weight, unseen + seen.log_weight[new]]),
        unseen + math.log(config.outlier_probability),
        *scored,
    )
    order = together.log_weight.argsort(descending=True, stable=True)
    return merge_modes(select_modes(together, order), symmetry, config)


def _pool_scores(
    modes: PoseModes, seen: PoseModes, angle: Tensor, same: Tensor, new: Tensor
) -> tuple[Tensor, float, float]:
    """Add what an image says of the scores.

    Args:
        modes: K modes before the image.
        seen: J modes of the image.
        angle: (K, J) degrees between them.
        same: (K, 1) degrees, from which on two of them are two modes.
        new: (J,) bool, modes of the image that are like none before.

    Returns:
        Log scores (K + new) of the modes before and the new ones, the log score of unlisted poses,
        and the weight of all images.
    """
    before, weight = modes.evidence_decay, modes.evidence_decay * modes.images
    given = seen.score()
    unlisted = max(1 - float(given.sum()), LEAST_SCORE)
    miss = _NEAR_UNLISTED * unlisted
    nearest = angle.argmin(0)
    shown = angle.amin(0) < same[nearest, 0]
    support = torch.zeros(len(modes.pose), dtype=torch.float64)
    support = support.index_add(0, nearest[shown], given[shown])
    old = before * modes.log_score + seen.images * support.clamp_min(miss).log()
    missed = before * modes.log_unlisted + weight * math.log(_NEAR_UNLISTED)
    fresh = missed + seen.images * given[new].clamp_min(LEAST_SCORE).log()
    return (
        torch.cat([old, fresh]),
        before * modes.log_unlisted + seen.images * math.log(unlisted),
        weight + seen.images,
    )


def _kalman_update(
    modes: PoseModes, seen: PoseModes, turned: Tensor, best: Tensor, matched: Tensor
) -> PoseModes:
    """Update every mode with its mode of the image, in one Kalman step.

    Args:
        modes: K modes.
        seen: The modes of the image.
        turned: (K, 3, 3) rotation of the image's mode, nearest under symmetry.
        best: (K,) index of the image's mode.
        matched: (K,) False for a mode that the image does not show. Such a mode is updated only
            with the position of the image's most probable mode.
    """
    best = torch.where(matched, best, 0)
    noise = seen.covariance[best].clone()
    noise[~matched, 3:], noise[~matched, :, 3:] = 0.0, 0.0
    noise[~matched, 3:, 3:] = _NOTHING * torch.eye(3, dtype=torch.float64)
    rotation, translation = modes.pose[:, :3, :3], modes.pose[:, :3, 3]
    turn = vector_from_rotation(turned @ rotation.transpose(-1, -2)) * matched[:, None]
    innovation = torch.cat([seen.pose[best, :3, 3] - translation, turn], -1)[..., None]
    spread = modes.covariance
    square = (
        innovation.transpose(-1, -2) @ torch.linalg.solve(spread + noise, innovation)
    )[:, 0, 0]
    # farther off than both can explain: the object moved, or the filter was too sure; the
    # difference joins its doubt
    spread = spread + (square > _SURPRISE)[
        :, None, None
    ] * innovation @ innovation.transpose(-1, -2)
    gain = torch.linalg.solve(spread + noise, spread).transpose(-1, -2)
    step = (gain @ innovation)[..., 0]
    pose = from_parts(
        rotation_from_vector(step[:, 3:]) @ rotation, translation + step[:, :3]
    )
    rest = torch.eye(6, dtype=torch.float64) - gain
    covariance = rest @ spread @ rest.transpose(-1, -2) + gain @ noise @ gain.transpose(
        -1, -2
    )  # Joseph's form stays positive
    return replace(
        modes,
        pose=pose,
        covariance=covariance,
        common_covariance=seen.common_covariance[best],
    )
