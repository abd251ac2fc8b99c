"""What every small recording needs."""

from __future__ import annotations

import torch

from uns_pose_ros.core.types import Camera

INFO = {"k": [60.0, 0.0, 32.0, 0.0, 60.0, 24.0, 0.0, 0.0, 1.0], "frame_id": "eye"}


def camera(focal: float = 60.0) -> Camera:
    matrix = torch.tensor(
        [[focal, 0, 32.0], [0, focal, 24.0], [0, 0, 1]], dtype=torch.float64
    )
    return Camera(
        matrix, 64, 48, torch.tensor([0.1, -0.05, 0.001, 0.0], dtype=torch.float64)
    )
