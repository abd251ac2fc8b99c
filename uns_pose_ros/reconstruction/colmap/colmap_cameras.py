"""Our cameras as COLMAP's, and back; COLMAP's pixel centers are at half pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from uns_pose_ros.core.types import Camera

UNSURE = ("guessed", "exif")  # sources of a focal length that is only a start value


def reader_options(camera: Camera, calibration: str, masks: Path | None) -> Any:
    """pycolmap.ImageReaderOptions with the camera; COLMAP's pixel centers are at half pixels."""
    import pycolmap

    options = pycolmap.ImageReaderOptions()
    (fx, _, cx), (_, fy, cy), _ = camera.matrix.tolist()
    cx, cy = cx + 0.5, cy + 0.5
    distortion = camera.distortion.tolist()
    values: list[float] = []
    if calibration in UNSURE:
        options.camera_model = "SIMPLE_RADIAL"
        options.default_focal_length_factor = fx / max(camera.width, camera.height)
        if calibration == "exif":
            values = [fx, cx, cy, 0.0]
    elif any(distortion):
        full = any(distortion[4:])
        options.camera_model = "FULL_OPENCV" if full else "OPENCV"
        padded = distortion + [0.0] * 8
        values = [fx, fy, cx, cy, *padded[: 8 if full else 4]]
    else:
        options.camera_model = "PINHOLE"
        values = [fx, fy, cx, cy]
    options.camera_params = ",".join(map(repr, values))
    if masks is not None:
        options.mask_path = masks
    return options


def refined_camera(refined: Any, camera: Camera) -> Camera:
    """The camera after the mapper's refinement, from COLMAP's SIMPLE_RADIAL."""
    focal, cx, cy, k1 = (float(value) for value in refined.params)
    rows = [[focal, 0, cx - 0.5], [0, focal, cy - 0.5], [0, 0, 1]]
    matrix = torch.tensor(rows, dtype=torch.float64)
    distortion = torch.tensor([k1, 0, 0, 0], dtype=torch.float64)
    return Camera(matrix, camera.width, camera.height, distortion)
