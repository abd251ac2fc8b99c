"""Refinement of the best hypotheses of each crop, and the scores that order them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from uns_pose_ros.estimation.config import EstimatorConfig
from uns_pose_ros.estimation.solver import pose_evidence, pose_hypotheses
from uns_pose_ros.estimation.solver.crop_observation import CropObservation
from uns_pose_ros.estimation.solver.pose_evidence import collect_evidence
from uns_pose_ros.estimation.solver.pose_hypotheses import INDEPENDENT_CELLS, Template
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
_PULLS, _PULL = 3, 0.5
_MODE = 49  # numbers for each mode: rotation, translation, information, total


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
    total = total + config.coarse_rotation_weight / INDEPENDENT_CELLS * told
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
    weights = torch.where(
        distinct, INDEPENDENT_CELLS * (likeliest - likeliest[:, :1]), -torch.inf
    )
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
