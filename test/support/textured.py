"""Videos with something to hold on to.

A truck on a patterned floor, filmed walking around it or turning on a table.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import cv2
import numpy as np
import torch

from synthetic import look_at, render, truck
from uns_pose_ros.core.types import Camera


def camera_of(size: int) -> Camera:
    """4 : 3, a view of 53 degrees."""
    matrix = [[float(size), 0, (size - 1) / 2], [0, size, (0.75 * size - 1) / 2], [0, 0, 1]]
    return Camera(torch.tensor(matrix, dtype=torch.float64), size, size * 3 // 4)


@cache
def _pattern(seed: int, side: int) -> np.ndarray:
    """Blotches of all sizes (side, side, 3) uint8."""
    rng = np.random.default_rng(seed)
    image = np.zeros((side, side, 3))
    for cells in (side // 32, side // 8, side // 4):
        image += cv2.resize(
            rng.uniform(0, 1, (cells, cells, 3)),
            (side, side),
            interpolation=cv2.INTER_CUBIC,
        )
    return np.asarray(255 * np.clip(image / 3 * 1.8 - 0.4, 0, 1)).astype(np.uint8)


def picture(
    cam_from_canon: np.ndarray, camera: Camera, table: bool
) -> tuple[np.ndarray, np.ndarray]:
    """RGB (H, W, 3) uint8 and mask (H, W) bool of the truck.

    On a table the world beyond the disc stands still.
    """
    canon_from_cam = np.linalg.inv(cam_from_canon)
    truck_image, mask = render(truck(np.random.default_rng(3)), canon_from_cam, camera)
    v, u = np.mgrid[: camera.height, : camera.width].astype(float)
    rays = (
        np.stack([u, v, np.ones_like(u)], -1)
        @ np.linalg.inv(camera.matrix.numpy()).T
        @ canon_from_cam[:3, :3].T
    )
    eye = canon_from_cam[:3, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        floor = eye + rays * (-eye[2] / rays[..., 2:])
    far = (rays[..., 2] >= -1e-6) | (np.abs(floor[..., :2]).max(-1) > 3.9)
    pattern = _pattern(7, 1024)
    where = np.where(far[..., None], 0, floor[..., :2]).astype(np.float32) * 128 + 512
    image = cv2.remap(pattern, where[..., 0], where[..., 1], cv2.INTER_AREA)
    beyond = far | (np.hypot(floor[..., 0], floor[..., 1]) > 0.8) if table else far
    still = (
        _pattern(8, 256)[: camera.height, : camera.width]
        if table
        else np.full_like(image, 190)
    )
    image = np.where(beyond[..., None], still, image)
    disc = ~beyond if table else np.zeros_like(mask)
    return np.where(mask[..., None], truck_image, image).astype(np.uint8), mask | disc


def write_textured(
    folder: Path, views: int = 14, size: int = 256, table: bool = False
) -> dict[str, np.ndarray]:
    """images/, and the true masks in truth/; returns cam_from_canon by image name.

    A walk over 10 degrees a view.
    """
    camera = camera_of(size)
    (folder / "images").mkdir(parents=True)
    (folder / "truth").mkdir()
    poses = {}
    for k in range(views):
        name = f"{k:06d}.jpg"
        poses[name] = look_at(10.0 * k, 30 + 5 * np.sin(0.7 * k), 1.9)
        image, mask = picture(poses[name], camera, table)
        cv2.imwrite(
            str(folder / "images" / name), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95]
        )
        cv2.imwrite(str(folder / "truth" / f"{name}.png"), mask.astype(np.uint8) * 255)
    return poses
