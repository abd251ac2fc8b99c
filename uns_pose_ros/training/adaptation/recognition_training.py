"""Learn what tells an object of a recording from the others of its category.

A logistic regression on tokens tells the object from the instances of the training. The limit lies
midway between what half of the object's views reach and what few views of other instances exceed,
each by regressions that have not learned from them: those of the other half of the object's images,
and those without these instances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from uns_pose_ros.estimation.taught_head import mean_of_object
from uns_pose_ros.networks.correspondence_head import normalize_layers
from uns_pose_ros.training.likeness_training import tell_apart, whole_tokens
from uns_pose_ros.training.training_views import Views

_MOST = 8000  # tokens of each kind
_PENALTY = 0.05  # see `tell_apart`
_EXCEED = 0.02  # share of the views of other instances that may look more like the object
_PARTS = 4  # into which the other instances are divided
_BATCH = 64


@dataclass(frozen=True, eq=False)
class _Shown:
    """The tokens of the object in each of N views."""

    tokens: Tensor  # (T, L * C) float32, normalized, of all views
    means: Tensor  # (N, L * C)

    @staticmethod
    def of(views: Views, chosen: Tensor) -> _Shown:
        """The objects of the views (N,) int64; views that show none are left out."""
        _, rows, columns, _ = views.tokens.shape
        shown = whole_tokens(views.canon[chosen][..., 0].isfinite(), rows, columns)
        some = shown.flatten(1).any(1)
        chosen, shown = chosen[some], shown[some]
        tokens = normalize_layers(views.tokens[chosen][shown])
        means = [
            mean_of_object(views.tokens[part], own)
            for part, own in zip(chosen.split(_BATCH), shown.split(_BATCH), strict=True)
        ]
        return _Shown(tokens.cpu(), torch.cat(means).cpu())


def learn_recognition(views: Views, others: Views, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Learn to recognize an object.

    Args:
        views: Views of the object, in the order of the images.
        others: Views of other instances.
        seed: Seed of the choice of tokens.

    Returns:
        Weights (L * C,) and bias (1,), see `TaughtObject`; an object of which too little is seen is
        never recognized.
    """
    generator = torch.Generator().manual_seed(seed)
    names = others.video.unique().tolist()
    # parts of the other instances; of a single one, of its images
    groups = [
        torch.isin(others.video, others.video.new_tensor(names[k::_PARTS])).nonzero()[:, 0]
        for k in range(min(_PARTS, len(names)))
    ]
    if len(groups) == 1:
        groups = list(groups[0].tensor_split(2))
    rest = [_Shown.of(others, group) for group in groups]
    images = torch.arange(len(views), device=views.video.device)
    halves = [_Shown.of(views, half) for half in images.tensor_split(2)]
    if not all(len(part.tokens) for part in (*halves, *rest)):
        return torch.zeros(views.tokens.shape[-1]), torch.tensor([-1.0])
    reached = _judge(halves, rest, generator).quantile(0.5)
    exceeded = -_judge(rest, halves, generator).quantile(_EXCEED)
    weight, bias = _tell(halves, rest, generator)
    return weight, (bias - (reached + exceeded) / 2)[None]


def _judge(
    parts: Sequence[_Shown], others: Sequence[_Shown], generator: torch.Generator
) -> Tensor:
    """Log odds (N,) that the views of some parts are not of the others.

    Each part is judged by a regression of the other parts.
    """
    odds = []
    for left_out in parts:
        known = [part for part in parts if part is not left_out]
        weight, bias = _tell(known, others, generator)
        odds.append(left_out.means @ weight + bias)
    return torch.cat(odds)


def _tell(
    on: Sequence[_Shown], off: Sequence[_Shown], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Weights (L * C,) and bias () of a regression that tells parts from others."""
    kinds = []
    for parts in (on, off):
        tokens = torch.cat([part.tokens for part in parts])
        kinds.append(tokens[torch.randperm(len(tokens), generator=generator)[:_MOST]])
    fitted = tell_apart(kinds[0], kinds[1], _PENALTY)
    return fitted[:-1], fitted[-1]
