"""MobileSAM in plain PyTorch: masks of the object at given points of an image.

The whole model is in this file.

Zhang et al., "Faster Segment Anything", arXiv 2306.14289: the decoder of SAM (Kirillov et al., ICCV
2023) on a TinyViT (Wu et al., ECCV 2022). Modules are named as in the authors' checkpoint. All
images are squares of 1024 px: 64 x 64 cells of 256 channels.
"""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.networks import pretrained_weights

SIDE = 1024  # px, longer side of an image, padded to a square
NAME = "mobile_sam"  # of the weights
_CHANNELS = 256
_CELL = 16  # px, side of a cell of the square
_MEAN, _DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


class _ConvNorm(nn.Sequential):
    def __init__(
        self, inner: int, outer: int, size: int = 1, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.add_module(
            "c", nn.Conv2d(inner, outer, size, stride, size // 2, groups=groups, bias=False)
        )
        self.add_module("bn", nn.BatchNorm2d(outer))


class _LayerNorm2d(nn.Module):
    """Layer norm over the channels of (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = (
            nn.Parameter(torch.ones(channels)),
            nn.Parameter(torch.zeros(channels)),
        )

    def forward(self, x: Tensor) -> Tensor:
        output = functional.layer_norm(
            x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, 1e-6
        )
        return output.permute(0, 3, 1, 2)


class _MBConv(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = _ConvNorm(channels, 4 * channels)
        self.conv2 = _ConvNorm(4 * channels, 4 * channels, 3, groups=4 * channels)
        self.conv3 = _ConvNorm(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        inner = functional.gelu(self.conv2(functional.gelu(self.conv1(x))))
        return functional.gelu(x + self.conv3(inner))


class _Merging(nn.Module):
    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _ConvNorm(inner, outer)
        self.conv2 = _ConvNorm(outer, outer, 3, stride, groups=outer)
        self.conv3 = _ConvNorm(outer, outer)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(functional.gelu(self.conv2(functional.gelu(self.conv1(x)))))


class _WindowAttention(nn.Module):
    """Attention within windows (B, N = side ** 2, C), with a bias for each offset."""

    offset: Tensor  # (N, N) int64, into the biases

    def __init__(self, channels: int, heads: int, side: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.qkv = nn.LayerNorm(channels), nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.attention_biases = nn.Parameter(torch.zeros(heads, side * side))
        row, column = (
            torch.arange(side).repeat_interleave(side),
            torch.arange(side).repeat(side),
        )
        offset = (row[:, None] - row).abs() * side + (column[:, None] - column).abs()
        self.register_buffer("offset", offset, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        count, places, channels = x.shape
        packed = self.qkv(self.norm(x)).view(count, places, self.heads, -1).transpose(1, 2)
        query, key, value = packed.chunk(3, -1)
        bias = self.attention_biases[:, self.offset]
        output = functional.scaled_dot_product_attention(query, key, value, bias[None])
        return self.proj(output.transpose(1, 2).reshape(count, places, channels))


class _MLP(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.fc1, self.fc2 = (
            nn.Linear(channels, 4 * channels),
            nn.Linear(4 * channels, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(self.norm(x))))


class _Block(nn.Module):
    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.attn = _WindowAttention(channels, heads, window)
        self.local_conv = _ConvNorm(channels, channels, 3, groups=channels)
        self.mlp = _MLP(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map features (B, C, H, W) to features of the same shape.

        Windows at the right and lower edge are padded with zeros, as in the authors' code.
        """
        count, channels, height, width = x.shape
        side = self.window
        padded = functional.pad(x, (0, -width % side, 0, -height % side))
        rows, columns = padded.shape[2] // side, padded.shape[3] // side
        windows = padded.view(count, channels, rows, side, columns, side).permute(
            0, 2, 4, 3, 5, 1
        )
        output = self.attn(windows.reshape(-1, side * side, channels)).view(
            count, rows, columns, side, side, channels
        )
        output = output.permute(0, 5, 1, 3, 2, 4).reshape(padded.shape)[
            :, :, :height, :width
        ]
        x = self.local_conv(x + output)
        return x + self.mlp(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _Stage(nn.Module):
    def __init__(self, blocks: list[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks, self.downsample = nn.ModuleList(blocks), downsample

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class _Encoder(nn.Module):
    """TinyViT of 5 million parameters: (B, 3, 1024, 1024) to (B, 256, 64, 64)."""

    def __init__(self) -> None:
        super().__init__()
        stem = nn.Sequential(_ConvNorm(3, 32, 3, 2), nn.GELU(), _ConvNorm(32, 64, 3, 2))
        self.patch_embed = nn.ModuleDict({"seq": stem})
        self.layers = nn.Sequential(
            _Stage([_MBConv(64) for _ in range(2)], _Merging(64, 128, 2)),
            _Stage([_Block(128, 4, 7) for _ in range(2)], _Merging(128, 160, 2)),
            _Stage([_Block(160, 5, 14) for _ in range(6)], _Merging(160, 320, 1)),
            _Stage([_Block(320, 10, 7) for _ in range(2)], None),
        )
        self.neck = nn.Sequential(
            nn.Conv2d(320, _CHANNELS, 1, bias=False),
            _LayerNorm2d(_CHANNELS),
            nn.Conv2d(_CHANNELS, _CHANNELS, 3, padding=1, bias=False),
            _LayerNorm2d(_CHANNELS),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.neck(self.layers(self.patch_embed["seq"](x)))


class _Places(nn.Module):
    """Encoding (..., 256) of positions (..., 2), x y as fractions of the square."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer(
            "positional_encoding_gaussian_matrix", torch.zeros(2, _CHANNELS // 2)
        )

    def forward(self, places: Tensor) -> Tensor:
        turns = 2 * math.pi * ((2 * places - 1) @ self.positional_encoding_gaussian_matrix)
        return torch.cat([turns.sin(), turns.cos()], -1)


class _Prompts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pe_layer = _Places()
        self.point_embeddings = nn.ModuleList(
            nn.Embedding(1, _CHANNELS) for _ in range(4)
        )  # off the object, on it, corners of a box
        self.not_a_point_embed, self.no_mask_embed = (
            nn.Embedding(1, _CHANNELS),
            nn.Embedding(1, _CHANNELS),
        )

    def forward(self, points: Tensor, kinds: Tensor, side: int) -> Tensor:
        """Encode points (N, 2), px of the square of that side, as tokens (1, N + 1, 256).

        The kinds (N,) of the points are indices into the embeddings.
        """
        kind = torch.cat(
            [embedding.get_parameter("weight") for embedding in self.point_embeddings]
        )[kinds]
        return torch.cat(
            [self.pe_layer((points + 0.5) / side) + kind, self.not_a_point_embed.weight]
        )[None]


class _Attention(nn.Module):
    def __init__(self, inner: int) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = (
            nn.Linear(_CHANNELS, inner) for _ in range(3)
        )
        self.out_proj = nn.Linear(inner, _CHANNELS)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        parts = (self.q_proj(query), self.k_proj(key), self.v_proj(value))
        heads = (part.unflatten(-1, (8, -1)).transpose(1, 2) for part in parts)
        return self.out_proj(
            functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        )


class _TwoWay(nn.Module):
    """Attention of tokens (B, N, 256) to themselves and the image (B, P, 256), and back."""

    def __init__(self, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attn = _Attention(_CHANNELS)
        self.cross_attn_token_to_image, self.cross_attn_image_to_token = (
            _Attention(128),
            _Attention(128),
        )
        self.mlp = nn.ModuleDict(
            {"lin1": nn.Linear(_CHANNELS, 2048), "lin2": nn.Linear(2048, _CHANNELS)}
        )
        self.norm1, self.norm2, self.norm3, self.norm4 = (
            nn.LayerNorm(_CHANNELS) for _ in range(4)
        )

    def forward(
        self, tokens: Tensor, image: Tensor, token_position: Tensor, position: Tensor
    ) -> tuple[Tensor, Tensor]:
        query = tokens if self.first else tokens + token_position
        output = self.self_attn(query, query, tokens)
        tokens = self.norm1(output if self.first else tokens + output)
        output = self.cross_attn_token_to_image(
            tokens + token_position, image + position, image
        )
        tokens = self.norm2(tokens + output)
        tokens = self.norm3(
            tokens + self.mlp["lin2"](functional.relu(self.mlp["lin1"](tokens)))
        )
        output = self.cross_attn_image_to_token(
            image + position, tokens + token_position, tokens
        )
        return tokens, self.norm4(image + output)


class _Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([_TwoWay(True), _TwoWay(False)])
        self.final_attn_token_to_image, self.norm_final_attn = (
            _Attention(128),
            nn.LayerNorm(_CHANNELS),
        )

    def forward(
        self, start: Tensor, seen: Tensor, position: Tensor
    ) -> tuple[Tensor, Tensor]:
        tokens = start
        for layer in self.layers:
            tokens, seen = layer(tokens, seen, start, position)
        output = self.final_attn_token_to_image(tokens + start, seen + position, seen)
        return self.norm_final_attn(tokens + output), seen


class _Perceptron(nn.Module):
    def __init__(self, outer: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [
                nn.Linear(_CHANNELS, _CHANNELS),
                nn.Linear(_CHANNELS, _CHANNELS),
                nn.Linear(_CHANNELS, outer),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = functional.relu(layer(x))
        return self.layers[-1](x)


class _Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.transformer = _Transformer()
        self.iou_token, self.mask_tokens = (
            nn.Embedding(1, _CHANNELS),
            nn.Embedding(4, _CHANNELS),
        )
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(_CHANNELS, 64, 2, 2),
            _LayerNorm2d(64),
            nn.GELU(),
            nn.ConvTranspose2d(64, 32, 2, 2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(_Perceptron(32) for _ in range(4))
        self.iou_prediction_head = _Perceptron(4)

    def forward(
        self, image: Tensor, position: Tensor, prompt: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Decode four masks from an image and a prompt.

        Args:
            image: Features (1, 256, 64, 64) of the image.
            position: Encoded positions (1, 256, 64, 64) of its cells.
            prompt: Tokens (1, N, 256) of the prompt.

        Returns:
            Masks (4, 256, 256) as log-odds, and the expected overlap (4,) of each.
        """
        side = image.shape[-1]
        start = torch.cat([self.iou_token.weight, self.mask_tokens.weight, prompt[0]])[None]
        tokens, seen = self.transformer(start, image.flatten(2).mT, position.flatten(2).mT)
        fine = self.output_upscaling(seen.mT.unflatten(2, (side, side)))[0]
        mixed = torch.stack(
            [mlp(tokens[0, 1 + k]) for k, mlp in enumerate(self.output_hypernetworks_mlps)]
        )
        return torch.einsum("kc,chw->khw", mixed, fine), self.iou_prediction_head(
            tokens[0, 0]
        )


class MobileSam(nn.Module):
    """Segments images by prompts: `embed` encodes an image once, `masks` decodes each prompt."""

    def __init__(self) -> None:
        super().__init__()
        self.image_encoder, self.prompt_encoder, self.mask_decoder = (
            _Encoder(),
            _Prompts(),
            _Decoder(),
        )

    @torch.inference_mode()
    def embed(self, image: NDArray[np.uint8], side: int = SIDE) -> Tensor:
        """Encode an image (H, W, 3) uint8 RGB as features (256, side / 16, side / 16) float16.

        The network has learned `SIDE`; half of it takes a quarter of the time, and is enough for a
        part of an image that the object fills.
        """
        height, width = _size(image.shape[0], image.shape[1], side)
        method = cv2.INTER_AREA if max(image.shape) > side else cv2.INTER_LINEAR
        small = torch.from_numpy(
            cv2.resize(image, (width, height), interpolation=method)
        ).float()
        pixels = ((small - torch.tensor(_MEAN)) / torch.tensor(_DEVIATION)).permute(2, 0, 1)
        square = functional.pad(pixels, (0, side - width, 0, side - height))
        return self.image_encoder(square[None])[0].half()

    @torch.inference_mode()
    def masks(
        self, seen: Tensor, points: Tensor, kinds: Tensor, height: int, width: int
    ) -> tuple[Tensor, Tensor]:
        """Decode four masks from the features of an image and a prompt.

        The first mask is for unambiguous prompts; the others are for a part, the object, and all of
        it.

        Args:
            seen: Features (256, S, S) of the image, from `embed`.
            points: Points (N, 2), x y px of the image.
            kinds: Kind (N,) of each point: 1 on the object, 0 not on it, 2 and 3 corners of its
                box.
            height: Height of the image, px.
            width: Width of the image, px.

        Returns:
            Masks (4, H, W) as log-odds, and the expected overlap (4,) of each with the true mask.
        """
        side = _CELL * seen.shape[-1]
        rows, columns = _size(height, width, side)
        scale = torch.tensor([columns / width, rows / height], dtype=torch.float64)
        places = (points.double() + 0.5) * scale - 0.5
        axis = (torch.arange(seen.shape[-1]) + 0.5) / seen.shape[-1]
        grid = self.prompt_encoder.pe_layer(
            torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
        ).permute(2, 0, 1)
        image = (
            seen.float()[None] + self.prompt_encoder.no_mask_embed.weight[..., None, None]
        )
        output, overlap = self.mask_decoder(
            image, grid[None], self.prompt_encoder(places.float(), kinds, side)
        )
        square = functional.interpolate(output[None], (side, side), mode="bilinear")[
            ..., :rows, :columns
        ]
        return functional.interpolate(square, (height, width), mode="bilinear")[0], overlap


def _size(height: int, width: int, side: int) -> tuple[int, int]:
    """Rows and columns of an image in the square."""
    scale = side / max(height, width)
    return max(1, int(scale * height + 0.5)), max(1, int(scale * width + 0.5))


def load_sam(path: Path | None = None) -> MobileSam:
    """Load MobileSAM from `path` (default: the cache) on the CPU.

    Raises:
        InvalidInput: The weights are not fetched, or belong to another network.
    """
    path = pretrained_weights.find_intact(NAME) if path is None else path
    model = MobileSam()
    try:
        model.load_state_dict(load_file(path))
    except Exception as error:  # of safetensors, or of a name or shape that differs
        raise InvalidInput(
            f"{path}: not MobileSAM ({str(error).splitlines()[0]}); `uns-pose weights {NAME}` "
            "fetches it"
        ) from None
    return model.eval()
