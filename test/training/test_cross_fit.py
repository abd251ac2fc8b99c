"""The calibration of the score reports all that takes time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch.nn.functional import normalize

from plain_views import plain_views
from synthetic import write_category
from uns_pose_ros.core.types import CategoryModel
from uns_pose_ros.io.video_folder import load_video
from uns_pose_ros.networks.correspondence_head import Head, NetworkConfig
from uns_pose_ros.networks.dinov2 import CHANNELS, load_backbone
from uns_pose_ros.training.cross_fit import cross_fit
from uns_pose_ros.training.training_views import TrainConfig

VIEWS = 18  # of two videos
NETWORK = NetworkConfig(width=32, blocks=1, features=16, clutter=2)
CONFIG = TrainConfig(network=NETWORK, size=112, steps=5, batch=4, scenes=1)


def test_training_views_scenes_and_images_of_both_halves_are_reported(
    tmp_path: Path,
) -> None:
    write_category(tmp_path, {"clip_01": 1, "clip_02": 2}, views=3, size=96)
    videos = [load_video(tmp_path / name) for name in ("clip_01", "clip_02")]
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(VIEWS, 8, 8, len(NETWORK.layers) * CHANNELS, generator=generator)
    points = torch.rand(VIEWS, 256, 3, generator=generator) - 0.5
    views = plain_views(tokens, points, torch.zeros(VIEWS, 256, dtype=torch.bool))
    views = replace(views, video=torch.arange(VIEWS) % 2)
    pose = torch.eye(4, dtype=torch.float64).tolist()
    head = Head(NETWORK, 12, tokens.shape[-1])
    model = CategoryModel(
        "truck",
        torch.rand(12, 3, generator=generator) - 0.5,
        torch.tensor([[0, 1, 2]]),
        normalize(head.vertex_features.detach(), dim=-1),
        normalize(head.background_features.detach(), dim=-1),
        {
            name: tensor
            for name, tensor in head.state_dict().items()
            if name not in ("vertex_features", "background_features")
        },
        provenance={
            "network": vars(NETWORK),
            "crop_size": CONFIG.size,
            "canon_from_obj": {"clip_01": pose, "clip_02": pose},
        },
    )
    seen = list[tuple[str, int, int]]()

    def progress(what: str, done: int, total: int) -> None:
        seen.append((what, done, total))

    backbone = load_backbone(device="cpu")
    learned = cross_fit(views, model, videos, backbone, CONFIG, progress=progress)
    assert learned["left_out"]["images"] == 2
    expected = [
        ("training", 1, 2),
        ("training", 2, 2),
        ("views", 8, 9),
        ("views", 9, 9),
        ("scenes", 1, 1),
        ("images", 1, 1),
    ]
    assert seen == [
        (f"score {half} of 2: {what}", done, total)
        for half in (1, 2)
        for what, done, total in expected
    ]
