"""Train the head on random views: which template vertex does each cell show?

Source: Sommer et al., CVPR 2024 (arXiv 2407.04384), section 3.3. Changed: targets spread over
neighboring vertices and over the symmetry group, the background has several features, videos weigh
by their confidence.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from uns_pose_ros.core.device import autocast, choose_precision, compute_dtype
from uns_pose_ros.core.geometry import symmetry_rotations
from uns_pose_ros.core.types import Progress, Symmetry
from uns_pose_ros.io.checkpoint import Checkpoint
from uns_pose_ros.networks.correspondence_head import Head
from uns_pose_ros.networks.dinov2 import CHANNELS
from uns_pose_ros.training.coarse_rotation_training import fit_coarse_rotation
from uns_pose_ros.training.distributed import DistributedContext
from uns_pose_ros.training.likeness_training import fit_likeness
from uns_pose_ros.training.training_state import (
    Curve,
    TrainingParts,
    keep_state,
    resume_state,
)
from uns_pose_ros.training.training_views import TrainConfig, Views

_LOSSES, _WATCHED = ("step", "object", "background"), ("watched_step", "watched_accuracy")
# steps between two evaluations on the watched views, and between two checkpoints
_EVERY = 100
_NEAR = 0.1  # canonical units: a vertex this close to the point that a cell shows is right
_MOST = 48  # watched views that are evaluated


def fit_head(
    views: Views,
    vertices: Tensor,
    symmetry: Symmetry,
    config: TrainConfig,
    seed: int = 0,
    progress: Progress | None = None,
    device: torch.device = torch.device("cpu"),
    checkpoint: Checkpoint | None = None,
    context: DistributedContext = DistributedContext(),
    watch: Callable[[Curve], object] | None = None,
    initial: Head | None = None,
) -> tuple[Head, Curve]:
    """Train a head on views.

    Args:
        views: The random views.
        vertices: Template vertices (V, 3).
        symmetry: Symmetry of the category.
        config: Settings.
        seed: Seed of weights and batches.
        progress: Receives the number of steps that are done.
        device: Device of the training.
        checkpoint: Where the state is kept, to continue after a kill.
        context: This process among those that train the model.
        watch: Receives the curve from time to time.
        initial: A head on the device that learns further; None: a new one.

    Returns:
        The head, and its curve: `step` with the losses on `object` and `background`, nats;
        `watched_step` with `watched_accuracy`, the percentage of cells of the watched views (which
        the head does not learn from) whose likeliest vertex is the right one or near it.
    """
    generator = torch.Generator().manual_seed(seed + 1000 * context.rank)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = initial or Head(
            config.network, len(vertices), len(config.network.layers) * CHANNELS
        ).to(device)
    optimizer = torch.optim.AdamW(
        head.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        config.learning_rate,
        total_steps=config.steps,
        pct_start=_warm_up(config.steps),
    )
    rotations = (
        symmetry_rotations(symmetry.order, symmetry.axis, steps=12).float().to(device)
    )
    turned = vertices.to(device) @ rotations.mT  # (G, V, 3)
    batch = -(-config.batch // context.world)
    # a processor without instructions for bfloat16 emulates it, many times slower than float32
    kind = compute_dtype(choose_precision(device))
    weight = views.weight.cpu()
    watched = (views.weight == 0).nonzero()[:_MOST, 0]
    losses = partial(_losses, head, turned, config)
    parts = TrainingParts(head, optimizer, schedule, generator)
    first, curve = resume_state(checkpoint, parts, config.steps, context)
    for step in range(first, config.steps):
        pick = torch.multinomial(weight, batch, replacement=True, generator=generator).to(
            device
        )
        order = torch.rand(batch, views.canon.shape[1], generator=generator).to(device)
        kept = (
            torch.rand(batch, views.tokens.shape[-1], generator=generator) >= config.dropout
        ) / (1 - config.dropout)
        tokens = views.tokens[pick].to(kind) * kept.to(device, kind)[:, None, None]
        canon, background = views.canon[pick].float(), views.background[pick]
        on_object, on_background = losses(tokens, canon, background, order)
        loss = on_object + config.background * on_background
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        context.average_gradients(head.parameters())
        optimizer.step()
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
                keep_state(checkpoint, parts, step + 1, curve)
        if progress is not None:
            progress("training", step + 1, config.steps)
    if initial is None:  # what a head knows of the category, few places do not make better
        fit_likeness(head, views, seed, context)
        fit_coarse_rotation(head, views, seed, context)
    return head.eval(), curve


def _warm_up(steps: int) -> float:
    """Share of the steps in which the learning rate rises; it cannot rise in one step."""
    return 0.2 if steps == 10 else 0.1


def _note(curve: Curve, names: tuple[str, ...], values: tuple[float, ...]) -> None:
    for name, value in zip(names, values, strict=True):
        curve.setdefault(name, []).append(value)


def _accuracy(
    head: Head, turned: Tensor, tokens: Tensor, canon: Tensor, batch: int
) -> float:
    """Percentage of the cells that show the object whose likeliest vertex is right or near it.

    Args:
        head: The head.
        turned: Template vertices (G, V, 3) under the symmetry group.
        tokens: Tokens (N, h, w, L * C) of the views.
        canon: Canonical points (N, P, 3) of their cells; nan for no object.
        batch: Number of views at a time.
    """
    right = 0
    shown = 0
    kind = compute_dtype(choose_precision(tokens.device))
    head.eval()
    for start in range(0, len(tokens), batch):
        part = slice(start, start + batch)
        with autocast(tokens.device, choose_precision(tokens.device)):
            logits = head.logits(head(tokens[part].to(kind))).flatten(1, 2)
        visible = canon[part, :, 0].isfinite()
        answer = logits[visible][:, : turned.shape[1]].argmax(-1)
        apart = (turned[:, answer] - canon[part][visible]).norm(dim=-1).amin(0)
        right += int((apart < _NEAR).sum())
        shown += len(apart)
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
    """Mean cross-entropy, nats, of cells that show the object, and of cells that do not.

    Args:
        head: The head.
        turned: Template vertices (G, V, 3) under the symmetry group.
        config: Settings.
        tokens: Tokens (B, h, w, L * C) of the views.
        canon: Canonical points (B, P, 3) of their cells; nan for no object.
        background: (B, P) bool, cells that show no object.
        order: Random numbers (B, P): the cells with the smallest ones are used.
    """
    group, count, _ = turned.shape
    with autocast(tokens.device, choose_precision(tokens.device)):
        shown = _some(canon[..., 0].isfinite(), order, config.places)
        elsewhere = _some(background, order, config.places // 2)
        logits = head.logits(head.at(tokens, torch.cat([shown, elsewhere])))
        on, off = logits.split([len(shown), len(elsewhere)])
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
    """Choose at most `most` valid cells (B, P) of each view, those with the smallest `order`.

    Returns their indices into the flattened cells of all views.
    """
    rank = order.masked_fill(~valid, 2.0)
    value, place = rank.topk(min(most, rank.shape[1]), dim=1, largest=False, sorted=False)
    flat = place + torch.arange(len(valid), device=valid.device)[:, None] * valid.shape[1]
    return flat[value < 2.0]
