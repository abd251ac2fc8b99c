"""A coarse rotation of an object, from all of its tokens at once.

Correspondences tell each cell by itself what it shows. Where much is hidden, poses that are far
apart explain them alike. The tokens of the object together tell its rotation to some 15 degrees,
linearly: their mean and how they lie about it. So wrong ones of the poses can be told.

`training.coarse_rotation_training` fits the linear map.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from uns_pose_ros.networks.dinov2 import CHANNELS

MOMENTS = 5  # numbers that describe how one channel lies in the object
_LEAST = -14.0  # log likelihood of a rotation that the map does not expect


@dataclass(frozen=True, eq=False)
class CoarseRotation:
    """Normal distributions of the matrices of rotations, of B crops.

    A rotation maps the canonical frame into a camera that looks at the crop's center.
    """

    mean: Tensor  # (B, 9) rows of the matrices, in the canonical frame of the training
    precision: Tensor  # (9, 9) 0: nothing is known
    turn: Tensor  # (3, 3) of the canonical frame since the training

    def log_likelihood(self, rotation: Tensor) -> Tensor:
        """Compute log likelihoods (..., B) of rotations (..., B, 3, 3), at most 0 and bounded."""
        gap = (rotation @ self.turn).flatten(-2) - self.mean
        square = ((gap @ self.precision) * gap).sum(-1)
        return square.mul(-0.5).exp_().add_(math.exp(_LEAST)).log_()

    def normal_equations(self, rotation: Tensor) -> tuple[Tensor, Tensor]:
        """How the log likelihood grows when rotations (..., B, 3, 3) turn about the camera's axes.

        Returns:
            Gradient (..., B, 3) and information (..., B, 3, 3); next to none where the likelihood
            is at its bound.
        """
        turned = rotation @ self.turn
        gap = turned.flatten(-2) - self.mean
        force = gap @ self.precision
        # the share of the bounded likelihood that depends on the rotation
        share = torch.sigmoid(-0.5 * (force * gap).sum(-1) - _LEAST)[..., None]
        slope = (_turns(rotation.device).to(turned) @ turned[..., None, :, :]).flatten(
            -2
        )  # (..., B, 3, 9)
        gradient = -(slope @ force[..., None])[..., 0] * share
        return gradient, slope @ self.precision @ slope.mT * share[..., None]


@functools.lru_cache(maxsize=4)
def _turns(device: torch.device) -> Tensor:
    """The matrices (3, 3, 3) of the cross products with the three axes."""
    turns = torch.zeros(3, 3, 3)
    for a, b, c in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        turns[a, c, b], turns[a, b, c] = 1.0, -1.0
    return turns.to(device)


def pool_tokens(tokens: Tensor, presence: Tensor) -> Tensor:
    """Describe the tokens of an object by numbers that depend neither on its place nor its size.

    Args:
        tokens: (B, h, w, L * 384), of L layers.
        presence: (B, h, w) probability that a token shows the object.

    Returns:
        (B, 5 * L * 384): the mean of each channel, and the means of its products with the place
        x, y, x y and x^2 - y^2 in the object.
    """
    batch, rows, columns, channels = tokens.shape
    weight = presence.float().flatten(1)
    weight = weight / weight.sum(1, keepdim=True).clamp_min(1e-6)  # (B, P)
    place = torch.stack(
        torch.meshgrid(
            torch.arange(rows, device=tokens.device, dtype=torch.float32),
            torch.arange(columns, device=tokens.device, dtype=torch.float32),
            indexing="ij",
        )
    ).flatten(1)  # (2, P)
    place = place - (weight @ place.T)[..., None]  # (B, 2, P)
    spread = (place.square().sum(1) * weight).sum(1).sqrt().clamp_min(1)
    y, x = (place / spread[:, None, None]).unbind(1)
    shapes = torch.stack([x, y, x * y, x * x - y * y], 1) * weight[:, None]  # (B, 4, P)
    layers = tokens.float().reshape(batch, rows * columns, -1, CHANNELS)
    flat = layer_norm(layers, (CHANNELS,)).view(batch, -1, channels)
    mean = weight[:, None] @ flat  # (B, 1, L * 384)
    # about the mean, so that a channel that is the same everywhere has none
    moments = shapes @ flat - shapes.sum(2, keepdim=True) * mean
    return torch.cat([mean, moments], 1).flatten(1)
