"""One image to the poses of all instances that its models know: the same Estimator for command line, node and evaluation.

image -> whole image through backbone and head -> places that show a category -> boxes     (unless regions are given)
box -> crop through backbone and head -> probability of every template vertex at every place
    -> poses of weak perspective from triples -> the distinct best, refined in full perspective -> the best explanation
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from uns_pose_ros import pose_search
from uns_pose_ros.backbone import PATCH, DinoV2, load_backbone, normalise
from uns_pose_ros.crops import crop, square_around
from uns_pose_ros.datatypes import Camera, CategoryModel, InvalidInput, PoseEstimate, PoseMode
from uns_pose_ros.device import choose_device, choose_precision
from uns_pose_ros.geometry import from_parts, project, sphere, transform
from uns_pose_ros.network import STRIDE, Head, NetworkConfig
from uns_pose_ros.pose_search import Places, Template
from uns_pose_ros.scale import measured
from uns_pose_ros.video import undistort
from uns_pose_ros.visibility import visible_from

_CERTAINTY = 12.0  # independent places that a picture is worth when modes are weighed against each other
_NOTHING_KNOWN = 0.01  # inverse variance: a standard deviation of 10 diameters or radians
_UNLIKELY = -8.0  # log weight of modes that are not worth telling


@dataclass(frozen=True)
class EstimatorConfig:
    """How an image is searched and how poses are found."""

    search_size: int = 280  # px, longer side of the image in which objects are looked for
    margin: float = 0.15  # of the longer side, left around an object in its crop
    max_instances: int = 5  # a category and image
    presence: float = 0.5  # probability above which a place shows an object
    least_places: int = 6  # connected places that make an object
    score_threshold: float = 0.2  # estimates below are not returned
    triples: int = 384  # hypotheses are twice as many
    places: int = 400  # of the object that hypotheses are judged by, at most
    vertices: int = 12  # likeliest ones kept a place
    modes: int = 8  # distinct hypotheses that are refined
    apart: float = 25.0  # degrees between two of them
    floor: float = 0.1  # likelihood of a place that a pose does not explain
    width: float = 0.7  # cells of the head's grid, standard deviation of a correspondence
    variety: float = 3.0  # degrees about each axis, standard deviation by which instances differ from the template
    coverage: float = 0.5  # weight of template parts that are seen where the object is not
    overlap: float = 0.4  # of two boxes, intersection over union, above which they are one object


@dataclass(frozen=True, eq=False)
class Modes:
    """K distinct poses that explain one crop, best first."""

    rotation: Tensor  # (K, 3, 3)
    translation: Tensor  # (K, 3) diameters
    information: Tensor  # (K, 6, 6), see `pose_search.refine`
    fit: Tensor  # (K, P, M), see `pose_search.kernel`
    total: Tensor  # (K,) log likelihood and coverage


class Runtime:
    """A category model ready on a device."""

    def __init__(self, model: CategoryModel, device: torch.device) -> None:
        """Raises InvalidInput where the model's head does not fit its description."""
        self.model = model
        try:
            described: Mapping[str, Any] = model.provenance["network"]  # type: ignore[assignment]
            size = int(model.provenance["crop_size"])  # type: ignore[call-overload]
            if size % PATCH or not PATCH <= size <= 1400:
                raise ValueError(f"crops of {size} px")
            known = {name.name for name in fields(NetworkConfig)}
            chosen: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in described.items() if k in known}
            config = NetworkConfig(**chosen)
            tokens = model.head["norm.weight"].shape[0]
            claimed = (config.width, config.features, config.clutter)
            there = (model.head["enter.bias"].shape[0], model.bank.shape[1], len(model.clutter))
            if claimed != there or not 0 <= config.blocks <= len(model.head):  # before anything is allocated
                raise ValueError(f"a head of {claimed} and {config.blocks} blocks is described, {there} is there")
            head = Head(config, len(model.vertices), tokens)
            head.load_state_dict({**model.head, "bank": model.bank, "clutter": model.clutter})
        except (LookupError, TypeError, ArithmeticError, RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InvalidInput(
                f"model of {model.category}: its head is of another version ({reason}); train it again"
            ) from None
        self.layers = config.layers
        self.crop_size = size
        self.head = head.eval().requires_grad_(False).to(device)
        directions = sphere(400)
        visible = visible_from(model.vertices, model.triangles, directions)
        self.template = Template(model.vertices.to(device), directions.to(device), visible.to(device))

    def read(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities (B, 2h, 2w, V) of the vertices and the object's presence (B, 2h, 2w), of tokens (B, h, w, L * C)."""
        with torch.autocast(tokens.device.type, torch.bfloat16, enabled=tokens.device.type == "cuda"):
            features = self.head(tokens)
        probability = self.head.logits(features).softmax(-1)[..., : len(self.template.vertices)]
        return probability, probability.sum(-1)


class Estimator:
    """Finds the instances of its categories in an image."""

    def __init__(
        self,
        models: CategoryModel | Sequence[CategoryModel],
        backbone: DinoV2 | None = None,
        device: str = "auto",
        config: EstimatorConfig = EstimatorConfig(),
    ) -> None:
        """Several models share one backbone; without one given, the cached weights are loaded. Raises InvalidInput."""
        self.models = (models,) if isinstance(models, CategoryModel) else tuple(models)
        if not self.models:
            raise InvalidInput("no model given: an estimator needs one at least")
        self.config = config
        self.device = choose_device(device)
        self.backbone = load_backbone(device=device, precision=choose_precision(self.device)) if backbone is None else backbone
        self._runtimes = [Runtime(model, self.device) for model in self.models]
        if len({runtime.layers for runtime in self._runtimes}) > 1:
            raise InvalidInput("the models read different layers of the backbone: train them with the same version")

    @torch.inference_mode()
    def __call__(
        self,
        image: Tensor | NDArray[np.uint8],
        camera: Camera,
        regions: Tensor | None = None,
        depth: Tensor | NDArray[np.float32] | None = None,
    ) -> list[PoseEstimate]:
        """Poses of all instances in image (H, W, 3) uint8 RGB, best first.

        regions: boxes (N, 4) x0 y0 x1 y1 in px around one object each; without them the objects are searched for.
        depth: (H, W) m of the same pixels, NaN where there is none: scales the poses of models that know no size (`measured`).
        """
        picture = torch.as_tensor(image)
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != torch.uint8 or not picture.numel():
            raise InvalidInput(f"image of shape {tuple(picture.shape)}, {picture.dtype}: (height, width, 3) uint8 RGB is valid")
        if depth is not None and depth.shape != picture.shape[:2]:
            raise InvalidInput(f"depth of shape {tuple(depth.shape)}: that of the image, {tuple(picture.shape[:2])}, is valid")
        lens = camera
        if len(camera.distortion):
            picture, _, camera = undistort(picture.cpu(), None, camera)
        picture = picture.permute(2, 0, 1).to(self.device)
        found: list[PoseEstimate] = []
        boxes = [regions] * len(self._runtimes) if regions is not None else self._search(picture)
        for runtime, box in zip(self._runtimes, boxes, strict=True):
            if box is not None and len(box):
                estimates = sorted(self._estimate(runtime, picture, camera, box), key=lambda estimate: -estimate.score)
                estimates = estimates if regions is not None else self._apart(estimates)
                if depth is not None:
                    estimates = [measured(one, runtime.model, lens, np.asarray(depth)) for one in estimates]
                found += estimates
        return sorted(found, key=lambda estimate: -estimate.score)

    def _apart(self, estimates: list[PoseEstimate]) -> list[PoseEstimate]:
        """Of estimates, best first, those that do not lie on a better one: an object may be found in two parts."""
        kept: list[PoseEstimate] = []
        for estimate in estimates:
            if all(overlap(estimate.box, better.box) < self.config.overlap for better in kept):
                kept.append(estimate)
        return kept

    def _tokens(self, pictures: Tensor) -> Tensor:
        """(B, 3, H, W) of 0..255 to (B, h, w, L * C)."""
        return self.backbone(normalise(pictures), layers=self._runtimes[0].layers).permute(1, 2, 3, 0, 4).flatten(3)

    def _search(self, picture: Tensor) -> list[Tensor]:
        """Boxes (N, 4), px, of each runtime's objects in picture (3, H, W), those with the most places first."""
        height, width = picture.shape[1:]
        scale = self.config.search_size / max(height, width)
        rows, columns = (max(1, round(side * scale / PATCH)) for side in (height, width))
        size = (rows * PATCH, columns * PATCH)
        small = F.interpolate(picture[None].float(), size, mode="bilinear", antialias=True, align_corners=False)
        tokens = self._tokens(small)
        unit = torch.tensor([width / (2 * columns), height / (2 * rows)] * 2, dtype=torch.float64)  # px a place
        return [self._blobs(runtime.read(tokens)[1][0].float().cpu().numpy()) * unit for runtime in self._runtimes]

    def _blobs(self, presence: NDArray[np.float32]) -> Tensor:
        """Boxes (N, 4) float64 in places of the connected parts of a presence map (h, w)."""
        smooth = ndimage.uniform_filter(presence, 3, mode="nearest")
        label, count = ndimage.label(smooth > self.config.presence)
        if not count:
            return torch.zeros(0, 4, dtype=torch.float64)
        mass = ndimage.sum_labels(presence, label, range(1, count + 1))
        order = [k for k in np.argsort(-mass) if mass[k] >= self.config.least_places][: self.config.max_instances]
        slices = ndimage.find_objects(label)
        boxes = [(slices[k][1].start, slices[k][0].start, slices[k][1].stop, slices[k][0].stop) for k in order]
        return torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4)

    def _estimate(self, runtime: Runtime, picture: Tensor, camera: Camera, boxes: Tensor) -> list[PoseEstimate]:
        """The best pose in each box (N, 4), where there is one."""
        squares = square_around(boxes.double().cpu(), self.config.margin)
        crops, maps = crop(picture, squares, runtime.crop_size)
        probability, presence = runtime.read(self._tokens(crops))
        solved = [self._solve(runtime, probability[k], presence[k], maps[k], camera) for k in range(len(crops))]
        return [estimate for estimate in solved if estimate is not None and estimate.score >= self.config.score_threshold]

    def _solve(
        self, runtime: Runtime, probability: Tensor, presence: Tensor, crop_from_image: Tensor, camera: Camera
    ) -> PoseEstimate | None:
        """The pose that explains probabilities (h, w, V) and presence (h, w) of a crop best."""
        size = runtime.crop_size
        view, places, crop_from_view = self._places(probability, presence, size, crop_from_image, camera)
        if len(places.tangents) < self.config.least_places:
            return None
        start = self._hypotheses(places, runtime.template)
        if start is None:
            return None
        modes = self._modes(places, runtime.template, *start, presence, size, crop_from_view)
        return self._answer(runtime, view, places, modes, camera)

    def _hypotheses(self, places: Places, template: Template) -> tuple[Tensor, Tensor] | None:
        """Rotations (H, 3, 3) and translations (H, 3) of the distinct best of many triples, best first; None without any."""
        config, count = self.config, len(places.tangents)
        place, vertex = pose_search.draw_triples(places, config.triples, torch.Generator().manual_seed(0))
        rotation, translation = pose_search.poses_from_triples(places.tangents[place], template.vertices[vertex])
        sound = rotation.isfinite().all(-1).all(-1) & translation.isfinite().all(-1) & (translation[:, 2] > pose_search.NEAREST)
        rotation, translation = rotation[sound], translation[sound]
        if not len(rotation):
            return None
        some = torch.linspace(0, count - 1, min(128, count), device=rotation.device).round().long()
        few = Places(places.tangents[some], places.probability[some, :8], places.vertex[some, :8], places.cell)
        fit = pose_search.kernel(few, template, rotation, translation, 2 * config.width)
        best = pose_search.distinct(rotation, pose_search.agreement(fit, few, config.floor), config.apart, config.modes)
        return rotation[best], translation[best]

    def _modes(
        self,
        places: Places,
        template: Template,
        rotation: Tensor,
        translation: Tensor,
        presence: Tensor,
        size: int,
        crop_from_view: Tensor,
    ) -> Modes:
        """Hypotheses (H, 3, 3), (H, 3) and half turns of the first, refined and rated; those that met are one."""
        config = self.config
        rough, fine = (tuple(config.width * factor for factor in factors) for factors in ((2.0, 2.0), (1.5, 1.0, 1.0)))
        rotation, translation, _ = pose_search.refine(places, template, rotation, translation, rough, config.floor)
        turned = pose_search.half_turns(template, rotation[:1], translation[:1])  # what a network takes for each other
        rotation, translation = torch.cat([rotation, turned[0]]), torch.cat([translation, turned[1]])
        rotation, translation, information = pose_search.refine(places, template, rotation, translation, fine, config.floor)
        fit = pose_search.kernel(places, template, rotation, translation, config.width)
        covered = self._coverage(template, rotation, translation, presence, size, crop_from_view)
        total = pose_search.agreement(fit, places, config.floor) + config.coverage * covered
        left = pose_search.distinct(rotation, total, config.apart, len(total))
        return Modes(*(tensor[left] for tensor in (rotation, translation, information, fit, total)))

    def _places(
        self, probability: Tensor, presence: Tensor, size: int, crop_from_image: Tensor, camera: Camera
    ) -> tuple[Tensor, Places, Tensor]:
        """Of a crop of `size` px: view_from_cam (3, 3) of a camera that looks at its centre, places, crop_from_view.

        crop_from_view (3, 3) maps homogeneous tangents of that camera to pixels of the crop.
        """
        config = self.config
        side = (size - 1) / 2
        cam_from_crop = torch.linalg.inv(crop_from_image.cpu() @ camera.matrix)
        axis = cam_from_crop @ torch.tensor([side, side, 1.0], dtype=torch.float64)
        view_from_cam = _looking((axis / axis.norm())[None])[0]
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
        return view_from_cam, places, torch.linalg.inv(view_from_crop)

    def _coverage(
        self, template: Template, rotation: Tensor, translation: Tensor, presence: Tensor, size: int, crop_from_view: Tensor
    ) -> Tensor:
        """Mean log presence (H,) where the visible part of the template projects; outside the crop nothing is said."""
        tangents, _ = pose_search.project_template(template, rotation, translation)
        seen = template.seen_from(rotation, translation)
        pixels = transform_homography(crop_from_view.float().to(tangents), tangents.mT)
        where = (pixels + 0.5) / size * 2 - 1
        seen = seen & (where.abs() < 1).all(-1)
        sampled = F.grid_sample(presence[None, None], where[None], align_corners=False, padding_mode="border")[0, 0]
        value = (sampled + 0.1).clamp_max(1).log() * seen
        return value.sum(-1) / seen.sum(-1).clamp_min(1)

    def _answer(self, runtime: Runtime, view_from_cam: Tensor, places: Places, modes: Modes, camera: Camera) -> PoseEstimate:
        """The estimate in the image's camera: the first mode, with score, inliers and covariance, and the others beside it."""
        model, config = runtime.model, self.config
        scale = model.diameter or 1.0
        turn = torch.eye(4, dtype=torch.float64)
        turn[:3, :3] = view_from_cam.T
        poses = turn @ from_parts(modes.rotation.double().cpu(), modes.translation.double().cpu())  # diameters
        rigid = poses.clone()
        rigid[:, :3, 3] *= scale
        lift = torch.zeros(6, 6, dtype=torch.float64)
        lift[:3, :3], lift[3:, 3:] = turn[:3, :3] * scale, turn[:3, :3]
        # neighbouring places err together: as if one in ten were independent
        information = modes.information.double().cpu() / (10 * (config.width * places.cell) ** 2)
        known, axes = torch.linalg.eigh((information + information.mT) / 2)
        spread = 1 / known.clamp_min(_NOTHING_KNOWN)
        covariance = lift @ (axes * spread[:, None]) @ axes.mT @ lift.T
        covariance[:, range(3, 6), range(3, 6)] += math.radians(config.variety) ** 2

        fit = modes.fit[0]
        share = (fit.sum(-1) / places.presence.clamp_min(1e-6)).cpu()
        inlier = share > 0.1  # even a sure answer is spread over neighbouring vertices
        tangents, _ = pose_search.project_template(runtime.template, modes.rotation[:1], modes.translation[:1])
        gap = (tangents[0].T[places.vertex] - places.tangents[:, None]).norm(dim=-1).cpu()
        weight = fit.cpu() / fit.cpu().sum(-1, keepdim=True).clamp_min(1e-9)
        pixels = float(camera.matrix[0, 0] + camera.matrix[1, 1]) / 2
        error = float(((gap * weight).sum(-1)[inlier] * pixels).median()) if bool(inlier.any()) else 0.0
        shown = project(camera.matrix, transform(poses[0], model.vertices.double()))
        log_weights = (_CERTAINTY * (modes.total - modes.total[0])).double().cpu()
        score = float(share.mean()) ** 0.5 / float(log_weights.exp().sum())
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
            alternatives=tuple(
                PoseMode(rigid[k], float(log_weights[k]), covariance[k])
                for k in range(1, len(poses))
                if float(log_weights[k]) > _UNLIKELY
            ),
        )


def overlap(a: Tensor, b: Tensor) -> float:
    """Intersection over union of boxes (4,) x0 y0 x1 y1."""
    low, high = torch.maximum(a[:2], b[:2]), torch.minimum(a[2:], b[2:])
    shared = (high - low).clamp_min(0).prod()
    return float(shared / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared).clamp_min(1e-9))


def transform_homography(matrix: Tensor, points: Tensor) -> Tensor:
    """Points (..., 2) mapped by a homography (3, 3)."""
    mapped = points @ matrix[:, :2].T + matrix[:, 2]
    return mapped[..., :2] / mapped[..., 2:].clamp_min(1e-9)


def _looking(directions: Tensor) -> Tensor:
    """Rotations (N, 3, 3) that turn unit directions (N, 3) onto z, by the shortest way to within a turn about z."""
    z = directions / directions.norm(dim=-1, keepdim=True)
    aside = torch.where((z[:, 1:2].abs() > 0.9).expand_as(z), z.new_tensor([0.0, 0.0, -1.0]), z.new_tensor([0.0, 1.0, 0.0]))
    x = torch.linalg.cross(aside, z)
    x = x / x.norm(dim=-1, keepdim=True)
    return torch.stack([x, torch.linalg.cross(z, x), z], -2)
