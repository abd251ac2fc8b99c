"""A head that a recording has taught, for the crops that show its object.

Other objects of the category keep the head of the training: what is learned of one mug costs the
others nothing. `training.adaptation` teaches it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from uns_pose_ros.core.types import TaughtObject
from uns_pose_ros.networks.correspondence_head import Head, NetworkConfig, normalize_layers

_SHOWN = 0.5  # least probability that a token shows the object


class TaughtHead:
    """A taught head on a device, and what tells its object."""

    def __init__(
        self,
        taught: TaughtObject,
        config: NetworkConfig,
        vertices: int,
        channels: int,
        device: torch.device,
    ) -> None:
        """Load a head.

        Args:
            taught: The weights.
            config: Shape of the model's heads.
            vertices: Number of the template's vertices.
            channels: Channels of the tokens, L * C.
            device: The device.

        Raises:
            RuntimeError, ValueError: The weights are not those of such a head.
        """
        if len(taught.weight) != channels:
            raise ValueError(f"a taught object is told by {len(taught.weight)} channels")
        head = Head(config, vertices, channels)
        head.load(taught.head)
        self.head = head.eval().requires_grad_(False).to(device)
        self._weight, self._bias = taught.weight.to(device), taught.bias.to(device)

    def likeness(self, means: Tensor) -> Tensor:
        """Log odds (B,), beyond the limit, that crops show the object.

        Args:
            means: (B, L * C) see `mean_of_object`.
        """
        return means @ self._weight + self._bias


def recognize(
    heads: Sequence[TaughtHead], tokens: Tensor, presence: Tensor
) -> tuple[Tensor, Tensor]:
    """Tell which taught object each crop shows.

    Args:
        heads: At least one.
        tokens: (B, h, w, L * C).
        presence: (B, 2h, 2w) probability that a cell shows an object of the category.

    Returns:
        The likeliest of the heads (B,) int64, and whether the crop shows its object (B,) bool.
    """
    shown = avg_pool2d(presence[:, None].float(), 2)[:, 0] > _SHOWN
    means = mean_of_object(tokens, shown)
    odds, likeliest = torch.stack([head.likeness(means) for head in heads]).max(0)
    return likeliest, (odds > 0) & shown.flatten(1).any(1)


def mean_of_object(tokens: Tensor, shown: Tensor) -> Tensor:
    """Mean of the normalized tokens of an object.

    Args:
        tokens: (B, h, w, L * C).
        shown: (B, h, w) bool, the tokens that show it.

    Returns:
        (B, L * C) float32; 0 where none shows it.
    """
    weight = shown.flatten(1).float()
    weight = weight / weight.sum(1, keepdim=True).clamp_min(1)
    return (weight[:, None] @ normalize_layers(tokens).flatten(1, 2))[:, 0]
