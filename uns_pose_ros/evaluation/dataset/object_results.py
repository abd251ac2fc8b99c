"""An estimate of one labeled object against the truth: rotation, box in space and position."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from uns_pose_ros.core.geometry import (
    angle_between,
    nearest_equivalent,
    rotation_from_vector,
)
from uns_pose_ros.core.types import CategoryModel, PoseEstimate, Symmetry
from uns_pose_ros.datasets.labeled_object import LabeledObject
from uns_pose_ros.evaluation.box_overlap import OrientedBox, box_iou_3d
from uns_pose_ros.evaluation.metrics import MISSING, symmetric_angle


@dataclass(frozen=True, eq=False)
class FrameTie:
    """How a model's canonical frame lies in the frame of the data set's objects."""

    object_from_canon: Tensor  # (3, 3) float64
    center: Tensor  # (3,) float64, of the model's box, canonical units
    symmetry: Symmetry  # of the model, in the frame of the objects

    @staticmethod
    def of(model: CategoryModel, object_from_canon: Tensor) -> FrameTie:
        """The tie of a model by a rotation (3, 3)."""
        axis = object_from_canon @ model.symmetry.axis
        return FrameTie(
            object_from_canon,
            model.center,
            Symmetry(model.symmetry.order, axis),
        )


@dataclass(frozen=True, eq=False)
class ObjectResult:
    """The result of one object in one row."""

    answered: bool
    error: float = MISSING  # degrees
    symmetric_error: float = MISSING  # degrees
    iou: float = 0.0  # of boxes in space
    size_error: float | None = None  # mean over the sides, share of the true side
    shift: float | None = None  # from the true center; m
    shift_share: float | None = None  # diameters


def score_object(
    estimate: PoseEstimate | None, labeled: LabeledObject, tie: FrameTie, is_crop: bool
) -> ObjectResult:
    """Compare an estimate with the truth.

    Args:
        estimate: The estimate; None counts as wrong.
        labeled: The truth.
        tie: How the model's frame lies in the object's frame.
        is_crop: Box, camera and translation were given.
    """
    if estimate is None:
        return ObjectResult(False)
    rotation, center, scale, is_metric = place_estimate(estimate, labeled, tie, is_crop)
    true, position = labeled.cam_from_object[:3, :3], labeled.cam_from_object[:3, 3]
    rotation = rotation @ tie.object_from_canon.T
    equal, symmetric = _nearest_equal(rotation, labeled, labeled.symmetry or tie.symmetry)
    errors = float(angle_between(true, rotation)), symmetric
    if labeled.extents is None or labeled.diameter is None:
        return ObjectResult(True, *errors)
    size = estimate.size * scale
    box = OrientedBox(equal @ tie.object_from_canon, center, size)
    iou = box_iou_3d(box, OrientedBox(true, position, labeled.extents))
    sides = tie.object_from_canon.abs() @ size / labeled.extents
    shift = None if is_crop else float((center - position).norm())
    return ObjectResult(
        True,
        *errors,
        iou,
        float((sides - 1).abs().mean()),
        shift if is_metric else None,
        None if shift is None else shift / labeled.diameter,
    )


def _nearest_equal(
    rotation: Tensor, labeled: LabeledObject, symmetry: Symmetry
) -> tuple[Tensor, float]:
    """Of the rotations that symmetry makes equal, the nearest to the truth; its error, degrees.

    Args:
        rotation: (3, 3), cam_from_object.
        labeled: The truth.
        symmetry: About one axis, in the object's frame.
    """
    true = labeled.cam_from_object[:3, :3]
    if labeled.is_sphere:
        return true, 0.0
    turns = (
        torch.eye(3, dtype=torch.float64)[None] if labeled.turns is None else labeled.turns
    )
    errors = symmetric_angle((true @ turns).mT, rotation.T, symmetry)
    turn = turns[int(errors.argmin())]
    equal = nearest_equivalent(rotation, true @ turn, symmetry.order, symmetry.axis)
    return equal @ turn.T, float(errors.min())


def place_estimate(
    estimate: PoseEstimate, labeled: LabeledObject, tie: FrameTie, is_crop: bool
) -> tuple[Tensor, Tensor, float, bool]:
    """An estimate in the camera's frame and the units of the truth.

    Where the translation is given, or where the camera of the truth looks at the object, the object
    is turned about the camera to where it truly is: its rotation against the line of sight stays.

    Returns:
        cam_from_canon (3, 3), the center of the box (3,), the factor from the estimate's units to
        those of the truth, and whether both are meters.
    """
    rotation = estimate.cam_from_canon[:3, :3]
    center = estimate.box_pose(tie.center)[:3, 3]
    position = labeled.cam_from_object[:3, 3]
    is_metric = estimate.metric and labeled.metric
    scale = 1.0 if is_metric else float(position.norm() / center.norm())
    if is_crop or not labeled.calibrated:
        rotation = _shortest_rotation(center, position) @ rotation
    if is_crop:
        return rotation, position, scale, is_metric
    return rotation, center * scale, scale, is_metric


def _shortest_rotation(source: Tensor, target: Tensor) -> Tensor:
    """The rotation (3, 3) by the least angle that turns a direction (3,) to another one."""
    a, b = source / source.norm(), target / target.norm()
    axis = torch.linalg.cross(a, b)
    sine = float(axis.norm())
    if sine < 1e-12:
        return torch.eye(3, dtype=torch.float64)
    angle = torch.atan2(axis.norm(), a @ b)
    return rotation_from_vector(axis / sine * angle)
