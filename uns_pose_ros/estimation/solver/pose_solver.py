"""The best pose of each crop, from the probabilities of template vertices in its cells.

probability (B, h, w, V), presence (B, h, w)
-> cells that show the object, and their most probable vertices
-> weak-perspective poses from triples of correspondences
-> the best distinct poses, refined in full perspective
-> the best pose, its covariance, and the log weights of the alternatives
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample

from uns_pose_ros.core.geometry import from_parts
from uns_pose_ros.core.geometry import project as project_points
from uns_pose_ros.core.types import Camera, CategoryModel, PoseEstimate, PoseMode
from uns_pose_ros.estimation.config import EstimatorConfig
from uns_pose_ros.estimation.frame_placement import place_frames
from uns_pose_ros.estimation.score_calibration import ScoreCalibration
from uns_pose_ros.estimation.shapes.instance_box import fit_boxes
from uns_pose_ros.estimation.shapes.shape_prior import ShapePrior
from uns_pose_ros.estimation.solver import pose_evidence, pose_hypotheses
from uns_pose_ros.estimation.solver.pose_evidence import collect_evidence
from uns_pose_ros.estimation.solver.pose_hypotheses import Correspondences, Template
from uns_pose_ros.estimation.solver.pose_refinement import (
    Projection,
    correspondence_weights,
    project_template,
    refine,
)
from uns_pose_ros.estimation.stream.expectation import ExpectedCrops, filled_regions
from uns_pose_ros.networks.coarse_rotation import CoarseRotation
from uns_pose_ros.networks.correspondence_head import STRIDE

# number of independent cells in an image, for the weights of modes against each other
_CERTAINTY = 12.0
_MIN_INFORMATION = (
    0.01  # smallest inverse variance: a standard deviation of 10 diameters or radians
)
_JUDGING = (48, 4)  # cells and vertices that score all hypotheses
_ROUGH = (128, 6)  # cells and vertices of the first refinement
# steps in which the coarse rotation pulls the best pose, and how strongly: as a share of its weight
_PULLS, _PULL = 3, 0.5
_MODE = 49  # numbers for each mode: rotation, translation, information, total
_UNLIKELY = -8.0  # log weight below which a mode is not returned


@dataclass(frozen=True, eq=False)
class CropObservation:
    """What B square crops show, in cameras that look at the centers of the crops."""

    correspondences: Correspondences
    presence: Tensor  # (B, h, w)
    likeness: Tensor  # (B, P) log odds that the cells show the category
    # (B, 3, 3) float32, from homogeneous tangents of these cameras to -1..1 across the crop
    grid_from_view: Tensor
    turn: Tensor  # (B, 3, 3) float64, cam_from_view, on the CPU
    # longer side of the region in which the object is expected, as a share of the crop's side
    region: float | Tensor  # or (B,) float64, on the CPU


@dataclass(frozen=True, eq=False)
class RefinedPoses:
    """Up to K distinct poses of each crop, best first, with statistics of the first one.

    All tensors are on the CPU.
    """

    rotation: Tensor  # (B, K, 3, 3) float64
    translation: Tensor  # (B, K, 3) float64, diameters
    information: Tensor  # (B, K, 6, 6) float64, see `pose_refinement.refine`
    # (B, K) float64, log likelihood, silhouette and coarse rotation; -inf if no such mode exists
    total: Tensor
    covered: Tensor  # (B,) see `silhouette_coverage`
    reach: (
        Tensor  # (B,) longer side of the projected template, as a share of the crop's side
    )
    explained: Tensor  # (B,) share of the cells that are inliers
    inliers: Tensor  # (B,) number of cells
    error: (
        Tensor  # (B,) median over the inliers of the distance to their vertices, tangents
    )
    cells: Tensor  # (B,) number of cells
    cell: Tensor  # (B,) see `Correspondences`
    evidence: Tensor  # (B, F) see `pose_evidence.EVIDENCE`


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
    rows = refine_and_score(
        view, template, rotation, translation, valid, rated, config, coarse
    )
    estimates = to_estimates(
        model, template, to_cpu(rows), view, camera, config, calibration
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


def observe_crops(
    probability: Tensor,
    presence: Tensor,
    size: int,
    crop_from_image: Tensor,
    camera: Camera,
    config: EstimatorConfig,
    likeness: Tensor | None = None,
) -> CropObservation:
    """Choose the cells of the crops that show the object, with their most probable vertices.

    Args:
        probability: (B, h, w, V) of the template vertices.
        presence: (B, h, w) probability that a cell shows the object.
        size: Side of the crops, px.
        crop_from_image: (B, 3, 3) float64.
        camera: Camera of the image, without distortion.
        config: Settings of the solver.
        likeness: (B, h / 2, w / 2) log odds that a token shows the category; None: not known.
    """
    device, (batch, rows, columns) = presence.device, presence.shape
    view_from_cam, maps = _view_cameras(
        crop_from_image.cpu().numpy() @ camera.matrix.numpy(), size
    )
    view_from_cell, grid_from_view, cells = (
        torch.from_numpy(maps).to(device).split([9, 9, 1], 1)
    )  # sent at once
    view_from_cell, grid_from_view = (
        view_from_cell.view(-1, 3, 3),
        grid_from_view.view(-1, 3, 3),
    )

    strongest = presence.flatten(1).topk(min(config.max_correspondences, rows * columns))
    shows = strongest.values > min(config.objectness_threshold, 0.5)
    index = torch.where(shows, strongest.indices, rows * columns).sort(1).values
    if device.type == "cpu":  # the CPU needs no waiting: leave the padding out
        index = index[:, : int(shows.sum(1).max())]
    chosen = index < rows * columns
    index = index.clamp_max(rows * columns - 1)
    pixel = torch.stack(
        [index % columns, index // columns, torch.ones_like(index)], -1
    ).float()
    ray = pixel @ view_from_cell.mT
    row = index + rows * columns * torch.arange(batch, device=device)[:, None]
    cell_probability = (
        probability.flatten(0, 2)
        .index_select(0, row.flatten())
        .view(*row.shape, probability.shape[-1])
    )
    most_probable = cell_probability.topk(min(config.top_k_vertices, probability.shape[-1]))
    correspondences = Correspondences(
        ray[..., :2] / ray[..., 2:],
        most_probable.values * chosen[..., None],
        most_probable.indices,
        cells[:, 0],
    )
    if likeness is None:
        alike = torch.zeros_like(index, dtype=torch.float32)
    else:
        token = index // columns // 2 * (columns // 2) + index % columns // 2
        alike = likeness.flatten(1).gather(1, token)
    return CropObservation(
        correspondences,
        presence,
        alike,
        grid_from_view,
        torch.from_numpy(view_from_cam).mT,
        1 / (1 + 2 * config.crop_margin),
    )


def _view_cameras(
    crop_from_cam: NDArray[np.float64], size: int
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Compute cameras that look at the centers of crops.

    Args:
        crop_from_cam: (B, 3, 3) homogeneous.
        size: Side of the crops, px.

    Returns:
        Rotations view_from_cam (B, 3, 3), and (B, 19): the map from the column and row of a cell to
        tangents, `CropObservation.grid_from_view`, and `Correspondences.cell`.
    """
    side, corner = (size - 1) / 2, (STRIDE - 1) / 2
    cam_from_crop = np.linalg.inv(crop_from_cam)
    view_from_cam = look_at_rotation(cam_from_crop @ [side, side, 1.0])
    view_from_crop = view_from_cam @ cam_from_crop
    middle = view_from_crop @ np.array([[side, side + STRIDE], [side, side], [1.0, 1.0]])
    tangents = middle[:, :2] / middle[:, 2:]
    cell = np.hypot(*(tangents[..., 1] - tangents[..., 0]).T)
    view_from_cell = view_from_crop @ np.array(
        [[STRIDE, 0.0, corner], [0.0, STRIDE, corner], [0.0, 0.0, 1.0]]
    )
    grid_from_crop = np.array(
        [[2 / size, 0.0, 1 / size - 1], [0.0, 2 / size, 1 / size - 1], [0.0, 0.0, 1.0]]
    )
    grid_from_view = grid_from_crop @ crop_from_cam @ view_from_cam.transpose(0, 2, 1)
    maps = [view_from_cell.reshape(-1, 9), grid_from_view.reshape(-1, 9), cell[:, None]]
    return view_from_cam, np.concatenate(maps, 1).astype(np.float32)


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
        score = score + config.coarse_rotation_weight / _CERTAINTY * expected
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


def refine_and_score(
    view: CropObservation,
    template: Template,
    rotation: Tensor,
    translation: Tensor,
    valid: Tensor,
    rated: tuple[Tensor, Tensor],
    config: EstimatorConfig,
    coarse: CoarseRotation | None = None,
) -> Tensor:
    """Refine hypotheses and half turns of the first one, and merge those that are equal then.

    Args:
        view: The cells of B crops.
        template: The template.
        rotation: (H, B, 3, 3), best first.
        translation: (H, B, 3), diameters.
        valid: (H, B) whether each hypothesis is valid.
        rated: All hypotheses, see `propose_hypotheses`.
        config: Settings of the solver.
        coarse: Coarse rotations of the objects; None: not known.

    Returns:
        Rows (B, 49 (H + 3) + 6 + F) for `to_cpu`.
    """
    correspondences = view.correspondences
    sigma = config.correspondence_sigma_cells
    rough = (2.0 * sigma, 2.0 * sigma)
    fine = (1.5 * sigma, 1.0 * sigma, 1.0 * sigma)
    rotation, translation, _ = refine(
        correspondences.subset(*_ROUGH),
        template,
        rotation,
        translation,
        rough,
        config.outlier_likelihood,
    )
    # a network confuses an object with its half turns
    turned = rotation[:1] @ template.half_turns[:, None]
    moved = translation[:1] + (rotation[:1] - turned) @ template.center
    rotation = torch.cat([rotation, turned])
    translation = torch.cat([translation, moved])
    valid = torch.cat([valid, valid[:1].expand(3, -1)])
    rotation, translation, information = refine(
        correspondences, template, rotation, translation, fine, config.outlier_likelihood
    )
    seen = project_template(template, rotation, translation)
    fit = correspondence_weights(correspondences, seen, sigma)
    covered, shown, reach = silhouette_coverage(view, seen, config.hidden_cost)
    likelihood = pose_hypotheses.log_likelihood(
        fit, correspondences.presence, config.outlier_likelihood
    )
    total = likelihood + config.silhouette_weight * shown
    told = torch.zeros_like(total) if coarse is None else coarse.log_likelihood(rotation)
    total = total + config.coarse_rotation_weight / _CERTAINTY * told
    total = torch.where(valid & total.isfinite(), total, -torch.inf).T
    best, distinct = pose_hypotheses.rotation_nms(
        rotation.transpose(0, 1), total, config.mode_separation_deg, len(rotation)
    )

    first, crop = best[:, 0], torch.arange(len(best), device=best.device)
    fit = fit[first, crop]  # (B, P, M)
    tangents = seen.tangents[first, :, crop]  # (B, 2, V)
    sums = fit.sum(-1)
    # even a certain correspondence is spread over neighboring vertices
    inlier = sums > 0.1 * correspondences.presence.clamp_min(1e-6)
    at = tangents.gather(
        2, correspondences.vertex.flatten(1)[:, None].expand(-1, 2, -1)
    ).view(-1, 2, *correspondences.vertex.shape[1:])
    gap = (at - correspondences.tangents.mT[..., None]).square().sum(1).sqrt()
    error = (
        torch.where(inlier, (gap * fit).sum(-1) / sums.clamp_min(1e-9), torch.nan)
        .nanmedian(1)
        .values
    )
    counts = torch.stack(
        [
            covered[first, crop],
            reach[first, crop],
            inlier.sum(1),
            correspondences.count,
            error,
            correspondences.cell,
        ],
        1,
    )
    likeliest = total.gather(1, best)
    weights = torch.where(distinct, _CERTAINTY * (likeliest - likeliest[:, :1]), -torch.inf)
    evidence = collect_evidence(
        correspondences,
        view.presence,
        view.likeness,
        view.grid_from_view,
        tangents,
        seen.seen[first, 0, crop],
        inlier,
        error,
        likelihood[first, crop],
        -weights.logsumexp(1),
        rotation[first, crop],
        rated,
        told[first, crop],
    )
    if coarse is not None:
        best_pose = refine(
            correspondences,
            template,
            rotation[first, crop][None],
            translation[first, crop][None],
            (1.0 * sigma,) * _PULLS,
            config.outlier_likelihood,
            coarse,
            _PULL
            * config.coarse_rotation_weight
            * cell_variance(correspondences.cell, config),
        )
        for several, one in zip(
            (rotation, translation, information), best_pose, strict=True
        ):
            several[first, crop] = one[0]
    parts = [rotation.flatten(2), translation, information.flatten(2), total.T[..., None]]
    chosen = (
        torch.cat(parts, 2).transpose(0, 1).gather(1, best[..., None].expand(-1, -1, _MODE))
    )
    chosen[..., -1].masked_fill_(~distinct, -torch.inf)
    return torch.cat([chosen.flatten(1), counts, evidence], 1)


def to_cpu(rows: Tensor) -> RefinedPoses:
    """Copy the rows of `refine_and_score` to the CPU; only this function waits for the device."""
    facts = len(pose_evidence.EVIDENCE)
    modes, counts, evidence = (
        rows.cpu().double().split([rows.shape[1] - 6 - facts, 6, facts], 1)
    )
    rotation, translation, information, total = modes.unflatten(1, (-1, _MODE)).split(
        [9, 3, 36, 1], 2
    )
    covered, reach, inliers, cells, error, cell = counts.unbind(1)
    return RefinedPoses(
        rotation.unflatten(2, (3, 3)),
        translation,
        information.unflatten(2, (6, 6)),
        total[..., 0],
        covered,
        reach,
        inliers / cells,
        inliers,
        error.nan_to_num(0.0),
        cells,
        cell,
        evidence,
    )


def silhouette_coverage(
    view: CropObservation, seen: Projection, hidden_cost: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Compare the projected template with the presence in the crop.

    Vertices that project outside the crop do not count.

    Args:
        view: The cells of B crops.
        seen: The template, projected by H poses.
        hidden_cost: Largest cost of a vertex, which something may hide.

    Returns:
        Mean log presence (H, B) at the visible vertices, the same where no vertex costs more than
        `hidden_cost`, and the longer side (H, B) of the projected template, as a share of the
        crop's side.
    """
    grid = view.grid_from_view
    mapped = grid[..., :2] @ seen.tangents.transpose(1, 2) + grid[..., 2:]  # (H, B, 3, V)
    where = mapped[:, :, :2] / mapped[:, :, 2:].clamp_min(1e-9)
    low, high = where.aminmax(dim=3)
    inside = seen.seen[:, 0] & (where.abs() < 1).all(2)
    sampled = grid_sample(
        view.presence[:, None],
        where.permute(1, 0, 3, 2),
        align_corners=False,
        padding_mode="border",
    )  # (B, 1, H, V)
    value = sampled[:, 0].transpose(0, 1).add(0.1).clamp_max_(1).log_() * inside
    count = inside.sum(-1).clamp_min(1)
    covered = value.sum(-1) / count
    return covered, value.clamp_min_(-hidden_cost).sum(-1) / count, (high - low).amax(2) / 2


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
    log_weights = _CERTAINTY * (modes.total - modes.total[:, :1])
    enough = modes.cells >= config.min_region_cells
    # the comparison is false for all modes of a crop whose first total is -inf
    kept = (log_weights > _UNLIKELY) & enough[:, None]
    crop, _ = kept.nonzero(as_tuple=True)
    if not len(crop):
        return [None] * len(kept)
    turn = view.turn[crop]
    rotation = turn @ modes.rotation[kept]
    translation = (turn @ modes.translation[kept][..., None])[..., 0]
    rigid = from_parts(rotation, translation * scale)
    covariance = covariances(modes.information[kept], turn, scale, modes.cell[crop], config)
    alone = 1 / torch.where(kept, log_weights, -torch.inf).exp().sum(1)
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
        weights = log_weights[k][kept[k]].tolist()
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


def cell_variance(cell: Tensor, config: EstimatorConfig) -> Tensor:
    """Variance (K,) of a correspondence, for cells (K,) of this size, tangents.

    Errors of neighboring cells are correlated: as if one cell in ten were independent.
    """
    return 10 * (config.correspondence_sigma_cells * cell).square()


def look_at_rotation(directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return rotations (N, 3, 3) that rotate directions (N, 3) onto z."""
    z = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    z0, z1, z2 = z.T
    zero, steep = np.zeros_like(z0), np.abs(z1) > 0.9
    # the cross product of y, or of -z, with the direction; np.cross takes ten times as long
    x = np.stack(
        [np.where(steep, z1, z2), np.where(steep, -z0, zero), np.where(steep, zero, -z0)], 1
    )
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    x0, x1, x2 = x.T
    y = np.stack([z1 * x2 - z2 * x1, z2 * x0 - z0 * x2, z0 * x1 - z1 * x0], 1)
    return np.stack([x, y, z], 1)
