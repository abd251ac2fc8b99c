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

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from uns_pose_ros.core.types import PoseEstimate, PoseMode
from uns_pose_ros.estimation.frame_placement import refit_frames
from uns_pose_ros.estimation.fusion.fusion_config import FusionConfig
from uns_pose_ros.estimation.fusion.mode_update import predict, update
from uns_pose_ros.estimation.fusion.pose_modes import PoseModes, observe

_DOUBT = 0.05  # probability of a wrong pose that no mode tells of


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
