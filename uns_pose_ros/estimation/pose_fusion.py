"""Fusion of an object's poses over images: flips are outvoted and noise is averaged.

An image of a car often fits the car rotated by 180 degrees nearly as well. So all distinct poses
(modes) are kept. Each mode has a log weight, which sums the evidence of all images, and a
covariance from a Kalman filter on the manifold (state: translation, rotation about the camera's
axes). The known motion of the camera transforms all modes to the camera of the newest image, where
they are compared.

The score of a fused pose is a logarithmic opinion pool: the weighted geometric mean of what each
image says of the pose, and of all others. Errors of images of one object are alike, so agreement
adds nothing to the scores: images of score 0.5 that agree have 0.5 together. Images that disagree
have less, and an image that rules an alternative out adds what the alternative had.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from uns_pose_ros.core.geometry import (
    angle_between,
    from_parts,
    nearest_equivalent,
    rotation_from_vector,
    vector_from_rotation,
)
from uns_pose_ros.core.settings import check_ranges, setting
from uns_pose_ros.core.types import PoseEstimate, PoseMode, Symmetry
from uns_pose_ros.estimation.frame_placement import refit_frames

_TINY = (
    1e-12  # rad^2, or squared distances: least variance of an image's pose in any direction
)
_DOUBT = 0.05  # probability of a wrong pose that no mode tells of
_LEAST_SCORE = 1e-4  # no image is surer than this that a pose is wrong
_UNLISTED = 0.25  # least share of what the score leaves that no alternative has
_NEAR_UNLISTED = 0.05  # probability that a pose that no mode shows is near a given one
_NOTHING = 1e6  # variance of a quantity that an image does not measure
_REACH = (
    1.5  # standard deviations of a mode's rotation by which the distance of one mode grows
)
# squared Mahalanobis distance that one in a thousand innovations of six dimensions exceeds
_SURPRISE = 22.5


@dataclass(frozen=True)
class FusionConfig:
    """How the poses of several images become one pose."""

    outlier_probability: float = setting(
        0.1,
        "probability that none of an image's poses is correct",
        low=1e-6,
        high=1.0,
        group="tracking",
        deprecated="tracking.floor",
    )
    evidence_decay: float = setting(
        0.9,
        "share of the evidence that remains one image later; with a small share, an object that "
        "was turned is recognized soon",
        low=0.0,
        high=1.0,
        group="tracking",
        deprecated="tracking.forget",
    )
    unknown_motion_evidence_decay: float = setting(
        0.7,
        "share of the evidence that remains one image later if the camera's motion is unknown",
        low=0.0,
        high=1.0,
        group="tracking",
        deprecated="tracking.unknown_forget",
    )
    measurement_sigma_deg: float = setting(
        20.0,
        "standard deviation of the rotation between two correct estimates",
        unit="deg",
        low=1.0,
        high=180.0,
        group="tracking",
        deprecated="tracking.agree",
    )
    merge_angle_deg: float = setting(
        30.0,
        "largest rotation between two poses that are one mode",
        unit="deg",
        low=1.0,
        high=180.0,
        group="tracking",
        deprecated="tracking.same",
    )
    max_modes: int = setting(
        8,
        "largest number of modes (distinct poses) of one object",
        low=1,
        high=100,
        group="tracking",
        deprecated="tracking.kept",
    )
    correlated_noise_share: float = setting(
        0.3,
        "share of an image's variance that all images have in common, so that more images do not "
        "average it away",
        low=0.0,
        high=0.99,
        group="tracking",
        deprecated="tracking.common",
    )
    rotation_process_noise: float = setting(
        3.0,
        "rotation of objects at rest, with the error of the known camera motion",
        unit="deg/sqrt(s)",
        low=0.0,
        high=1e4,
        group="tracking",
        deprecated="tracking.turn_noise",
    )
    translation_process_noise: float = setting(
        0.02,
        "translation of objects at rest, with the error of the known camera motion, as a share "
        "of the distance",
        unit="1/sqrt(s)",
        low=0.0,
        high=1e4,
        group="tracking",
        deprecated="tracking.shift_noise",
    )
    unknown_motion_rotation_noise: float = setting(
        60.0,
        "rotation of objects relative to the camera if the camera's motion is unknown",
        unit="deg/sqrt(s)",
        low=0.0,
        high=1e4,
        group="tracking",
        deprecated="tracking.unknown_turn",
    )
    unknown_motion_translation_noise: float = setting(
        0.5,
        "translation of objects relative to the camera if the camera's motion is unknown, as a "
        "share of the distance",
        unit="1/sqrt(s)",
        low=0.0,
        high=1e4,
        group="tracking",
        deprecated="tracking.unknown_shift",
    )
    motion_evidence: float = setting(
        1000.0,
        "how many times likelier the last images must be with an object that moves in the fixed "
        "frame than with one at rest, before its velocity is used; 0: objects are taken to be at "
        "rest",
        low=0.0,
        high=1e12,
        group="tracking",
    )

    def __post_init__(self) -> None:
        check_ranges(self)


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
        mode_scores(estimate)[order].clamp_min(_LEAST_SCORE).log(),
        0.0,
    )
    modes = _merge_modes(modes, estimate.symmetry, config)
    unlisted = max(1 - float(modes.log_score.exp().sum()), _LEAST_SCORE)
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
    return _merge_modes(_select_modes(together, order), symmetry, config)


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
    unlisted = max(1 - float(given.sum()), _LEAST_SCORE)
    miss = _NEAR_UNLISTED * unlisted
    nearest = angle.argmin(0)
    shown = angle.amin(0) < same[nearest, 0]
    support = torch.zeros(len(modes.pose), dtype=torch.float64)
    support = support.index_add(0, nearest[shown], given[shown])
    old = before * modes.log_score + seen.images * support.clamp_min(miss).log()
    missed = before * modes.log_unlisted + weight * math.log(_NEAR_UNLISTED)
    fresh = missed + seen.images * given[new].clamp_min(_LEAST_SCORE).log()
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


def _merge_modes(modes: PoseModes, symmetry: Symmetry, config: FusionConfig) -> PoseModes:
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
    return _select_modes(modes, torch.tensor(left))


def _select_modes(modes: PoseModes, index: Tensor) -> PoseModes:
    return replace(
        modes,
        pose=modes.pose[index],
        covariance=modes.covariance[index],
        common_covariance=modes.common_covariance[index],
        log_weight=modes.log_weight[index],
        log_score=modes.log_score[index],
    )


def conclude(modes: PoseModes, newest: PoseEstimate) -> PoseEstimate:
    """Return the estimate of all images.

    It is `newest` with the pose of the most probable mode and with this mode's score; its named
    frames are refitted. Box, inliers and reprojection error are those of the newest image alone.
    """
    probability = modes.probability()
    score = min(1.0, float(modes.score()[0]))
    known = newest.covariance is not None
    covariance = modes.covariance + modes.common_covariance
    others = tuple(
        PoseMode(
            modes.pose[k],
            float((probability[k] / probability[0]).log()),
            covariance[k] if known else None,
        )
        for k in range(1, len(probability))
    )
    pose, doubt = covariance[0], newest.doubt
    if doubt is not None:
        left = (1 - score + _DOUBT) / (1 - newest.score + _DOUBT)
        doubt = doubt * min(1.0, left)
        pose = pose.clone()
        pose[3:, 3:] += doubt
    fused = replace(
        newest,
        cam_from_canon=modes.pose[0],
        covariance=pose if known else None,
        doubt=doubt,
        score=score,
        alternatives=others,
    )
    return replace(fused, frames=refit_frames(newest, fused))


def fuse(
    estimates: Sequence[PoseEstimate | None],
    motions: Sequence[Tensor | None] | None = None,
    seconds: float = 0.0,
    config: FusionConfig = FusionConfig(),
) -> PoseEstimate | None:
    """Fuse the estimates of one object in F images.

    Args:
        estimates: One for each image; None if the image has no estimate.
        motions: F - 1 motions (4, 4) of the camera, cam_after_from_cam_before, m; None for unknown
            motions. Without the argument, all motions are unknown.
        seconds: Time between two images.
        config: Settings of the fusion.

    Returns:
        One estimate in the camera of the last image; None if no image has an estimate.
    """
    if motions is not None and len(motions) != max(len(estimates) - 1, 0):
        raise ValueError(f"{len(motions)} motions between {len(estimates)} images")
    modes, newest = None, None
    for k, estimate in enumerate(estimates):
        if modes is not None and newest is not None and k:
            modes = predict(
                modes,
                None if motions is None else motions[k - 1],
                seconds,
                newest.metric,
                config,
            )
        if estimate is None:
            continue
        seen = observe(estimate, config)
        modes = seen if modes is None else update(modes, seen, estimate.symmetry, config)
        newest = estimate
    return None if modes is None or newest is None else conclude(modes, newest)
