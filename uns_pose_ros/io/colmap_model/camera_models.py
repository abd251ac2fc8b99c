"""COLMAP's camera models, and those of them that OpenCV's distortion describes.

COLMAP puts the center of the top left pixel at (0.5, 0.5), we at (0, 0): the principal point is
shifted here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from uns_pose_ros.core.types import MAX_CAMERA_PX, MAX_DISTORTION, Camera

# By name: focal lengths and distortion coefficients, which are the first of OpenCV's
# k1 k2 p1 p2 k3 k4 k5 k6.
_SUPPORTED: dict[str, tuple[int, int]] = {
    "SIMPLE_PINHOLE": (1, 0),
    "PINHOLE": (2, 0),
    "SIMPLE_RADIAL": (1, 1),
    "RADIAL": (1, 2),
    "OPENCV": (2, 4),
    "FULL_OPENCV": (2, 8),
}
_MAX_SIDE = 100_000  # px, of an image
# by COLMAP's number: name and number of parameters
MODELS: dict[int, tuple[str, int]] = {
    0: ("SIMPLE_PINHOLE", 3),
    1: ("PINHOLE", 4),
    2: ("SIMPLE_RADIAL", 4),
    3: ("RADIAL", 5),
    4: ("OPENCV", 8),
    5: ("OPENCV_FISHEYE", 8),
    6: ("FULL_OPENCV", 12),
    7: ("FOV", 5),
    8: ("SIMPLE_RADIAL_FISHEYE", 4),
    9: ("RADIAL_FISHEYE", 5),
    10: ("THIN_PRISM_FISHEYE", 12),
    11: ("RAD_TAN_THIN_PRISM_FISHEYE", 16),
    12: ("SIMPLE_DIVISION", 4),
    13: ("DIVISION", 5),
    14: ("SIMPLE_FISHEYE", 3),
    15: ("FISHEYE", 4),
    16: ("EUCM", 6),
    17: ("EQUIRECTANGULAR", 2),
}


@dataclass(frozen=True)
class CameraRow:
    """One camera as a file gives it."""

    camera_id: int
    model: str
    width: int  # px
    height: int  # px
    values: Sequence[float]  # focal length(s), cx, cy, distortion

    def to_camera(self) -> Camera:
        """The camera. ValueError: its model is not supported, or a value is not valid."""
        model = self.model.upper()
        if model not in _SUPPORTED:
            raise ValueError(
                f"camera model {self.model} is not supported: {', '.join(_SUPPORTED)} are; "
                "colmap image_undistorter makes one of them of it"
            )
        if not (0 < self.width <= _MAX_SIDE and 0 < self.height <= _MAX_SIDE):
            raise ValueError(
                f"{self.width} x {self.height} px: sides of 1 to {_MAX_SIDE} px are valid"
            )
        focals, coefficients = _SUPPORTED[model]
        if len(self.values) != focals + 2 + coefficients:
            raise ValueError(
                f"{model} has {focals + 2 + coefficients} parameters, {len(self.values)} "
                "are given"
            )
        for value, most in zip(
            self.values,
            [MAX_CAMERA_PX] * (focals + 2) + [MAX_DISTORTION] * coefficients,
            strict=True,
        ):
            if not abs(value) <= most:
                raise ValueError(
                    f"a camera parameter of {value:g}: at most {most:g} is valid"
                )
        fx, fy = self.values[0], self.values[focals - 1]
        cx, cy = self.values[focals : focals + 2]
        k = list(self.values[focals + 2 :])
        rows = [[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1]]
        padded = k + [0.0] * (4 - len(k)) if k else []
        return Camera(
            torch.tensor(rows, dtype=torch.float64),
            self.width,
            self.height,
            torch.tensor(padded, dtype=torch.float64),
        )


def describe_camera(number: int, camera: Camera) -> str:
    """The line CAMERA_ID MODEL WIDTH HEIGHT PARAMETERS… of cameras.txt."""
    k = camera.distortion.tolist()
    model = "PINHOLE" if not any(k) else "OPENCV" if not any(k[4:]) else "FULL_OPENCV"
    k = (k + [0.0] * 8)[: _SUPPORTED[model][1]]
    (fx, _, cx), (_, fy, cy), _ = camera.matrix.tolist()
    values = [number, model, camera.width, camera.height, fx, fy, cx + 0.5, cy + 0.5, *k]
    return " ".join(map(str, values))
