"""Crops' probabilities of template vertices to the poses that explain them best, with the other
poses that may be true.

    probability (B, h, w, V), presence (B, h, w)
    -> cells that show the object, and their likeliest vertices
    -> weak-perspective poses from triples of correspondences
    -> the best distinct poses, refined in full perspective
    -> the best pose, its covariance, and the odds of the others
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from uns_pose_ros.core.geometry import from_parts
from uns_pose_ros.core.geometry import project as project_points
from uns_pose_ros.core.types import Camera, CategoryModel, PoseEstimate, PoseMode
from uns_pose_ros.estimation import pose_hypotheses
from uns_pose_ros.estimation.config import EstimatorConfig
from uns_pose_ros.estimation.pose_hypotheses import Places, Template
from uns_pose_ros.estimation.pose_refinement import Projection, kernel, project, refine
from uns_pose_ros.networks.correspondence_head import STRIDE

# independent places that a picture is worth when modes are weighed against each other
_CERTAINTY = 12.0
_NOTHING_KNOWN = 0.01  # inverse variance: a standard deviation of 10 diameters or radians
_JUDGING = (48, 4)  # places and their vertices by which the many hypotheses are judged
_ROUGH = (128, 6)  # by which the distinct ones are first refined
_MODE = 49  # numbers that tell of a mode
_UNLIKELY = -8.0  # log weight of modes that are not worth telling


@dataclass(frozen=True, eq=False)
class Look:
    """What a head says of B square crops, seen by cameras that look at the crops' centres."""

    places: Places
    presence: Tensor  # (B, h, w)
    # (B, 3, 3) float32, homogeneous tangents of those cameras to -1..1 across the crop
    grid_from_view: Tensor
    turn: Tensor  # (B, 3, 3) float64, cam_from_view, on the CPU
    # of the crop's side, longer side of the region that the object was expected to fill
    region: float


@dataclass(frozen=True, eq=False)
class Modes:
    """Up to K distinct poses that explain each crop, best first, and what is told of the first.

    All on the CPU.
    """

    rotation: Tensor  # (B, K, 3, 3) float64
    translation: Tensor  # (B, K, 3) float64, diameters
    information: Tensor  # (B, K, 6, 6) float64, see `refinement.refine`
    total: Tensor  # (B, K) float64, log likelihood and coverage; -inf where there is no such mode
    covered: Tensor  # (B,) see `coverage`
    reach: Tensor  # (B,) longer side of the projected template, of that of the crop
    explained: Tensor  # (B,) share of the places
    inliers: Tensor  # (B,) places
    error: Tensor  # (B,) median over them of the distance to their vertices, tangents
    places: Tensor  # (B,) how many there are
    cell: Tensor  # (B,) see `Places`


def solve(
    model: CategoryModel,
    template: Template,
    probability: Tensor,
    presence: Tensor,
    size: int,
    crop_from_image: Tensor,
    camera: Camera,
    config: EstimatorConfig,
) -> list[PoseEstimate | None]:
    """For each of B crops of `size` px the pose that explains probabilities (B, h, w, V) and
    presence (B, h, w) best, or None.

    crop_from_image: (B, 3, 3) float64. The device is waited for once, when all is computed.
    """
    view = look(probability, presence, size, crop_from_image, camera, config)
    if not view.places.tangents.shape[1]:
        return [None] * len(crop_from_image)
    told = explain(view, template, *hypotheses(view.places, template, config), config)
    return answers(model, template, received(told), view, camera, config)


def look(
    probability: Tensor,
    presence: Tensor,
    size: int,
    crop_from_image: Tensor,
    camera: Camera,
    config: EstimatorConfig,
) -> Look:
    """The strongest places of the crops."""
    device, (batch, rows, columns) = presence.device, presence.shape
    view_from_cam, maps = _views(
        crop_from_image.cpu().numpy() @ camera.matrix.numpy(), size
    )
    view_from_place, grid_from_view, cells = (
        torch.from_numpy(maps).to(device).split([9, 9, 1], 1)
    )  # sent at once
    view_from_place, grid_from_view = (
        view_from_place.view(-1, 3, 3),
        grid_from_view.view(-1, 3, 3),
    )

    strongest = presence.flatten(1).topk(min(config.max_correspondences, rows * columns))
    shows = strongest.values > min(config.objectness_threshold, 0.5)
    index = torch.where(shows, strongest.indices, rows * columns).sort(1).values
    if device.type == "cpu":  # where that needs no waiting, what fills up is left out
        index = index[:, : int(shows.sum(1).max())]
    there = index < rows * columns
    index = index.clamp_max(rows * columns - 1)
    pixel = torch.stack(
        [index % columns, index // columns, torch.ones_like(index)], -1
    ).float()
    ray = pixel @ view_from_place.mT
    row = index + rows * columns * torch.arange(batch, device=device)[:, None]
    of_places = (
        probability.flatten(0, 2)
        .index_select(0, row.flatten())
        .view(*row.shape, probability.shape[-1])
    )
    likeliest = of_places.topk(min(config.top_k_vertices, probability.shape[-1]))
    places = Places(
        ray[..., :2] / ray[..., 2:],
        likeliest.values * there[..., None],
        likeliest.indices,
        cells[:, 0],
    )
    return Look(
        places,
        presence,
        grid_from_view,
        torch.from_numpy(view_from_cam).mT,
        1 / (1 + 2 * config.crop_margin),
    )


def _views(
    crop_from_cam: NDArray[np.float64], size: int
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Rotations view_from_cam (B, 3, 3) of cameras that look at the middles of crops of `size` px,
    (B, 3, 3) homogeneous.

    Beside them (B, 19): the map from a place's column and row to tangents, `Look.grid_from_view`,
    and `Places.cell`.
    """
    side, corner = (size - 1) / 2, (STRIDE - 1) / 2
    cam_from_crop = np.linalg.inv(crop_from_cam)
    view_from_cam = looking(cam_from_crop @ [side, side, 1.0])
    view_from_crop = view_from_cam @ cam_from_crop
    middle = view_from_crop @ np.array([[side, side + STRIDE], [side, side], [1.0, 1.0]])
    tangents = middle[:, :2] / middle[:, 2:]
    cell = np.hypot(*(tangents[..., 1] - tangents[..., 0]).T)
    view_from_place = view_from_crop @ np.array(
        [[STRIDE, 0.0, corner], [0.0, STRIDE, corner], [0.0, 0.0, 1.0]]
    )
    grid_from_crop = np.array(
        [[2 / size, 0.0, 1 / size - 1], [0.0, 2 / size, 1 / size - 1], [0.0, 0.0, 1.0]]
    )
    grid_from_view = grid_from_crop @ crop_from_cam @ view_from_cam.transpose(0, 2, 1)
    maps = [view_from_place.reshape(-1, 9), grid_from_view.reshape(-1, 9), cell[:, None]]
    return view_from_cam, np.concatenate(maps, 1).astype(np.float32)


def hypotheses(
    places: Places, template: Template, config: EstimatorConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """Rotations (H, B, 3, 3), translations (H, B, 3) of the distinct best of many triples, and
    whether they are any (H, B).
    """
    tangents, vertex = pose_hypotheses.draw_triples(places, config.hypothesis_count)
    rotation, translation = pose_hypotheses.poses_from_triples(
        tangents, template.vertices[vertex]
    )
    score = pose_hypotheses.rate(
        places.some(*_JUDGING),
        template,
        rotation,
        translation,
        2 * config.correspondence_sigma_cells,
        config.outlier_likelihood,
    )
    best, found = pose_hypotheses.distinct(rotation, score, config.mode_separation_deg, config.max_modes)
    rotation = torch.take_along_dim(rotation, best[..., None, None], 1)
    translation = torch.take_along_dim(translation, best[..., None], 1)
    rotation = torch.where(
        found[..., None, None],
        pose_hypotheses.orthonormal(rotation),
        torch.eye(3, device=rotation.device),
    )
    translation = torch.where(found[..., None], translation, 1.0)
    return rotation.transpose(0, 1), translation.transpose(0, 1), found.T


def explain(
    view: Look,
    template: Template,
    rotation: Tensor,
    translation: Tensor,
    found: Tensor,
    config: EstimatorConfig,
) -> Tensor:
    """Hypotheses (H, B, 3, 3), (H, B, 3), `found` (H, B), and half turns of the first, refined.

    Those that met are one.

    Returns rows (B, 49 (H + 3) + 6) for `received`.
    """
    places = view.places
    rough, fine = (
        tuple(config.correspondence_sigma_cells * factor for factor in factors)
        for factors in ((2.0, 2.0), (1.5, 1.0, 1.0))
    )
    rotation, translation, _ = refine(
        places.some(*_ROUGH), template, rotation, translation, rough, config.outlier_likelihood
    )
    turned = (
        rotation[:1] @ template.half_turns[:, None]
    )  # what a network takes for each other
    moved = translation[:1] + (rotation[:1] - turned) @ template.centre
    rotation, translation = torch.cat([rotation, turned]), torch.cat([translation, moved])
    found = torch.cat([found, found[:1].expand(3, -1)])
    rotation, translation, information = refine(
        places, template, rotation, translation, fine, config.outlier_likelihood
    )
    seen = project(template, rotation, translation)
    fit = kernel(places, seen, config.correspondence_sigma_cells)
    covered, reach = coverage(view, seen)
    total = (
        pose_hypotheses.agreement(fit, places.presence, config.outlier_likelihood)
        + config.silhouette_weight * covered
    )
    total = torch.where(found & total.isfinite(), total, -torch.inf).T
    best, left = pose_hypotheses.distinct(
        rotation.transpose(0, 1), total, config.mode_separation_deg, len(rotation)
    )

    first, crop = best[:, 0], torch.arange(len(best), device=best.device)
    fit, tangents = fit[first, crop], seen.tangents[first, :, crop]  # (B, P, M), (B, 2, V)
    sums = fit.sum(-1)
    inlier = sums > 0.1 * places.presence.clamp_min(
        1e-6
    )  # even a sure answer is spread over neighbouring vertices
    at = tangents.gather(2, places.vertex.flatten(1)[:, None].expand(-1, 2, -1)).view(
        -1, 2, *places.vertex.shape[1:]
    )
    gap = (at - places.tangents.mT[..., None]).square().sum(1).sqrt()
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
            places.count,
            error,
            places.cell,
        ],
        1,
    )
    parts = [rotation.flatten(2), translation, information.flatten(2), total.T[..., None]]
    chosen = (
        torch.cat(parts, 2).transpose(0, 1).gather(1, best[..., None].expand(-1, -1, _MODE))
    )
    chosen[..., -1].masked_fill_(~left, -torch.inf)
    return torch.cat([chosen.flatten(1), counts], 1)


def received(told: Tensor) -> Modes:
    """The modes of `explain`'s rows: the one place that waits for the device."""
    modes, counts = told.cpu().double().split([told.shape[1] - 6, 6], 1)
    rotation, translation, information, total = modes.unflatten(1, (-1, _MODE)).split(
        [9, 3, 36, 1], 2
    )
    covered, reach, inliers, places, error, cell = counts.unbind(1)
    return Modes(
        rotation.unflatten(2, (3, 3)),
        translation,
        information.unflatten(2, (6, 6)),
        total[..., 0],
        covered,
        reach,
        inliers / places,
        inliers,
        error.nan_to_num(0.0),
        places,
        cell,
    )


def coverage(view: Look, seen: Projection) -> tuple[Tensor, Tensor]:
    """Mean log presence (H, B) where the visible part of the template projects.

    Outside the crop nothing is said.

    And how far all of it reaches (H, B): its longer side, of that of the crop.
    """
    grid = view.grid_from_view
    mapped = grid[..., :2] @ seen.tangents.transpose(1, 2) + grid[..., 2:]  # (H, B, 3, V)
    where = mapped[:, :, :2] / mapped[:, :, 2:].clamp_min(1e-9)
    low, high = where.aminmax(dim=3)
    inside = seen.seen[:, 0] & (where.abs() < 1).all(2)
    sampled = F.grid_sample(
        view.presence[:, None],
        where.permute(1, 0, 3, 2),
        align_corners=False,
        padding_mode="border",
    )  # (B, 1, H, V)
    value = sampled[:, 0].transpose(0, 1).add(0.1).clamp_max_(1).log_() * inside
    return value.sum(-1) / inside.sum(-1).clamp_min(1), (high - low).amax(2) / 2


def answers(
    model: CategoryModel,
    template: Template,
    modes: Modes,
    view: Look,
    camera: Camera,
    config: EstimatorConfig,
) -> list[PoseEstimate | None]:
    """The estimates in the image's camera.

    Each crop's first mode, with score, inliers and covariance, the others beside it.
    """
    scale = model.diameter or 1.0
    log_weights = _CERTAINTY * (modes.total - modes.total[:, :1])
    told = (log_weights > _UNLIKELY) & (modes.places >= config.min_region_cells)[
        :, None
    ]  # not where the first is -inf
    crop, _ = told.nonzero(as_tuple=True)
    if not len(crop):
        return [None] * len(told)
    turn = view.turn[crop]
    rotation, translation = (
        turn @ modes.rotation[told],
        (turn @ modes.translation[told][..., None])[..., 0],
    )
    rigid = from_parts(rotation, translation * scale)
    covariance = covariances(modes.information[told], turn, scale, modes.cell[crop], config)
    alone = 1 / torch.where(told, log_weights, -torch.inf).exp().sum(1)
    score = (
        quality(
            modes.explained, modes.covered, modes.reach / (view.region * template.share)
        )
        * alone
    ).clamp(0, 1)
    error = modes.error * float(camera.matrix[0, 0] + camera.matrix[1, 1]) / 2
    vertices, extents = model.vertices.double(), model.extents.double() * scale
    found: list[PoseEstimate | None] = []
    start = 0
    for k, count in enumerate(told.sum(1).tolist()):
        if not count:
            found.append(None)
            continue
        of = slice(start, start + count)
        start += count
        shown = project_points(
            camera.matrix, vertices @ rotation[of][0].T + translation[of][0]
        )
        odds = log_weights[k][told[k]].tolist()
        found.append(
            PoseEstimate(
                category=model.category,
                cam_from_canon=rigid[of][0],
                scale=scale,
                metric=model.diameter is not None,
                size=extents,
                score=float(score[k]),
                covariance=covariance[of][0],
                symmetry=model.symmetry,
                inliers=int(modes.inliers[k]),
                reprojection_error=float(error[k]),
                box=torch.cat([shown.amin(0), shown.amax(0)]),
                alternatives=tuple(
                    map(PoseMode, rigid[of][1:], odds[1:], covariance[of][1:])
                ),
            )
        )
    return found


def quality(explained: Tensor, covered: Tensor, filled: Tensor) -> Tensor:
    """How much speaks for an object at a pose, 0 to 1.

    The root of the share of places that the pose explains, the (geometric) mean presence where it
    puts the template, given as its logarithm, and the part of the region that the template fills,
    beside what it fills of the objects it was made of (it may lack thin parts): what only resembles
    the object shows here and there, and fills little.
    """
    return explained.sqrt() * covered.clamp_max(0).exp() * filled.clamp_max(1).square()


def covariances(
    information: Tensor,
    cam_from_view: Tensor,
    scale: float,
    cell: Tensor,
    config: EstimatorConfig,
) -> Tensor:
    """(K, 6, 6) in the camera, translation and then rotation, of information (K, 6, 6) in the
    view's and in diameters.

    cam_from_view: (K, 3, 3); cell: (K,), see `Places`.
    """
    lift = torch.zeros(len(information), 6, 6, dtype=torch.float64)
    lift[:, :3, :3], lift[:, 3:, 3:] = cam_from_view * scale, cam_from_view
    # neighbouring places err together: as if one in ten were independent
    information = information / (10 * (config.correspondence_sigma_cells * cell[:, None, None]).square())
    known, axes = torch.linalg.eigh((information + information.mT) / 2)
    spread = 1 / known.clamp_min(_NOTHING_KNOWN)
    covariance = lift @ (axes * spread[:, None]) @ axes.mT @ lift.mT
    covariance[:, range(3, 6), range(3, 6)] += math.radians(config.shape_variation_deg) ** 2
    return covariance


def looking(directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotations (N, 3, 3) that turn directions (N, 3) onto z, by the shortest way to within a turn
    about z.
    """
    z = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    x = np.cross(np.where(np.abs(z[:, 1:2]) > 0.9, [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]), z)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return np.stack([x, np.cross(z, x), z], 1)
