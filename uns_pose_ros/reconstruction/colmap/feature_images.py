"""The images in which structure from motion reads features: shrunk copies of large ones.

Features of the finest octaves of a large image are noise of the sensor and of the film's
compression. They take most of the time and do not make the poses more exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from uns_pose_ros.core.camera import resize_camera
from uns_pose_ros.core.types import Camera, Video
from uns_pose_ros.io.images import read_image


@dataclass(frozen=True, eq=False)
class FeatureImages:
    """Where the images and masks of a video are read, and the camera of what is read."""

    images: Path
    masks: Path | None
    camera: Camera
    original: Camera  # of the video's images

    @property
    def enlargement(self) -> float:
        """The px of the video in one px of what is read."""
        return self.original.width / self.camera.width

    def enlarge_camera(self, camera: Camera) -> Camera:
        """The camera of the video's images, of a camera of those that are read."""
        return resize_camera(camera, self.original.width, self.original.height)

    def enlarge_pixels(
        self, seen: Mapping[str, NDArray[np.float64]]
    ) -> dict[str, NDArray[np.float64]]:
        """The points (n, 3) of `Poses.seen` in px of the video's images."""
        if self.camera is self.original:
            return dict(seen)
        scale = np.array(
            [
                self.original.width / self.camera.width,
                self.original.height / self.camera.height,
            ]
        )
        return {
            name: np.column_stack([(rows[:, :2] + 0.5) * scale - 0.5, rows[:, 2]])
            for name, rows in seen.items()
        }


def prepare_images(
    video: Video, camera: Camera, masks: Path | None, size: int, folder: Path
) -> FeatureImages:
    """Write shrunk copies of images and masks, unless the images are small already.

    Args:
        video: with images of one size.
        camera: of these images.
        masks: folder with <image name>.png, or None.
        size: px, longer side above which images are shrunk to it.
        folder: empty, for the copies.
    """
    factor = size / max(camera.width, camera.height)
    if factor >= 1:
        return FeatureImages(video.folder / "images", masks, camera, camera)
    width, height = (max(1, round(factor * s)) for s in (camera.width, camera.height))
    for frame in video.frames:
        gray = cv2.cvtColor(read_image(frame.image).numpy(), cv2.COLOR_RGB2GRAY)
        small = _shrink(np.asarray(gray, np.uint8), width, height)
        _write(folder / "images" / frame.name, small)
        if masks is not None:
            name = f"{frame.name}.png"
            mask = cv2.imread(str(masks / name), cv2.IMREAD_GRAYSCALE)
            if mask is not None:
                white = np.where(
                    _shrink(np.asarray(mask, np.uint8), width, height) > 127, 255, 0
                )
                _write(folder / "masks" / name, white.astype(np.uint8))
    shrunk = resize_camera(camera, width, height)
    return FeatureImages(
        folder / "images", None if masks is None else folder / "masks", shrunk, camera
    )


def _shrink(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    return np.asarray(
        cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8
    )


def _write(path: Path, image: NDArray[np.uint8]) -> None:
    """Write an image as PNG, whatever its name ends with: COLMAP goes by the content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    packed = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1]
    path.write_bytes(packed.tobytes())
