"""True boxes of labeled videos."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch

from uns_pose_ros.core.geometry import from_parts, project, random_rotations
from uns_pose_ros.core.left_out import LeftOut
from uns_pose_ros.core.types import Camera, Frame, Video
from uns_pose_ros.pipeline.true_boxes import measure_true_boxes

CAMERA = Camera(
    torch.tensor([[300.0, 0, 80], [0, 300, 80], [0, 0, 1]], dtype=torch.float64), 160, 160
)
SIZE = torch.tensor([0.6, 0.4, 0.8], dtype=torch.float64)


def film_box(folder: Path, rotations: torch.Tensor, label: torch.Tensor) -> Video:
    """Masks of a box of SIZE along the axes of a label about (2, 0, 1), from 3 units away."""
    corners = torch.cartesian_prod(*[torch.tensor([-0.5, 0.5])] * 3).double() * SIZE
    middle = torch.tensor([2.0, 0.0, 1.0], dtype=torch.float64)
    ahead = torch.tensor([0.0, 0.0, 3.0], dtype=torch.float64)
    frames = []
    folder.mkdir()
    for k, turn in enumerate(rotations):
        pose = from_parts(turn, ahead - turn @ middle)
        points = (corners @ label + middle) @ pose[:3, :3].T + pose[:3, 3]
        pixels = project(CAMERA.matrix, points).numpy().astype(np.float32)
        fine = np.zeros((1280, 1280), np.uint8)
        hull = (cv2.convexHull(pixels)[:, 0] + 0.5) * 8 - 0.5
        cv2.fillConvexPoly(fine, np.round(hull * 16).astype(np.int32), 255, shift=4)
        mask = cv2.resize(fine, (160, 160), interpolation=cv2.INTER_AREA) // 128 * 255
        path = folder / f"{k}.png"
        cv2.imwrite(str(path), mask)
        frames.append(Frame(f"{k}.jpg", path, CAMERA, path, pose))
    return Video(folder, tuple(frames), metric=True)


def test_the_true_box_is_that_of_the_hull_and_a_video_without_masks_is_counted(
    tmp_path: Path,
) -> None:
    turns = random_rotations(41, torch.Generator().manual_seed(1))
    label = turns[40]
    video = film_box(tmp_path / "a", turns[:40], label)
    bare = Video(
        tmp_path / "b",
        tuple(Frame(f.name, f.image, CAMERA, None, f.cam_from_obj) for f in video.frames),
    )
    left_out = LeftOut()
    boxes = measure_true_boxes(
        [video, bare, Video(tmp_path / "c", ())], {"a": label, "b": label}, left_out
    )
    assert set(boxes) == {"a"} and boxes["a"].metric
    assert torch.allclose(boxes["a"].extents, SIZE, atol=0.03)
    assert torch.allclose(boxes["a"].center, torch.tensor([2.0, 0, 1]).double(), atol=0.015)
    assert left_out.counts == {"videos without masks and camera poses": 1}
