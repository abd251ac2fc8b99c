"""A category of toy trucks whose labels are known: videos, meshes and alignment.json in ms.

Images are no squares, pixels are no squares and the principal point is off the middle, so that a
swapped width or a mirrored axis shows. Masks are of the same boxes as the meshes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from synthetic import Box, look_at, random_similarity, render, truck
from uns_pose_ros.core.types import Alignment, Camera, FeatureMesh, Symmetry
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.colmap import SparseImage, write_sparse

CLIPS = {"clip_01": 1, "clip_02": 2, "clip_03": 3}
CAMERA = Camera(
    torch.tensor([[150.0, 0, 49.0], [0, 140.0, 35.0], [0, 0, 1]], dtype=torch.float64),
    96,
    72,
)
# sides of a box as corners; bit 2 of a corner is x, bit 1 is y, bit 0 is z
_SIDES = (
    (0, 1, 3, 2),
    (4, 6, 7, 5),
    (0, 4, 5, 1),
    (2, 3, 7, 6),
    (0, 2, 6, 4),
    (1, 5, 7, 3),
)


@dataclass(frozen=True)
class TrueVideo:
    """What a video shows."""

    canon_from_obj: np.ndarray  # (4, 4) similarity
    cam_from_canon: dict[str, np.ndarray]  # image: (4, 4) rigid, canonical units
    boxes: list[Box]  # canonical frame

    @property
    def unit(self) -> float:
        """Length of a canonical unit, obj units."""
        return float(1 / np.cbrt(np.linalg.det(self.canon_from_obj[:3, :3])))

    @property
    def size(self) -> np.ndarray:
        """Extents (3,), canonical units."""
        low = np.min([box[0] for box in self.boxes], axis=0)
        return np.asarray(np.max([box[1] for box in self.boxes], axis=0) - low)


def box_mesh(boxes: list[Box]) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3) and triangles (T, 3) of boxes, counter-clockwise seen from outside."""
    vertices = list[np.ndarray]()
    triangles = list[tuple[int, int, int]]()
    for low, high, _ in boxes:
        start = 8 * len(vertices)
        corners = [np.where([c & 4, c & 2, c & 1], high, low) for c in range(8)]
        vertices.append(np.array(corners))
        for a, b, c, d in _SIDES:
            triangles += [
                (start + a, start + c, start + b),
                (start + a, start + d, start + c),
            ]
    return np.concatenate(vertices), np.array(triangles)[:, [0, 2, 1]]


def write_labeled_video(
    folder: Path, seed: int, views: int, metric: bool, camera: Camera = CAMERA
) -> TrueVideo:
    """A video folder with masks, poses and the exact mesh."""
    rng = np.random.default_rng(seed)
    boxes, canon_from_obj = truck(rng), random_similarity(rng)
    scale = np.cbrt(np.linalg.det(canon_from_obj[:3, :3]))
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    poses = {}
    for k in range(views):
        name = f"{k:06d}.jpg"
        pose = look_at(360 * k / views + 20 * seed, (15, 40)[k % 2], 2.2)
        image, mask = render(boxes, np.linalg.inv(pose), camera)
        cv2.imwrite(str(folder / "images" / name), image[..., ::-1])
        cv2.imwrite(str(folder / "masks" / f"{name}.png"), mask.astype(np.uint8) * 255)
        poses[name] = pose
    images = []
    for name, pose in poses.items():
        cam_from_obj = pose @ canon_from_obj
        cam_from_obj[:3] /= scale
        images.append(SparseImage(name, 1, torch.from_numpy(cam_from_obj)))
    write_sparse(
        folder / "sparse", {1: camera}, images, torch.zeros(0, 3, dtype=torch.float64)
    )
    (folder / "video.json").write_text(json.dumps({"metric": metric}))
    vertices, triangles = box_mesh(boxes)
    obj_from_canon = np.linalg.inv(canon_from_obj)
    vertices = vertices @ obj_from_canon[:3, :3].T + obj_from_canon[:3, 3]
    zero = torch.zeros(1, dtype=torch.int64)
    mesh = FeatureMesh(
        torch.from_numpy(vertices).float(),
        torch.from_numpy(triangles),
        torch.full((1, 384), 384**-0.5, dtype=torch.float16),
        zero,
        zero.clone(),
        torch.eye(4)[None],
    )
    artifacts.save_feature_mesh(mesh, folder, {})
    return TrueVideo(canon_from_obj, poses, boxes)


def write_labeled_category(
    folder: Path,
    clips: dict[str, int] = CLIPS,
    views: int = 4,
    metric: bool = True,
    symmetry: Symmetry | None = None,
) -> dict[str, TrueVideo]:
    """Videos by name and seed, with alignment.json."""
    truths = {
        name: write_labeled_video(folder / name, seed, views, metric)
        for name, seed in clips.items()
    }
    save_true_alignment(folder, truths, symmetry or Symmetry())
    return truths


def save_true_alignment(
    folder: Path, truths: dict[str, TrueVideo], symmetry: Symmetry, kept: int | None = None
) -> None:
    """alignment.json of the true poses; only the first `kept` videos are kept."""
    count = len(truths)
    ones = torch.ones(count, dtype=torch.float64)
    poses = [torch.from_numpy(truth.canon_from_obj) for truth in truths.values()]
    is_kept = torch.arange(count) < (count if kept is None else kept)
    alignment = Alignment(
        tuple(truths), torch.stack(poses), ones, is_kept, 0 * ones, symmetry
    )
    artifacts.save_alignment(alignment, folder / artifacts.ALIGNMENT, {})
