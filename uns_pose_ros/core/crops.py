"""Square crops of images at the size that the backbone reads."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample


def mask_box(mask: Tensor) -> Tensor:
    """Box (4,) float64 x0 y0 x1 y1, px, of the true pixels of a mask (H, W).

    Raises ValueError where there are none.
    """
    rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
    if not len(rows):
        raise ValueError("the mask is empty")
    return torch.stack([columns[0, 0], rows[0, 0], columns[-1, 0], rows[-1, 0]]).double()


def square_around(boxes: Tensor, margin: float) -> Tensor:
    """Squares (N, 4) around the centers of boxes (N, 4).

    Their side is (1 + 2 * margin) times the longer side of the box.
    """
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).amax(1, keepdim=True) * (0.5 + margin)
    return torch.cat([center - half, center + half], 1)


def crop_from_image(boxes: Tensor, size: int) -> Tensor:
    """Affine maps (N, 3, 3) float64 from pixels of the image to pixels of the crops.

    A crop has (size, size) pixels and shows one of the square boxes (N, 4). The box's edges fall on
    the outer edges of the crop's border pixels.
    """
    boxes = boxes.double()
    scale = size / (boxes[:, 2] - boxes[:, 0]).clamp_min(1e-6)
    matrix = torch.zeros(len(boxes), 3, 3, dtype=torch.float64, device=boxes.device)
    matrix[:, 0, 0] = matrix[:, 1, 1] = scale
    matrix[:, :2, 2] = -boxes[:, :2] * scale[:, None] - 0.5
    matrix[:, 2, 2] = 1
    return matrix


def crop(image: Tensor, boxes: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Crop an image to boxes.

    If a box is much larger than the crop, the image is averaged first, so that nothing aliases.

    Args:
        image: (C, H, W).
        boxes: Squares (N, 4) x0 y0 x1 y1, px.
        size: Side of the crops, px.

    Returns:
        Crops (N, C, size, size) float32, gray outside the image, and crop_from_image (N, 3, 3)
        float64.
    """
    maps = crop_from_image(boxes, size)
    channels = image.shape[0]
    gray = torch.full((), 127.0 if channels == 3 else 0.0, device=image.device)
    out = torch.empty(len(boxes), channels, size, size, device=image.device)
    pixel = torch.arange(size, device=image.device)
    for k, (x0, y0, x1, _) in enumerate(boxes.tolist()):
        step = max(x1 - x0, 1e-6) / size  # px of the image to one of the crop
        factor = max(1, int(step))
        left, top = (max(0, int(low / factor) - 2) * factor for low in (x0, y0))
        right, bottom = (int(low + size * step) + 2 * factor + 1 for low in (x0, y0))
        source = image[:, top : max(bottom, top + 1), left : max(right, left + 1)].float()[
            None
        ]
        if not source.numel():  # all of it is outside
            out[k] = gray
            continue
        if factor > 1:
            source = avg_pool2d(source, factor, ceil_mode=True, count_include_pad=False)
        x, y = (
            ((pixel + 0.5) * step + (low - near + 0.5))
            * (2 / (factor * source.shape[axis]))
            - 1
            for low, near, axis in ((x0, left, 3), (y0, top, 2))
        )
        where = torch.stack([x.expand(size, size), y[:, None].expand(size, size)], -1)
        out[k] = (
            grid_sample(
                source - gray, where[None], align_corners=False, padding_mode="zeros"
            )[0]
            + gray
        )
    return out, maps
