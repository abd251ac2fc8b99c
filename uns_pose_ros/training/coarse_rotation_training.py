"""Fit the linear map from the tokens of an object to its coarse rotation: a ridge regression.

The precision of the map is that of its errors on videos that a map of the others has not learned
from. So it knows nothing of what differs between the instances, such as the angle about the axis
of a symmetry.
"""

from __future__ import annotations

import torch
from torch import Tensor

from uns_pose_ros.core.geometry import look_at_rotation
from uns_pose_ros.networks.coarse_rotation import pool_tokens
from uns_pose_ros.networks.correspondence_head import Head
from uns_pose_ros.networks.dinov2 import PATCH
from uns_pose_ros.training.distributed import DistributedContext
from uns_pose_ros.training.training_views import Views

_MOST = 2400  # views that the map learns from
_PENALTY = 0.3  # on the squared weights, in the mean squared norm of the pooled tokens
_SHOWN = 0.05  # share of the view's tokens that show the object, at least
_PARTS = 4  # into which the videos are divided, for the precision
# errors of this size, of an entry of the matrix, in so many views that are added: few views say
# little of the errors
_TYPICAL, _ADDED = 0.5, 20
_BATCH = 64


def fit_coarse_rotation(
    head: Head, views: Views, seed: int, context: DistributedContext = DistributedContext()
) -> None:
    """Fit a head's map to the views that are learned from; without two videos, not at all.

    Several processes, each with views of its own, take the mean of their maps.

    Args:
        head: The head, whose map and its precision are set.
        views: The views.
        seed: Seed of the choice of views.
        context: This process among those that train the model.
    """
    device = head.rotation_weight.device
    _, rows, columns, _ = views.tokens.shape
    shown = views.canon[..., 0].isfinite().float().unflatten(1, (rows, 2, columns, 2))
    shown = shown.mean((2, 4))  # (N, h, w)
    learned = ((views.weight > 0) & (shown.mean((1, 2)) >= _SHOWN)).nonzero()[:, 0].cpu()
    order = torch.randperm(len(learned), generator=torch.Generator().manual_seed(seed))
    chosen = learned[order[:_MOST]].to(views.tokens.device)
    names, part = views.video[chosen].unique(return_inverse=True)
    fitted = [
        torch.zeros_like(tensor)
        for tensor in (head.rotation_weight, head.rotation_bias, head.rotation_precision)
    ]
    if len(names) > 1:
        pooled = torch.cat(
            [pool_tokens(views.tokens[some], shown[some]) for some in chosen.split(_BATCH)]
        )
        truth = view_rotations(
            views.crop_from_cam[chosen], views.cam_from_canon[chosen], columns * PATCH
        )
        truth = truth.flatten(1).float().to(device)
        weight, bias = _ridge(pooled, truth)
        errors = []
        for number in range(min(_PARTS, len(names))):
            left_out = part % _PARTS == number
            other, offset = _ridge(pooled[~left_out], truth[~left_out])
            errors.append(truth[left_out] - pooled[left_out] @ other.T - offset)
        error = torch.cat(errors).double()
        spread = error.T @ error
        spread.diagonal().add_(_ADDED * _TYPICAL**2)
        spread = spread / (len(error) + _ADDED)
        fitted = [weight, bias, torch.linalg.inv(spread).float()]
    for own, value in zip(
        (head.rotation_weight, head.rotation_bias, head.rotation_precision),
        fitted,
        strict=True,
    ):
        own.copy_(context.average(value))


def view_rotations(crop_from_cam: Tensor, cam_from_canon: Tensor, size: int) -> Tensor:
    """Rotate poses into cameras that look at the centers of views and stand as the views do.

    Args:
        crop_from_cam: (N, 3, 3) homogeneous, from the camera of the image to the view.
        cam_from_canon: (N, 3, 4).
        size: Side of the views, px.

    Returns:
        Rotations (N, 3, 3) float64, on the CPU.
    """
    crop = crop_from_cam.double().cpu()
    middle = torch.tensor([(size - 1) / 2, (size - 1) / 2, 1.0], dtype=torch.float64)
    directions = torch.linalg.inv(crop) @ middle
    turned = torch.from_numpy(look_at_rotation(directions.numpy()))
    crop_from_view = crop @ turned.mT
    crop_from_view = crop_from_view / crop_from_view[:, 2:, 2:]
    slope = (
        crop_from_view[:, :2, :2] - crop_from_view[:, :2, 2:] * crop_from_view[:, 2:, :2]
    )
    angle = torch.atan2(slope[:, 1, 0] - slope[:, 0, 1], slope[:, 0, 0] + slope[:, 1, 1])
    roll = torch.zeros_like(turned)
    roll[:, 0, 0] = roll[:, 1, 1] = angle.cos()
    roll[:, 1, 0], roll[:, 0, 1] = angle.sin(), -angle.sin()
    roll[:, 2, 2] = 1
    return roll @ turned @ cam_from_canon[:, :, :3].double().cpu()


def _ridge(pooled: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (K, F) and biases (K,) that map pooled tokens (N, F) to the truth (N, K)."""
    middle, usual = pooled.mean(0), truth.mean(0)
    apart = pooled - middle
    products = apart @ apart.T
    products.diagonal().add_(_PENALTY * float(products.diagonal().mean()))
    weight = torch.linalg.solve(products, truth - usual).T @ apart
    return weight, usual - weight @ middle
