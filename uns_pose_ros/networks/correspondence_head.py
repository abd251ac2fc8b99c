"""The dense-correspondence network: a distribution over template vertices for every cell.

tokens   (B, h, w, L * 384)   tokens of the frozen backbone, of one or more layers, 14 px apart
features (B, 2h, 2w, D)       unit features that the head computes, 7 px apart
vertex_features (V, D)        unit features of the template's vertices
background_features (K, D)    unit features of everything else
logits   (B, 2h, 2w, V + K)   cosine / temperature
likeness (B, h, w)            log odds that a token shows the category, whatever its vertex
rotation (B, 9)               rows of the rotation matrix that all tokens together tell, coarsely

Source: Sommer et al., CVPR 2024 (arXiv 2407.04384), section 3.3; there with 128 channels at stride
8.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from uns_pose_ros.networks.coarse_rotation import MOMENTS, pool_tokens
from uns_pose_ros.networks.dinov2 import CHANNELS

STRIDE = 7  # px between features


@dataclass(frozen=True)
class NetworkConfig:
    """Shape of the head."""

    layers: tuple[int, ...] = (5, 8, 11)  # backbone blocks whose tokens the head reads
    width: int = 192  # channels inside
    blocks: int = 2
    features: int = 64  # D
    clutter: int = 8  # K, number of background features
    temperature: float = 0.07


class ResidualBlock(nn.Module):
    """Residual 3 x 3 convolution between two 1 x 1; each cell also gets the mean of the map."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, width)
        self.reduce = nn.Conv2d(width, width // 2, 1)
        self.mix = nn.Conv2d(width // 2, width // 2, 3, padding=1)
        self.whole = nn.Linear(width, width // 2)
        self.expand = nn.Conv2d(width // 2, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map features (B, C, H, W) to features of the same shape."""
        inner = self.norm(x)
        whole = self.whole(inner.mean((2, 3)))[..., None, None]
        return x + self.expand(
            functional.gelu(self.mix(functional.gelu(self.reduce(inner))) + whole)
        )

    def at(self, x: Tensor, cells: Tensor) -> Tensor:
        """Map features (B, C, H, W) to those of some cells alone, which takes less time.

        Args:
            x: Features.
            cells: (K,) rows of the table (B H W, C) of the result of `forward`.

        Returns:
            (K, C).
        """
        _, _, rows, columns = x.shape
        inner = self.norm(x)
        whole = self.whole(inner.mean((2, 3)))
        # a rim of zeros, as the convolution has it
        reduced = functional.pad(functional.gelu(self.reduce(inner)), (1, 1, 1, 1))
        number, place = cells // (rows * columns), cells % (rows * columns)
        corner = (number * (rows + 2) + place // columns) * (columns + 2) + place % columns
        steps = torch.arange(3, device=cells.device)
        steps = (steps[:, None] * (columns + 2) + steps).flatten()
        around = reduced.permute(0, 2, 3, 1).flatten(0, 2)
        around = around.index_select(0, (corner[:, None] + steps).flatten())
        weight = self.mix.weight.permute(0, 2, 3, 1).flatten(1)
        mixed = functional.linear(around.view(len(cells), -1), weight, self.mix.bias)
        mixed = functional.gelu(mixed + whole.index_select(0, number))
        own = x.permute(0, 2, 3, 1).flatten(0, 2).index_select(0, cells)
        return own + _pointwise(self.expand, mixed)


def _pointwise(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """Apply a 1 x 1 convolution to features (K, C) of cells."""
    return functional.linear(x, layer.weight.flatten(1), layer.bias)


class Head(nn.Module):
    """Maps tokens to unit features, and owns the features of the vertices and the background.

    Beside them a linear classifier tells tokens of the category from all others. It reads the last
    layer as it comes from the backbone, so that it holds in places that the head has never seen.
    `training.likeness_training` fits it. A linear map tells a coarse rotation from all tokens.
    """

    likeness_weight: Tensor  # (384,)
    likeness_bias: Tensor  # (1,)
    rotation_weight: Tensor  # (9, 5 * L * 384) of the numbers of `pool_tokens`
    rotation_bias: Tensor  # (9,)
    rotation_precision: Tensor  # (9, 9) of the result; 0: nothing is known

    def __init__(self, config: NetworkConfig, vertices: int, token_channels: int) -> None:
        super().__init__()
        self.config = config
        self.norm = nn.LayerNorm(token_channels)
        self.enter = nn.Linear(token_channels, config.width)
        self.coarse = nn.Sequential(
            *(ResidualBlock(config.width) for _ in range(config.blocks))
        )
        self.fine = ResidualBlock(config.width)
        self.leave = nn.Conv2d(config.width, config.features, 1)
        self.vertex_features = nn.Parameter(torch.randn(vertices, config.features))
        self.background_features = nn.Parameter(
            torch.randn(config.clutter, config.features)
        )
        self.register_buffer("likeness_weight", torch.zeros(CHANNELS))
        self.register_buffer("likeness_bias", torch.zeros(1))
        self.register_buffer("rotation_weight", torch.zeros(9, MOMENTS * token_channels))
        self.register_buffer("rotation_bias", torch.zeros(9))
        self.register_buffer("rotation_precision", torch.zeros(9, 9))

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Load weights; older ones lack the buffers, which know nothing then."""
        untrained = {name: torch.zeros_like(value) for name, value in self.named_buffers()}
        self.load_state_dict({**untrained, **weights})

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, h, w, L * 384) to unit features (B, 2h, 2w, D)."""
        x = self.fine(self._enlarged(tokens))
        return functional.normalize(self.leave(x).float(), dim=1).permute(0, 2, 3, 1)

    def at(self, tokens: Tensor, cells: Tensor) -> Tensor:
        """Map tokens to the unit features (K, D) of some cells, rows (K,) of (B 2h 2w, D)."""
        x = self.fine.at(self._enlarged(tokens), cells)
        return functional.normalize(_pointwise(self.leave, x).float(), dim=1)

    def _enlarged(self, tokens: Tensor) -> Tensor:
        """Map tokens to features (B, C, 2h, 2w) before the last block."""
        x = self.enter(self.norm(tokens)).permute(0, 3, 1, 2)
        return functional.interpolate(
            self.coarse(x), scale_factor=2, mode="bilinear", align_corners=False
        )

    def likeness(self, tokens: Tensor) -> Tensor:
        """Log odds (B, h, w) that tokens (B, h, w, L * 384) show an object of the category."""
        return normalize_last_layer(tokens) @ self.likeness_weight + self.likeness_bias

    def coarse_rotation(self, tokens: Tensor, presence: Tensor) -> Tensor:
        """Tell rotations (B, 9) of objects; see `coarse_rotation.pool_tokens`."""
        pooled = pool_tokens(tokens, presence)
        return torch.addmm(self.rotation_bias, pooled, self.rotation_weight.T)

    def logits(self, features: Tensor) -> Tensor:
        """Logits (..., V + K) of unit features (..., D), the vertices first."""
        prototypes = functional.normalize(
            torch.cat([self.vertex_features, self.background_features]).float(), dim=-1
        )
        return features @ (prototypes / self.config.temperature).T


def normalize_layers(tokens: Tensor) -> Tensor:
    """Tokens (..., L * 384) as float32, each layer of mean 0 and variance 1."""
    layers = tokens.float().unflatten(-1, (-1, CHANNELS))
    return functional.layer_norm(layers, (CHANNELS,)).flatten(-2)


def normalize_last_layer(tokens: Tensor) -> Tensor:
    """The last layer (..., 384) float32 of tokens (..., L * 384), of mean 0 and variance 1."""
    return functional.layer_norm(tokens[..., -CHANNELS:].float(), (CHANNELS,))
