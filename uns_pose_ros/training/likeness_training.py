"""Fit the classifier that tells tokens of the category from all others.

It is a logistic regression with a strong penalty on the tokens of the views, on equal terms for
objects and for the rest. A weaker penalty, or gradient steps beside those of the head, tell the
views better apart and the world worse.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit
from torch import Tensor

from uns_pose_ros.networks.correspondence_head import Head, normalize_last_layer
from uns_pose_ros.training.distributed import DistributedContext
from uns_pose_ros.training.training_views import Views

_MOST = 8000  # tokens of each kind
_PENALTY = (
    0.2  # on the squared weights, of tokens of variance 1, beside the mean cross-entropy
)
_ITERATIONS = 60


def fit_likeness(
    head: Head, views: Views, seed: int, context: DistributedContext = DistributedContext()
) -> None:
    """Fit a head's classifier to the views that are learned from; without both kinds, not at all.

    Several processes, each with views of its own, take the mean of their classifiers.

    Args:
        head: The head, whose classifier is set.
        views: The views.
        seed: Seed of the choice of tokens.
        context: This process among those that train the model.
    """
    _, rows, columns, _ = views.tokens.shape
    learned = views.weight > 0
    generator = torch.Generator().manual_seed(seed)
    kinds = [views.canon[..., 0].isfinite(), views.background]
    objects, rest = (
        _choose(views.tokens, whole_tokens(cells, rows, columns), learned, generator)
        for cells in kinds
    )
    fitted = torch.zeros(len(head.likeness_weight) + 1)
    if len(objects) and len(rest):
        fitted = tell_apart(objects, rest, _PENALTY)
    fitted = context.average(fitted.to(head.likeness_weight.device))
    head.likeness_weight.copy_(fitted[:-1])
    head.likeness_bias.copy_(fitted[-1:])


def whole_tokens(cells: Tensor, rows: int, columns: int) -> Tensor:
    """(N, rows, columns) bool: the tokens all of whose 2 x 2 cells (N, P) are true."""
    return cells.unflatten(1, (rows, 2, columns, 2)).all(4).all(2)


def _choose(
    tokens: Tensor, which: Tensor, learned: Tensor, generator: torch.Generator
) -> Tensor:
    """Choose some normalized tokens (K, 384) of those that are true in `which` (N, h, w)."""
    places = (which & learned[:, None, None]).nonzero().cpu()
    order = torch.randperm(len(places), generator=generator)[:_MOST]
    view, row, column = places[order].to(tokens.device).unbind(1)
    return normalize_last_layer(tokens[view, row, column])


def tell_apart(on: Tensor, off: Tensor, penalty: float) -> Tensor:
    """Fit a logistic regression that tells two kinds of normalized tokens apart.

    Args:
        on: (K, C).
        off: (N, C), which weigh as much as those.
        penalty: On the squared weights, beside the mean cross-entropies, nats.

    Returns:
        Weights and bias (C + 1,) float32 of the log odds of the first kind, on the CPU.
    """
    kinds = [(on.cpu().numpy(), 1.0), (off.cpu().numpy(), -1.0)]

    def cost(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weight = values[:-1].astype(np.float32)
        loss, slope = 0.0, np.zeros_like(values)
        for tokens, sign in kinds:
            logit = sign * (tokens @ weight + np.float32(values[-1]))
            loss += float(np.logaddexp(0, -logit).mean())
            share = -sign * expit(-logit) / len(tokens)
            slope[:-1] += share @ tokens
            slope[-1] += share.sum()
        slope[:-1] += 2 * penalty * values[:-1]
        return loss + penalty * float(values[:-1] @ values[:-1]), slope

    start = np.zeros(on.shape[1] + 1)
    limits = {"maxiter": _ITERATIONS}
    best = minimize(cost, start, jac=True, method="L-BFGS-B", options=limits).x
    return torch.from_numpy(np.asarray(best, np.float32))
