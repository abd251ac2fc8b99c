"""Random views of the training images, read by the frozen backbone, with what each of their places
shows.

Every training image gives several. The backbone reads each once; its tokens stay with what each
place of the view shows, a point of the canonical frame or no object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from uns_pose_ros.alignment.template import TemplateConfig
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import transform
from uns_pose_ros.core.ray_casting import cast_rays
from uns_pose_ros.core.types import Frame, Progress, Video
from uns_pose_ros.io.checkpoint import Unfinished
from uns_pose_ros.io.video_folder import read_frame
from uns_pose_ros.networks.correspondence_head import STRIDE, NetworkConfig
from uns_pose_ros.networks.dinov2 import CHANNELS, PATCH, DinoV2, imagenet_normalize
from uns_pose_ros.training.augmentation import AugmentConfig, augment
from uns_pose_ros.training.augmentation import Image as Picture
from uns_pose_ros.training.distributed import DistributedContext

# photographs that come with scikit-image, against which the objects are pasted
PHOTOS = (
    "coffee",
    "astronaut",
    "chelsea",
    "rocket",
    "motorcycle_left",
    "brick",
    "grass",
    "gravel",
    "camera",
    "coins",
    "page",
)
# every so many frames one gives a view that is not learned from, to watch the training by
_WATCHED = 10


@dataclass(frozen=True)
class TrainConfig:
    """How a category model is trained."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    template: TemplateConfig = field(default_factory=TemplateConfig)
    # px, side of the views and of the crops that the model will be given; a multiple of 14
    size: int = 224
    views: int = 10  # random views an image
    most_views: int = 4000  # of all images together; 0.6 MB each
    steps: int = 800
    batch: int = 24  # views a step
    # of a view that a step learns from, at most, and half as many that show no object
    places: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    # fraction of a view's token channels that the head does not see in a step
    dropout: float = 0.3
    # canonical units, how far a pixel's target reaches over neighbouring vertices
    spread: float = 0.06
    background: float = 0.5  # weight of the loss on what is not the object


@dataclass(frozen=True, eq=False)
class Views:
    """N random views with h * w tokens and 4 h w places, where the head answers."""

    tokens: Tensor  # (N, h, w, L * C) bfloat16
    # (N, 4 h w, 3) float16: the canonical point seen there; nan where none is
    canon: Tensor
    background: Tensor  # (N, 4 h w) bool: certainly not the object
    # (N,) float32, how often a view is learned from; 0: it watches the training
    weight: Tensor

    def __len__(self) -> int:
        return len(self.tokens)


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
    checkpoint: Unfinished | None = None,
    context: DistributedContext = DistributedContext(),
) -> Views:
    """Random views, read by the backbone, of all frames with mask and pose.

    Each depends on the seed and its frame alone.

    mirror: reflection (4, 4) of the canonical frame in the category's mirror plane; half of the
    views are then flipped left to right. unfinished: where the views are kept, so that those that
    are there need not be made again. Of several processes each makes its part of the views.
    """
    every = [
        (v, frame)
        for v, video in enumerate(videos)
        for frame in video.frames
        if frame.mask and frame.cam_from_obj is not None
    ]
    if not every:
        raise InvalidInput("no frame of the training videos has both a mask and a pose")
    count = max(1, min(config.views, config.most_views // len(every)))
    jobs = list(enumerate(every))[context.rank :: context.world]
    backgrounds = [*load_background_images(), *backgrounds]
    device = next(backbone.parameters()).device
    # filled in place: together they are most of the memory that training takes
    views: Views | None = None
    start, filled = (checkpoint and checkpoint.note("views")) or (0, 0)  # frames, views

    def draw(
        job: tuple[int, tuple[int, Frame]],
    ) -> tuple[int, list[tuple[Picture, Tensor, Tensor]]]:
        number, (video, frame) = job
        drawn = []
        for wanted, entropy in (
            (count, [seed, number]),
            (int(number % _WATCHED == 0), [seed, number, 1]),
        ):
            rng = np.random.default_rng(entropy)
            some = _views_of_frame(
                frame,
                *shapes[video],
                canon_from_obj[video],
                wanted,
                rng,
                backgrounds,
                config,
            )
            if mirror is not None:
                some = [
                    _flipped(*view, mirror.float()) if rng.random() < 0.5 else view
                    for view in some
                ]
            drawn += some
        return video, drawn

    room = len(jobs) * count + -(-len(every) // _WATCHED)
    with ThreadPoolExecutor(2) as pool:
        for done, (video, drawn) in enumerate(_ahead(pool, draw, jobs[start:]), start + 1):
            if drawn:
                pictures, canon, background = zip(*drawn, strict=True)
                batch = imagenet_normalize(
                    torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).to(device)
                )
                with torch.inference_mode():
                    tokens = (
                        backbone(batch, layers=config.network.layers)
                        .permute(1, 2, 3, 0, 4)
                        .flatten(3)
                    )
                views = views or _room(room, config, tokens.shape[-1], checkpoint)
                rows = slice(filled, filled := filled + len(drawn))
                views.tokens[rows], views.weight[rows] = tokens, float(confidence[video])
                views.weight[rows][count:] = 0
                views.canon[rows], views.background[rows] = (
                    torch.stack(canon),
                    torch.stack(background),
                )
            if checkpoint is not None and (done % 20 == 0 or done == len(jobs)):
                checkpoint.write_note("views", (done, filled))
            if progress is not None:
                progress("random views", done, len(jobs))
    if not filled:
        raise InvalidInput("no mask of the training videos shows an object")
    views = views or _room(room, config, len(config.network.layers) * CHANNELS, checkpoint)
    return Views(
        *(getattr(views, column.name)[:filled].to(device) for column in fields(Views))
    )


def _room(
    count: int, config: TrainConfig, channels: int, checkpoint: Unfinished | None
) -> Views:
    """`count` views to be filled, in memory or in the unfinished work's files."""
    side = config.size // PATCH
    places = 4 * side * side
    columns: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
        "tokens": ((count, side, side, channels), torch.bfloat16),
        "canon": ((count, places, 3), torch.float16),
        "background": ((count, places), torch.bool),
        "weight": ((count,), torch.float32),
    }
    if checkpoint is None:
        return Views(
            **{
                name: torch.zeros(*shape, dtype=kind)
                for name, (shape, kind) in columns.items()
            }
        )
    return Views(**{name: checkpoint.array(name, *of) for name, of in columns.items()})


def _ahead(
    pool: ThreadPoolExecutor,
    function: Callable[[Any], Any],
    jobs: Sequence[Any],
    depth: int = 6,
) -> Iterator[Any]:
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
    """Pictures (size, size, 3) with the canonical points (P, 3) and the background (P,) of each;
    empty where the mask is.
    """
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
        picture, visible, crop_from_image = augment(
            image.numpy(), mask.numpy(), config.size, rng, backgrounds, config.augment
        )
        shown = torch.from_numpy(visible)[places[:, 1].long(), places[:, 0].long()]
        index = shown.nonzero()[:, 0]
        canon = torch.full((len(places), 3), torch.nan)
        pixels = (
            _homogeneous(places[index]) @ torch.from_numpy(np.linalg.inv(crop_from_image)).T
        )
        rays = (pixels @ rays_from_places.T).float()
        distance, _, _ = cast_rays(origin.float(), rays, *mesh)
        hit = distance.isfinite()
        points = origin + centre + distance[hit, None].double() * rays[hit].double()
        canon[index[hit]] = transform(canon_from_obj, points).float()
        views.append((picture, canon, ~shown))
    return views


def _flipped(
    picture: Picture, canon: Tensor, background: Tensor, mirror: Tensor
) -> tuple[Picture, Tensor, Tensor]:
    """What the picture's mirror image shows, given the reflection (4, 4) in the category's mirror
    plane.
    """
    side = round(len(canon) ** 0.5)
    maps = [
        tensor.unflatten(0, (side, side)).flip(1).flatten(0, 1)
        for tensor in (transform(mirror, canon), background)
    ]
    return np.ascontiguousarray(picture[:, ::-1]), maps[0], maps[1]


def _homogeneous(pixels: Tensor) -> Tensor:
    return torch.cat([pixels, torch.ones_like(pixels[:, :1])], 1)


def grid_places(size: int) -> Tensor:
    """Pixels (P, 2) float64 of a (size, size) crop at which the head answers, row by row."""
    steps = torch.arange(size // STRIDE, dtype=torch.float64) * STRIDE + (STRIDE - 1) / 2
    return torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1).reshape(-1, 2)


def load_background_images() -> list[Picture]:
    """Background photographs (H, W, 3) RGB."""
    spec = find_spec("skimage")
    assert spec is not None and spec.origin is not None  # the offline pipeline's extra
    folder = Path(spec.origin).parent / "data"
    found = [path for path in sorted(folder.iterdir()) if path.stem in PHOTOS]
    return [np.asarray(Image.open(path).convert("RGB")) for path in found]
