"""A model small enough to be trained in a test.

One chair of the demo's data in a few frames, learned by heart.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from uns_pose_ros.core.geometry import from_parts
from uns_pose_ros.core.types import Alignment, CategoryModel
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.video_folder import load_video
from uns_pose_ros.networks.correspondence_head import NetworkConfig
from uns_pose_ros.networks.dinov2 import load_backbone
from uns_pose_ros.reconstruction import feature_mesh
from uns_pose_ros.reconstruction.feature_mesh import ReconstructConfig
from uns_pose_ros.training import category_training
from uns_pose_ros.training.augmentation import AugmentConfig
from uns_pose_ros.training.training_views import TrainConfig

CLIP = Path(__file__).resolve().parents[2] / "demo" / "data" / "chair" / "clip_08"
HARDLY = AugmentConfig(
    far_probability=0.0,
    rotation=8.0,
    tilt=0.0,
    background_probability=0.0,
    occlusion_probability=0.0,
    colour_probability=0.0,
    grey_probability=0.0,
    blur_probability=0.0,
    jpeg_probability=0.0,
)
TRAIN = TrainConfig(
    network=NetworkConfig(width=96, blocks=1),
    augment=HARDLY,
    views=3,
    steps=200,
    batch=8,
    learning_rate=4e-3,
    dropout=0.0,
)


def train_small_model(folder: Path) -> None:
    """Train on CLIP and save the model.

    Its canonical frame is the video's, scaled to diameter 1. Seconds on one core.
    """
    video = load_video(CLIP)
    video = replace(video, frames=video.frames[::2])
    backbone = load_backbone(device="cpu")
    mesh = feature_mesh.build_feature_mesh(video, backbone, ReconstructConfig(size=112))
    center, scale = mesh.vertices.double().mean(0), 1 / mesh.diameter
    one = torch.ones(1, dtype=torch.float64)
    canon_from_obj = from_parts(torch.eye(3, dtype=torch.float64), -scale * center, scale)[
        None
    ]
    alignment = Alignment(
        (video.name,), canon_from_obj, one, torch.ones(1, dtype=torch.bool), 0 * one
    )
    model = category_training.train_model(
        "chair", {video.name: video}, {video.name: mesh}, alignment, backbone, TRAIN
    )
    artifacts.save_model(model, folder)


def one_triangle(category: str, **details: Any) -> CategoryModel:
    """A model of one triangle, for tests in which nothing is estimated; `details` are fields."""
    corners, vertex, clutter = torch.eye(3), torch.eye(3), torch.eye(3)
    triangle = torch.tensor([[0, 1, 2]])
    return CategoryModel(category, corners, triangle, vertex, clutter, {}, **details)
