"""Named frames on the instance of an image.

The pose carries a frame of the template to the instance. Instances differ: the handle of one mug
reaches farther than that of the next. So a frame that follows the surface is moved to where the
image shows the template vertices near it. A pixel measures across its ray only. The position is the
mean of a Gaussian (a Kalman update): before, the pose with its covariance and the variation of
shapes; then, the pixels. Variation is larger outwards, so part of the shift goes along the ray.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from uns_pose_ros.core.geometry import from_parts, rotation_from_vector, symmetry_rotations
from uns_pose_ros.core.named_frames import (
    MAX_GAP,
    SURFACE,
    NamedFrame,
    PlacedFrame,
    equivalent_turns,
)
from uns_pose_ros.core.types import CategoryModel, PoseEstimate, Symmetry
from uns_pose_ros.estimation.solver.pose_hypotheses import Correspondences

# all lengths in canonical units
_NEAR = (
    0.08  # standard deviation of the weight of vertices by their distance from the frame
)
_GATE = 0.1  # correspondences that are farther from their vertex are not its own
_ROBUST = 0.05  # width of the Cauchy weight of the mean
_STEPS = 5  # of the robust mean
_OUTWARDS, _ACROSS = (
    0.12,
    0.05,
)  # standard deviations of an instance's surface from the template's
_FLOOR = 0.015  # standard deviation of a mean over many cells
_TOGETHER = 4.0  # so many cells have one error
_LEAST = 0.5  # weight of the cells from which on a frame is seen
_SAME_PLACE = 0.15  # a frame of two poses is the same up to this


def place_frames(
    model: CategoryModel,
    correspondences: Correspondences,
    cam_from_view: Tensor,
    estimates: Sequence[PoseEstimate | None],
) -> list[PoseEstimate | None]:
    """Give the estimates of B crops the named frames of the model.

    Args:
        model: The category model.
        correspondences: Of the crops.
        cam_from_view: (B, 3, 3) float64, see `CropObservation.turn`.
        estimates: One for each crop, or None.
    """
    if not model.frames:
        return list(estimates)
    tangents = correspondences.tangents.double().cpu()
    probability = correspondences.probability.double().cpu()
    vertex = correspondences.vertex.cpu()
    vertices = model.vertices.double()
    placed = list[PoseEstimate | None]()
    for k, estimate in enumerate(estimates):
        if estimate is None:
            placed.append(None)
            continue
        frames = carry_frames(estimate, model.frames)
        free = [
            frame.frame.follow == SURFACE and _gap(vertices, frame) <= MAX_GAP
            for frame in frames
        ]
        following = [frame for frame, is_free in zip(frames, free, strict=True) if is_free]
        snapped = iter(
            _snap(
                following,
                estimate,
                vertices,
                (tangents[k], probability[k], vertex[k]),
                cam_from_view[k],
            )
        )
        frames = [
            next(snapped) if is_free else frame
            for frame, is_free in zip(frames, free, strict=True)
        ]
        placed.append(replace(estimate, frames=tuple(frames)))
    return placed


def carry_frames(estimate: PoseEstimate, frames: Sequence[NamedFrame]) -> list[PlacedFrame]:
    """Place named frames with the pose of an estimate alone."""
    rotation, shift = estimate.cam_from_canon[:3, :3], estimate.cam_from_canon[:3, 3]
    carried = []
    for frame in frames:
        for name, turn in _equivalents(frame, estimate.symmetry, rotation):
            position = turn @ frame.position
            canon_from_frame = from_parts(turn @ frame.rotation, position)
            lever = estimate.scale * (rotation @ position)
            covariance = None
            if estimate.covariance is not None:
                covariance = _carried_covariance(estimate.covariance, lever)
                if frame.follow == SURFACE:
                    spread = _shape_covariance(rotation @ position)
                    covariance = covariance + estimate.scale**2 * spread
            carried.append(
                PlacedFrame(
                    frame,
                    name,
                    canon_from_frame,
                    from_parts(rotation @ canon_from_frame[:3, :3], lever + shift),
                    covariance,
                    False,
                    None if frame.width is None else frame.width * estimate.scale,
                )
            )
    return carried


def refit_frames(before: PoseEstimate, after: PoseEstimate) -> tuple[PlacedFrame, ...]:
    """The frames of an estimate whose pose was changed, such as by the images before.

    What was seen at nearly the same place stays there; all else moves with the pose.

    Args:
        before: The estimate with its frames.
        after: The estimate with the new pose, in the same unit.
    """
    definitions = {placed.frame.name: placed.frame for placed in before.frames}
    seen = [placed for placed in before.frames if placed.seen]
    frames = []
    for carried in carry_frames(after, list(definitions.values())):
        gaps = {
            float((old.cam_from_frame - carried.cam_from_frame)[:3, 3].norm()): old
            for old in seen
            if old.frame.name == carried.frame.name
        }
        nearest = min(gaps, default=torch.inf)
        if nearest <= _SAME_PLACE * after.scale:
            pose = carried.cam_from_frame.clone()
            pose[:3, 3] = gaps[nearest].cam_from_frame[:3, 3]
            carried = replace(
                carried,
                cam_from_frame=pose,
                covariance=gaps[nearest].covariance,
                seen=True,
            )
        frames.append(carried)
    return tuple(frames)


def _gap(vertices: Tensor, placed: PlacedFrame) -> float:
    return float((vertices - placed.canon_from_frame[:3, 3]).norm(dim=1).min())


def _equivalents(
    frame: NamedFrame, symmetry: Symmetry, rotation: Tensor
) -> list[tuple[str, Tensor]]:
    """Names and turns (3, 3) of a frame in the canonical frame, under a symmetry.

    Args:
        frame: The frame.
        symmetry: Of the category.
        rotation: (3, 3) cam_from_canon.
    """
    if symmetry.order == 1:
        return [(frame.name, torch.eye(3, dtype=torch.float64))]
    if frame.prefer is None:
        turns = equivalent_turns(symmetry.order, symmetry.axis)
        return [(f"{frame.name}/{k}", turn) for k, turn in enumerate(turns)]
    axis = symmetry.axis / symmetry.axis.norm()
    away = frame.position - (frame.position @ axis) * axis
    if float(away.norm()) < 1e-6:  # on the axis: the frame's x decides
        away = frame.rotation[:, 0]
    wanted = rotation.T @ frame.prefer
    if symmetry.order == 0:
        angle = torch.atan2(
            torch.linalg.cross(axis, away) @ wanted,
            (away - (away @ axis) * axis) @ wanted,
        )
        return [(frame.name, rotation_from_vector(angle * axis))]
    turns = symmetry_rotations(symmetry.order, axis)
    return [(frame.name, turns[int((turns @ away @ wanted).argmax())])]


def _carried_covariance(covariance: Tensor, lever: Tensor) -> Tensor:
    """Covariance (3, 3) of a point that a pose carries.

    Args:
        covariance: (6, 6) of the pose.
        lever: (3,) from the object's origin to the point, camera frame.
    """
    x, y, z = lever.unbind()
    zero = torch.zeros_like(x)
    across = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero]).view(3, 3)
    jacobian = torch.cat([torch.eye(3, dtype=torch.float64), -across], 1)
    return jacobian @ covariance @ jacobian.T


def _snap(
    frames: Sequence[PlacedFrame],
    estimate: PoseEstimate,
    vertices: Tensor,
    cells: tuple[Tensor, Tensor, Tensor],
    cam_from_view: Tensor,
) -> list[PlacedFrame]:
    """Move frames that the pose placed to where the image shows the vertices near them.

    Args:
        frames: F frames.
        estimate: Their estimate.
        vertices: (V, 3) of the template.
        cells: Tangents (P, 2) of the cells, probability (P, M) of their vertices, and the vertices
            (P, M).
        cam_from_view: (3, 3).
    """
    if not frames:
        return []
    tangents, probability, vertex = cells
    rotation = cam_from_view.T @ estimate.cam_from_canon[:3, :3]
    shift = cam_from_view.T @ estimate.cam_from_canon[:3, 3] / estimate.scale
    projected = vertices @ rotation.T + shift
    depth = projected[:, 2][vertex][..., None]
    # how far each cell lies from its vertices, at the depth of the vertex: (P, M, 2)
    residual = tangents[:, None] * depth - projected[:, :2][vertex]
    positions = torch.stack([frame.canon_from_frame[:3, 3] for frame in frames])
    distance = torch.cdist(positions, vertices)
    beyond = distance - distance.amin(1, keepdim=True)
    near = (-0.5 * (beyond / _NEAR).square()).exp()  # (F, V)
    inside = residual.norm(dim=-1) < _GATE
    weight = (near[:, vertex] * (probability * inside)).flatten(1)  # (F, P M)
    total, mean, variance = _robust_mean(weight, residual.flatten(0, 1))
    moved = []
    for k, frame in enumerate(frames):
        if float(total[k]) < _LEAST:
            moved.append(frame)
            continue
        before = _shape_covariance(rotation @ positions[k])
        if estimate.covariance is not None:
            lever = estimate.cam_from_canon[:3, :3] @ positions[k] * estimate.scale
            carried = _carried_covariance(estimate.covariance, lever)
            before = before + cam_from_view.T @ carried @ cam_from_view / estimate.scale**2
        place = rotation @ positions[k] + shift
        across = torch.eye(3, dtype=torch.float64)[:2]
        across[:, 2] = -place[:2] / place[2].clamp_min(1e-3)
        noise = variance[k] * max(_TOGETHER / float(total[k]), 1.0) + _FLOOR**2
        innovation = across @ before @ across.T + noise * torch.eye(2, dtype=torch.float64)
        gain = before @ across.T @ torch.linalg.inv(innovation)
        off = cam_from_view @ (gain @ mean[k]) * estimate.scale
        after = before - gain @ across @ before
        after = cam_from_view @ (after + after.T) @ cam_from_view.T / 2
        pose = frame.cam_from_frame.clone()
        pose[:3, 3] += off
        moved.append(
            replace(
                frame,
                cam_from_frame=pose,
                covariance=None if frame.covariance is None else after * estimate.scale**2,
                seen=True,
            )
        )
    return moved


def _shape_covariance(outwards: Tensor) -> Tensor:
    """Covariance (3, 3) of an instance's surface, larger along a direction (3,)."""
    unit = outwards / outwards.norm().clamp_min(1e-9)
    along = _OUTWARDS**2 - _ACROSS**2
    return _ACROSS**2 * torch.eye(3, dtype=torch.float64) + along * torch.outer(unit, unit)


def _robust_mean(weight: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Total weight (F,), robust means (F, 2) and variances (F,) of values (N, 2).

    Args:
        weight: (F, N).
        values: (N, 2).
    """
    used = weight.amax(0) > 1e-4
    weight, values = weight[:, used], values[used]
    total = weight.sum(1)
    trust = weight
    for _ in range(_STEPS + 1):
        share = trust / trust.sum(1, keepdim=True).clamp_min(1e-9)
        mean = share @ values
        square = (values - mean[:, None]).square().sum(-1)
        trust = weight / (1 + square / _ROBUST**2)
    return total, mean, (share * square).sum(1) / 2
