"""Camera operations: assumed camera, resize, undistort."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Camera

ASSUMED_FOV_DEG = 60.0  # along the longer side of a camera without calibration
EFFECT_OF_ASSUMED_VIEW = (
    "Lenses of 40° to 90° would put the objects at 1.6 to 0.6 times these distances, and turn "
    "those at the border by up to 15°"
)


def assumed_camera(width: int, height: int, fov_deg: float = ASSUMED_FOV_DEG) -> Camera:
    """A pinhole camera with its principal point in the middle of the image.

    Args:
        width: Width of the image, px.
        height: Height of the image, px.
        fov_deg: Field of view along the longer side, degrees.

    Returns:
        The camera, without distortion.
    """
    focal = max(width, height) / 2 / np.tan(np.radians(fov_deg) / 2)
    return centered_camera(focal, width, height)


def centered_camera(focal: float, width: int, height: int) -> Camera:
    """A pinhole camera of focal length `focal`, px, that looks through the middle of its image."""
    matrix = [[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]]
    return Camera(torch.tensor(matrix, dtype=torch.float64), width, height)


def undistort(
    image: Tensor, mask: Tensor | None, camera: Camera
) -> tuple[Tensor, Tensor | None, Camera]:
    """Remove the distortion of an image and its mask.

    Args:
        image: (H, W, 3) uint8.
        mask: (H, W) bool, or None.
        camera: The camera of the image.

    Returns:
        Image and mask as a pinhole camera with the same matrix sees them, and this camera. Pixels
        without a source are black, and outside the mask.
    """
    pinhole = Camera(camera.matrix, camera.width, camera.height)
    if not bool(camera.distortion.any()):
        return image, mask, pinhole
    x, y = undistortion_maps(camera)
    image = torch.from_numpy(cv2.remap(image.numpy(), x, y, cv2.INTER_LINEAR))
    return image, None if mask is None else undistort_mask(mask, camera), pinhole


def undistort_mask(mask: Tensor, camera: Camera) -> Tensor:
    """Remove the distortion of a mask (H, W) bool, as `undistort` does."""
    if not bool(camera.distortion.any()):
        return mask
    x, y = undistortion_maps(camera)
    values = mask.numpy().astype(np.uint8)
    return torch.from_numpy(cv2.remap(values, x, y, cv2.INTER_NEAREST) > 0)


def undistortion_maps(
    camera: Camera,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Where each pixel (H, W) without distortion lies in the image with distortion: x and y, px."""
    return _compute_maps(
        camera.matrix.numpy().tobytes(),
        camera.distortion.numpy().tobytes(),
        camera.width,
        camera.height,
    )


@lru_cache(maxsize=4)  # the images of a video have one camera
def _compute_maps(
    matrix: bytes, distortion: bytes, width: int, height: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rows = np.frombuffer(matrix).reshape(3, 3)
    x, y = cv2.initUndistortRectifyMap(
        rows, np.frombuffer(distortion), None, rows, (width, height), cv2.CV_32FC1
    )
    return np.asarray(x, np.float32), np.asarray(y, np.float32)


def resize_camera(camera: Camera, width: int, height: int) -> Camera:
    """The camera of an image after the image was resized.

    Args:
        camera: The camera of the image before.
        width: Width after, px.
        height: Height after, px.

    Returns:
        The camera of the resized image; its distortion does not change.

    Raises:
        InvalidInput: The shape differs by more than one pixel.
    """
    if (camera.width, camera.height) == (width, height):
        return camera
    if abs(camera.width * height - camera.height * width) > max(
        camera.width, camera.height, width, height
    ):
        raise InvalidInput(
            f"the images have {width} x {height} px, their camera {camera.width} x "
            f"{camera.height} px"
        )
    matrix = scaled_matrix(camera.matrix, width / camera.width, height / camera.height)
    return Camera(matrix, width, height, camera.distortion)


def scaled_matrix(matrix: Tensor, scale_x: float, scale_y: float) -> Tensor:
    """Camera matrix (3, 3) of an image that is scaled by factors.

    Integer pixel coordinates are pixel centers. Therefore, the corner of the image, (-0.5, -0.5),
    is the point that stays: f' = f * scale and c' = (c + 0.5) * scale - 0.5.
    """
    factors = torch.tensor([[scale_x], [scale_y]], dtype=matrix.dtype)
    scaled = matrix.clone()
    scaled[:2, 2] += 0.5
    scaled[:2] *= factors
    scaled[:2, 2] -= 0.5
    return scaled
