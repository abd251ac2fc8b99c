"""Aligned videos to a category model: random views of the training images, frozen features, a contrastive head.

Every training image gives several random views. The frozen backbone reads each once; its tokens stay in memory with what each
place of the view shows, a point of the canonical frame or no object. The head learns from them alone.

Source: Sommer et al., CVPR 2024 (arXiv 2407.04384), section 3.3. Changed: the template is the category's mean shape, targets
spread over neighbouring vertices and over the symmetry group, clutter has several features, videos weigh by their confidence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from uns_pose_ros.augmentation import AugmentConfig, augment
from uns_pose_ros.augmentation import Image as Picture
from uns_pose_ros.backbone import CHANNELS, DinoV2, normalise
from uns_pose_ros.datatypes import Alignment, CategoryModel, FeatureMesh, Frame, InvalidInput, Progress, Symmetry, Video
from uns_pose_ros.geometry import split_similarity, symmetry_rotations, transform
from uns_pose_ros.network import STRIDE, Head, NetworkConfig
from uns_pose_ros.template import TemplateConfig, mean_shape, mirror_plane
from uns_pose_ros.video import read_frame
from uns_pose_ros.visibility import cast_rays

# photographs that come with scikit-image, against which the objects are pasted
PHOTOS = ("coffee", "astronaut", "chelsea", "rocket", "motorcycle_left", "brick", "grass", "gravel", "camera", "coins", "page")


@dataclass(frozen=True)
class TrainConfig:
    """How a category model is trained."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    template: TemplateConfig = field(default_factory=TemplateConfig)
    size: int = 224  # px, side of the views and of the crops that the model will be given; a multiple of 14
    views: int = 10  # random views an image
    most_views: int = 4000  # of all images together; 0.6 MB each
    steps: int = 800
    batch: int = 24  # views a step
    places: int = 128  # of a view that a step learns from, at most, and half as many that show no object
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    dropout: float = 0.3  # fraction of a view's token channels that the head does not see in a step
    spread: float = 0.06  # canonical units, how far a pixel's target reaches over neighbouring vertices
    background: float = 0.5  # weight of the loss on what is not the object


@dataclass(frozen=True, eq=False)
class Views:
    """N random views with h * w tokens and 4 h w places, where the head answers."""

    tokens: Tensor  # (N, h, w, L * C) bfloat16
    canon: Tensor  # (N, 4 h w, 3) float16: the canonical point seen there; nan where none is
    background: Tensor  # (N, 4 h w) bool: certainly not the object
    weight: Tensor  # (N,) float32, how often a view is drawn

    def __len__(self) -> int:
        return len(self.tokens)


def train(
    category: str,
    videos: Mapping[str, Video],
    meshes: Mapping[str, FeatureMesh],
    alignment: Alignment,
    backbone: DinoV2,
    config: TrainConfig = TrainConfig(),
    seed: int = 0,
    progress: Progress | None = None,
    backgrounds: Sequence[Picture] = (),
) -> CategoryModel:
    """Train a category model on those of the videos that the alignment kept; on the backbone's device.

    backgrounds: pictures (H, W, 3) RGB without the object, beside the `photographs` that are always there. Needs masks and
    poses on the videos' frames. Raises InvalidInput where no kept video is among them.
    """
    rows = {name: i for i, name in enumerate(alignment.videos) if bool(alignment.kept[i]) and name in videos and name in meshes}
    if not rows:
        raise InvalidInput(f"none of the videos {', '.join(videos)} was kept by the alignment: nothing to train on")
    index = list(rows.values())
    poses, confidence = alignment.canon_from_obj[index], alignment.confidence[index].clamp_min(0.05)
    shapes = [(meshes[name].vertices, meshes[name].triangles) for name in rows]
    vertices, triangles = mean_shape(shapes, poses, confidence, config.template)
    chosen = [videos[name] for name in rows]
    mirror = mirror_plane(vertices, [meshes[name] for name in rows], poses)
    views = random_views(chosen, shapes, poses, confidence, backbone, config, seed, progress, mirror, backgrounds)
    head, curve = fit_head(views, vertices, alignment.symmetry, config, seed, progress, next(backbone.parameters()).device)
    weights = {name: tensor.detach().cpu() for name, tensor in head.state_dict().items() if name not in ("bank", "clutter")}
    metric = [float(1 / split_similarity(pose)[2]) for name, pose in zip(rows, poses, strict=True) if videos[name].metric]
    return CategoryModel(
        category=category,
        vertices=vertices,
        triangles=triangles,
        bank=torch.nn.functional.normalize(head.bank.detach().float(), dim=-1).cpu(),
        clutter=torch.nn.functional.normalize(head.clutter.detach().float(), dim=-1).cpu(),
        head=weights,
        symmetry=alignment.symmetry,
        diameter=float(np.median(metric)) if metric else None,
        provenance={
            "network": asdict(config.network),
            "crop_size": config.size,
            "mirror": None if mirror is None else mirror.tolist(),
            "canon_from_obj": {name: pose.tolist() for name, pose in zip(rows, poses, strict=True)},
            "training": curve,
        },
    )


def random_views(
    videos: Sequence[Video],
    shapes: Sequence[tuple[Tensor, Tensor]],
    canon_from_obj: Tensor,
    confidence: Tensor,
    backbone: DinoV2,
    config: TrainConfig,
    seed: int = 0,
    progress: Progress | None = None,
    mirror: Tensor | None = None,
    backgrounds: Sequence[Picture] = (),
) -> Views:
    """Random views, read by the backbone, of all frames with mask and pose; each depends on the seed and its frame alone.

    mirror: reflection (4, 4) of the canonical frame in the category's mirror plane; half of the views are then flipped left to
    right.
    """
    jobs = [
        (v, frame) for v, video in enumerate(videos) for frame in video.frames if frame.mask and frame.cam_from_obj is not None
    ]
    if not jobs:
        raise InvalidInput("no frame of the training videos has both a mask and a pose")
    count = max(1, min(config.views, config.most_views // len(jobs)))
    backgrounds = [*photographs(), *backgrounds]
    device = next(backbone.parameters()).device
    views: Views | None = None  # filled in place: together they are most of the memory that training takes
    filled = 0

    def draw(job: tuple[int, tuple[int, Frame]]) -> tuple[int, list[tuple[Picture, Tensor, Tensor]]]:
        number, (video, frame) = job
        rng = np.random.default_rng([seed, number])
        drawn = _views_of_frame(frame, *shapes[video], canon_from_obj[video], count, rng, backgrounds, config)
        if mirror is not None:
            drawn = [_flipped(*view, mirror.float()) if rng.random() < 0.5 else view for view in drawn]
        return video, drawn

    with ThreadPoolExecutor(2) as pool:
        for done, (video, drawn) in enumerate(_ahead(pool, draw, list(enumerate(jobs)))):
            if drawn:
                pictures, canon, background = zip(*drawn, strict=True)
                batch = normalise(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).to(device))
                with torch.inference_mode():
                    tokens = backbone(batch, layers=config.network.layers).permute(1, 2, 3, 0, 4).flatten(3)
                if views is None:
                    views = _room(len(jobs) * count, tokens, device)
                rows = slice(filled, filled := filled + len(drawn))
                views.tokens[rows], views.weight[rows] = tokens, float(confidence[video])
                views.canon[rows], views.background[rows] = torch.stack(canon), torch.stack(background)
            if progress is not None:
                progress("random views", done + 1, len(jobs))
    if views is None:
        raise InvalidInput("no mask of the training videos shows an object")
    return Views(*(getattr(views, column.name)[:filled] for column in fields(Views)))


def _room(count: int, tokens: Tensor, device: torch.device) -> Views:
    """`count` views of the tokens' size, to be filled."""
    _, rows, columns, channels = tokens.shape
    places = 4 * rows * columns
    return Views(
        torch.empty(count, rows, columns, channels, dtype=torch.bfloat16, device=device),
        torch.empty(count, places, 3, dtype=torch.float16, device=device),
        torch.empty(count, places, dtype=torch.bool, device=device),
        torch.empty(count, device=device),
    )


def _ahead(pool: ThreadPoolExecutor, function, jobs: Sequence, depth: int = 6) -> Iterator:  # type: ignore[no-untyped-def]
    """Results in order, at most `depth` of them computed before they are asked for."""
    waiting = [pool.submit(function, job) for job in jobs[:depth]]
    for k in range(len(jobs)):
        if k + depth < len(jobs):
            waiting.append(pool.submit(function, jobs[k + depth]))
        yield waiting.pop(0).result()


def _views_of_frame(
    frame: Frame,
    vertices: Tensor,
    triangles: Tensor,
    canon_from_obj: Tensor,
    count: int,
    rng: np.random.Generator,
    backgrounds: Sequence[Picture],
    config: TrainConfig,
) -> list[tuple[Picture, Tensor, Tensor]]:
    """Pictures (size, size, 3) with the canonical points (P, 3) and the background (P,) of each; empty where the mask is."""
    image, mask, camera = read_frame(frame)
    assert mask is not None and frame.cam_from_obj is not None
    if not bool(mask.any()):
        return []
    pose, centre = frame.cam_from_obj, vertices.double().mean(0)
    origin = -pose[:3, :3].T @ pose[:3, 3] - centre
    mesh = (vertices.double() - centre).float(), triangles
    places = grid_places(config.size)
    rays_from_places = torch.linalg.inv(camera.matrix @ pose[:3, :3])
    views = []
    for _ in range(count):
        picture, visible, crop_from_image = augment(image.numpy(), mask.numpy(), config.size, rng, backgrounds, config.augment)
        shown = torch.from_numpy(visible)[places[:, 1].long(), places[:, 0].long()]
        index = shown.nonzero()[:, 0]
        canon = torch.full((len(places), 3), torch.nan)
        pixels = _homogeneous(places[index]) @ torch.from_numpy(np.linalg.inv(crop_from_image)).T
        rays = (pixels @ rays_from_places.T).float()
        distance, _, _ = cast_rays(origin.float(), rays, *mesh)
        hit = distance.isfinite()
        points = origin + centre + distance[hit, None].double() * rays[hit].double()
        canon[index[hit]] = transform(canon_from_obj, points).float()
        views.append((picture, canon, ~shown))
    return views


def _flipped(picture: Picture, canon: Tensor, background: Tensor, mirror: Tensor) -> tuple[Picture, Tensor, Tensor]:
    """What the picture's mirror image shows, given the reflection (4, 4) in the category's mirror plane."""
    side = round(len(canon) ** 0.5)
    maps = [tensor.unflatten(0, (side, side)).flip(1).flatten(0, 1) for tensor in (transform(mirror, canon), background)]
    return np.ascontiguousarray(picture[:, ::-1]), maps[0], maps[1]


def _homogeneous(pixels: Tensor) -> Tensor:
    return torch.cat([pixels, torch.ones_like(pixels[:, :1])], 1)


def grid_places(size: int) -> Tensor:
    """Pixels (P, 2) float64 of a (size, size) crop at which the head answers, row by row."""
    steps = torch.arange(size // STRIDE, dtype=torch.float64) * STRIDE + (STRIDE - 1) / 2
    return torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1).reshape(-1, 2)


def photographs() -> list[Picture]:
    """Background photographs (H, W, 3) RGB."""
    spec = find_spec("skimage")
    assert spec is not None and spec.origin is not None  # the offline pipeline's extra
    folder = Path(spec.origin).parent / "data"
    found = [path for path in sorted(folder.iterdir()) if path.stem in PHOTOS]
    return [np.asarray(Image.open(path).convert("RGB")) for path in found]


def fit_head(
    views: Views,
    vertices: Tensor,
    symmetry: Symmetry,
    config: TrainConfig,
    seed: int = 0,
    progress: Progress | None = None,
    device: torch.device = torch.device("cpu"),
) -> tuple[Head, dict[str, list[float]]]:
    """A head trained on views for template vertices (V, 3), and its losses: step, object (nats), background (nats)."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = Head(config.network, len(vertices), len(config.network.layers) * CHANNELS).to(device)
    optimiser = torch.optim.AdamW(head.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.learning_rate, total_steps=config.steps, pct_start=0.1)
    turned = (
        vertices.to(device) @ symmetry_rotations(symmetry.order, symmetry.axis, steps=12).float().to(device).mT
    )  # (G, V, 3)
    losses = partial(_losses, head, turned, config)
    curve: dict[str, list[float]] = {"step": [], "object": [], "background": []}
    for step in range(config.steps):
        pick = torch.multinomial(views.weight.cpu(), config.batch, replacement=True, generator=generator).to(device)
        order = torch.rand(config.batch, views.canon.shape[1], generator=generator).to(device)
        kept = (torch.rand(config.batch, views.tokens.shape[-1], generator=generator) >= config.dropout) / (1 - config.dropout)
        tokens = views.tokens[pick] * kept.to(views.tokens)[:, None, None]
        on_object, on_background = losses(tokens, views.canon[pick].float(), views.background[pick], order)
        loss = on_object + config.background * on_background
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 20 == 0 or step == config.steps - 1:
            values = (step, float(on_object.detach()), float(on_background.detach()))
            for name, value in zip(curve, values, strict=True):
                curve[name].append(value)
        if progress is not None:
            progress("training", step + 1, config.steps)
    return head.eval(), curve


def _losses(
    head: Head, turned: Tensor, config: TrainConfig, tokens: Tensor, canon: Tensor, background: Tensor, order: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy, nats, of places that show the object and of others; some of each view, by random order (B, P)."""
    group, count, _ = turned.shape
    with torch.autocast(tokens.device.type, torch.bfloat16):
        features = head(tokens).flatten(0, 2)
        shown = _some(canon[..., 0].isfinite(), order, config.places)
        elsewhere = _some(background, order, config.places // 2)
        on, off = head.logits(features[shown]), head.logits(features[elsewhere])
    square = torch.cdist(canon.flatten(0, 1)[shown], turned.reshape(-1, 3)).square_()
    target = torch.softmax(square.div_(-2 * config.spread**2), -1).unflatten(-1, (group, count)).sum(1)
    on, off = torch.log_softmax(on.float(), -1), torch.log_softmax(off.float(), -1)
    on_object = -(target * on[:, :count]).sum(-1).sum() / max(len(on), 1)
    on_background = -torch.logsumexp(off[:, count:], -1).sum() / max(len(off), 1)
    return on_object, on_background


def _some(valid: Tensor, order: Tensor, most: int) -> Tensor:
    """Indices of at most `most` valid places a view, of all views' flattened places: those first by `order`."""
    rank = order.masked_fill(~valid, 2.0)
    value, place = rank.topk(most, dim=1, largest=False, sorted=False)
    flat = place + torch.arange(len(valid), device=valid.device)[:, None] * valid.shape[1]
    return flat[value < 2.0]
