"""DINOv2 ViT-S/14 in plain PyTorch: one feature for every 14 px patch of an image.

The sides of the image are multiples of 14 px.

Source: Oquab et al., DINOv2, arXiv 2304.07193. The parameters have the names of the official
checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from uns_pose_ros.core.device import Precision, autocast, choose_device
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.networks import pretrained_weights

PATCH = 14  # px
CHANNELS = 384
DEPTH = 12  # blocks
HEADS = 6
# patches along a side of the 518 px images of the training: size of the position embedding
GRID = 37
_MOST_GRIDS = 16  # number of grids whose position embeddings are kept

_MEAN = (0.485, 0.456, 0.406)  # ImageNet, RGB
_STD = (0.229, 0.224, 0.225)


def imagenet_normalize(images: Tensor) -> Tensor:
    """Normalize images (B, 3, H, W) uint8 RGB to float32 with ImageNet's mean 0 and deviation 1."""
    mean = torch.tensor(_MEAN, device=images.device)[:, None, None]
    deviation = torch.tensor(_STD, device=images.device)[:, None, None]
    return (images.float() / 255 - mean) / deviation


class Attention(nn.Module):
    """Self-attention of all tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(CHANNELS, 3 * CHANNELS)
        self.proj = nn.Linear(CHANNELS, CHANNELS)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, N, 384) to tokens of the same shape."""
        query, key, value = (
            self.qkv(tokens).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        )  # each (B, 6, N, 64)
        return self.proj(
            functional.scaled_dot_product_attention(query, key, value)
            .transpose(1, 2)
            .flatten(2)
        )


class Mlp(nn.Module):
    """Perceptron of two layers, applied to each token."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(CHANNELS, 4 * CHANNELS)
        self.fc2 = nn.Linear(4 * CHANNELS, CHANNELS)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, N, 384) to tokens of the same shape."""
        return self.fc2(functional.gelu(self.fc1(tokens)))


class LayerScale(nn.Module):
    """One learned factor for each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(CHANNELS))

    def forward(self, tokens: Tensor) -> Tensor:
        """Scale tokens (B, N, 384)."""
        return tokens * self.gamma


class TransformerBlock(nn.Module):
    """Attention and perceptron, each with norm, scale and residual."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(CHANNELS, eps=1e-6)
        self.attn = Attention()
        self.ls1 = LayerScale()
        self.norm2 = nn.LayerNorm(CHANNELS, eps=1e-6)
        self.mlp = Mlp()
        self.ls2 = LayerScale()

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, N, 384) to tokens of the same shape."""
        tokens = tokens + self.ls1(self.attn(self.norm1(tokens)))
        return tokens + self.ls2(self.mlp(self.norm2(tokens)))


class PatchEmbedding(nn.Module):
    """Linear projection of each 14 px patch."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, CHANNELS, PATCH, stride=PATCH)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to patch tokens (B, H/14 * W/14, 384)."""
        return self.proj(images).flatten(2).transpose(1, 2)


class DinoV2(nn.Module):
    """The frozen backbone; `precision` "bf16" computes the matrix products in bfloat16."""

    def __init__(self, precision: Precision = "fp32") -> None:
        super().__init__()
        if precision not in ("fp32", "bf16"):
            raise InvalidInput(f"backbone precision {precision!r}: fp32 or bf16 is valid")
        self.precision = precision
        self.cls_token = nn.Parameter(torch.zeros(1, 1, CHANNELS))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + GRID * GRID, CHANNELS))
        self.patch_embed = PatchEmbedding()
        self.blocks = nn.ModuleList(TransformerBlock() for _ in range(DEPTH))
        self.norm = nn.LayerNorm(CHANNELS, eps=1e-6)
        self._resized: dict[
            tuple[int, int, torch.device], Tensor
        ] = {}  # positions of a frozen network, by grid

    def forward(self, images: Tensor, layers: Sequence[int] | None = None) -> Tensor:
        """Compute the patch tokens of images, after the final norm.

        Args:
            images: Images (B, 3, H, W) as `imagenet_normalize` makes them; H and W are multiples of
                14.
            layers: Block numbers from 0, negative from the end; None: the last block alone.

        Returns:
            Tokens (B, H/14, W/14, 384) float32 of the last block, or (L, B, H/14, W/14, 384) of the
            given layers.
        """
        height, width = images.shape[-2:]
        if height % PATCH or width % PATCH or not height or not width:
            raise ValueError(
                f"image of {width} x {height} px: multiples of {PATCH} px needed"
            )
        rows, columns = height // PATCH, width // PATCH
        wanted = (
            [DEPTH - 1] if layers is None else [range(DEPTH)[layer] for layer in layers]
        )
        outputs: dict[int, Tensor] = {}
        with autocast(images.device, self.precision):
            patches = self.patch_embed(images)
            tokens = torch.cat(
                [self.cls_token.expand(len(images), -1, -1), patches.float()], 1
            ) + self.positions(rows, columns)
            for number, block in enumerate(self.blocks[: max(wanted) + 1]):
                tokens = block(tokens)
                if number in wanted:
                    outputs[number] = (
                        self.norm(tokens)[:, 1:].float().unflatten(1, (rows, columns))
                    )
        return (
            outputs[DEPTH - 1]
            if layers is None
            else torch.stack([outputs[number] for number in wanted])
        )

    def positions(self, rows: int, columns: int) -> Tensor:
        """Position embedding (1, 1 + rows * columns, 384) of a grid of patches.

        It is resized by the rule that DINOv2 was trained with: bicubic by the factor
        (n + 0.1) / 37, not antialiased. Resizing to the exact size instead changes the features
        (cosine 0.9994 at 224 px).
        """
        if (rows, columns) == (GRID, GRID):
            return self.pos_embed
        key = (rows, columns, self.pos_embed.device)
        if key in self._resized:
            return self._resized[key]
        grid = self.pos_embed[:, 1:].unflatten(1, (GRID, GRID)).permute(0, 3, 1, 2)
        factors = ((rows + 0.1) / GRID, (columns + 0.1) / GRID)
        grid = functional.interpolate(
            grid.float(), scale_factor=factors, mode="bicubic", antialias=False
        )
        positions = torch.cat([self.pos_embed[:, :1], grid.flatten(2).transpose(1, 2)], 1)
        if not self.pos_embed.requires_grad and len(self._resized) < _MOST_GRIDS:
            self._resized[key] = positions
        return positions

    def halve(self) -> None:
        """Store the matrices in bfloat16, so that they are not converted for every image."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.to(torch.bfloat16)


def load_backbone(
    path: Path | None = None, device: str = "auto", precision: Precision = "fp32"
) -> DinoV2:
    """Load the pretrained backbone, frozen and in evaluation mode.

    Args:
        path: A safetensors file; None: the cache of `pretrained_weights`.
        device: The device, or "auto".
        precision: "bf16" takes 1/2 to 1/3 of the time on processors with AMX or AVX-512 BF16, and
            its features have a cosine of 0.9997 to the float32 ones (worst patch 0.999). It was not
            measured on other processors.

    Raises:
        InvalidInput: The weights are missing or belong to another network.
    """
    path = path or pretrained_weights.find_intact("dinov2_vits14")
    with torch.device("meta"):
        backbone = DinoV2(precision)
    try:
        backbone.load_state_dict(safetensors.torch.load_file(path), assign=True)
    except (RuntimeError, OSError, safetensors.SafetensorError) as error:
        raise InvalidInput(
            f"{path} does not hold the weights of DINOv2 ViT-S/14: {str(error).splitlines()[0]}"
        ) from error
    if precision == "bf16":
        backbone.halve()
    return backbone.requires_grad_(False).eval().to(choose_device(device))
