"""The best pose of each crop, from the probabilities of template vertices in its cells.

probability (B, h, w, V), presence (B, h, w)
-> cells that show the object, and their most probable vertices
-> weak-perspective poses from triples of correspondences
-> the best distinct poses, refined in full perspective
-> the best pose, its covariance, and the log weights of the alternatives
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from uns_pose_ros.core.device import to_cpu
from uns_pose_ros.core.types import Camera, CategoryModel, PoseEstimate
from uns_pose_ros.estimation.config import EstimatorConfig
from uns_pose_ros.estimation.frame_placement import place_frames
from uns_pose_ros.estimation.score_calibration import ScoreCalibration
from uns_pose_ros.estimation.shapes.instance_box import fit_boxes
from uns_pose_ros.estimation.shapes.shape_prior import ShapePrior
from uns_pose_ros.estimation.solver import pose_hypotheses
from uns_pose_ros.estimation.solver.crop_observation import CropObservation, observe_crops
from uns_pose_ros.estimation.solver.pose_conversion import to_estimates
from uns_pose_ros.estimation.solver.pose_hypotheses import (
    INDEPENDENT_CELLS,
    Correspondences,
    Template,
)
from uns_pose_ros.estimation.solver.pose_scoring import refine_and_score
from uns_pose_ros.estimation.stream.expectation import ExpectedCrops, filled_regions
from uns_pose_ros.networks.coarse_rotation import CoarseRotation

_JUDGING = (48, 4)  # cells and vertices that score all hypotheses


def solve(
    model: CategoryModel,
    template: Template,
    probability: Tensor,
    presence: Tensor,
    size: int,
    crop_from_image: Tensor,
    camera: Camera,
    config: EstimatorConfig,
    calibration: ScoreCalibration | None = None,
    expected: ExpectedCrops | None = None,
    shapes: ShapePrior | None = None,
    likeness: Tensor | None = None,
    coarse: CoarseRotation | None = None,
) -> list[PoseEstimate | None]:
    """Compute the best pose of each of B crops; the processor waits once for the device.

    With `shapes`, it waits again for the presence maps, which are small.

    Args:
        model: The category model.
        template: Its template on the device.
        probability: (B, h, w, V) of the template vertices.
        presence: (B, h, w) probability that a cell shows the object.
        size: Side of the crops, px.
        crop_from_image: (B, 3, 3) float64.
        camera: Camera of the image, without distortion.
        config: Settings of the solver.
        calibration: Of the score and the covariance; None: those of version 0.1.0.
        expected: Poses that join the hypotheses, and the boxes of the crops, if a stream predicts
            them.
        shapes: Prior of the instances' boxes; None: each box is that of an average instance.
        likeness: (B, h / 2, w / 2) log odds that a token shows the category; None: not known.
        coarse: Coarse rotations of the objects; None: not known.

    Returns:
        One estimate for each crop; None if no pose is valid.
    """
    view = observe_crops(
        probability, presence, size, crop_from_image, camera, config, likeness
    )
    if not view.correspondences.tangents.shape[1]:
        return [None] * len(crop_from_image)
    rotation, translation, valid, rated = propose_hypotheses(
        view.correspondences, template, config, coarse
    )
    if expected is not None:
        view = replace(
            view,
            region=filled_regions(
                presence, expected.box, crop_from_image, size, config.objectness_threshold
            ),
        )
        rotation, translation, valid = add_expected(
            view, expected, rotation, translation, valid
        )
    poses = refine_and_score(
        view, template, rotation, translation, valid, rated, config, coarse
    )
    estimates = to_estimates(
        model, template, to_cpu(poses), view, camera, config, calibration
    )
    estimates = fit_boxes(
        shapes,
        presence,
        view.grid_from_view,
        view.turn,
        crop_from_image,
        size,
        camera,
        estimates,
    )
    return place_frames(model, view.correspondences, view.turn, estimates)


def propose_hypotheses(
    correspondences: Correspondences,
    template: Template,
    config: EstimatorConfig,
    coarse: CoarseRotation | None = None,
) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor]]:
    """Sample triples and select the best distinct poses.

    Args:
        correspondences: The cells of B crops.
        template: The template.
        config: Settings of the solver.
        coarse: Coarse rotations of the objects; None: not known.

    Returns:
        Rotations (H, B, 3, 3), translations (H, B, 3), diameters, whether each pose is valid
        (H, B), and the rotations (B, N, 3, 3) and scores (B, N) of all hypotheses.
    """
    tangents, vertex = pose_hypotheses.draw_triples(
        correspondences, config.hypothesis_count
    )
    rotation, translation = pose_hypotheses.poses_from_triples(
        tangents, template.vertices[vertex]
    )
    if translation.device.type == "cpu":
        rotation, translation = pose_hypotheses.leave_out_behind(rotation, translation)
    score = pose_hypotheses.score_hypotheses(
        correspondences.subset(*_JUDGING),
        template,
        rotation,
        translation,
        2 * config.correspondence_sigma_cells,
        config.outlier_likelihood,
    )
    if coarse is not None:
        expected = coarse.log_likelihood(rotation.nan_to_num(0.0).transpose(0, 1)).T
        score = score + config.coarse_rotation_weight / INDEPENDENT_CELLS * expected
    best, valid = pose_hypotheses.rotation_nms(
        rotation, score, config.mode_separation_deg, config.max_modes
    )
    rated = rotation.nan_to_num(0.0), score
    rotation = torch.take_along_dim(rotation, best[..., None, None], 1)
    translation = torch.take_along_dim(translation, best[..., None], 1)
    rotation = torch.where(
        valid[..., None, None],
        pose_hypotheses.orthonormalize(rotation),
        torch.eye(3, device=rotation.device),
    )
    translation = torch.where(valid[..., None], translation, 1.0)
    return rotation.transpose(0, 1), translation.transpose(0, 1), valid.T, rated


def add_expected(
    view: CropObservation,
    expected: ExpectedCrops,
    rotation: Tensor,
    translation: Tensor,
    valid: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Append the expected poses to the hypotheses that `propose_hypotheses` returns."""
    view_from_cam = view.turn.mT
    turned = (view_from_cam @ expected.rotation).to(rotation)
    moved = (view_from_cam @ expected.translation[..., None])[..., 0].to(translation)
    return (
        torch.cat([rotation, turned[None]]),
        torch.cat([translation, moved[None]]),
        torch.cat([valid, torch.ones_like(valid[:1])]),
    )
