"""Views of a training that were drawn from no image."""

from __future__ import annotations

import torch
from torch import Tensor

from uns_pose_ros.training.training_views import Views


def plain_views(tokens: Tensor, canon: Tensor, background: Tensor) -> Views:
    """Views of one video, equally often learned from, whose poses do not count.

    Args:
        tokens: (N, h, w, L * C).
        canon: (N, 4 h w, 3) canonical points of the cells.
        background: (N, 4 h w) bool.
    """
    count = len(tokens)
    still = torch.eye(3, dtype=torch.float64).expand(count, 3, 3)
    ahead = torch.tensor([0.0, 0.0, 3.0], dtype=torch.float64).expand(count, 3)
    return Views(
        tokens.bfloat16(),
        canon.half(),
        background,
        torch.ones(count),
        torch.zeros(count, dtype=torch.int64),
        still,
        torch.cat([still, ahead[..., None]], 2),
    )
