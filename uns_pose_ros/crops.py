"""Square crops of images at the size that the backbone reads."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample


def mask_box(mask: Tensor) -> Tensor:
    """Box (4,) float64 x0 y0 x1 y1, px, of the true pixels of a mask (H, W); raises ValueError where there are none."""
    rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
    if not len(rows):
        raise ValueError("the mask is empty")
    return torch.stack([columns[0, 0], rows[0, 0], columns[-1, 0], rows[-1, 0]]).double()


def square_around(boxes: Tensor, margin: float) -> Tensor:
    """Squares (N, 4) with the centres of boxes (N, 4) and side (1 + 2 * margin) times their longer side."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).amax(1, keepdim=True) * (0.5 + margin)
    return torch.cat([centre - half, centre + half], 1)


def crop_from_image(boxes: Tensor, size: int) -> Tensor:
    """Affine maps (N, 3, 3) float64 from image pixels to pixels of a (size, size) crop of square boxes (N, 4).

    The box's edges fall on the outer edges of the crop's border pixels.
    """
    boxes = boxes.double()
    scale = size / (boxes[:, 2] - boxes[:, 0]).clamp_min(1e-6)
    matrix = torch.zeros(len(boxes), 3, 3, dtype=torch.float64, device=boxes.device)
    matrix[:, 0, 0] = matrix[:, 1, 1] = scale
    matrix[:, :2, 2] = -boxes[:, :2] * scale[:, None] - 0.5
    matrix[:, 2, 2] = 1
    return matrix


def crop(image: Tensor, boxes: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Crops (N, C, size, size) float32 of image (C, H, W) and crop_from_image (N, 3, 3) float64; grey outside the picture.

    Square boxes (N, 4) x0 y0 x1 y1 in px. Where a box is much larger than the crop the image is averaged first, so nothing
    aliases.
    """
    maps = crop_from_image(boxes, size)
    channels = image.shape[0]
    grey = torch.full((), 127.0 if channels == 3 else 0.0, device=image.device)
    out = torch.empty(len(boxes), channels, size, size, device=image.device)
    for k, matrix in enumerate(maps):
        factor = max(1, int(1 / float(matrix[0, 0])))
        source = image.float()[None]
        if factor > 1:
            source = avg_pool2d(source, factor, ceil_mode=True, count_include_pad=False)
        pixel = torch.arange(size, dtype=torch.float64, device=image.device)
        x = ((pixel - matrix[0, 2]) / matrix[0, 0] + 0.5) / factor
        y = ((pixel - matrix[1, 2]) / matrix[1, 1] + 0.5) / factor
        x, y = x / source.shape[3] * 2 - 1, y / source.shape[2] * 2 - 1
        where = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).float()
        out[k] = grid_sample(source - grey, where[None], align_corners=False, padding_mode="zeros")[0] + grey
    return out, maps
