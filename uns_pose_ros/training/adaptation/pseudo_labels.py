"""Views of objects whose pose in the fixed frame is known, with the target of each cell.

An image of a track is a frame of a video: its pose comes from the fused pose and the transforms,
its mask is the silhouette of the template. Cells at the border of the silhouette teach nothing,
because an instance has another outline than the template.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import max_pool2d

from uns_pose_ros.core.geometry import transform
from uns_pose_ros.core.types import Camera, CategoryModel, Frame, Video
from uns_pose_ros.networks.correspondence_head import NetworkConfig
from uns_pose_ros.training.adaptation.resting_objects import RestingObject, Sighting
from uns_pose_ros.training.augmentation import AugmentConfig
from uns_pose_ros.training.training_views import TrainConfig, Views

_BACKGROUND = (
    0.25  # share of the views on another background: the place itself is to be learned
)
_DOUBTFUL = 3  # cells around the silhouette that are neither object nor background
_INSIDE = 0.6  # smallest share of the template's vertices inside an image


@dataclass(frozen=True, eq=False)
class RecordedImage:
    """An image of a recording, as a file."""

    path: Path
    camera: Camera


def view_config(model: CategoryModel, views: int, config: TrainConfig) -> TrainConfig:
    """The settings of views for a model's head: its layers and size of crops."""
    known = {name.name for name in fields(NetworkConfig)}
    chosen: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in model.network_settings.items()
        if name in known
    }
    return replace(
        config,
        network=NetworkConfig(**chosen),
        size=model.crop_size,
        views=views,
        augment=replace(AugmentConfig(), background_probability=_BACKGROUND),
    )


def make_video(
    folder: Path,
    thing: RestingObject,
    sightings: Sequence[Sighting],
    images: Mapping[int, RecordedImage],
    model: CategoryModel,
) -> Video:
    """A video of an object, in meters, with the silhouettes of the template as masks in `folder`.

    The frame of the video is the canonical one in meters. Images that show only a part of the
    object are left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vertices = thing.scale * model.vertices.double()
    frames = []
    for sighting in sightings:
        pose = thing.cam_from_canon(sighting.fixed_from_cam)
        image = images[sighting.image]
        mask = silhouette(transform(pose, vertices), model.triangles, image.camera)
        if mask is None:
            continue
        path = folder / f"{image.path.stem}.png"
        cv2.imwrite(str(path), mask)
        frames.append(Frame(image.path.name, image.path, image.camera, path, pose))
    return Video(folder, tuple(frames), metric=True)


def silhouette(
    points: Tensor, triangles: Tensor, camera: Camera
) -> NDArray[np.uint8] | None:
    """The silhouette (H, W), 0 or 255, of a mesh whose vertices (V, 3) are in the camera, m.

    None where a part is behind the camera, or much of it is outside the image.
    """
    if bool((points[:, 2] <= 1e-3).any()):
        return None
    zero = np.zeros(3)
    pixels, _ = cv2.projectPoints(
        points.numpy(), zero, zero, camera.matrix.numpy(), camera.distortion.numpy()
    )
    pixels = pixels[:, 0]
    limit = np.array([camera.width, camera.height])
    inside = ((pixels >= 0) & (pixels < limit)).all(1)
    if inside.mean() < _INSIDE or np.abs(pixels).max() > 1e5:
        return None
    mask = np.zeros((camera.height, camera.width), np.uint8)
    for corners in np.rint(pixels).astype(np.int32)[triangles.numpy()]:
        cv2.fillConvexPoly(mask, corners, 255)
    return mask


def spare_border(views: Views) -> Views:
    """Take the cells around each object out of the background: they may be of the instance."""
    side = round(views.background.shape[1] ** 0.5)
    shown = (~views.background).float().view(-1, 1, side, side)
    near = max_pool2d(shown, 2 * _DOUBTFUL + 1, 1, _DOUBTFUL).flatten(1) > 0
    return replace(views, background=views.background & ~near)


def split_views(views: Views, count: int) -> list[Views]:
    """The views of each of `count` videos."""
    return [
        Views(
            *(
                getattr(views, column.name)[views.video == number]
                for column in fields(Views)
            )
        )
        for number in range(count)
    ]


def join_views(parts: Sequence[Views], shares: Sequence[float]) -> Views:
    """All views, those of each part with its share of the weight together."""
    weighted = [
        replace(part, weight=part.weight * (share / (float(part.weight.sum()) or 1.0)))
        for part, share in zip(parts, shares, strict=True)
    ]
    return Views(
        *(
            torch.cat([getattr(part, column.name) for part in weighted])
            for column in fields(Views)
        )
    )
