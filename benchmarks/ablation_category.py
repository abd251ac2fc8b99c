"""The videos of a category for the ablations, with what is made of them, and how much of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from uns_pose_ros.alignment.category.align_config import AlignConfig
from uns_pose_ros.alignment.category_alignment import align_videos
from uns_pose_ros.alignment.pairs.pair_config import PairConfig
from uns_pose_ros.alignment.published_alignment import PublishedConfig
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Alignment, CategoryModel, FeatureMesh, Video
from uns_pose_ros.evaluation.rotation_labels import load_labels
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.video_folder import list_videos, load_video
from uns_pose_ros.networks.dinov2 import DinoV2, load_backbone
from uns_pose_ros.reconstruction.feature_mesh import (
    ReconstructConfig,
    Surface,
    build_feature_mesh,
)
from uns_pose_ros.reconstruction.visual_hull import HullConfig
from uns_pose_ros.training.category_training import train_model
from uns_pose_ros.training.training_views import TrainConfig

Row = dict[str, Any]  # figures of one setting
OFF = 1e6  # tau of a cycle weight that is the same for all


@dataclass(frozen=True)
class Sizes:
    """How much is computed; the defaults are for two cores and 20 minutes."""

    every: int = 2  # of so many images of a video one is used
    crop: int = 168  # px, of reconstruction and training
    vertices: int = 300
    hypotheses: int = 500
    views: int = 4  # of an image
    steps: int = 250
    batch: int = 16
    held_out: int = 2  # videos for tests
    alphas: tuple[float, ...] = (0.0, 0.2, 0.5, 1.0)
    taus: tuple[float, ...] = (0.3, 0.9, 3.0, OFF)
    references: tuple[int, ...] = (1, 2, 3, 5, 7)
    videos: tuple[int, ...] = (3, 5, 10)

    @property
    def align(self) -> AlignConfig:
        return AlignConfig(pair=PairConfig(hypotheses=self.hypotheses))

    @property
    def published(self) -> PublishedConfig:
        return PublishedConfig(hypotheses=self.hypotheses)

    @property
    def reconstruct(self) -> ReconstructConfig:
        return ReconstructConfig(hull=HullConfig(vertices=self.vertices), size=self.crop)

    @property
    def train(self) -> TrainConfig:
        return TrainConfig(
            size=self.crop, views=self.views, steps=self.steps, batch=self.batch, scenes=0
        )


FULL = Sizes(
    every=1,
    crop=280,
    vertices=500,
    hypotheses=1000,
    views=TrainConfig.views,
    steps=TrainConfig.steps,
    batch=TrainConfig.batch,
)
BRIEF = Sizes(
    every=5,
    crop=112,
    vertices=200,
    hypotheses=300,
    views=3,
    steps=200,
)


class Category:
    """The videos of a category with what is made of them, kept in the work folder."""

    def __init__(self, folder: Path, work: Path, sizes: Sizes) -> None:
        self.work, self.sizes = work, sizes
        folders = list_videos(folder)
        self.labels = load_labels(folder / "labels.json", [f.name for f in folders])
        self.videos = {
            f.name: _thinned(load_video(f), sizes.every)
            for f in folders
            if f.name in self.labels
        }
        if len(self.videos) < sizes.held_out + 2:
            raise InvalidInput(
                f"{folder}: {len(self.videos)} labeled videos, {sizes.held_out + 2} needed"
            )
        self.names = list(self.videos)

    @cached_property
    def backbone(self) -> DinoV2:
        return load_backbone(device="cpu")

    @cached_property
    def hulls(self) -> dict[str, FeatureMesh]:
        return self.meshes("hull")

    def meshes(self, surface: Surface) -> dict[str, FeatureMesh]:
        """The feature meshes of all videos."""
        made = {}
        for name, video in self.videos.items():
            folder = self.work / surface / name
            if not (folder / artifacts.FEATURES).exists():
                config = self.sizes.reconstruct
                mesh = build_feature_mesh(video, self.backbone, config, surface=surface)
                folder.mkdir(parents=True, exist_ok=True)
                artifacts.save_feature_mesh(mesh, folder, {})
            made[name] = artifacts.load_feature_mesh(folder)
        return made

    @property
    def training(self) -> list[str]:
        """Names of the videos that may be trained on."""
        return self.names[: -self.sizes.held_out]

    def align(self, names: Sequence[str]) -> Alignment:
        return align_videos(
            {name: self.hulls[name] for name in names}, self.sizes.align, device="cpu"
        )

    def trained(self, names: Sequence[str], config: TrainConfig, key: str) -> CategoryModel:
        """The model of some videos."""
        path = self.work / f"model_{key}"
        if not (path / artifacts.MODEL).exists():
            videos = {name: self.videos[name] for name in names}
            meshes = {name: self.hulls[name] for name in names}
            alignment = self.align(names)
            model = train_model(key, videos, meshes, alignment, self.backbone, config)
            artifacts.save_model(model, path)
        return artifacts.load_model(path)

    def all_videos(self) -> CategoryModel:
        return self.trained(self.training, self.sizes.train, "all")

    def tests(self) -> Iterator[tuple[Video, Any]]:
        """The frames of the videos that are held out."""
        for name in self.names[-self.sizes.held_out :]:
            video = self.videos[name]
            for frame in video.frames:
                if frame.mask and frame.cam_from_obj is not None:
                    yield video, frame


def _thinned(video: Video, every: int) -> Video:
    return replace(video, frames=video.frames[::every])
