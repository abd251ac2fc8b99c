"""Images of videos with their cameras and objects in the canonical frame."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uns_pose_ros.core.camera import resize_camera
from uns_pose_ros.core.geometry import from_parts, invert, split_similarity, transform
from uns_pose_ros.core.types import Camera

_LONGEST = 1280  # px, longer side of the image that is shown
_BEHIND = 0.05  # diameters, of the plane behind the object
_NEAREST = 0.1  # diameters from the camera to the plane at least


@dataclass(frozen=True, eq=False)
class PosedImage:
    """An image without distortion, with its camera and pose."""

    image: NDArray[np.uint8]  # (H, W, 3) RGB
    camera: Camera  # pinhole
    cam_from_obj: Tensor  # (4, 4) float64, rigid


@dataclass(frozen=True, eq=False)
class PlacedVideo:
    """A video whose object lies in the canonical frame."""

    canon_from_obj: Tensor  # (4, 4) float64, similarity
    vertices: Tensor  # (V, 3) float64 of the object's surface, canonical frame
    triangles: Tensor  # (T, 3) int64
    image_names: Sequence[str]
    read: Callable[[int], PosedImage]  # the image of a number


@dataclass(frozen=True, eq=False)
class ImagePlane:
    """An image as a rectangle behind the object, in the canonical frame.

    From the place of its camera, the rectangle and the object cover each other as in the image.
    """

    image: NDArray[np.uint8]  # (h, w, 3) RGB
    camera: Camera  # of this image
    place: Tensor  # (3,) float64 of the camera, canonical frame
    rotation: Tensor  # (3, 3) float64, canon_from_cam
    depth: float  # of the rectangle from the camera

    @staticmethod
    def behind(posed: PosedImage, video: PlacedVideo) -> ImagePlane:
        """The rectangle of an image behind the object of its video."""
        canon_from_cam = video.canon_from_obj @ invert(posed.cam_from_obj)
        rotation, place, _ = split_similarity(canon_from_cam)
        depth = ((video.vertices - place) @ rotation[:, 2]).max()
        height, width = posed.image.shape[:2]
        scale = min(1.0, _LONGEST / max(height, width))
        size = max(round(width * scale), 1), max(round(height * scale), 1)
        image = cv2.resize(posed.image, size, interpolation=cv2.INTER_AREA)
        return ImagePlane(
            np.asarray(image, np.uint8),
            resize_camera(posed.camera, *size),
            place,
            rotation,
            max(float(depth) + _BEHIND, _NEAREST),
        )

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the rectangle, canonical units."""
        fx, fy = self.camera.matrix.diagonal()[:2].tolist()
        return self.camera.width / fx * self.depth, self.camera.height / fy * self.depth

    @property
    def center(self) -> Tensor:
        """(3,) float64, middle of the rectangle, canonical frame."""
        middle = [(self.camera.width - 1) / 2, (self.camera.height - 1) / 2]
        return self.point_of(torch.tensor(middle, dtype=torch.float64))

    def point_of(self, pixel: Tensor) -> Tensor:
        """The point (3,) float64 of the rectangle that shows a pixel (2,) of `image`."""
        homogeneous = torch.cat([pixel, pixel.new_ones(1)])
        ray = torch.linalg.solve(self.camera.matrix, homogeneous)
        return transform(self._canon_from_cam, (ray * self.depth)[None])[0]

    @property
    def middle(self) -> Tensor:
        """(3,) float64, point of the rectangle on the camera's axis, canonical frame."""
        return self.place + self.depth * self.rotation[:, 2]

    def view_angle(self, aspect: float) -> float:
        """The vertical angle, rad, of a view along the camera's axis that shows the rectangle.

        Args:
            aspect: Width of the view by its height.
        """
        matrix, camera = self.camera.matrix, self.camera
        fx, fy, cx, cy = matrix[[0, 1, 0, 1], [0, 1, 2, 2]].tolist()
        across = max(cx + 0.5, camera.width - cx - 0.5) / fx
        upright = max(cy + 0.5, camera.height - cy - 0.5) / fy
        return 2 * math.atan(max(upright, across / max(aspect, 1e-3)))

    def ray_through(self, origin: Tensor, direction: Tensor) -> Tensor | None:
        """The camera's ray (3,) through the point of the rectangle that another ray meets.

        Args:
            origin: (3,) float64 of the other ray, such as that of a click; canonical frame.
            direction: (3,) float64.

        Returns:
            The ray from `place`, or None: the other ray does not meet the rectangle's plane.
        """
        normal = self.rotation[:, 2]
        along = float(direction @ normal)
        ahead = float((self.center - origin) @ normal)
        if abs(along) < 1e-9 or not ahead / along > 0:
            return None
        return origin + ahead / along * direction - self.place

    @property
    def _canon_from_cam(self) -> Tensor:
        return from_parts(self.rotation, self.place)
