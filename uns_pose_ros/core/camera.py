"""Camera operations: assumed camera, resize, undistort."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Camera

ASSUMED_FOV_DEG = 60.0  # along the longer side, where nobody calibrated the camera


def assumed_camera(width: int, height: int, fov_deg: float = ASSUMED_FOV_DEG) -> Camera:
    """A pinhole camera whose longer side sees `fov_deg` degrees, with its principal point in the
    middle.
    """
    focal = max(width, height) / 2 / np.tan(np.radians(fov_deg) / 2)
    matrix = [[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]]
    return Camera(torch.tensor(matrix, dtype=torch.float64), width, height)


def undistort(
    image: Tensor, mask: Tensor | None, camera: Camera
) -> tuple[Tensor, Tensor | None, Camera]:
    """The same picture and mask as a pinhole camera with the same matrix sees them.

    Black and outside where it sees nothing.
    """
    if not bool(camera.distortion.any()):
        return image, mask, Camera(camera.matrix, camera.width, camera.height)
    k, size = camera.matrix.numpy(), (camera.width, camera.height)
    x, y = cv2.initUndistortRectifyMap(
        k, camera.distortion.numpy(), None, k, size, cv2.CV_32FC1
    )
    image = torch.from_numpy(cv2.remap(image.numpy(), x, y, cv2.INTER_LINEAR))
    if mask is not None:
        mask = torch.from_numpy(
            cv2.remap(mask.numpy().astype(np.uint8), x, y, cv2.INTER_NEAREST) > 0
        )
    return image, mask, Camera(camera.matrix, camera.width, camera.height)


def fitted(camera: Camera, width: int, height: int) -> Camera:
    """The camera of the same view resized to width x height px.

    InvalidInput where the shape differs.
    """
    if (camera.width, camera.height) == (width, height):
        return camera
    if abs(camera.width * height - camera.height * width) > max(
        camera.width, camera.height, width, height
    ):
        raise InvalidInput(
            f"the pictures have {width} x {height} px, their camera {camera.width} x "
            f"{camera.height} px"
        )
    scale = torch.tensor(
        [width / camera.width, height / camera.height, 1.0], dtype=torch.float64
    )
    half = torch.tensor([0.5, 0.5], dtype=torch.float64)
    matrix = camera.matrix.clone()
    matrix[:2, 2] += half  # pixel centres: only the corner of the picture stays where it is
    matrix = scale[:, None] * matrix
    matrix[:2, 2] -= half
    return Camera(matrix, width, height, camera.distortion)
