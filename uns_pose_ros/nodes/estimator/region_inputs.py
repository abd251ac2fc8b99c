"""Regions in an image from another node: boxes of a detector or a mask."""

from __future__ import annotations

from collections import Counter
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
from uns_pose_ros.io.ros import ros_messages

SEARCH = "search"  # the estimator looks for the objects itself
SOURCES: dict[str, type] = {"detections_2d": Detection2DArray, "mask": Image}
RegionMessage: TypeAlias = Detection2DArray | Image

_MIN_SIDE = 4.0  # px, sides of a region that can show an object
_MIN_AREA = 0.0005  # share of the image, area of an object in a mask


def region_boxes(
    regions: RegionMessage,
    camera: Camera,
    classes: Sequence[str],
    max_count: int,
    left_out: Counter[str] | None = None,
) -> Tensor:
    """Return the boxes of regions, as they are in the undistorted image.

    Args:
        regions: Detections or a mask, in the distorted image.
        camera: Camera of the image.
        classes: Class ids of the detections to use; empty: all.
        max_count: Number of boxes at most; those with the highest score or area are kept.
        left_out: Receives the number of regions that are not used, by reason.

    Returns:
        Boxes (N, 4) float64, x0 y0 x1 y1, px.

    Raises:
        InvalidInput: The mask has another encoding or size than expected.
    """
    left_out = Counter() if left_out is None else left_out
    boxes = (
        _mask_boxes(regions, camera, left_out)
        if isinstance(regions, Image)
        else _detection_boxes(regions, classes, left_out)
    )
    size = np.array([camera.width, camera.height] * 2, dtype=np.float64)
    boxes = np.clip(boxes, 0, size)
    large = ((boxes[:, 2:] - boxes[:, :2]) >= _MIN_SIDE).all(1)
    left_out["outside the image or narrower than 4 px"] += int((~large).sum())
    boxes = boxes[large]
    left_out["more than max_instances"] += max(len(boxes) - max_count, 0)
    boxes = _undistort_boxes(boxes[:max_count], camera)
    finite = np.isfinite(boxes).all(1)
    left_out["beyond the lens model"] += int((~finite).sum())
    return torch.from_numpy(boxes[finite])


def _detection_boxes(
    message: Detection2DArray, classes: Sequence[str], left_out: Counter[str]
) -> np.ndarray:
    """Boxes (N, 4) of detections, highest score first."""
    scored_boxes = []
    for detection in message.detections:
        scores = [
            result.hypothesis.score
            for result in detection.results
            if (not classes or result.hypothesis.class_id in classes)
            and np.isfinite(result.hypothesis.score)
        ]
        if not scores and (classes or detection.results):
            known = any(
                not classes or result.hypothesis.class_id in classes
                for result in detection.results
            )
            left_out["a score that is not finite" if known else "another class"] += 1
            continue
        x, y = detection.bbox.center.position.x, detection.bbox.center.position.y
        half = (detection.bbox.size_x / 2, detection.bbox.size_y / 2)
        box = (x - half[0], y - half[1], x + half[0], y + half[1])
        if np.isfinite(box).all():
            scored_boxes.append((max(scores, default=0.0), box))
        else:
            left_out["a box that is not finite"] += 1
    scored_boxes.sort(key=lambda scored: -scored[0])
    return np.array([box for _, box in scored_boxes], dtype=np.float64).reshape(-1, 4)


def _mask_boxes(message: Image, camera: Camera, left_out: Counter[str]) -> np.ndarray:
    """Boxes (N, 4) of the connected components that are not 0, largest first."""
    if message.encoding not in ("mono8", "8UC1"):
        raise InvalidInput(
            f"the mask's encoding is '{message.encoding}': mono8 is valid, 0 where there is no "
            "object"
        )
    mask = ros_messages.unpack_pixels(message)
    if mask.shape != (camera.height, camera.width):
        height, width = mask.shape
        raise InvalidInput(
            f"the mask is {width} x {height} px, the image {camera.width} x {camera.height} px"
        )
    count, _, parts, _ = cv2.connectedComponentsWithStats(
        (mask > 0).astype(np.uint8), connectivity=8
    )
    parts = parts[1:count]  # the first is the background
    large = parts[:, cv2.CC_STAT_AREA] >= _MIN_AREA * mask.size
    left_out["specks of the mask"] += int((~large).sum())
    parts = parts[large]
    parts = parts[np.argsort(-parts[:, cv2.CC_STAT_AREA], kind="stable")].astype(np.float64)
    return np.concatenate([parts[:, :2], parts[:, :2] + parts[:, 2:4]], 1)


def _undistort_boxes(boxes: np.ndarray, camera: Camera) -> np.ndarray:
    """Boxes (N, 4) around the undistorted corners and edge midpoints of each box."""
    if not len(boxes) or not bool(camera.distortion.any()):
        return boxes
    steps = np.array([(x, y) for x in (0.0, 0.5, 1.0) for y in (0.0, 0.5, 1.0)])
    points = boxes[:, None, :2] + steps * (boxes[:, None, 2:] - boxes[:, None, :2])
    k = camera.matrix.numpy()
    undistorted = cv2.undistortPoints(
        points.reshape(-1, 1, 2), k, camera.distortion.numpy(), P=k
    ).reshape(points.shape)
    return np.concatenate([undistorted.min(1), undistorted.max(1)], 1)
