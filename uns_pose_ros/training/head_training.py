"""The head learns from random views which template vertex each of their places shows.

Source: Sommer et al., CVPR 2024 (arXiv 2407.04384), section 3.3. Changed: targets spread over
neighbouring vertices and over the symmetry group, clutter has several features, videos weigh by
their confidence.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from uns_pose_ros.core.device import autocast, choose_precision, compute_dtype
from uns_pose_ros.core.geometry import symmetry_rotations
from uns_pose_ros.core.types import Progress, Symmetry
from uns_pose_ros.io.checkpoint import Unfinished
from uns_pose_ros.networks.correspondence_head import Head
from uns_pose_ros.networks.dinov2 import CHANNELS
from uns_pose_ros.training.distributed import DistributedContext
from uns_pose_ros.training.training_views import TrainConfig, Views

Curve = dict[str, list[float]]  # see `fit_head`
_LOSSES, _WATCHED = ("step", "object", "background"), ("watched_step", "watched_accuracy")
# steps between two looks at the views that are not learned from, and between two states kept
_EVERY = 100
_NEAR = 0.1  # canonical units: a vertex this close to what a place shows is right
_MOST = 48  # views that are looked at


def fit_head(
    views: Views,
    vertices: Tensor,
    symmetry: Symmetry,
    config: TrainConfig,
    seed: int = 0,
    progress: Progress | None = None,
    device: torch.device = torch.device("cpu"),
    checkpoint: Unfinished | None = None,
    context: DistributedContext = DistributedContext(),
    watch: Callable[[Curve], object] | None = None,
) -> tuple[Head, Curve]:
    """A head trained on views for template vertices (V, 3), and how that went.

    The curve: step, and losses on object and background, nats; watched_step, and watched_accuracy,
    percent of the places of the views that are not learned from whose likeliest vertex is the right
    one or near it. watch: gets the curve now and then.
    """
    generator = torch.Generator().manual_seed(seed + 1000 * context.rank)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = Head(
            config.network, len(vertices), len(config.network.layers) * CHANNELS
        ).to(device)
    optimiser = torch.optim.AdamW(
        head.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, config.learning_rate, total_steps=config.steps, pct_start=0.1
    )
    rotations = (
        symmetry_rotations(symmetry.order, symmetry.axis, steps=12).float().to(device)
    )
    turned = vertices.to(device) @ rotations.mT  # (G, V, 3)
    batch = -(-config.batch // context.world)
    # a processor without instructions for bfloat16 emulates it, many times slower than float32
    kind = compute_dtype(choose_precision(device))
    weight, watched = views.weight.cpu(), (views.weight == 0).nonzero()[:_MOST, 0]
    losses, state = (
        partial(_losses, head, turned, config),
        (head, optimiser, schedule, generator),
    )
    first, curve = _resume(checkpoint, *state)
    for step in range(first, config.steps):
        pick = torch.multinomial(weight, batch, replacement=True, generator=generator).to(
            device
        )
        order = torch.rand(batch, views.canon.shape[1], generator=generator).to(device)
        kept = (
            torch.rand(batch, views.tokens.shape[-1], generator=generator) >= config.dropout
        ) / (1 - config.dropout)
        tokens = views.tokens[pick].to(kind) * kept.to(device, kind)[:, None, None]
        on_object, on_background = losses(
            tokens, views.canon[pick].float(), views.background[pick], order
        )
        loss = on_object + config.background * on_background
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        context.average_gradients(head.parameters())
        optimiser.step()
        schedule.step()
        last = step == config.steps - 1
        if step % 20 == 0 or last:
            _note(
                curve,
                _LOSSES,
                (step, float(on_object.detach()), float(on_background.detach())),
            )
        if (step + 1) % _EVERY == 0 or last:
            if len(watched):
                right = _accuracy(
                    head, turned, views.tokens[watched], views.canon[watched].float(), batch
                )
                _note(curve, _WATCHED, (step, right))
            if watch is not None:
                watch(curve)
            if checkpoint is not None:
                _keep(checkpoint, *state, step + 1, curve)
        if progress is not None:
            progress("training", step + 1, config.steps)
    return head.eval(), curve


def _note(curve: Curve, names: tuple[str, ...], values: tuple[float, ...]) -> None:
    for name, value in zip(names, values, strict=True):
        curve.setdefault(name, []).append(value)


def _keep(
    checkpoint: Unfinished,
    head: Head,
    optimiser: torch.optim.Optimizer,
    schedule: Any,
    generator: torch.Generator,
    step: int,
    curve: Curve,
) -> None:
    """Leave the state of the training before `step`."""
    there = optimiser.state_dict()
    tensors = {f"head.{name}": tensor for name, tensor in head.state_dict().items()}
    tensors |= {
        f"state.{k}.{name}": tensor
        for k, moments in there["state"].items()
        for name, tensor in moments.items()
    }
    tensors["generator"] = generator.get_state()
    facts = {
        "step": step,
        "curve": curve,
        "groups": there["param_groups"],
        "schedule": schedule.state_dict(),
    }
    checkpoint.save(tensors, facts)


def _resume(
    checkpoint: Unfinished | None,
    head: Head,
    optimiser: torch.optim.Optimizer,
    schedule: Any,
    generator: torch.Generator,
) -> tuple[int, Curve]:
    """The step to go on with and the curve so far, everything else in the state in which it was
    left.
    """
    left = None if checkpoint is None else checkpoint.load()
    if left is None:
        return 0, {}
    tensors, facts = left
    head.load_state_dict(
        {
            name.removeprefix("head."): tensor
            for name, tensor in tensors.items()
            if name.startswith("head.")
        }
    )
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("state."):
            _, number, what = name.split(".")
            moments.setdefault(int(number), {})[what] = tensor
    optimiser.load_state_dict({"state": moments, "param_groups": facts["groups"]})
    schedule.load_state_dict(facts["schedule"])
    generator.set_state(tensors["generator"])
    return facts["step"], facts["curve"]


@torch.no_grad()
def _accuracy(
    head: Head, turned: Tensor, tokens: Tensor, canon: Tensor, batch: int
) -> float:
    """Percent of the places (N, P, 3) that show the object whose likeliest vertex is where, or
    beside where, it should be.
    """
    right = shown = 0
    kind = compute_dtype(choose_precision(tokens.device))
    head.eval()
    for start in range(0, len(tokens), batch):
        part = slice(start, start + batch)
        with autocast(tokens.device, choose_precision(tokens.device)):
            logits = head.logits(head(tokens[part].to(kind))).flatten(1, 2)
        there = canon[part, :, 0].isfinite()
        answer = logits[there][:, : turned.shape[1]].argmax(-1)
        apart = (turned[:, answer] - canon[part][there]).norm(dim=-1).amin(0)
        right, shown = right + int((apart < _NEAR).sum()), shown + len(apart)
    head.train()
    return 100 * right / max(shown, 1)


def _losses(
    head: Head,
    turned: Tensor,
    config: TrainConfig,
    tokens: Tensor,
    canon: Tensor,
    background: Tensor,
    order: Tensor,
) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy, nats, of places that show the object and of others.

    Some of each view, by random order (B, P).
    """
    group, count, _ = turned.shape
    with autocast(tokens.device, choose_precision(tokens.device)):
        features = head(tokens).flatten(0, 2)
        shown = _some(canon[..., 0].isfinite(), order, config.places)
        elsewhere = _some(background, order, config.places // 2)
        on, off = head.logits(features[shown]), head.logits(features[elsewhere])
    square = torch.cdist(canon.flatten(0, 1)[shown], turned.reshape(-1, 3)).square_()
    target = (
        torch.softmax(square.div_(-2 * config.spread**2), -1)
        .unflatten(-1, (group, count))
        .sum(1)
    )
    on, off = torch.log_softmax(on.float(), -1), torch.log_softmax(off.float(), -1)
    on_object = -(target * on[:, :count]).sum(-1).sum() / max(len(on), 1)
    on_background = -torch.logsumexp(off[:, count:], -1).sum() / max(len(off), 1)
    return on_object, on_background


def _some(valid: Tensor, order: Tensor, most: int) -> Tensor:
    """Indices of at most `most` valid places a view, of all views' flattened places.

    Those first by `order`.
    """
    rank = order.masked_fill(~valid, 2.0)
    value, place = rank.topk(most, dim=1, largest=False, sorted=False)
    flat = place + torch.arange(len(valid), device=valid.device)[:, None] * valid.shape[1]
    return flat[value < 2.0]
