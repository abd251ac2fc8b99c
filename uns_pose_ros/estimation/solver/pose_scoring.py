"""Refinement of the best hypotheses of each crop, and the scores that order them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from uns_pose_ros.estimation.config import EstimatorConfig
from uns_pose_ros.estimation.solver import pose_hypotheses
from uns_pose_ros.estimation.solver.crop_observation import CropObservation
from uns_pose_ros.estimation.solver.pose_evidence import (
    collect_evidence,
    spread_of_hypotheses,
    turns_to_hypotheses,
)
from uns_pose_ros.estimation.solver.pose_hypotheses import (
    INDEPENDENT_CELLS,
    Correspondences,
    Template,
)
from uns_pose_ros.estimation.solver.pose_refinement import (
    Projection,
    cell_variance,
    correspondence_weights,
    project_template,
    refine,
)
from uns_pose_ros.networks.coarse_rotation import CoarseRotation

_ROUGH = (128, 6)  # cells and vertices of the first refinement
# steps in which the coarse rotation pulls the best pose, and how strongly: as a share of its weight
_PULLS, _PULL = 2, 0.5
_STRETCH = 1.4  # factor of the length of the last steps


@dataclass(frozen=True, eq=False)
class RefinedPoses:
    """K poses of each of B crops, best first, with statistics of the first one.

    All tensors are float32 on the device; `to_cpu` makes them float64.
    """

    rotation: Tensor  # (B, K, 3, 3)
    translation: Tensor  # (B, K, 3), diameters
    information: Tensor  # (B, K, 6, 6), see `pose_refinement.refine`
    # (B, K) log likelihood, silhouette and coarse rotation; -inf for a pose that is not valid or
    # equals a better one
    total: Tensor
    covered: Tensor  # (B,) see `silhouette_coverage`
    reach: Tensor  # (B,) see `silhouette_coverage`
    inliers: Tensor  # (B,) number of cells
    cells: Tensor  # (B,) number of cells
    error: Tensor  # (B,) see `find_inliers`; 0 if there are none
    cell: Tensor  # (B,) see `Correspondences`
    evidence: Tensor  # (B, F) see `pose_evidence.EVIDENCE`
    spread: Tensor  # (B, 2, 3, 3) see `pose_evidence.spread_of_hypotheses`

    @property
    def explained(self) -> Tensor:
        """(B,) share of the cells that are inliers."""
        return self.inliers / self.cells


@dataclass(frozen=True, eq=False)
class _Poses:
    """H poses of each of B crops."""

    rotation: Tensor  # (H, B, 3, 3)
    translation: Tensor  # (H, B, 3), diameters
    information: Tensor  # (H, B, 6, 6), see `pose_refinement.refine`
    valid: Tensor  # (H, B) bool


@dataclass(frozen=True, eq=False)
class _PoseScores:
    """How well H poses explain each of B crops."""

    projection: Projection
    fit: Tensor  # (H, B, P, M) see `correspondence_weights`
    likelihood: Tensor  # (H, B) see `log_likelihood`
    covered: Tensor  # (H, B) see `silhouette_coverage`
    reach: Tensor  # (H, B) see `silhouette_coverage`
    coarse: Tensor  # (H, B) log likelihood of the coarse rotation; 0: not known
    total: Tensor  # (B, H) all of this together; -inf for a pose that is not valid


def refine_and_score(
    view: CropObservation,
    template: Template,
    rotation: Tensor,
    translation: Tensor,
    valid: Tensor,
    rated: tuple[Tensor, Tensor],
    config: EstimatorConfig,
    coarse: CoarseRotation | None = None,
) -> RefinedPoses:
    """Refine hypotheses and half turns of the first one, and merge those that are equal then.

    The processor does not wait for the device.

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
        H + 3 poses of each crop.
    """
    correspondences = view.correspondences
    poses = _refine_with_half_turns(
        correspondences, template, rotation, translation, valid, config
    )
    scores = _score_poses(view, template, poses, config, coarse)
    order, distinct = pose_hypotheses.rotation_nms(
        poses.rotation.transpose(0, 1),
        scores.total,
        config.mode_separation_deg,
        len(poses.rotation),
    )
    total = scores.total.gather(1, order).masked_fill(~distinct, -torch.inf)
    crop = torch.arange(len(order), device=order.device)
    ordered = tuple(
        tensor[order, crop[:, None]]
        for tensor in (poses.rotation, poses.translation, poses.information)
    )
    rotation, translation, information = ordered
    first = (order[:, 0], crop)
    tangents = scores.projection.tangents.transpose(1, 2)[first]  # (B, 2, V)
    inlier, error = find_inliers(correspondences, scores.fit[first], tangents)
    turns = turns_to_hypotheses(
        rotation[:, 0], rated[0], template.symmetry_order, template.symmetry_axis
    )
    spread = spread_of_hypotheses(turns, rated[1])
    evidence = collect_evidence(
        correspondences,
        view.presence,
        view.likeness,
        view.grid_from_view,
        tangents,
        scores.projection.seen[:, 0][first],
        inlier,
        error,
        scores.likelihood[first],
        -log_weights(total).logsumexp(1),
        turns,
        rated[1],
        spread,
        scores.coarse[first],
    )
    if coarse is not None:
        pulled = _pull_to_coarse_rotation(
            correspondences, template, rotation[:, 0], translation[:, 0], config, coarse
        )
        for several, best in zip(ordered, pulled, strict=True):
            several[:, 0] = best
    return RefinedPoses(
        rotation=rotation,
        translation=translation,
        information=information,
        total=total,
        covered=scores.covered[first],
        reach=scores.reach[first],
        inliers=inlier.sum(1).to(error),
        cells=correspondences.count.to(error),
        error=error.nan_to_num(0.0),
        cell=correspondences.cell,
        evidence=evidence,
        spread=spread,
    )


def _refine_with_half_turns(
    correspondences: Correspondences,
    template: Template,
    rotation: Tensor,
    translation: Tensor,
    valid: Tensor,
    config: EstimatorConfig,
) -> _Poses:
    """Refine H poses, and three half turns of the first one: a network confuses them."""
    sigma = config.correspondence_sigma_cells
    rough = (2.0 * sigma, 2.0 * sigma)
    fine = (1.5 * sigma, 1.0 * sigma)
    few, floor = correspondences.subset(*_ROUGH), config.outlier_likelihood
    rotation, translation, _ = refine(few, template, rotation, translation, rough, floor)
    turned = rotation[:1] @ template.half_turns[:, None]
    moved = translation[:1] + (rotation[:1] - turned) @ template.center
    rotation = torch.cat([rotation, turned])
    translation = torch.cat([translation, moved])
    valid = torch.cat([valid, valid[:1].expand(3, -1)])
    refined = refine(
        correspondences, template, rotation, translation, fine, floor, stretch=_STRETCH
    )
    return _Poses(*refined, valid)


def _score_poses(
    view: CropObservation,
    template: Template,
    poses: _Poses,
    config: EstimatorConfig,
    coarse: CoarseRotation | None,
) -> _PoseScores:
    """Compare poses with the cells, the presence map and the coarse rotation of their crops."""
    correspondences = view.correspondences
    projection = project_template(template, poses.rotation, poses.translation)
    fit = correspondence_weights(
        correspondences, projection, config.correspondence_sigma_cells
    )
    covered, shown, reach = silhouette_coverage(view, projection, config.hidden_cost)
    likelihood = pose_hypotheses.log_likelihood(
        fit, correspondences.presence, config.outlier_likelihood
    )
    if coarse is None:
        coarse_likelihood = torch.zeros_like(likelihood)
    else:
        coarse_likelihood = coarse.log_likelihood(poses.rotation)
    total = likelihood + config.silhouette_weight * shown
    total = total + config.coarse_rotation_weight / INDEPENDENT_CELLS * coarse_likelihood
    total = torch.where(poses.valid & total.isfinite(), total, -torch.inf).T
    return _PoseScores(
        projection, fit, likelihood, covered, reach, coarse_likelihood, total
    )


def log_weights(total: Tensor) -> Tensor:
    """Log weights (B, K) of poses with these totals (B, K), beside the first one of their crop.

    NaN if the first one is not valid.
    """
    return INDEPENDENT_CELLS * (total - total[:, :1])


def find_inliers(
    correspondences: Correspondences, fit: Tensor, tangents: Tensor
) -> tuple[Tensor, Tensor]:
    """Find the cells that one pose of each crop explains.

    Args:
        correspondences: Of B crops, P cells each.
        fit: (B, P, M) see `correspondence_weights`.
        tangents: (B, 2, V) of the projected template.

    Returns:
        Whether each cell is an inlier (B, P), and the median (B,) over the inliers of the distance
        to their vertices, tangents; NaN if there are none.
    """
    sums = fit.sum(-1)
    # even a certain correspondence is spread over neighboring vertices
    inlier = sums > 0.1 * correspondences.presence.clamp_min(1e-6)
    vertex = correspondences.vertex
    at = tangents.gather(2, vertex.flatten(1)[:, None].expand(-1, 2, -1))
    offset = at.view(-1, 2, *vertex.shape[1:]) - correspondences.tangents.mT[..., None]
    distance = offset.square().sum(1).sqrt()  # (B, P, M)
    mean = (distance * fit).sum(-1) / sums.clamp_min(1e-9)
    return inlier, torch.where(inlier, mean, torch.nan).nanmedian(1).values


def _pull_to_coarse_rotation(
    correspondences: Correspondences,
    template: Template,
    rotation: Tensor,
    translation: Tensor,
    config: EstimatorConfig,
    coarse: CoarseRotation,
) -> tuple[Tensor, Tensor, Tensor]:
    """Refine one pose (B, 3, 3), (B, 3) of each crop while the coarse rotation pulls it.

    Returns:
        The poses, and their information (B, 6, 6).
    """
    weight = _PULL * config.coarse_rotation_weight
    rotation, translation, information = refine(
        correspondences,
        template,
        rotation[None],
        translation[None],
        (config.correspondence_sigma_cells,) * _PULLS,
        config.outlier_likelihood,
        coarse,
        weight * cell_variance(correspondences.cell, config),
        stretch=_STRETCH,
    )
    return rotation[0], translation[0], information[0]


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
