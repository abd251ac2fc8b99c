"""What `uns-pose export labels` would write, for a person who looks before the export."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Progress
from uns_pose_ros.exports.label_set import LabelScene, LabelSet
from uns_pose_ros.exports.label_views import ImageView, ObjectView, view_frame
from uns_pose_ros.exports.video_labels import label_videos
from uns_pose_ros.visualization.drawing import AXIS_COLORS, RgbImage, draw_contour

_SHOWN_FRAMES = 6  # of a video
_YELLOW = (255, 220, 0)
_WHITE = (255, 255, 255)
_BOX_EDGES = [(a, a | bit) for a in range(8) for bit in (1, 2, 4) if not a & bit]


@dataclass(frozen=True, eq=False)
class LabelImage:
    """A frame with its labels."""

    image: RgbImage  # (H, W, 3) uint8 RGB
    caption: str  # a line that strikes it out in exclude.txt


@dataclass(frozen=True, eq=False)
class VideoLabels:
    """The labels of a video."""

    name: str
    frames: int  # number of frames that would be exported
    metric: bool  # their lengths are in meters
    images: Sequence[LabelImage]  # of some of the frames


@dataclass(frozen=True, eq=False)
class LabelPreview:
    """What an export would write."""

    videos: Sequence[VideoLabels] = ()
    left_out: Sequence[str] = ()  # a line for each reason
    fault: str = ""  # why nothing can be exported


def preview_labels(category: Path, progress: Progress) -> LabelPreview:
    """Draw the labels of some frames of every video of a category.

    Args:
        category: folder with one subfolder for each video, and alignment.json.
        progress: is called with the step, the videos done and all videos.
    """
    try:
        labels = label_videos(category)
    except InvalidInput as error:
        return LabelPreview(fault=str(error))
    videos = []
    for done, scene in enumerate(labels.scenes, 1):
        progress("report: labels", done, len(labels.scenes))
        videos.append(_preview_video(labels, scene, labels.instances[done - 1].metric))
    return LabelPreview(videos, labels.left_out.lines())


def _preview_video(labels: LabelSet, scene: LabelScene, metric: bool) -> VideoLabels:
    last = len(scene.frames) - 1
    count = min(_SHOWN_FRAMES, len(scene.frames))
    images = []
    for k in sorted({round(number) for number in np.linspace(0, last, count)}):
        frame = scene.frames[k]
        try:
            view = view_frame(frame, labels.instances)
        except InvalidInput:  # the export counts it
            continue
        images.append(LabelImage(draw_view(view), f"{scene.name}/{frame.name}"))
    return VideoLabels(scene.name, len(scene.frames), metric, images)


def draw_view(view: ImageView) -> RgbImage:
    """The image with masks (yellow), boxes (white) and boxes in 3D (in the colors of the axes)."""
    canvas: RgbImage = np.array(view.pixels)
    for shown in view.objects:
        canvas = draw_contour(canvas, shown.visible, _YELLOW)
        _draw_boxes(canvas, shown)
    return canvas


def _draw_boxes(canvas: RgbImage, view: ObjectView) -> None:
    width = max(1, round(min(canvas.shape[:2]) / 250))
    x, y, columns, rows = view.box
    cv2.rectangle(canvas, (x, y), (x + columns - 1, y + rows - 1), _WHITE, width)
    pose, points = view.label.cam_from_model, view.instance.keypoints("box")
    if ((points @ pose[:3, :3].T + pose[:3, 3])[:, 2] <= 0).any():
        return
    size = 4 * max(canvas.shape[:2])
    corners = np.clip(np.rint(view.keypoints("box")[0]), -size, size).astype(int).tolist()
    for a, b in _BOX_EDGES:
        color = AXIS_COLORS[(a ^ b) // 2]
        cv2.line(canvas, corners[a], corners[b], color, width, cv2.LINE_AA)
