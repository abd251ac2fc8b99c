"""The true boxes of labeled videos, from the hulls of their masks, which are taken as exact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.left_out import LeftOut
from uns_pose_ros.core.types import Frame, Video
from uns_pose_ros.evaluation.box_figures import TrueBox
from uns_pose_ros.io.images import read_mask
from uns_pose_ros.io.video_folder import read_frame
from uns_pose_ros.reconstruction.visual_hull import HullConfig, carve_visual_hull

_NO_MASKS = "videos without masks and camera poses"
_LEAST = 3  # views that bound an object
_MOST = 60  # views of a video, evenly chosen
# no view is outvoted, and nothing is decimated: the bounds of the surface are what counts
_EXACT = HullConfig(vertices=1_000_000, outvoted=0.0)


def measure_true_boxes(
    videos: Sequence[Video], labels: Mapping[str, Tensor], left_out: LeftOut
) -> dict[str, TrueBox]:
    """The box around the hull of each labeled video, along the axes of its label.

    The masks are taken as exact.

    Args:
        videos: The videos, with all their frames.
        labels: Rotations (3, 3), canon (of the labels) from obj, by video.
        left_out: Receives the labeled videos that have no box, by reason.
    """
    labeled = [video for video in videos if video.name in labels]
    return {
        video.name: TrueBox.around(hull, labels[video.name], video.metric)
        for video, hull in _carve_exact_hulls(labeled, left_out)
    }


def _carve_exact_hulls(
    videos: Sequence[Video], left_out: LeftOut
) -> list[tuple[Video, Tensor]]:
    """Carve the hulls of videos whose masks are taken as exact.

    Args:
        videos: The videos.
        left_out: Receives the videos that have no hull, by reason.

    Returns:
        Each other video with the vertices (V, 3) float32 of its hull, obj frame.
    """
    hulls = list[tuple[Video, Tensor]]()
    for video in videos:
        shown = [_read(frame) for frame in _chosen(video)]
        views = [view for view in shown if view is not None]
        if len(views) < _LEAST:
            left_out.add(_NO_MASKS, video.name)
            continue
        masks, matrices, poses = zip(*views, strict=True)
        try:
            hull = carve_visual_hull(
                masks, torch.stack(matrices), torch.stack(poses), _EXACT
            )
        except InvalidInput as error:
            left_out.add_error("videos whose masks bound nothing", str(error))
        else:
            hulls.append((video, hull[0]))
    return hulls


def _chosen(video: Video) -> list[Frame]:
    """The frames with a mask and a pose, `_MOST` of them at most."""
    frames = [
        frame
        for frame in video.frames
        if frame.mask is not None and frame.cam_from_obj is not None
    ]
    count = min(len(frames), _MOST)
    return [frames[k * len(frames) // count] for k in range(count)]


def _read(frame: Frame) -> tuple[Tensor, Tensor, Tensor] | None:
    """Mask (H, W) without the lens, matrix (3, 3) and pose (4, 4); None: the mask is empty."""
    assert frame.mask is not None and frame.cam_from_obj is not None
    mask: Tensor | None
    if len(frame.camera.distortion):
        _, mask, camera = read_frame(frame)
        assert mask is not None
    else:
        mask, camera = read_mask(frame.mask), frame.camera
    return (mask, camera.matrix, frame.cam_from_obj) if bool(mask.any()) else None
