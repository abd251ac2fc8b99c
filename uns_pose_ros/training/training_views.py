"""Random views of the training images: tokens of the frozen backbone, and the target of each cell.

Every training image gives several views. The backbone reads each view once. The target of a cell is
the point of the canonical frame that it shows, or no object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from msgspec import convert
from torch import Tensor

from uns_pose_ros.alignment.template import TemplateConfig
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import split_similarity, transform
from uns_pose_ros.core.ray_casting import cast_rays
from uns_pose_ros.core.types import Frame, Progress, Video
from uns_pose_ros.io.checkpoint import Checkpoint
from uns_pose_ros.io.video_folder import read_frame
from uns_pose_ros.networks.correspondence_head import STRIDE, NetworkConfig
from uns_pose_ros.networks.dinov2 import CHANNELS, PATCH, DinoV2, imagenet_normalize
from uns_pose_ros.training.augmentation import AugmentConfig, Image, augment
from uns_pose_ros.training.distributed import DistributedContext

# images of scikit-image that serve as backgrounds of the objects; there are no things in them that
# a robot looks for, such as a cup
PHOTOS = (
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
# one frame in so many gives a view that is not learned from, to watch the training
_WATCHED = 10
_CHECKED = 64  # views that are looked at together
_FAR = 100.0  # canonical units, further than any point of a template


@dataclass(frozen=True)
class TrainConfig:
    """Settings of the training of a category model."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    template: TemplateConfig = field(default_factory=TemplateConfig)
    # px, side of the views and of the crops that the model will get; a multiple of 14
    size: int = 224
    views: int = 8  # random views of each image
    most_views: int = 4000  # of all images together; 0.6 MB each
    steps: int = 800
    batch: int = 16  # views of each step
    # cells of a view that a step learns from, at most, and half as many that show no object
    places: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    # fraction of a view's token channels that the head does not see in a step
    dropout: float = 0.3
    # canonical units, distance over which a cell's target spreads to neighboring vertices
    spread: float = 0.06
    background: float = 0.5  # weight of the loss on the background
    # scenes without the object that each half of the calibration of the score estimates, at most
    # one for eight views; 0: the score is not calibrated
    scenes: int = 60


@dataclass(frozen=True, eq=False)
class View:
    """One random view of a frame, with P cells. See `Views`."""

    image: Image  # (size, size, 3)
    canon: Tensor  # (P, 3)
    background: Tensor  # (P,) bool
    crop_from_cam: Tensor  # (3, 3)
    cam_from_canon: Tensor  # (3, 4)

    def flip(self, mirror: Tensor) -> View:
        """Flip the view left to right, which shows a mirrored instance of the category.

        Args:
            mirror: Reflection (4, 4) in the category's mirror plane.
        """
        side = round(len(self.canon) ** 0.5)
        canon, background = (
            tensor.unflatten(0, (side, side)).flip(1).flatten(0, 1)
            for tensor in (transform(mirror.float(), self.canon), self.background)
        )
        width = self.image.shape[1]
        flip = torch.tensor(
            [[-1.0, 0, width - 1], [0, 1, 0], [0, 0, 1]], dtype=torch.float64
        )
        # the mirrored camera sees the mirrored instance: both are proper again together
        sideways = torch.diag(torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64))
        return View(
            np.ascontiguousarray(self.image[:, ::-1]),
            canon,
            background,
            flip @ self.crop_from_cam @ sideways,
            sideways @ self.cam_from_canon @ mirror,
        )


@dataclass(frozen=True, eq=False)
class Views:
    """N random views with h * w tokens each, and 4 h w cells, the resolution of the head."""

    tokens: Tensor  # (N, h, w, L * C) bfloat16
    # (N, 4 h w, 3) float16: the canonical point that the cell shows; nan: none
    canon: Tensor
    background: Tensor  # (N, 4 h w) bool: the cell certainly shows no object
    # (N,) float32, how often a view is learned from; 0: a watched view
    weight: Tensor
    video: Tensor  # (N,) int64, number of the video that the view was drawn from
    crop_from_cam: Tensor  # (N, 3, 3) float64, homogeneous, from the camera of the image
    # (N, 3, 4) float64, rotation and translation, diameters, of the canonical frame in that camera
    cam_from_canon: Tensor

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
    backgrounds: Sequence[Image] = (),
    checkpoint: Checkpoint | None = None,
    context: DistributedContext = DistributedContext(),
) -> Views:
    """Draw random views of all frames with mask and pose, and read them with the backbone.

    A view depends on the seed and its frame alone. Each of several processes makes its own part of
    the views.

    Args:
        videos: N videos.
        shapes: Vertices (V, 3), obj frame, and triangles (T, 3) of each video's mesh.
        canon_from_obj: Poses (N, 4, 4) of the videos.
        confidence: Confidence (N,) of the videos, the weight of their views.
        backbone: The frozen backbone.
        config: Settings.
        seed: Seed of the views.
        progress: Receives the number of frames that are done.
        mirror: Reflection (4, 4) of the canonical frame in the category's mirror plane: half of the
            views are flipped left to right; None: no view is flipped.
        backgrounds: Images (H, W, 3) RGB without the object.
        checkpoint: Where the views are kept, so that a restart does not make them again.
        context: This process among those that train the model.

    Raises:
        InvalidInput: No frame has both a mask that shows the object and a pose.
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
    # filled in place: the views take most of the memory of the training
    views: Views | None = None

    def draw(
        job: tuple[int, tuple[int, Frame]],
    ) -> tuple[int, list[View]]:
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
                some = [view.flip(mirror) if rng.random() < 0.5 else view for view in some]
            drawn += some
        return video, drawn

    room = len(jobs) * count + -(-len(every) // _WATCHED)
    start, filled = 0, 0  # frames, views
    if checkpoint is not None:
        views = _room(room, config, len(config.network.layers) * CHANNELS, checkpoint)
        try:
            start, filled = check_left(checkpoint.read_note("views"), views, len(jobs))
        except ValueError as error:
            checkpoint.report_spoiled(f"views: {error}")
    with ThreadPoolExecutor(2) as pool:
        for done, (video, drawn) in enumerate(_ahead(pool, draw, jobs[start:]), start + 1):
            if drawn:
                images = np.stack([view.image for view in drawn])
                batch = imagenet_normalize(
                    torch.from_numpy(images).permute(0, 3, 1, 2).to(device)
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
                views.video[rows] = video
                for name in ("canon", "background", "crop_from_cam", "cam_from_canon"):
                    getattr(views, name)[rows] = torch.stack(
                        [getattr(view, name) for view in drawn]
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


def check_left(note: object, views: Views, jobs: int) -> tuple[int, int]:
    """Frames and views that a stopped run has done.

    Args:
        note: What it noted; None: nothing.
        views: The views that it left.
        jobs: Number of all frames.

    Raises:
        ValueError: No run leaves this.
    """
    if note is None:
        return 0, 0
    start, filled = convert(note, tuple[int, int])
    if not (0 <= start <= jobs and 0 <= filled <= len(views)):
        raise ValueError(f"{filled} views of {start} frames")
    for first in range(0, filled, _CHECKED):
        some = slice(first, min(first + _CHECKED, filled))
        canon, weight = views.canon[some], views.weight[some]
        if not (
            bool(torch.isfinite(views.tokens[some]).all())
            and bool((canon.isnan() | (canon.abs() <= _FAR)).all())
            and bool(((weight >= 0) & (weight <= 1)).all())
            and bool((views.video[some] >= 0).all())
            and bool(torch.isfinite(views.crop_from_cam[some]).all())
            and bool(torch.isfinite(views.cam_from_canon[some]).all())
        ):
            raise ValueError("numbers that no view holds")
    return start, filled


def _room(
    count: int, config: TrainConfig, channels: int, checkpoint: Checkpoint | None
) -> Views:
    """Allocate `count` views, in memory or in the files of the checkpoint.

    Args:
        count: Number of views.
        config: Settings.
        channels: Channels of the tokens.
        checkpoint: Where the views are kept; None: in memory.
    """
    side = config.size // PATCH
    places = 4 * side * side
    columns: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
        "tokens": ((count, side, side, channels), torch.bfloat16),
        "canon": ((count, places, 3), torch.float16),
        "background": ((count, places), torch.bool),
        "weight": ((count,), torch.float32),
        "video": ((count,), torch.int64),
        "crop_from_cam": ((count, 3, 3), torch.float64),
        "cam_from_canon": ((count, 3, 4), torch.float64),
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
    """Yield results in order; at most `depth` of them are computed in advance."""
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
    backgrounds: Sequence[Image],
    config: TrainConfig,
) -> list[View]:
    """Draw `count` views of a frame; none if its mask is empty.

    Args:
        frame: A frame with mask and pose.
        vertices: Vertices (V, 3) of the video's mesh, obj frame.
        triangles: Triangles (T, 3) of the mesh.
        canon_from_obj: Pose (4, 4) of the video.
        count: Number of views.
        rng: Random numbers.
        backgrounds: Images (H, W, 3) RGB without the object.
        config: Settings.
    """
    source, mask, camera = read_frame(frame)
    assert mask is not None and frame.cam_from_obj is not None
    if not bool(mask.any()):
        return []
    pose, center = frame.cam_from_obj, vertices.double().mean(0)
    origin = -pose[:3, :3].T @ pose[:3, 3] - center
    mesh = (vertices.double() - center).float(), triangles
    places = grid_places(config.size)
    rays_from_places = torch.linalg.inv(camera.matrix @ pose[:3, :3])
    rotation, translation, scale = split_similarity(pose @ torch.linalg.inv(canon_from_obj))
    cam_from_canon = torch.cat([rotation, translation[:, None] / scale], 1)
    views = []
    for _ in range(count):
        image, visible, crop_from_image = augment(
            source.numpy(), mask.numpy(), config.size, rng, backgrounds, config.augment
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
        points = origin + center + distance[hit, None].double() * rays[hit].double()
        canon[index[hit]] = transform(canon_from_obj, points).float()
        crop_from_cam = torch.from_numpy(crop_from_image) @ camera.matrix
        views.append(View(image, canon, ~shown, crop_from_cam, cam_from_canon))
    return views


def _homogeneous(pixels: Tensor) -> Tensor:
    return torch.cat([pixels, torch.ones_like(pixels[:, :1])], 1)


def grid_places(size: int) -> Tensor:
    """Centers (P, 2) float64, px, of the head's cells in a (size, size) crop, row by row."""
    steps = torch.arange(size // STRIDE, dtype=torch.float64) * STRIDE + (STRIDE - 1) / 2
    return torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1).reshape(-1, 2)


def load_background_images() -> list[Image]:
    """Load the background images (H, W, 3) RGB that come with scikit-image."""
    spec = find_spec("skimage")
    assert spec is not None and spec.origin is not None  # the offline pipeline's extra
    folder = Path(spec.origin).parent / "data"
    paths = [path for path in sorted(folder.iterdir()) if path.stem in PHOTOS]
    return [np.asarray(PIL.Image.open(path).convert("RGB")) for path in paths]
