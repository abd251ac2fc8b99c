"""A head learns further, and is kept only if held-out images agree better with both models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from streams import HALF_TURN, estimate, orbit, pose
from uns_pose_ros.core.types import CategoryModel, PoseEstimate
from uns_pose_ros.networks.correspondence_head import Head, NetworkConfig
from uns_pose_ros.training.adaptation.fine_tuning import (
    HeldOutFigures,
    HeldOutImage,
    Judgment,
    fine_tune,
    judge,
)
from uns_pose_ros.training.adaptation.resting_objects import RestingObject
from uns_pose_ros.training.training_views import TrainConfig, Views

OBJECT = pose((10.0, -5.0, 70.0), (0.05, -0.03, 0.02))
NETWORK = NetworkConfig(layers=(11,), width=8, blocks=0, features=4, clutter=2)


def seen(k: int, turn: float = 0.0, flip: bool = False) -> PoseEstimate:
    """The object in image k, turned by some degrees, about six axes in turns."""
    x, y, z = (turn * (-1) ** k * (k // 2 % 3 == axis) for axis in range(3))
    wrong = pose((x, y, z), (0.0, 0.0, 0.0))
    own = orbit(12)[k] @ OBJECT @ wrong
    return estimate(own @ HALF_TURN if flip else own)


def held_out(errors: Sequence[float | None]) -> list[HeldOutImage]:
    return [
        HeldOutImage(k, torch.linalg.inv(orbit(12)[k]), None if e is None else seen(k, e))
        for k, e in enumerate(errors)
    ]


def judgment(
    before: Sequence[float | None], after: Sequence[PoseEstimate | None]
) -> Judgment:
    thing = RestingObject(OBJECT, 0.2, ())
    answers = {k: [] if one is None else [one] for k, one in enumerate(after)}
    result = judge([(thing, held_out(before))], answers)
    assert isinstance(result, Judgment), result
    return result


def test_a_model_whose_held_out_images_agree_better_is_kept() -> None:
    result = judgment([20.0] * 6, [seen(k, 8.0) for k in range(6)])
    assert result.kept
    assert result.before[0].acc15 == 0 and result.after[0].acc15 == 100
    assert result.before[0].median_deg == pytest.approx(20, abs=0.1)
    assert result.after[1].median_deg == pytest.approx(8, abs=0.1)


@pytest.mark.parametrize(
    ("after", "reason"),
    [
        ([seen(k, 20.0) for k in range(6)], "not better"),
        ([None, *(seen(k, 8.0) for k in range(1, 6))], "not better"),
        ([seen(k, 2.0, flip=True) for k in range(6)], "another rotation"),
        ([seen(k, 2.0, flip=k == 0) for k in range(6)], "not better"),
    ],
    ids=["as before", "one unanswered", "all flipped", "one flipped"],
)
def test_a_model_that_is_not_better_or_sees_another_pose_is_not_kept(
    after: list[PoseEstimate | None], reason: str
) -> None:
    before = [20.0, 20.0, 20.0, 20.0, 14.0, 14.0]
    assert reason in judgment(before, after).reason


def test_a_model_that_gains_on_average_may_be_a_little_farther_from_the_old_pose() -> None:
    """Its own fused pose is better matched: fewer are far off, though the best are not as good."""
    before = [2.0, 2.0, 2.0, 2.0, 25.0, 25.0]
    result = judgment(before, [seen(k, 6.0) for k in range(6)])
    assert result.after[0].median_deg > result.before[0].median_deg
    assert result.after[0].mean_deg < result.before[0].mean_deg
    assert result.kept


def test_images_without_an_estimate_before_are_wrong_and_may_be_won() -> None:
    result = judgment([None, *[14.0] * 5], [seen(k, 9.0) for k in range(6)])
    assert result.before[0].answered == pytest.approx(100 * 5 / 6)
    assert result.kept and result.after[0].answered == 100


def test_an_estimate_elsewhere_in_the_image_is_not_of_the_object() -> None:
    away = pose((0.0, 0.0, 0.0), (1.0, 0.0, 0.0))
    moved = [
        replace(seen(k), cam_from_canon=away @ seen(k).cam_from_canon) for k in range(6)
    ]
    thing = RestingObject(OBJECT, 0.2, ())
    answer = judge([(thing, held_out([5.0] * 6))], {k: [m] for k, m in enumerate(moved)})
    assert answer == "the held-out images do not agree on the rotation of an object"


def test_without_held_out_images_nothing_is_judged() -> None:
    assert judge([], {}) == "no image is held out"


def test_figures_count_a_missing_estimate_as_wrong() -> None:
    figures = HeldOutFigures.of([5.0, 12.0, 25.0, None])
    assert (figures.acc10, figures.acc15, figures.acc30) == (25, 50, 75)
    assert figures.answered == 75


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


def test_the_head_learns_further_from_what_it_knew() -> None:
    model = small_model()
    views = views_of_seed(model, 1)
    still = fine_tune(model, views, replace(CONFIG, learning_rate=1e-12, steps=2))
    for name, tensor in model.head.items():
        assert torch.allclose(still.head[name], tensor, atol=1e-6), name
    assert torch.allclose(still.vertex_features, model.vertex_features, atol=1e-6)
    tuned = fine_tune(model, views, CONFIG)
    assert loss(tuned, views) < loss(still, views) - 0.2
    assert tuned.category == "mug" and torch.equal(tuned.vertices, model.vertices)
    assert torch.allclose(tuned.vertex_features.norm(dim=1), torch.ones(4))


def test_what_is_replayed_keeps_its_features_while_the_new_is_learned() -> None:
    model = small_model()
    new, known = views_of_seed(model, 1), views_of_seed(model, 2)
    alone = fine_tune(model, new, CONFIG)
    beside = fine_tune(model, new, CONFIG, replay=known)
    before = features(model, known)
    moved = [float((features(one, known) - before).norm()) for one in (alone, beside)]
    assert moved[1] < 0.75 * moved[0], "it is 0.60"
    assert loss(beside, new) < loss(model, new)


def features(model: CategoryModel, views: Views) -> Tensor:
    with torch.no_grad():
        result: Tensor = head_of(model)(views.tokens.float())
    return result


def head_of(model: CategoryModel) -> Head:
    head = Head(NETWORK, 4, 384)
    weights = {"vertex_features": model.vertex_features}
    weights["background_features"] = model.background_features
    head.load_state_dict({**model.head, **weights})
    return head


def loss(model: CategoryModel, views: Views) -> float:
    """Mean cross-entropy of the cells that show the background."""
    head = head_of(model)
    with torch.no_grad():
        logits = head.logits(head(views.tokens.float())).flatten(1, 2)
    chance = torch.log_softmax(logits, -1)[..., 4:].logsumexp(-1)
    return -float(chance[views.background].mean())
