"""One crop's probabilities of template vertices to the pose that explains them best, with the other poses that may be true.

probability (h, w, V), presence (h, w) -> places and their likeliest vertices -> poses of weak perspective from triples
    -> the distinct best, refined in full perspective -> the best explanation, its covariance, the odds of the others
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from uns_pose_ros import pose_search
from uns_pose_ros.datatypes import Camera, CategoryModel, PoseEstimate, PoseMode
from uns_pose_ros.geometry import from_parts, project, transform
from uns_pose_ros.network import STRIDE
from uns_pose_ros.pose_search import Places, Template

_CERTAINTY = 12.0  # independent places that a picture is worth when modes are weighed against each other
_NOTHING_KNOWN = 0.01  # inverse variance: a standard deviation of 10 diameters or radians
_JUDGING = (48, 4)  # places and their vertices by which the many hypotheses are judged
_ROUGH = (128, 6)  # by which the distinct ones are first refined
_UNLIKELY = -8.0  # log weight of modes that are not worth telling


@dataclass(frozen=True)
class EstimatorConfig:
    """How an image is searched and how poses are found."""

    search_size: int = 280  # px, longer side of the image in which objects are looked for
    margin: float = 0.15  # of the longer side, left around an object in its crop
    max_instances: int = 5  # a category and image
    presence: float = 0.5  # probability above which a place shows an object
    least_places: int = 6  # connected places that make an object
    score_threshold: float = 0.22  # estimates below are not returned
    triples: int = 384  # hypotheses are twice as many
    places: int = 400  # of the object that hypotheses are judged by, at most
    vertices: int = 12  # likeliest ones kept a place
    modes: int = 8  # distinct hypotheses that are refined
    apart: float = 25.0  # degrees between two of them
    floor: float = 0.1  # likelihood of a place that a pose does not explain
    width: float = 0.7  # cells of the head's grid, standard deviation of a correspondence
    variety: float = 3.0  # degrees about each axis, standard deviation by which instances differ from the template
    coverage: float = 0.5  # weight of template parts that are seen where the object is not
    reach: float = 1.0  # gap between parts of an image, in sides of the larger one, up to which they are tried as one object
    overlap: float = 0.4  # of two boxes, intersection over union, above which they are one object
    runtime: str = "torch"  # of the backbone: torch, torch-fp32, torch-bf16, torch-compile, onnx or openvino


@dataclass(frozen=True, eq=False)
class View:
    """What a head says of a square crop, and a camera that looks at the crop's centre."""

    places: Places
    presence: Tensor  # (h, w)
    size: int  # px, side of the crop
    view_from_cam: Tensor  # (3, 3) float64
    crop_from_view: Tensor  # (3, 3) float64, homogeneous tangents of that camera to pixels of the crop
    region: float  # px of the crop, longer side of the region that the object was expected to fill


@dataclass(frozen=True, eq=False)
class Modes:
    """K distinct poses that explain one crop, best first."""

    rotation: Tensor  # (K, 3, 3)
    translation: Tensor  # (K, 3) diameters
    information: Tensor  # (K, 6, 6), see `pose_search.refine`
    fit: Tensor  # (K, P, M), see `pose_search.kernel`
    covered: Tensor  # (K,) see `coverage`
    total: Tensor  # (K,) log likelihood and coverage


def solve(
    model: CategoryModel, template: Template, probability: Tensor, presence: Tensor, size: int,
    crop_from_image: Tensor, camera: Camera, config: EstimatorConfig,
) -> PoseEstimate | None:  # fmt: skip
    """The pose that explains probabilities (h, w, V) and presence (h, w) of a crop of `size` px best, None without any."""
    view = look(probability, presence, size, crop_from_image, camera, config)
    if len(view.places.tangents) < config.least_places:
        return None
    start = hypotheses(view.places, template, config)
    if start is None:
        return None
    return answer(model, template, view, explain(view, template, *start, config), camera, config)


def look(
    probability: Tensor, presence: Tensor, size: int, crop_from_image: Tensor, camera: Camera, config: EstimatorConfig
) -> View:
    """The strongest places of a crop, seen by a camera that looks at the crop's centre."""
    side = (size - 1) / 2
    cam_from_crop = torch.linalg.inv(crop_from_image.cpu() @ camera.matrix)
    axis = cam_from_crop @ torch.tensor([side, side, 1.0], dtype=torch.float64)
    view_from_cam = looking((axis / axis.norm())[None])[0]
    view_from_crop = view_from_cam @ cam_from_crop
    strongest = presence.flatten().topk(min(config.places, presence.numel()))
    index = strongest.indices[strongest.values > min(config.presence, 0.5)].sort().values
    columns = presence.shape[1]
    pixel = torch.stack([index % columns, index // columns, torch.ones_like(index)], -1).double().cpu()
    pixel[:, :2] = pixel[:, :2] * STRIDE + (STRIDE - 1) / 2
    ray = pixel @ view_from_crop.T
    likeliest = probability.flatten(0, 1)[index].topk(min(config.vertices, probability.shape[-1]))
    middle = torch.tensor([[side, side, 1.0], [side + STRIDE, side, 1.0]], dtype=torch.float64) @ view_from_crop.T
    middle = middle[:, :2] / middle[:, 2:]
    tangents = (ray[:, :2] / ray[:, 2:]).float().to(probability.device)
    places = Places(tangents, likeliest.values, likeliest.indices, float((middle[1] - middle[0]).norm()))
    region = size / (1 + 2 * config.margin)
    return View(places, presence, size, view_from_cam, torch.linalg.inv(view_from_crop), region)


def hypotheses(places: Places, template: Template, config: EstimatorConfig) -> tuple[Tensor, Tensor] | None:
    """Rotations (H, 3, 3) and translations (H, 3) of the distinct best of many triples, best first; None without any."""
    place, vertex = pose_search.draw_triples(places, config.triples, torch.Generator().manual_seed(0))
    rotation, translation = pose_search.poses_from_triples(places.tangents[place], template.vertices[vertex])
    sound = rotation.isfinite().all(-1).all(-1) & translation.isfinite().all(-1) & (translation[:, 2] > pose_search.NEAREST)
    rotation, translation = rotation[sound], translation[sound]
    if not len(rotation):
        return None
    few = places.some(*_JUDGING)
    used, few_vertex = few.vertex.unique(return_inverse=True)
    few = replace(few, vertex=few_vertex)
    fit = pose_search.kernel(few, template.part(used), rotation, translation, 2 * config.width)
    best = pose_search.distinct(rotation, pose_search.agreement(fit, few, config.floor), config.apart, config.modes)
    return rotation[best], translation[best]


def explain(view: View, template: Template, rotation: Tensor, translation: Tensor, config: EstimatorConfig) -> Modes:
    """Hypotheses (H, 3, 3), (H, 3) and half turns of the first, refined and rated; those that met are one."""
    places = view.places
    rough, fine = (tuple(config.width * factor for factor in factors) for factors in ((2.0, 2.0), (1.5, 1.0, 1.0)))
    few = places.some(*_ROUGH)
    rotation, translation, _ = pose_search.refine(few, template, rotation, translation, rough, config.floor)
    turned = pose_search.half_turns(template, rotation[:1], translation[:1])  # what a network takes for each other
    rotation, translation = torch.cat([rotation, turned[0]]), torch.cat([translation, turned[1]])
    rotation, translation, information = pose_search.refine(places, template, rotation, translation, fine, config.floor)
    fit = pose_search.kernel(places, template, rotation, translation, config.width)
    covered = coverage(view, template, rotation, translation)
    total = pose_search.agreement(fit, places, config.floor) + config.coverage * covered
    left = pose_search.distinct(rotation, total, config.apart, len(total))
    return Modes(*(tensor[left] for tensor in (rotation, translation, information, fit, covered, total)))


def coverage(view: View, template: Template, rotation: Tensor, translation: Tensor) -> Tensor:
    """Mean log presence (H,) where the visible part of the template projects; outside the crop nothing is said."""
    tangents, _ = pose_search.project_template(template, rotation, translation)
    seen = template.seen_from(rotation, translation)
    pixels = transform_homography(view.crop_from_view.float().to(tangents), tangents.mT)
    where = (pixels + 0.5) / view.size * 2 - 1
    seen = seen & (where.abs() < 1).all(-1)
    sampled = F.grid_sample(view.presence[None, None], where[None], align_corners=False, padding_mode="border")[0, 0]
    value = (sampled + 0.1).clamp_max(1).log() * seen
    return value.sum(-1) / seen.sum(-1).clamp_min(1)


def answer(
    model: CategoryModel, template: Template, view: View, modes: Modes, camera: Camera, config: EstimatorConfig
) -> PoseEstimate:
    """The estimate in the image's camera: the first mode, with score, inliers and covariance, and the others beside it."""
    places, scale = view.places, model.diameter or 1.0
    turn = torch.eye(4, dtype=torch.float64)
    turn[:3, :3] = view.view_from_cam.T
    log_weights = (_CERTAINTY * (modes.total - modes.total[0])).double().cpu()
    told = log_weights > _UNLIKELY
    told[0] = True
    poses = turn @ from_parts(modes.rotation.double().cpu()[told], modes.translation.double().cpu()[told])  # diameters
    rigid = poses.clone()
    rigid[:, :3, 3] *= scale
    covariance = covariances(modes.information.double().cpu()[told], turn[:3, :3], scale, places, config)

    fit = modes.fit[0]
    share = (fit.sum(-1) / places.presence.clamp_min(1e-6)).cpu()
    inlier = share > 0.1  # even a sure answer is spread over neighbouring vertices
    tangents, _ = pose_search.project_template(template, modes.rotation[:1], modes.translation[:1])
    gap = (tangents[0].T[places.vertex] - places.tangents[:, None]).norm(dim=-1).cpu()
    weight = fit.cpu() / fit.cpu().sum(-1, keepdim=True).clamp_min(1e-9)
    pixels = float(camera.matrix[0, 0] + camera.matrix[1, 1]) / 2
    error = float(((gap * weight).sum(-1)[inlier] * pixels).median()) if bool(inlier.any()) else 0.0
    shown = project(camera.matrix, transform(poses[0], model.vertices.double()))
    alone = 1 / float(log_weights.exp().sum())
    score = quality(view, template, float(inlier.float().mean()), float(modes.covered[0]), tangents[0].T) * alone
    odds = log_weights[told].tolist()
    return PoseEstimate(
        category=model.category,
        cam_from_canon=rigid[0],
        scale=scale,
        metric=model.diameter is not None,
        size=model.extents.double() * scale,
        score=min(max(score, 0.0), 1.0),
        covariance=covariance[0],
        symmetry=model.symmetry,
        inliers=int(inlier.sum()),
        reprojection_error=error,
        box=torch.cat([shown.amin(0), shown.amax(0)]),
        alternatives=tuple(PoseMode(rigid[k], odds[k], covariance[k]) for k in range(1, len(poses))),
    )


def quality(view: View, template: Template, explained: float, covered: float, tangents: Tensor) -> float:
    """How much speaks for an object at the pose that puts the template's vertices at tangents (V, 2), 0 to 1.

    The root of the share of places that the pose explains, the (geometric) mean presence where it puts the template, and the
    part of the region that the template fills, beside what it fills of the objects it was made of (it may lack thin parts):
    what only resembles the object shows here and there, and fills little.
    """
    pixels = transform_homography(view.crop_from_view.float().to(tangents), tangents)
    filled = float((pixels.amax(0) - pixels.amin(0)).max()) / (view.region * template.share)
    return math.sqrt(explained) * math.exp(min(covered, 0.0)) * min(filled, 1.0) ** 2


def covariances(information: Tensor, cam_from_view: Tensor, scale: float, places: Places, config: EstimatorConfig) -> Tensor:
    """(K, 6, 6) in the camera, translation and then rotation, of information (K, 6, 6) in the view's and in diameters."""
    lift = torch.zeros(6, 6, dtype=torch.float64)
    lift[:3, :3], lift[3:, 3:] = cam_from_view * scale, cam_from_view
    # neighbouring places err together: as if one in ten were independent
    information = information / (10 * (config.width * places.cell) ** 2)
    known, axes = torch.linalg.eigh((information + information.mT) / 2)
    spread = 1 / known.clamp_min(_NOTHING_KNOWN)
    covariance = lift @ (axes * spread[:, None]) @ axes.mT @ lift.T
    covariance[:, range(3, 6), range(3, 6)] += math.radians(config.variety) ** 2
    return covariance


def transform_homography(matrix: Tensor, points: Tensor) -> Tensor:
    """Points (..., 2) mapped by a homography (3, 3)."""
    mapped = points @ matrix[:, :2].T + matrix[:, 2]
    return mapped[..., :2] / mapped[..., 2:].clamp_min(1e-9)


def looking(directions: Tensor) -> Tensor:
    """Rotations (N, 3, 3) that turn unit directions (N, 3) onto z, by the shortest way to within a turn about z."""
    z = directions / directions.norm(dim=-1, keepdim=True)
    aside = torch.where((z[:, 1:2].abs() > 0.9).expand_as(z), z.new_tensor([0.0, 0.0, -1.0]), z.new_tensor([0.0, 1.0, 0.0]))
    x = torch.linalg.cross(aside, z)
    x = x / x.norm(dim=-1, keepdim=True)
    return torch.stack([x, torch.linalg.cross(z, x), z], -2)
