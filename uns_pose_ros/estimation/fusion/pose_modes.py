"""The modes of an object: its distinct poses, with log weights, scores and covariances.

`observe` converts the estimate of one image to modes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from uns_pose_ros.core.geometry import angle_between, nearest_equivalent
from uns_pose_ros.core.types import PoseEstimate, Symmetry
from uns_pose_ros.estimation.fusion.fusion_config import FusionConfig

LEAST_SCORE = 1e-4  # no image is surer than this that a pose is wrong
_TINY = (
    1e-12  # rad^2, or squared distances: least variance of an image's pose in any direction
)
_UNLISTED = 0.25  # least share of what the score leaves that no alternative has


@dataclass(frozen=True, eq=False)
class PoseModes:
    """K possible poses of an object in the camera of one image, the most probable first."""

    pose: Tensor  # (K, 4, 4) float64, cam_from_canon
    # (K, 6, 6) float64, order and units as in PoseEstimate, without the images' common error
    covariance: Tensor
    common_covariance: Tensor  # (K, 6, 6) float64, the images' common error
    log_weight: Tensor  # (K,) float64, evidence of all images for the mode
    unseen: float  # log weight of a pose that no image has shown
    # (K,) float64, sum over the images of the log of the probability that each gives the mode
    log_score: Tensor
    log_unlisted: float  # the same of any pose that the image does not show
    images: float = 1.0  # weight of all images in the two sums
    # share of the log weights that remains at the next image
    evidence_decay: float = 1.0

    def score(self) -> Tensor:
        """Return the probability (K,) that each mode is right, pooled over the images.

        The rest to 1 is the probability that none is right, or that no object is there.
        """
        pooled = torch.cat([self.log_score, self.log_score.new_tensor([self.log_unlisted])])
        return (pooled / self.images).softmax(0)[:-1]

    def probability(self) -> Tensor:
        """Return the probability (K,) of each mode, without its share if no image had shown it."""
        weight = (self.log_weight - self.log_weight.max()).exp() - (
            self.unseen - self.log_weight.max()
        ).exp()
        return weight.clamp_min(1e-12) / weight.clamp_min(1e-12).sum()


def mode_scores(estimate: PoseEstimate) -> Tensor:
    """Return the probability that each pose of an image is right: its own, then the alternatives.

    The own pose has the estimate's score. An alternative has its share, relative to the own pose.
    But together the alternatives leave a part of the rest to poses that the image does not show.

    Returns:
        (J,) float64; the sum is below 1 unless the score is 1.
    """
    shares = torch.tensor(
        [mode.log_weight for mode in estimate.alternatives], dtype=torch.float64
    ).exp()
    others = estimate.score * shares
    rest = (1 - _UNLISTED) * (1 - estimate.score)
    others = others * (rest / others.sum().clamp_min(_TINY)).clamp_max(1.0)
    return torch.cat([torch.tensor([estimate.score], dtype=torch.float64), others])


def ranked_modes(
    estimate: PoseEstimate, least: float = 0.0
) -> list[tuple[Tensor, float, Tensor | None]]:
    """Return every pose that an estimate holds possible, its own first, then the likeliest.

    Args:
        estimate: The estimate.
        least: Alternatives of a lower score are left out.

    Returns:
        cam_from_canon (4, 4), the score, and the covariance (6, 6) of each.
    """
    scores = mode_scores(estimate).tolist()
    own = (estimate.cam_from_canon, scores[0], estimate.covariance)
    others = [
        (mode.cam_from_canon, score, mode.covariance)
        for mode, score in zip(estimate.alternatives, scores[1:], strict=True)
        if score >= least
    ]
    return [own, *sorted(others, key=lambda mode: -mode[1])]


def observe(estimate: PoseEstimate, config: FusionConfig) -> PoseModes:
    """Convert the pose and the alternatives of one image to modes."""
    poses = torch.stack(
        [estimate.cam_from_canon, *(mode.cam_from_canon for mode in estimate.alternatives)]
    )
    known = [_without_doubt(estimate), *(mode.covariance for mode in estimate.alternatives)]
    covariance = torch.stack(
        [
            _assumed_covariance(pose) if one is None else one
            for pose, one in zip(poses, known, strict=True)
        ]
    )
    covariance = _bound_covariance(covariance, poses[:, :3, 3].norm(dim=-1))
    logs = torch.tensor(
        [0.0, *(mode.log_weight for mode in estimate.alternatives)], dtype=torch.float64
    )
    log_weight = (config.outlier_probability + logs.softmax(0)).log()
    order = log_weight.argsort(descending=True, stable=True)
    share = config.correlated_noise_share
    covariance = covariance[order]
    modes = PoseModes(
        poses[order],
        (1 - share) * covariance,
        share * covariance,
        log_weight[order],
        math.log(config.outlier_probability),
        mode_scores(estimate)[order].clamp_min(LEAST_SCORE).log(),
        0.0,
    )
    modes = merge_modes(modes, estimate.symmetry, config)
    unlisted = max(1 - float(modes.log_score.exp().sum()), LEAST_SCORE)
    return replace(modes, log_unlisted=math.log(unlisted))


def _without_doubt(estimate: PoseEstimate) -> Tensor | None:
    """Covariance (6, 6) of the pose if it is right; the modes are the doubt of a fusion."""
    if estimate.covariance is None or estimate.doubt is None:
        return estimate.covariance
    covariance = estimate.covariance.clone()
    covariance[3:, 3:] -= estimate.doubt
    return covariance


def _bound_covariance(covariance: Tensor, distance: Tensor) -> Tensor:
    """Bound covariances (J, 6, 6), so that they can be inverted.

    If a fit leaves a direction open, its covariance has any size and sign there. Here no standard
    deviation is above half a turn, or as many distances (J,), and none is 0.
    """
    unit = torch.cat(
        [
            distance.clamp_min(1e-6)[:, None].expand(-1, 3),
            torch.ones(len(distance), 3, dtype=torch.float64),
        ],
        1,
    )
    both = unit[:, :, None] * unit[:, None, :]
    scaled = covariance / both
    values, vectors = torch.linalg.eigh((scaled + scaled.transpose(1, 2)) / 2)
    values = torch.where(values < 0, math.pi**2, values.clamp(_TINY, math.pi**2))
    return vectors @ (values[:, :, None] * vectors.transpose(1, 2)) * both


def _assumed_covariance(pose: Tensor) -> Tensor:
    """Return a covariance (6, 6) for a pose (4, 4) without one.

    It has 10 degrees, 2 % of the distance sideways and 10 % in depth.
    """
    distance = float(pose[:3, 3].norm())
    sigma = [0.02 * distance, 0.02 * distance, 0.1 * distance, *[math.radians(10)] * 3]
    return torch.diag(torch.tensor(sigma, dtype=torch.float64) ** 2)


def merge_modes(modes: PoseModes, symmetry: Symmetry, config: FusionConfig) -> PoseModes:
    """Keep the most probable modes, without those that are equal to a more probable mode."""
    rotation = modes.pose[:, :3, :3]
    turned = nearest_equivalent(
        rotation[None], rotation[:, None], symmetry.order, symmetry.axis
    )
    near = (angle_between(rotation[:, None], turned) < config.merge_angle_deg / 2).tolist()
    left: list[int] = []
    for k in range(len(near)):
        if len(left) < config.max_modes and not any(near[better][k] for better in left):
            left.append(k)
    return select_modes(modes, torch.tensor(left))


def select_modes(modes: PoseModes, index: Tensor) -> PoseModes:
    """Return the modes of the given indices (L,), in their order."""
    return replace(
        modes,
        pose=modes.pose[index],
        covariance=modes.covariance[index],
        common_covariance=modes.common_covariance[index],
        log_weight=modes.log_weight[index],
        log_score=modes.log_score[index],
    )
