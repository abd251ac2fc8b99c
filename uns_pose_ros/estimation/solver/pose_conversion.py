"""Refined poses as estimates in the image's camera: with a score, a covariance and alternatives."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from uns_pose_ros.core.geometry import from_parts
from uns_pose_ros.core.geometry import project as project_points
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
    """
    scale = model.diameter or 1.0
    log_weight = log_weights(modes.total)
    enough = modes.cells >= config.min_region_cells
    # the comparison is false for all modes of a crop whose first total is -inf
    kept = (log_weight > _UNLIKELY) & enough[:, None]
    crop, _ = kept.nonzero(as_tuple=True)
    if not len(crop):
        return [None] * len(kept)
    turn = view.turn[crop]
    rotation = turn @ modes.rotation[kept]
    translation = (turn @ modes.translation[kept][..., None])[..., 0]
    rigid = from_parts(rotation, translation * scale)
    covariance = covariances(modes.information[kept], turn, scale, modes.cell[crop], config)
    alone = 1 / torch.where(kept, log_weight, -torch.inf).exp().sum(1)
    filled = modes.reach / (view.region * template.share)
    doubt: Tensor | None = None
    if calibration is None:
        score = (quality(modes.explained, modes.covered, filled) * alone).clamp(0, 1)
    else:
        score = calibration.score(modes.evidence)
        covariance[:, 3:, 3:] += rotation @ calibration.spread @ rotation.mT
        doubt = rotation @ calibration.doubt(modes.evidence)[crop] @ rotation.mT
    error = modes.error * float(camera.matrix[0, 0] + camera.matrix[1, 1]) / 2
    vertices = model.vertices.double()
    extents, center = model.extents * scale, model.center * scale
    has_instances = bool(model.instances)
    estimates: list[PoseEstimate | None] = []
    start = 0
    for k, count in enumerate(kept.sum(1).tolist()):
        if not count:
            estimates.append(None)
            continue
        of = slice(start, start + count)
        start += count
        shown = project_points(
            camera.matrix, vertices @ rotation[of][0].T + translation[of][0]
        )
        weights = log_weight[k][kept[k]].tolist()
        whole = covariance[of][0]
        if doubt is not None:
            whole = whole.clone()
            whole[3:, 3:] += doubt[of][0]
        estimates.append(
            PoseEstimate(
                category=model.category,
                cam_from_canon=rigid[of][0],
                scale=scale,
                metric=model.diameter is not None,
                size=extents,
                score=float(score[k]),
                covariance=whole,
                symmetry=model.symmetry,
                inliers=int(modes.inliers[k]),
                reprojection_error=float(error[k]),
                box=torch.cat([shown.amin(0), shown.amax(0)]),
                doubt=None if doubt is None else doubt[of][0],
                evidence=modes.evidence[k],
                center=center if has_instances else None,
                alternatives=tuple(
                    map(PoseMode, rigid[of][1:], weights[1:], covariance[of][1:])
                ),
            )
        )
    return estimates


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
    """Compute covariances in the camera.

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
    covariance = lift @ (axes * spread[:, None]) @ axes.mT @ lift.mT
    covariance[:, range(3, 6), range(3, 6)] += math.radians(config.shape_variation_deg) ** 2
    return covariance
