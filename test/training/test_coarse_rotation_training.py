"""The map from tokens to coarse rotations learns what the videos share, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from plain_views import plain_views
from uns_pose_ros.core.geometry import (
    angle_between,
    nearest_rotation,
    random_rotations,
    rotation_from_vector,
)
from uns_pose_ros.networks.correspondence_head import Head, NetworkConfig
from uns_pose_ros.training.coarse_rotation_training import (
    fit_coarse_rotation,
    view_rotations,
)
from uns_pose_ros.training.training_views import Views

SIZE = 8 * 14
CONFIG = NetworkConfig(layers=(11,), width=16, blocks=1, features=8, clutter=2)
CAMERA = torch.tensor(
    [[200.0, 0, (SIZE - 1) / 2], [0, 200.0, (SIZE - 1) / 2], [0, 0, 1]], dtype=torch.float64
)


def views_of(count: int, videos: int, yaw: float) -> tuple[Views, torch.Tensor]:
    """Views whose tokens tell their rotation, and the rotations (N, 3, 3).

    Args:
        count: Number of views.
        videos: Number of videos.
        yaw: Rad by which the canonical frames of two videos differ about z, which no token tells.
    """
    generator = torch.Generator().manual_seed(3)
    rotation = random_rotations(count, generator).float()
    words = torch.randn(9, 384, generator=generator)
    usual = 2 * torch.randn(384, generator=generator)
    object_token = rotation.flatten(1) @ words + usual
    tokens = torch.randn(count, 8, 8, 384, generator=generator)
    tokens[:, 2:6, 2:6] = object_token[:, None, None]
    points = torch.full((count, 16, 16, 3), torch.nan)
    points[:, 4:12, 4:12] = 0.1
    views = plain_views(tokens, points.flatten(1, 2), points[..., 0].isnan().flatten(1))
    video = torch.arange(count) % videos
    turns = rotation_from_vector(
        torch.stack(
            [torch.zeros(videos), torch.zeros(videos), yaw * torch.arange(videos)], 1
        )
    )
    poses = torch.cat([rotation @ turns[video], torch.zeros(count, 3, 1)], 2).double()
    return (
        replace(
            views,
            video=video,
            crop_from_cam=CAMERA.expand(count, 3, 3),
            cam_from_canon=poses,
        ),
        rotation,
    )


def fitted(views: Views, learned: int) -> Head:
    """A head whose map was fitted to the first views."""
    head = Head(CONFIG, 5, 384)
    weight = views.weight.clone()
    weight[learned:] = 0
    fit_coarse_rotation(head, replace(views, weight=weight), 0)
    return head


def presence_of(views: Views) -> torch.Tensor:
    return views.canon[..., 0].isfinite().float().unflatten(1, (8, 2, 8, 2)).mean((2, 4))


def test_the_map_tells_the_rotation_of_views_that_it_has_not_learned_from() -> None:
    views, rotation = views_of(500, 4, 0.0)
    head = fitted(views, 400)
    told = head.coarse_rotation(views.tokens[400:], presence_of(views)[400:])
    told = nearest_rotation(told.unflatten(1, (3, 3)).double())
    assert float(angle_between(told, rotation[400:].double()).median()) < 10
    spread = torch.linalg.inv(head.rotation_precision.double()).diagonal().sqrt()
    assert float(spread.max()) < 0.2


def test_what_the_videos_do_not_share_is_not_trusted() -> None:
    views, _ = views_of(500, 5, 2 * torch.pi / 5)
    head = fitted(views, 500)
    spread = torch.linalg.inv(head.rotation_precision.double()).diagonal().sqrt().view(3, 3)
    # the axis of the turns is told, the other two axes are not
    assert float(spread[:, 2].max()) < 0.2
    assert float(spread[:, :2].min()) > 0.4


def test_one_video_alone_tells_nothing_of_others() -> None:
    views, _ = views_of(100, 1, 0.0)
    assert not fitted(views, 100).rotation_precision.any()


def test_a_few_views_are_not_trusted() -> None:
    views, _ = views_of(6, 2, 0.0)
    spread = torch.linalg.inv(fitted(views, 6).rotation_precision.double())
    assert float(torch.linalg.eigvalsh(spread).min().sqrt()) > 0.4


@pytest.mark.parametrize("roll", [0.0, 0.6, -0.8])
def test_a_rolled_view_shows_the_object_rolled(roll: float) -> None:
    (pose,) = random_rotations(1, torch.Generator().manual_seed(4))
    rolled = rotation_from_vector(torch.tensor([0.0, 0.0, roll], dtype=torch.float64))
    aside = rotation_from_vector(torch.tensor([0.1, -0.2, 0.0], dtype=torch.float64))
    # the view's camera looks at the object, rolled; the image's camera looks elsewhere
    crop_from_cam = CAMERA @ rolled @ aside
    cam_from_canon = torch.cat([pose, torch.zeros(3, 1, dtype=torch.float64)], 1)
    (found,) = view_rotations(crop_from_cam[None], cam_from_canon[None], SIZE)
    assert float(angle_between(found, rolled @ aside @ pose)) < 2.0
