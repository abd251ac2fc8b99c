"""Views that teach a copy of a head: of a recording's objects, and of the training's own videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import from_parts
from uns_pose_ros.core.types import CategoryModel, FeatureMesh, Progress, Video
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.video_folder import load_video
from uns_pose_ros.networks.dinov2 import DinoV2
from uns_pose_ros.training.adaptation.pseudo_labels import (
    RecordedImage,
    make_video,
    spare_border,
    view_config,
)
from uns_pose_ros.training.adaptation.resting_objects import RestingObject, Sighting
from uns_pose_ros.training.training_views import TrainConfig, Views, random_views

_REPLAYED = 300  # views of the training's own videos, at most


@dataclass(frozen=True, eq=False)
class TrainingVideo:
    """A video that the model was trained on."""

    video: Video
    mesh: FeatureMesh
    canon_from_obj: torch.Tensor  # (4, 4)


def object_views(
    model: CategoryModel,
    taught: Sequence[tuple[RestingObject, Sequence[Sighting]]],
    images: Mapping[int, RecordedImage],
    backbone: DinoV2,
    count: int,
    seed: int,
    scratch: Path,
    progress: Progress,
) -> Views:
    """Random views of the objects, read by the backbone; their number is that of their `video`.

    Args:
        model: The model.
        taught: The objects, with the images that teach.
        images: The images.
        backbone: The frozen backbone, on the device.
        count: Views of each image.
        seed: Seed of the views.
        scratch: Where the masks are written.
        progress: Receives the number of images that are done.
    """
    videos = [
        make_video(scratch / f"object_{number}", thing, sightings, images, model)
        for number, (thing, sightings) in enumerate(taught)
    ]
    poses = [
        from_parts(torch.eye(3).double(), torch.zeros(3).double(), 1 / thing.scale)
        for thing, _ in taught
    ]
    views = random_views(
        videos,
        [(thing.scale * model.vertices, model.triangles) for thing, _ in taught],
        torch.stack(poses),
        torch.ones(len(taught), dtype=torch.float64),
        backbone,
        view_config(model, count, TrainConfig()),
        seed,
        progress,
    )
    return spare_border(views)


def training_videos(folder: Path, model: CategoryModel) -> list[TrainingVideo]:
    """The videos that the model was trained on: other instances of the category.

    Args:
        folder: The model's folder, beside which they are; those that are not are left out.
        model: The model.

    Raises:
        InvalidInput: None is there.
    """
    found = []
    for name, pose in model.training_poses.items():
        try:
            video = load_video(folder.parent / name)
            mesh = artifacts.load_feature_mesh(folder.parent / name)
        except InvalidInput:
            continue
        found.append(TrainingVideo(video, mesh, pose))
    if not found:
        raise InvalidInput(
            f"{folder}: no video that the model was trained on is in {folder.parent} "
            f"({', '.join(model.training_poses) or 'the model names none'}); they tell the "
            "objects of the recording from others"
        )
    return found


def replayed_views(
    known: Sequence[TrainingVideo],
    model: CategoryModel,
    backbone: DinoV2,
    seed: int,
    progress: Progress,
) -> Views:
    """Views of the videos that the model was trained on, which it then learns again.

    Args:
        known: The videos.
        model: The model.
        backbone: The frozen backbone, on the device.
        seed: Seed of the views.
        progress: Receives the number of frames that are done.
    """
    frames = sum(len(one.video.frames) for one in known)
    every = max(1, -(-frames // _REPLAYED))
    settings = view_config(model, max(1, _REPLAYED // frames), TrainConfig())
    settings = replace(settings, augment=TrainConfig().augment)
    return random_views(
        [replace(one.video, frames=one.video.frames[::every]) for one in known],
        [(one.mesh.vertices, one.mesh.triangles) for one in known],
        torch.stack([one.canon_from_obj for one in known]),
        torch.ones(len(known), dtype=torch.float64),
        backbone,
        settings,
        seed,
        lambda what, done, total: progress("views of the training", done, total),
    )
