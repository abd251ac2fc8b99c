"""A textured image."""

from __future__ import annotations

import cv2
import numpy as np


def scene(seed: int = 0) -> np.ndarray:
    """(900, 1200, 3) uint8: blobs of all sizes, sharp edges, mean grey."""
    rng = np.random.default_rng(seed)
    picture = np.full((900, 1200, 3), 110, np.uint8)
    for _ in range(600):
        center = tuple(int(x) for x in rng.integers(0, [1200, 900]))
        cv2.circle(
            picture, center, int(rng.integers(3, 60)), rng.integers(20, 220, 3).tolist(), -1
        )
    return picture
