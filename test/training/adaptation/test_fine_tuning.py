"""A copy of the head learns an object further from what the model knows."""

from __future__ import annotations

from dataclasses import replace

import torch

from uns_pose_ros.core.types import CategoryModel, TaughtObject
from uns_pose_ros.networks.correspondence_head import Head, NetworkConfig
from uns_pose_ros.training.adaptation.fine_tuning import fine_tune
from uns_pose_ros.training.training_views import TrainConfig, Views

NETWORK = NetworkConfig(layers=(11,), width=8, blocks=0, features=4, clutter=2)


def small_model() -> CategoryModel:
    torch.manual_seed(0)
    head = Head(NETWORK, 4, 384)
    weights = {name: tensor.detach() for name, tensor in head.state_dict().items()}
    vertices, background = (
        torch.nn.functional.normalize(weights.pop(name), dim=1)
        for name in ("vertex_features", "background_features")
    )
    corners = torch.tensor([[0.0, 0, 0], [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]])
    faces = torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    return CategoryModel("mug", corners, faces, vertices, background, weights)


CONFIG = TrainConfig(
    network=NETWORK, steps=12, batch=2, learning_rate=3e-2, dropout=0.0, weight_decay=0.0
)


def views_of_seed(model: CategoryModel, seed: int) -> Views:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(4, 2, 2, 384, generator=generator).bfloat16()
    canon = model.vertices[torch.arange(16) % 4].expand(4, -1, -1).half().clone()
    canon[:, 8:] = torch.nan
    background = torch.arange(16).expand(4, -1) >= 8
    eye = torch.eye(4).double()
    return Views(
        tokens,
        canon,
        background,
        torch.ones(4),
        torch.zeros(4, dtype=torch.int64),
        eye[:3, :3].expand(4, -1, -1),
        eye[:3].expand(4, -1, -1),
    )


def test_a_copy_of_the_head_learns_further_from_what_it_knew() -> None:
    model = small_model()
    new, known = views_of_seed(model, 1), views_of_seed(model, 2)
    still = fine_tune(model, new, known, replace(CONFIG, learning_rate=1e-12, steps=2))
    for name, tensor in still.head.items():
        before = getattr(model, name, None)
        expected = model.head[name] if before is None else before
        assert torch.allclose(tensor, expected, atol=1e-6), name
    tuned = fine_tune(model, new, known, CONFIG)
    assert loss(tuned, new) < loss(still, new) - 0.2
    assert tuned.weight.shape == (384,)


def loss(taught: TaughtObject, views: Views) -> float:
    """Mean cross-entropy of the cells that show the background."""
    head = Head(NETWORK, 4, 384)
    head.load(taught.head)
    with torch.no_grad():
        logits = head.logits(head(views.tokens.float())).flatten(1, 2)
    chance = torch.log_softmax(logits, -1)[..., 4:].logsumexp(-1)
    return -float(chance[views.background].mean())
