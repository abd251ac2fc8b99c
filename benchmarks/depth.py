#!/usr/bin/env python3
"""What depth does for poses: errors of a model on labeled videos with and without rendered depth.

    python benchmarks/depth.py mug/model mug --labels mug/labels.json --videos 'mug_0[12]'

The depth is that of a fine visual hull of each video before a wall, with noise (--noise, of the
depth) and holes (--holes). The model is told a size that is wrong by --size-error, as that of a new
instance is. Errors of positions are those of the box's center, in percent of the object's diameter.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common import machine, politely, write
from uns_pose_ros.core.geometry import angle_between, transform
from uns_pose_ros.core.types import CategoryModel, Frame, PoseEstimate, Video
from uns_pose_ros.estimation.depth.depth_refinement import REFINED, use_depth
from uns_pose_ros.estimation.estimator import Estimator
from uns_pose_ros.evaluation.metrics import ANGLES
from uns_pose_ros.evaluation.poses.pose_evaluation import ObjectExtent
from uns_pose_ros.evaluation.rotation_labels import fit_label_from_canon, load_labels
from uns_pose_ros.exports.formats.depth_rendering import render_depth
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.images import read_image, read_mask
from uns_pose_ros.io.video_folder import list_videos, load_video
from uns_pose_ros.reconstruction.visual_hull import HullConfig, carve_visual_hull

_WALL = 1.6  # distance of the wall, in distances of the object


@dataclass(frozen=True, eq=False)
class Shape:
    """The surface of a video's object, in the frame and the unit of the video."""

    vertices: Tensor  # (V, 3)
    triangles: Tensor  # (T, 3)
    extent: ObjectExtent

    @staticmethod
    def carve(video: Video) -> Shape:
        frames = [f for f in video.frames if f.mask and f.cam_from_obj is not None]
        vertices, triangles = carve_visual_hull(
            [read_mask(frame.mask) for frame in frames if frame.mask],
            torch.stack([frame.camera.matrix for frame in frames]),
            torch.stack([f.cam_from_obj for f in frames if f.cam_from_obj is not None]),
            HullConfig(vertices=1500),
        )
        return Shape(vertices, triangles, ObjectExtent.of(vertices))

    def depth(self, frame: Frame, pose: Tensor) -> np.ndarray:
        """Depth (H, W) of a frame without noise; behind the object is a wall."""
        view: Any = SimpleNamespace(
            label=SimpleNamespace(cam_from_model=pose.numpy()),
            camera=frame.camera,
            instance=SimpleNamespace(
                vertices=self.vertices.double().numpy(), triangles=self.triangles.numpy()
            ),
        )
        depth = render_depth(view)
        wall = _WALL * float(transform(pose, self.extent.center[None])[0, 2])
        return np.where(depth > 0, depth, wall)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("category", type=Path)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--videos", help="patterns; default: all that have a label")
    parser.add_argument("--every", type=int, default=2, help="one image in so many")
    parser.add_argument(
        "--size-error", type=float, default=0.1, help="share (default: %(default)s)"
    )
    parser.add_argument("--noise", type=float, default=0.004, help="default: %(default)s")
    parser.add_argument("--holes", type=float, default=0.1, help="default: %(default)s")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json")
    args = parser.parse_args()
    model = artifacts.load_model(args.model)
    folders = list_videos(args.category, args.videos)
    names = [folder.name for folder in list_videos(args.category)]
    labels = load_labels(args.labels, [*names, *model.training_poses])
    turn = fit_label_from_canon(model, labels)
    find = Estimator(model, device=args.device)
    random = np.random.default_rng(0)
    rows, uses, seconds, images = list[list[float]](), Counter[str](), list[float](), 0
    for folder in folders:
        if folder.name not in labels:
            continue
        video = load_video(folder)
        shape = Shape.carve(video)
        sized = replace(model, diameter=shape.extent.diameter * (1 + args.size_error))
        for frame in video.frames[:: args.every]:
            pose = frame.cam_from_obj
            if pose is None:
                continue
            images += 1
            found = find(read_image(frame.image), frame.camera)
            if not found:
                continue
            depth = shape.depth(frame, pose)
            depth = depth * (1 + random.normal(0, args.noise, depth.shape))
            depth[random.random(depth.shape) < args.holes] = np.nan
            before = resize(found[0], sized)
            start = time.perf_counter()
            after = use_depth(before, sized, frame.camera, depth.astype(np.float32))
            seconds.append(time.perf_counter() - start)
            uses[after.depth_use] += 1
            true = pose[:3, :3] @ labels[folder.name].T @ turn
            center = transform(pose, shape.extent.center[None])[0]
            errors = [error(one, model, true, center, shape) for one in (before, after)]
            rows.append([*errors[0], *errors[1]])
            print(
                f"{folder.name}/{frame.name}: {errors[0][0]:.1f} to {errors[1][0]:.1f} % of the "
                f"diameter, {errors[0][1]:.1f} to {errors[1][1]:.1f}°, {after.depth_use}",
                flush=True,
            )
    figures = {
        "machine": machine(),
        "images": images,
        "estimated": len(rows),
        "uses": dict(uses),
        "seconds": float(np.median(seconds)) if seconds else None,
        "without": summary([row[:2] for row in rows]),
        "with": summary([row[2:] for row in rows]),
    }
    for name in ("without", "with"):
        print(f"{name} depth: {figures[name]}")
    print(
        f"{uses[REFINED]} of {len(rows)} refined, {figures['seconds']} s each: {dict(uses)}"
    )
    write(figures, args.json)


def resize(found: PoseEstimate, model: CategoryModel) -> PoseEstimate:
    """The estimate of a model that knows this size."""
    diameter = model.diameter
    assert diameter is not None
    factor = diameter / found.scale
    pose = found.cam_from_canon.clone()
    pose[:3, 3] *= factor
    unit = torch.tensor([factor] * 3 + [1.0] * 3, dtype=torch.float64)
    known = found.covariance
    return replace(
        found,
        cam_from_canon=pose,
        scale=diameter,
        metric=True,
        size=found.size * factor,
        covariance=None if known is None else known * unit * unit[:, None],
        alternatives=(),
        frames=(),
    )


def error(
    found: PoseEstimate, model: CategoryModel, true: Tensor, center: Tensor, shape: Shape
) -> tuple[float, float]:
    """Of the position of the box's center, percent of the diameter, and of the rotation, °."""
    pose, middle = found.cam_from_canon, ObjectExtent.of(model.vertices).center.double()
    place = pose[:3, :3] @ (found.scale * middle) + pose[:3, 3]
    gap = 100 * float((place - center).norm()) / shape.extent.diameter
    return gap, float(angle_between(pose[:3, :3], true))


def summary(rows: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Median errors, and the share of the images within each angle."""
    if not rows:
        return {"position_percent": None}
    shift, turn = np.array(rows).T
    within = {f"acc{angle}": float(100 * (turn < angle).mean()) for angle in ANGLES}
    middle = {"position_percent": float(np.median(shift)), "deg": float(np.median(turn))}
    return middle | within


if __name__ == "__main__":
    politely(main)
