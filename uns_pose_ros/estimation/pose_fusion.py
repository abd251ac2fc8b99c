"""The poses that one object may have, sharpened image by image.

Flips are outvoted, noise is averaged.

A single picture of a car often fits the car turned by half a turn nearly as well. So all distinct
poses (modes) are kept, each with a log weight that sums what every picture says of it and with a
covariance that a Kalman filter on the manifold shrinks (state: translation, rotation about the
camera's axes). Modes are compared in the camera of the newest image, where the known motion of the
camera takes them.
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

_TINY = (
    1e-12  # rad^2, or squared distances: least variance of an image's pose in any direction
)
_NOTHING = 1e6  # variance of what an image says nothing about
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

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True, eq=False)
class PoseModes:
    """K poses that an object may have in the camera of one image, likeliest first."""

    pose: Tensor  # (K, 4, 4) float64, cam_from_canon
    # (K, 6, 6) float64, order and units as in PoseEstimate, without the images' common error
    covariance: Tensor
    common: Tensor  # (K, 6, 6) float64, the images' common error
    log_weight: Tensor  # (K,) float64, what all images say of the mode
    unseen: float  # log weight of a pose that no image has shown
    # share of the log weights that is left when the next image is taken in
    forget: float = 1.0

    def probability(self) -> Tensor:
        """(K,) of being the right one, without the share that each would have if no image had
        shown it.
        """
        weight = (self.log_weight - self.log_weight.max()).exp() - (
            self.unseen - self.log_weight.max()
        ).exp()
        return weight.clamp_min(1e-12) / weight.clamp_min(1e-12).sum()


def observe(estimate: PoseEstimate, config: FusionConfig) -> PoseModes:
    """What one image says: its pose and alternatives."""
    poses = torch.stack(
        [estimate.cam_from_canon, *(mode.cam_from_canon for mode in estimate.alternatives)]
    )
    known = [estimate.covariance, *(mode.covariance for mode in estimate.alternatives)]
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
    )
    return _merge_modes(modes, estimate.symmetry, config)


def _bound_covariance(covariance: Tensor, distance: Tensor) -> Tensor:
    """Covariances (J, 6, 6) that can be inverted.

    A fit that leaves a direction open has one of any size and sign there.

    No standard deviation is above half a turn, or that many distances (J,); none is 0.
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
    """Covariance (6, 6) of a pose (4, 4) that comes without.

    10 degrees, 2 % of the distance aside and 10 % in depth.
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
    """The modes in the camera of an image `seconds` later, less sure.

    motion: (4, 4) cam_now_from_cam_before in m; None: not known, the object is taken to stay where
    it was in the picture. metric: the poses are in m; where not, only the motion's rotation can be
    used, and it is exact for the object's rotation.
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
    forget = (
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
        forget=forget,
    )


def update(
    modes: PoseModes, seen: PoseModes, symmetry: Symmetry, config: FusionConfig
) -> PoseModes:
    """The modes with what one more image, `observe`d in the same camera, says of them."""
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
        modes.forget * modes.log_weight
        + (config.outlier_probability + support.sum(1)).log()
    )
    new = (angle >= same).all(0)
    unseen = modes.forget * modes.unseen
    together = PoseModes(
        torch.cat([filtered.pose, seen.pose[new]]),
        torch.cat([filtered.covariance, seen.covariance[new]]),
        torch.cat([filtered.common, seen.common[new]]),
        torch.cat([weight, unseen + seen.log_weight[new]]),
        unseen + math.log(config.outlier_probability),
    )
    order = together.log_weight.argsort(descending=True, stable=True)
    return _merge_modes(_select_modes(together, order), symmetry, config)


def _kalman_update(
    modes: PoseModes, seen: PoseModes, turned: Tensor, best: Tensor, matched: Tensor
) -> PoseModes:
    """One Kalman step of every mode with its mode of the image.

    Index `best` (K,), rotation `turned` (K, 3, 3).

    A mode that the image does not show (`matched` (K,) False) learns the position alone, from the
    image's likeliest mode.
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
    return replace(modes, pose=pose, covariance=covariance, common=seen.common[best])


def _merge_modes(modes: PoseModes, symmetry: Symmetry, config: FusionConfig) -> PoseModes:
    """The likeliest modes, less those that symmetry or the filter has brought to a likelier one."""
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
        common=modes.common[index],
        log_weight=modes.log_weight[index],
    )


def conclude(modes: PoseModes, newest: PoseEstimate) -> PoseEstimate:
    """The estimate of all images.

    `newest` with the likeliest mode's pose, and the chance of being the right mode in its score.

    Its box, inliers and reprojection error stay those of the newest image alone.
    """
    probability = modes.probability()
    known = newest.covariance is not None
    covariance = modes.covariance + modes.common
    others = tuple(
        PoseMode(
            modes.pose[k],
            float((probability[k] / probability[0]).log()),
            covariance[k] if known else None,
        )
        for k in range(1, len(probability))
    )
    alone = 1 / (
        1 + sum(math.exp(mode.log_weight) for mode in newest.alternatives)
    )  # what its score has in it
    return replace(
        newest,
        cam_from_canon=modes.pose[0],
        covariance=covariance[0] if known else None,
        score=min(1.0, newest.score / alone * float(probability[0])),
        alternatives=others,
    )


def fuse(
    estimates: Sequence[PoseEstimate | None],
    motions: Sequence[Tensor | None] | None = None,
    seconds: float = 0.0,
    config: FusionConfig = FusionConfig(),
) -> PoseEstimate | None:
    """One estimate, in the last image's camera, of the same object's estimates in F images.

    None where no image has one.

    estimates: one an image, None where it was not found. motions: F - 1 cameras' motions (4, 4),
    cam_after_from_cam_before in m, None where not known; without: none is known. seconds: between
    two images.
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
