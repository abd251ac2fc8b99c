"""Where to look in a picture, as another node says: boxes of a detector or a mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import cv2
import numpy as np
import torch
from sensor_msgs.msg import Image
from torch import Tensor
from vision_msgs.msg import Detection2DArray

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Camera
from uns_pose_ros.nodes import ros_compat

SEARCH = "search"  # the estimator looks for the objects itself
SOURCES: dict[str, type] = {"detections_2d": Detection2DArray, "mask": Image}
Where: TypeAlias = Detection2DArray | Image

_LEAST = 4.0  # px, sides of a region that can show anything
_LEAST_AREA = 0.0005  # of the picture, for a part of a mask to be an object


def boxes_of(where: Where, camera: Camera, classes: Sequence[str], most: int) -> Tensor:
    """Boxes (N, 4) float64 x0 y0 x1 y1 px of regions in the camera's picture, as its pinhole
    without distortion sees them.

    classes: class ids of detections to be taken, none: all; most: boxes, the likeliest or largest.
    Raises InvalidInput.
    """
    boxes = (
        _of_mask(where, camera)
        if isinstance(where, Image)
        else _of_detections(where, classes)
    )
    size = np.array([camera.width, camera.height] * 2, dtype=np.float64)
    boxes = np.clip(boxes, 0, size)
    boxes = boxes[((boxes[:, 2:] - boxes[:, :2]) >= _LEAST).all(1)][:most]
    return torch.from_numpy(_undistorted(boxes, camera))


def _of_detections(message: Detection2DArray, classes: Sequence[str]) -> np.ndarray:
    """(N, 4), the highest scores first."""
    found = []
    for detection in message.detections:
        taken = [
            r.hypothesis
            for r in detection.results
            if not classes or r.hypothesis.class_id in classes
        ]
        if not taken and (classes or detection.results):
            continue
        x, y = detection.bbox.center.position.x, detection.bbox.center.position.y
        half = (detection.bbox.size_x / 2, detection.bbox.size_y / 2)
        box = (x - half[0], y - half[1], x + half[0], y + half[1])
        if np.isfinite(box).all():
            found.append(
                (max((hypothesis.score for hypothesis in taken), default=0.0), box)
            )
    found.sort(key=lambda one: -one[0])
    return np.array([box for _, box in found], dtype=np.float64).reshape(-1, 4)


def _of_mask(message: Image, camera: Camera) -> np.ndarray:
    """(N, 4), the connected parts of what is not 0, largest first."""
    if message.encoding not in ("mono8", "8UC1"):
        raise InvalidInput(
            f"the mask's encoding is '{message.encoding}': mono8 is valid, 0 where there is no "
            "object"
        )
    mask = ros_compat.image_to_array(message)
    if mask.shape != (camera.height, camera.width):
        height, width = mask.shape
        raise InvalidInput(
            f"the mask is {width} x {height} px, the image {camera.width} x {camera.height} px"
        )
    count, _, parts, _ = cv2.connectedComponentsWithStats(
        (mask > 0).astype(np.uint8), connectivity=8
    )
    parts = parts[1:count]  # the first is the background
    parts = parts[parts[:, cv2.CC_STAT_AREA] >= _LEAST_AREA * mask.size]
    parts = parts[np.argsort(-parts[:, cv2.CC_STAT_AREA], kind="stable")].astype(np.float64)
    return np.concatenate([parts[:, :2], parts[:, :2] + parts[:, 2:4]], 1)


def _undistorted(boxes: np.ndarray, camera: Camera) -> np.ndarray:
    """Boxes (N, 4) about the corners and the middles of the edges once these are undistorted."""
    if not len(boxes) or not bool(camera.distortion.any()):
        return boxes
    steps = np.array([(x, y) for x in (0.0, 0.5, 1.0) for y in (0.0, 0.5, 1.0)])
    points = boxes[:, None, :2] + steps * (boxes[:, None, 2:] - boxes[:, None, :2])
    k = camera.matrix.numpy()
    straight = cv2.undistortPoints(
        points.reshape(-1, 1, 2), k, camera.distortion.numpy(), P=k
    ).reshape(points.shape)
    return np.concatenate([straight.min(1), straight.max(1)], 1)
