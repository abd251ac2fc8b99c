"""Draw an export over its images, from its own files.

    python test/support/draw_labels.py FOLDER OUT.jpg [COUNT]

Masks are yellow, models that the poses place are tinted, boxes white, keypoints and axes colored.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

from label_readers import ReadImage, ReadObject, paint_model, project_points, read_labels
from uns_pose_ros.visualization.drawing import AXIS_COLORS, RgbImage, draw_contour

_EDGES = [(a, a | bit) for a in range(8) for bit in (1, 2, 4) if not a & bit]
_HEIGHT = 240  # px of each image


def draw_object(canvas: RgbImage, image: ReadImage, thing: ReadObject) -> RgbImage:
    """What the labels say of an object."""
    if thing.depth is not None:
        shown = thing.depth > 0
        near, far = thing.depth[shown].min(), thing.depth[shown].max()
        gray = (255 * (far - thing.depth) / max(far - near, 1e-9)).clip(0, 255)
        colors = cv2.applyColorMap(gray.astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
        canvas = np.where(shown[..., None], colors, canvas).astype(np.uint8)
    elif thing.vertices is not None:
        tint = np.array([90, 200, 255])
        model = paint_model(image, thing)[..., None]
        canvas = np.where(model, canvas // 2 + tint // 2, canvas).astype(np.uint8)
    if thing.mask is not None:
        canvas = draw_contour(canvas, thing.mask, (255, 220, 0))
    if thing.box is not None:
        x0, y0, x1, y1 = np.rint(thing.box).astype(int).tolist()
        cv2.rectangle(canvas, (x0, y0), (x1 - 1, y1 - 1), (255, 255, 255), 1)
    if thing.keypoints is not None:
        points = np.rint(thing.keypoints).astype(int).tolist()
        for a, b in _EDGES:
            if points[a][2] and points[b][2]:
                ends = points[a][:2], points[b][:2]
                cv2.line(canvas, *ends, AXIS_COLORS[(a ^ b) // 2], 1, cv2.LINE_AA)
        for x, y, flag in points:
            if flag:
                color = (255, 255, 255) if flag == 2 else (120, 120, 120)
                cv2.circle(canvas, (x, y), 3, color, -1, cv2.LINE_AA)
    if thing.rotation is not None and image.matrix is not None:
        draw_axes(canvas, image, thing)
    return canvas


def draw_axes(canvas: RgbImage, image: ReadImage, thing: ReadObject) -> None:
    """The axes of the model frame, a fifth of the object's distance long."""
    assert thing.translation is not None
    length = 0.2 * float(np.linalg.norm(thing.translation))
    tips = project_points(image, thing, np.vstack([np.zeros(3), length * np.eye(3)]))
    start, *ends = np.rint(tips).astype(int).tolist()
    for end, color in zip(ends, AXIS_COLORS, strict=True):
        cv2.arrowedLine(canvas, start, end, color, 2, cv2.LINE_AA, tipLength=0.15)


def draw_labels(folder: Path, count: int = 4) -> RgbImage:
    """Some images of an export side by side."""
    images = read_labels(folder)
    chosen = [images[round(k)] for k in np.linspace(0, len(images) - 1, count)]
    parts = []
    for image in chosen:
        canvas: RgbImage = np.ascontiguousarray(image.pixels)
        for thing in image.objects:
            canvas = draw_object(canvas, image, thing)
        width = round(canvas.shape[1] * _HEIGHT / canvas.shape[0])
        parts.append(cv2.resize(canvas, (width, _HEIGHT), interpolation=cv2.INTER_AREA))
    return np.hstack(parts).astype(np.uint8)


if __name__ == "__main__":
    drawn = draw_labels(Path(sys.argv[1]), int(sys.argv[3]) if sys.argv[3:] else 4)
    cv2.imwrite(sys.argv[2], drawn[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
