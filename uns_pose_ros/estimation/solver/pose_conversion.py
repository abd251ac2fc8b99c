"""Refined poses as estimates in the image's camera: with a score, a covariance and alternatives."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import repeat

import torch
from torch import Tensor

from uns_pose_ros.core.geometry import from_parts, project, transform
from uns_pose_ros.core.types import Camera, CategoryModel, PoseEstimate, PoseMode
from uns_pose_ros.estimation.config import EstimatorConfig
from uns_pose_ros.estimation.score_calibration import ScoreCalibration
from uns_pose_ros.estimation.solver.crop_observation import CropObservation
from uns_pose_ros.estimation.solver.pose_hypotheses import Template
from uns_pose_ros.estimation.solver.pose_refinement import cell_variance
from uns_pose_ros.estimation.solver.pose_scoring import RefinedPoses, log_weights

# smallest inverse variance: a standard deviation of 10 diameters or radians
_MIN_INFORMATION = 0.01
_UNLIKELY = -8.0  # log weight below which a mode is not returned


@dataclass(frozen=True, eq=False)
class _CropPoses:
    """The K poses of one crop that are likely, in the camera of the image, best first."""

    cam_from_canon: Tensor  # (K, 4, 4) float64, rigid; translation in m or diameters
    covariance: Tensor  # (K, 6, 6), see `PoseEstimate`
    log_weight: Tensor  # (K,) of the pose over that of the first one


def to_estimates(
    model: CategoryModel,
    template: Template,
    modes: RefinedPoses,
    view: CropObservation,
    camera: Camera,
    config: EstimatorConfig,
    calibration: ScoreCalibration | None = None,
) -> list[PoseEstimate | None]:
    """Convert refined poses to estimates in the image's camera.

    An estimate has the pose of the first mode of its crop, and the other modes as alternatives.

    Args:
        model: The category model.
        template: Its template.
        modes: Refined poses of B crops, on the CPU.
        view: What the crops show.
        camera: Camera of the image, without distortion.
        config: Settings of the solver.
        calibration: Of the score and the covariance; None: those of version 0.1.0.

    Returns:
        One estimate for each crop; None if no pose is valid, or if the crop has too few cells.
    """
    log_weight = log_weights(modes.total)
    enough = modes.cells >= config.min_region_cells
    # the comparison is false for all modes of a crop whose first total is -inf
    likely = (log_weight > _UNLIKELY) & enough[:, None]
    if not likely.any():
        return [None] * len(likely)
    log_weight = torch.where(likely, log_weight, -torch.inf)
    scores = _score_crops(template, modes, view, log_weight, calibration)
    doubts: Iterable[Tensor | None] = repeat(None, len(likely))
    if calibration is not None:
        rotation = view.turn @ modes.rotation[:, 0]
        doubts = calibration.doubt(modes.evidence, modes.spread[:, 1])
        doubts = rotation @ doubts @ rotation.mT
    error = modes.error * float(camera.matrix[0, 0] + camera.matrix[1, 1]) / 2
    crops = zip(
        _poses_in_camera(model, modes, view, log_weight, config, calibration),
        scores.tolist(),
        modes.inliers.tolist(),
        error.tolist(),
        modes.evidence,
        modes.spread,
        doubts,
        strict=True,
    )
    return [
        _to_estimate(model, camera, *crop) if some else None
        for crop, some in zip(crops, likely[:, 0].tolist(), strict=True)
    ]


def _to_estimate(
    model: CategoryModel,
    camera: Camera,
    poses: _CropPoses,
    score: float,
    inliers: float,
    error: float,
    evidence: Tensor,
    spread: Tensor,
    doubt: Tensor | None,
) -> PoseEstimate:
    """Make the estimate of one crop; `error` is in px."""
    scale = model.diameter or 1.0
    pose, covariance = poses.cam_from_canon[0], poses.covariance[0]
    if doubt is not None:
        covariance = covariance.clone()
        covariance[3:, 3:] += doubt
    shown = project(camera.matrix, transform(pose, scale * model.vertices.double()))
    others = zip(
        poses.cam_from_canon[1:],
        poses.log_weight[1:].tolist(),
        poses.covariance[1:],
        strict=True,
    )
    return PoseEstimate(
        category=model.category,
        cam_from_canon=pose,
        scale=scale,
        metric=model.diameter is not None,
        size=model.extents * scale,
        score=score,
        covariance=covariance,
        symmetry=model.symmetry,
        inliers=int(inliers),
        reprojection_error=error,
        box=torch.cat([shown.amin(0), shown.amax(0)]),
        doubt=doubt,
        evidence=evidence,
        hypothesis_spread=spread,
        center=model.center * scale if model.instances else None,
        alternatives=tuple(PoseMode(*other) for other in others),
    )


def _poses_in_camera(
    model: CategoryModel,
    modes: RefinedPoses,
    view: CropObservation,
    log_weight: Tensor,
    config: EstimatorConfig,
    calibration: ScoreCalibration | None,
) -> list[_CropPoses]:
    """Map the likely poses of B crops to the camera of the image.

    The poses of all crops are one batch, because each step takes as long for one as for many.

    Args:
        model: The category model.
        modes: Refined poses, K for each crop.
        view: What the crops show.
        log_weight: (B, K) -inf for poses that are left out.
        config: Settings of the solver.
        calibration: Of the covariance; None: that of version 0.1.0.
    """
    scale = model.diameter or 1.0
    likely = log_weight.isfinite()
    crop, _ = likely.nonzero(as_tuple=True)
    turn = view.turn[crop]
    rotation = turn @ modes.rotation[likely]
    translation = (turn @ modes.translation[likely][..., None])[..., 0]
    pose = from_parts(rotation, translation * scale)
    covariance = covariances(
        modes.information[likely], turn, scale, modes.cell[crop], config
    )
    if calibration is not None:
        covariance = calibration.weigh_fit(covariance)
        spread = calibration.spread(modes.spread[crop, 0])
        covariance[:, 3:, 3:] += rotation @ spread @ rotation.mT
    covariance[:, range(3, 6), range(3, 6)] += math.radians(config.shape_variation_deg) ** 2
    counts = likely.sum(1).tolist()
    parts = (tensor.split(counts) for tensor in (pose, covariance, log_weight[likely]))
    return [_CropPoses(*crop_parts) for crop_parts in zip(*parts, strict=True)]


def _score_crops(
    template: Template,
    modes: RefinedPoses,
    view: CropObservation,
    log_weight: Tensor,
    calibration: ScoreCalibration | None,
) -> Tensor:
    """Compute the scores (B,) of the first poses; `log_weight` (B, K) as in `_poses_in_camera`."""
    if calibration is not None:
        return calibration.score(modes.evidence)
    share = 1 / log_weight.exp().sum(1)  # of the first pose among all likely ones
    filled = modes.reach / (view.region * template.share)
    return (quality(modes.explained, modes.covered, filled) * share).clamp(0, 1)


def quality(explained: Tensor, covered: Tensor, filled: Tensor) -> Tensor:
    """Compute the quality of a pose, 0 to 1.

    Something that only resembles the object has few inliers and a template that fills little of
    the region.

    Args:
        explained: Share of the cells that are inliers; its square root counts.
        covered: Mean log presence at the projected template.
        filled: Length of the projected template, as a share of the region. It is divided by the
            same share of the training objects, because a template may lack thin parts.
    """
    return explained.sqrt() * covered.clamp_max(0).exp() * filled.clamp_max(1).square()


def covariances(
    information: Tensor,
    cam_from_view: Tensor,
    scale: float,
    cell: Tensor,
    config: EstimatorConfig,
) -> Tensor:
    """Compute covariances of the fit in the camera.

    Args:
        information: (K, 6, 6) in the view, lengths in diameters.
        cam_from_view: (K, 3, 3).
        scale: Length of one diameter in the unit of the result.
        cell: (K,), see `Correspondences`.
        config: Settings of the solver.

    Returns:
        (K, 6, 6), translation before rotation.
    """
    lift = torch.zeros(len(information), 6, 6, dtype=torch.float64)
    lift[:, :3, :3], lift[:, 3:, 3:] = cam_from_view * scale, cam_from_view
    information = information / cell_variance(cell, config)[:, None, None]
    values, axes = torch.linalg.eigh((information + information.mT) / 2)
    spread = 1 / values.clamp_min(_MIN_INFORMATION)
    return lift @ (axes * spread[:, None]) @ axes.mT @ lift.mT
