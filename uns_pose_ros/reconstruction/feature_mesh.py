"""Backbone features lifted to the vertices of a video's mesh."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, normalize

from uns_pose_ros.core.crops import crop, mask_box, square_around
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import project, transform
from uns_pose_ros.core.ray_casting import visible_vertices
from uns_pose_ros.core.types import FeatureMesh, Progress, Video
from uns_pose_ros.io.video_folder import read_frame
from uns_pose_ros.networks.dinov2 import DinoV2, imagenet_normalize
from uns_pose_ros.reconstruction.alpha_shape import compute_alpha_shape, points_in_masks
from uns_pose_ros.reconstruction.visual_hull import HullConfig, carve_visual_hull

Surface = Literal["hull", "alpha"]


@dataclass(frozen=True)
class ReconstructConfig:
    """How a video with poses and masks becomes a feature mesh."""

    hull: HullConfig = field(default_factory=HullConfig)
    size: int = 280  # px, side of the crop that the backbone reads; a multiple of 14
    margin: float = 0.1  # of the mask's longer side, left around it in the crop
    batch: int = 8  # crops a forward pass
    least_frames: int = 3  # frames with mask and pose that a mesh needs


@dataclass(frozen=True, eq=False)
class _View:
    """An image in which the object is visible."""

    image: Tensor  # (H, W, 3) uint8 RGB
    mask: Tensor  # (H, W) bool
    matrix: Tensor  # (3, 3) float64, px
    cam_from_obj: Tensor  # (4, 4) float64


@dataclass(frozen=True, eq=False)
class _LiftedFeatures:
    """Features (N, C) float16 of the vertices that views see."""

    features: Tensor
    mirrored: Tensor  # of the mirrored image
    vertex_index: Tensor  # (N,) int64
    view_index: Tensor  # (N,) int64


def build_feature_mesh(
    video: Video,
    backbone: DinoV2,
    config: ReconstructConfig = ReconstructConfig(),
    progress: Progress | None = None,
    surface: Surface = "hull",
) -> FeatureMesh:
    """Mesh the object of a video, and give each vertex the features of all views that see it.

    Args:
        video: frames with masks and poses.
        backbone: the network that computes features.
        config: sizes and thresholds.
        progress: called after each batch of views.
        surface: hull: the visual hull of the masks; alpha: the alpha shape of the video's points
            inside the masks, as published.

    Raises:
        InvalidInput: fewer than `least_frames` frames have a visible object, or there are too few
            points.
    """
    views = load_views(video, config)
    mesh_views = {"hull": _carve_views, "alpha": _wrap_points}[surface]
    vertices, triangles = mesh_views(video, views, config)
    lifted = []
    for number, (tokens, mirrored_tokens, crop_from_image) in enumerate(
        _compute_tokens(views, backbone, config)
    ):
        view = views[number]
        seen = visible_vertices(vertices, triangles, view.cam_from_obj).nonzero()[:, 0]
        pixels = project(
            crop_from_image @ view.matrix,
            transform(view.cam_from_obj, vertices[seen].double()),
        )
        lifted.append(
            lift_features(tokens, mirrored_tokens, pixels, seen, number, config.size)
        )
        is_last_of_batch = (number + 1) % config.batch == 0 or number + 1 == len(views)
        if progress is not None and is_last_of_batch:
            progress(video.name, number + 1, len(views))
    merged = concatenate(lifted)
    return FeatureMesh(
        vertices=vertices,
        triangles=triangles,
        features=merged.features,
        mirrored=merged.mirrored,
        vertex_index=merged.vertex_index,
        view_index=merged.view_index,
        cameras_in_obj=torch.stack([view.cam_from_obj for view in views]).float(),
    )


def load_views(video: Video, config: ReconstructConfig) -> list[_View]:
    """Read the frames that have a pose and a mask with an object.

    Raises:
        InvalidInput: they are fewer than `least_frames`.
    """
    views = []
    for frame in video.frames:
        image, mask, camera = read_frame(frame)
        if frame.cam_from_obj is not None and mask is not None and bool(mask.any()):
            views.append(_View(image, mask, camera.matrix, frame.cam_from_obj))
    if len(views) < config.least_frames:
        raise InvalidInput(
            f"{video.folder}: {len(views)} of {len(video.frames)} frames have a pose and a "
            f"mask with an object, {config.least_frames} needed"
        )
    return views


def lift_features(
    tokens: Tensor,
    mirrored_tokens: Tensor,
    pixels: Tensor,
    vertex_index: Tensor,
    view: int,
    size: int,
) -> _LiftedFeatures:
    """Sample the features of the vertices that one view sees.

    Args:
        tokens: (C, h, w) of the view's crop.
        mirrored_tokens: (C, h, w) of the crop flipped left to right.
        pixels: (N, 2) float64 of the vertices in the crop.
        vertex_index: (N,) int64 of the vertices.
        view: number of the view.
        size: px, side of the crop.

    Returns:
        The features, in the order of the vertices.
    """
    flip = torch.tensor([-1.0, 1.0])
    width = torch.tensor([1.0, 0.0]) * (size - 1)
    mirrored_pixels = width + pixels * flip
    return _LiftedFeatures(
        features=_sample_tokens(tokens, pixels, size),
        mirrored=_sample_tokens(mirrored_tokens, mirrored_pixels, size),
        vertex_index=vertex_index,
        view_index=torch.full_like(vertex_index, view),
    )


def concatenate(parts: Sequence[_LiftedFeatures]) -> _LiftedFeatures:
    """Join the features of all views, sorted by vertex, then by view."""
    vertex_index = torch.cat([part.vertex_index for part in parts])
    order = vertex_index.argsort(stable=True)
    return _LiftedFeatures(
        features=torch.cat([part.features for part in parts])[order],
        mirrored=torch.cat([part.mirrored for part in parts])[order],
        vertex_index=vertex_index[order],
        view_index=torch.cat([part.view_index for part in parts])[order],
    )


def _carve_views(
    video: Video, views: Sequence[_View], config: ReconstructConfig
) -> tuple[Tensor, Tensor]:
    """Vertices and triangles of the visual hull."""
    try:
        return carve_visual_hull(
            [view.mask for view in views],
            torch.stack([view.matrix for view in views]),
            torch.stack([view.cam_from_obj for view in views]),
            config.hull,
        )
    except InvalidInput as error:
        raise InvalidInput(f"{video.folder}: {error}") from None


def _wrap_points(
    video: Video, views: Sequence[_View], config: ReconstructConfig
) -> tuple[Tensor, Tensor]:
    """Vertices and triangles of the alpha shape of the points inside the masks."""
    points = video.points
    if points is None:
        points = torch.zeros(0, 3, dtype=torch.float64)
    inside = points_in_masks(
        points,
        [view.mask for view in views],
        torch.stack([view.matrix for view in views]),
        torch.stack([view.cam_from_obj for view in views]),
        config.hull.outvoted,
    )
    try:
        return compute_alpha_shape(inside, config.hull.vertices)
    except InvalidInput as error:
        raise InvalidInput(f"{video.folder}: {error}") from None


def _compute_tokens(
    views: Sequence[_View], backbone: DinoV2, config: ReconstructConfig
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """For every view the tokens (C, h, w) of its crop and of the flipped crop, and crop_from_image.

    crop_from_image is (3, 3) float64.
    """
    device = next(backbone.parameters()).device
    for start in range(0, len(views), config.batch):
        batch = views[start : start + config.batch]
        crops, maps = [], []
        for view in batch:
            image, crop_from_image = _object_crop(view, config)
            crops.append(image)
            maps.append(crop_from_image)
        images = imagenet_normalize(torch.stack(crops).to(device))
        tokens = backbone(torch.cat([images, images.flip(-1)])).permute(0, 3, 1, 2)
        for k, crop_from_image in enumerate(maps):
            yield tokens[k], tokens[len(batch) + k], crop_from_image


def _object_crop(view: _View, config: ReconstructConfig) -> tuple[Tensor, Tensor]:
    """The crop (3, size, size) around the object, and crop_from_image (3, 3)."""
    box = square_around(mask_box(view.mask)[None], config.margin)
    crops, maps = crop(view.image.permute(2, 0, 1), box, config.size)
    return crops[0], maps[0]


def _sample_tokens(tokens: Tensor, pixels: Tensor, size: int) -> Tensor:
    """Unit features (N, C) float16 on the CPU, of a token map (C, h, w) at crop pixels (N, 2)."""
    where = ((pixels + 0.5) / size * 2 - 1).to(tokens)
    sampled = grid_sample(
        tokens[None], where[None, None], align_corners=False, padding_mode="border"
    )[0, :, 0].T
    return normalize(sampled.float(), dim=-1).half().cpu()
