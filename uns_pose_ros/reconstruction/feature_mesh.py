"""Backbone features lifted to the vertices of a video's mesh."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, normalize

from uns_pose_ros.core.crops import crop, mask_box, square_around
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import project, transform
from uns_pose_ros.core.ray_casting import visible_vertices
from uns_pose_ros.core.types import FeatureMesh, Progress, Video
from uns_pose_ros.io.video_folder import read_frame
from uns_pose_ros.networks.dinov2 import DinoV2, normalise
from uns_pose_ros.reconstruction.visual_hull import HullConfig, carve_visual_hull


@dataclass(frozen=True)
class ReconstructConfig:
    """How a video with poses and masks becomes a feature mesh."""

    hull: HullConfig = field(default_factory=HullConfig)
    size: int = 280  # px, side of the crop that the backbone reads; a multiple of 14
    margin: float = 0.1  # of the mask's longer side, left around it in the crop
    batch: int = 8  # crops a forward pass
    least_frames: int = 3  # frames with mask and pose that a mesh needs


def build_feature_mesh(
    video: Video,
    backbone: DinoV2,
    config: ReconstructConfig = ReconstructConfig(),
    progress: Progress | None = None,
) -> FeatureMesh:
    """Carve the video's visual hull and give each vertex the feature of every view that sees it.

    Needs masks and poses on the frames. Raises InvalidInput where fewer than `least_frames` frames
    have a visible object.
    """
    images, masks, matrices, poses = [], [], [], []
    for frame in video.frames:
        image, mask, camera = read_frame(frame)
        if frame.cam_from_obj is not None and mask is not None and bool(mask.any()):
            images.append(image)
            masks.append(mask)
            matrices.append(camera.matrix)
            poses.append(frame.cam_from_obj)
    if len(images) < config.least_frames:
        raise InvalidInput(
            f"{video.folder}: {len(images)} of {len(video.frames)} frames have a pose and a "
            "mask with an object, "
            f"{config.least_frames} needed"
        )
    matrix, cam_from_obj = torch.stack(matrices), torch.stack(poses)
    try:
        vertices, triangles = carve_visual_hull(masks, matrix, cam_from_obj, config.hull)
    except InvalidInput as error:
        raise InvalidInput(f"{video.folder}: {error}") from None
    device = next(backbone.parameters()).device
    lists: dict[str, list[Tensor]] = {
        "features": [],
        "mirrored": [],
        "vertex": [],
        "view": [],
    }
    for start in range(0, len(images), config.batch):
        views = range(start, min(start + config.batch, len(images)))
        crops, maps = zip(
            *(_object_crop(images[k], masks[k], config) for k in views), strict=True
        )
        batch = normalise(torch.stack(crops).to(device))
        grid = backbone(torch.cat([batch, batch.flip(-1)])).permute(0, 3, 1, 2)
        for k, tokens, flipped, crop_from_image in zip(
            views, grid, grid[len(views) :], maps, strict=False
        ):
            seen = visible_vertices(vertices, triangles, cam_from_obj[k]).nonzero()[:, 0]
            pixels = project(
                crop_from_image @ matrix[k],
                transform(cam_from_obj[k], vertices[seen].double()),
            )
            lists["features"].append(_sample(tokens, pixels, config.size))
            lists["mirrored"].append(
                _sample(
                    flipped,
                    (config.size - 1) * torch.tensor([1.0, 0.0])
                    + pixels * torch.tensor([-1.0, 1.0]),
                    config.size,
                )
            )
            lists["vertex"].append(seen)
            lists["view"].append(torch.full_like(seen, k))
        if progress is not None:
            progress(video.name, views[-1] + 1, len(images))
    flat = {name: torch.cat(parts) for name, parts in lists.items()}
    order = flat["vertex"].argsort(stable=True)
    return FeatureMesh(
        vertices=vertices,
        triangles=triangles,
        features=flat["features"][order],
        mirrored=flat["mirrored"][order],
        vertex_index=flat["vertex"][order],
        view_index=flat["view"][order],
        cameras_in_obj=cam_from_obj.float(),
    )


def _object_crop(
    image: Tensor, mask: Tensor, config: ReconstructConfig
) -> tuple[Tensor, Tensor]:
    box = square_around(mask_box(mask)[None], config.margin)
    crops, maps = crop(image.permute(2, 0, 1), box, config.size)
    return crops[0], maps[0]


def _sample(tokens: Tensor, pixels: Tensor, size: int) -> Tensor:
    """Unit features (N, C) float16 on the CPU of a token map (C, h, w) at crop pixels (N, 2)."""
    where = ((pixels + 0.5) / size * 2 - 1).to(tokens)
    sampled = grid_sample(
        tokens[None], where[None, None], align_corners=False, padding_mode="border"
    )[0, :, 0].T
    return normalize(sampled.float(), dim=-1).half().cpu()
