"""Two losses of the ablations, cross-entropy over vertices and regression of coordinates.

Both are scored by the same PnP on the points that they give.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cv2
import torch
from torch import Tensor
from torch.nn import functional

from ablation_category import Category, Row
from uns_pose_ros.core.crops import crop, mask_box, square_around
from uns_pose_ros.core.geometry import angle_between
from uns_pose_ros.estimation.loaded_model import LoadedModel
from uns_pose_ros.evaluation.metrics import MISSING, accuracies
from uns_pose_ros.evaluation.rotation_labels import fit_label_from_canon
from uns_pose_ros.io.video_folder import read_frame
from uns_pose_ros.networks.correspondence_head import Head
from uns_pose_ros.networks.dinov2 import CHANNELS, imagenet_normalize
from uns_pose_ros.training.training_views import (
    TrainConfig,
    Views,
    grid_places,
    random_views,
)

Reader = Callable[[LoadedModel, Tensor], tuple[Tensor, Tensor]]


def expected_points(loaded: LoadedModel, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Mean canonical point (P, 3) and presence (P,) of the cells, by the vertices' probability."""
    probability, presence = loaded.read(tokens)
    flat, shown = probability.flatten(0, 2).float(), presence.flatten().float()
    points = flat @ loaded.model.vertices / shown[:, None].clamp_min(1e-6)
    return points, shown


def regressed_points(category: Category) -> Reader:
    """Train the same head to give each cell its coordinates, on the same views."""
    model = category.all_videos()
    names = list(model.training_poses)
    poses = torch.stack(list(model.training_poses.values()))
    config = category.sizes.train
    shapes = [
        (category.hulls[name].vertices, category.hulls[name].triangles) for name in names
    ]
    views = random_views(
        [category.videos[name] for name in names],
        shapes,
        poses,
        torch.ones(len(names)),
        category.backbone,
        config,
    )
    head = fit_regression(views, config)

    def read(loaded: LoadedModel, tokens: Tensor) -> tuple[Tensor, Tensor]:
        raw = regress(head, tokens.float()).flatten(0, 2)
        return raw[:, :3], raw[:, 3].sigmoid()

    return read


def regress(head: Head, tokens: Tensor) -> Tensor:
    """Coordinates and logit of the presence (B, 2h, 2w, 4), by a head of four features."""
    x = head.enter(head.norm(tokens)).permute(0, 3, 1, 2)
    x = functional.interpolate(
        head.coarse(x), scale_factor=2, mode="bilinear", align_corners=False
    )
    return head.leave(head.fine(x)).permute(0, 2, 3, 1)


def fit_regression(views: Views, config: TrainConfig, seed: int = 0) -> Head:
    """Train a head by the smooth L1 distance of coordinates, steps and batches as `fit_head`."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    network = replace(config.network, features=4)
    head = Head(network, 1, len(network.layers) * CHANNELS)
    optimizer = torch.optim.AdamW(
        head.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=config.steps, pct_start=0.15
    )
    for _ in range(config.steps):
        pick = torch.multinomial(views.weight, config.batch, True, generator=generator)
        kept = torch.rand(config.batch, views.tokens.shape[-1], generator=generator)
        kept = (kept >= config.dropout) / (1 - config.dropout)
        tokens = views.tokens[pick].float() * kept[:, None, None]
        raw = regress(head, tokens).flatten(1, 2)
        canon, background = views.canon[pick].float(), views.background[pick]
        shown = canon[..., 0].isfinite()
        known = shown | background
        value = functional.smooth_l1_loss(raw[..., :3][shown], canon[shown], beta=0.05)
        presence = functional.binary_cross_entropy_with_logits(
            raw[..., 3][known], shown[known].float()
        )
        optimizer.zero_grad(set_to_none=True)
        (10 * value + config.background * presence).backward()
        optimizer.step()
        schedule.step()
    return head.eval().requires_grad_(False)


@torch.no_grad()
def score_by_pnp(category: Category, reader: Reader) -> Row:
    """Accuracy on the held-out images of OpenCV's PnP on the points that a reader gives."""
    model = category.all_videos()
    loaded = LoadedModel(model, torch.device("cpu"), halved=False)
    label_from_canon = fit_label_from_canon(model, category.labels)
    places = grid_places(loaded.crop_size).numpy()
    errors = []
    for video, frame in category.tests():
        image, mask, camera = read_frame(frame)
        assert mask is not None
        square = square_around(mask_box(mask)[None], 0.1)
        crops, maps = crop(image.permute(2, 0, 1), square, loaded.crop_size)
        tokens = category.backbone(imagenet_normalize(crops), layers=loaded.layers)
        points, presence = reader(loaded, tokens.permute(1, 2, 3, 0, 4).flatten(3).float())
        true = frame.cam_from_obj[:3, :3] @ category.labels[video.name].T @ label_from_canon
        used = (presence > 0.5).numpy()
        matrix = (maps[0] @ camera.matrix).numpy()
        errors.append(_pnp_error(points.numpy()[used], places[used], matrix, true))
    return accuracies(torch.tensor(errors, dtype=torch.float64)) | {"images": len(errors)}


def _pnp_error(points: Any, pixels: Any, matrix: Any, true: Tensor) -> float:
    if len(points) < 6:
        return MISSING
    cv2.setRNGSeed(0)
    done, vector, _, _ = cv2.solvePnPRansac(
        points.astype("float64"),
        pixels,
        matrix,
        None,
        iterationsCount=500,
        reprojectionError=8.0,
        flags=cv2.SOLVEPNP_EPNP,
    )
    if not done:
        return MISSING
    rotation = torch.from_numpy(cv2.Rodrigues(vector)[0])
    return float(angle_between(rotation, true))
