#!/usr/bin/env python3
"""Poses of instances never seen, from directions never filmed, with the category's own alignment:
every video is left out once.

    python ../shared/tools/view_split.py car split
    python benchmarks/pose.py split/a split/b --work /tmp/pose_a --json pose_a.json
        train in a, test in b; then swap them

Both folders hold videos of the same names with images, masks and sparse, TEST (or --labels) a
labels.json, which is read to score and for nothing else. For each group of videos left out, the
others are reconstructed, aligned and trained on as `uns-pose run` does it, and every image of those
left out is estimated without mask or box, as it is and

    rotated     the camera turned about its optical axis by up to 45 degrees
    pasted
        the object cut out and put into a photograph of --backgrounds,
        anywhere, 0.6 to 1.6 times as large
    occluded    a piece of a photograph over 30 % of the object's box
    empty       photographs of --backgrounds alone: false_percent of them get an estimate
    fused       five images with the directions between them known, the last one's pose is asked for

`iou3d` compares boxes in space, as `uns-pose evaluate pose` does, where the camera is as filmed
(plain, pasted, occluded); the true box is that of the hull of the masks.

What is done already in --work is not done again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common import politely
from uns_pose_ros.core.crops import mask_box
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import from_parts, rotation_from_vector
from uns_pose_ros.core.left_out import LeftOut
from uns_pose_ros.core.types import Camera, CategoryModel, Frame, PoseEstimate, Video
from uns_pose_ros.estimation.estimator import Estimator
from uns_pose_ros.estimation.fusion.pose_fusion import fuse
from uns_pose_ros.evaluation import rotation_labels
from uns_pose_ros.evaluation.poses import pose_evaluation, pose_figures
from uns_pose_ros.evaluation.poses.pose_evaluation import ImageResult
from uns_pose_ros.io.images import read_image
from uns_pose_ros.io.video_folder import list_videos, load_video, read_frame
from uns_pose_ros.pipeline import alignment_stage, reconstruction_stage, training_stage
from uns_pose_ros.pipeline.true_boxes import measure_true_boxes

BACKGROUNDS = Path(__file__).resolve().parents[1] / "demo" / "data" / "chair"
VARIANTS = ("plain", "rotated", "pasted", "occluded", "fused")
FUSED = 5  # images
Image = NDArray[np.uint8]
Shown = tuple[Image, Camera, Tensor]  # image, camera, cam_from_obj rotation (3, 3)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "train", type=Path, help="category folder whose images are learned from"
    )
    parser.add_argument(
        "test", type=Path, help="category folder whose images are estimated"
    )
    parser.add_argument(
        "--work", type=Path, required=True, help="folder for meshes, alignments and models"
    )
    parser.add_argument("--labels", type=Path, help="labels.json (default: that of TEST)")
    parser.add_argument(
        "--leave-out", type=int, default=3, help="videos at a time (default: %(default)s)"
    )
    parser.add_argument(
        "--train-on", type=int, help="train on this many of the others only (default: all)"
    )
    parser.add_argument("--folds", type=int, help="only the first ones (default: all)")
    parser.add_argument(
        "--category", help="name for the models (default: that of the folder above TRAIN)"
    )
    parser.add_argument(
        "--backgrounds",
        type=Path,
        default=BACKGROUNDS,
        help="photographs (default: the demo's chairs)",
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--json", help="write the figures here after every fold; - for standard output"
    )
    args = parser.parse_args()
    start = time.perf_counter()
    names = [folder.name for folder in list_videos(args.train)]
    labels = rotation_labels.load_labels(args.labels or args.test / "labels.json", names)
    photographs = [
        read_image(path).numpy() for path in sorted(args.backgrounds.rglob("*.jpg"))
    ]
    category = args.category or args.train.resolve().parent.name
    results: dict[str, list[ImageResult]] = {name: [] for name in VARIANTS}
    false = shown = 0
    groups = folds(names, args.leave_out)[: args.folds]
    for k, unseen in enumerate(groups):
        known = [name for name in names if name not in unseen][: args.train_on]
        model = train(args.work, category, args.train, known, args.device)
        estimator = Estimator(model, device=args.device)
        videos = [load_video(args.test / name) for name in unseen]
        for name, result in test(estimator, model, videos, labels, photographs, k):
            results[name].append(result)
        some = photographs[k :: len(groups)]
        false, shown = (
            false + sum(bool(estimator(image, plain_camera(image))) for image in some),
            shown + len(some),
        )
        figures: dict[str, Any] = {
            name: pose_figures.summarize_poses(some) for name, some in results.items()
        }
        figures["empty"] = {"images": shown, "false_percent": 100 * false / max(shown, 1)}
        figures["folds"] = groups[: k + 1]
        figures["machine"] = {
            "name": platform.node(),
            "processor": platform.processor(),
            "cores": os.cpu_count(),
        }
        figures["seconds"] = time.perf_counter() - start
        text = json.dumps(figures, indent=1)
        if args.json and args.json != "-":
            Path(args.json).write_text(text)
        told = figures["plain"]
        print(
            f"{unseen} left out; so far {told['acc30']:.1f} @30°, median {told['median_deg']:.1f}°",
            file=sys.stderr,
        )
    if args.json == "-":
        print(text)
        return
    for name in VARIANTS:
        print(
            name.ljust(10),
            "  ".join(
                f"{key} {value:.1f}"
                for key, value in figures[name].items()
                if isinstance(value, float)
            ),
        )
    print("empty     ", f"false {figures['empty']['false_percent']:.1f} % of {shown}")


def folds(names: Sequence[str], size: int) -> list[list[str]]:
    """Groups of `size` videos in order.

    What remains joins the last ones, so that each video is in one group.
    """
    count = max(1, len(names) // size)
    return [
        [str(name) for name in group] for group in np.array_split(np.array(names), count)
    ]


def train(
    work: Path, category: str, source: Path, names: Sequence[str], device: str
) -> CategoryModel:
    """The model of the named videos; their meshes are shared between the folds."""
    for name in names:
        target = work / "videos" / name
        if not target.exists():
            copy = target.with_name(f".{name}")
            shutil.copytree(
                source / name,
                copy,
                dirs_exist_ok=True,
                ignore=shutil.ignore_patterns("mesh.ply", "features.*"),
            )
            copy.rename(target)
    folder = work / f"from {' '.join(names)}" / category
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if not (folder / name).exists():
            (folder / name).symlink_to((work / "videos" / name).resolve())
    reconstruction_stage.reconstruct(folder, device=device)
    alignment, _ = alignment_stage.align(folder, device=device)
    left_out = [
        name
        for name, kept in zip(alignment.videos, alignment.kept, strict=True)
        if not kept
    ]
    print(
        f"aligned {len(names)} videos" + (f", left out {left_out}" if left_out else ""),
        file=sys.stderr,
    )
    return training_stage.train(folder, device=device)[0]


def test(
    estimator: Estimator,
    model: CategoryModel,
    videos: Sequence[Video],
    labels: Mapping[str, Tensor],
    photographs: Sequence[Image],
    seed: int,
) -> Iterator[tuple[str, ImageResult]]:
    """Every image of the videos in every variant."""
    label_from_canon = rotation_labels.fit_label_from_canon(model, labels)
    boxes = measure_true_boxes(videos, labels, LeftOut())
    for number, video in enumerate(videos):
        turn = labels[video.name].T @ label_from_canon
        alone: list[list[PoseEstimate]] = []
        for index, frame in enumerate(video.frames):
            rng = np.random.default_rng([seed, number, index])
            for name, (image, camera, rotation) in variants(
                frame, photographs, rng
            ).items():
                start = time.perf_counter()
                found = estimator(image, camera)
                seconds = time.perf_counter() - start
                if name == "plain":
                    alone.append(found)
                result = pose_evaluation.score_estimates(
                    found, model, rotation @ turn, video.name, frame.name, seconds
                )
                pose = frame.cam_from_obj
                assert pose is not None
                if video.name in boxes and torch.equal(rotation, pose[:3, :3]):
                    result = pose_evaluation.add_box(
                        result, model, boxes[video.name], pose, label_from_canon
                    )
                yield name, result
        rotations = torch.stack(
            [
                frame.cam_from_obj[:3, :3]
                for frame in video.frames
                if frame.cam_from_obj is not None
            ]
        )
        for index, frame in enumerate(video.frames):
            estimate = fuse_around(alone, rotations, index)
            found = [] if estimate is None else [estimate]
            yield (
                "fused",
                pose_evaluation.score_estimates(
                    found, model, rotations[index] @ turn, video.name, frame.name, 0.0
                ),
            )


def variants(
    frame: Frame, photographs: Sequence[Image], rng: np.random.Generator
) -> dict[str, Shown]:
    """The frame as it is, rotated, pasted and occluded."""
    tensor, mask_tensor, camera = read_frame(frame)
    if mask_tensor is None or frame.cam_from_obj is None:
        raise InvalidInput(f"{frame.image}: a mask and a pose are needed to test with it")
    image, mask, rotation = tensor.numpy(), mask_tensor.numpy(), frame.cam_from_obj[:3, :3]
    photograph = photographs[int(rng.integers(len(photographs)))]
    return {
        "plain": (image, camera, rotation),
        "rotated": rotated(image, camera, rotation, float(rng.uniform(-45, 45))),
        "pasted": pasted(image, mask, camera, rotation, photograph, rng),
        "occluded": (occluded(image, mask, photograph, rng), camera, rotation),
    }


def rotated(image: Image, camera: Camera, rotation: Tensor, degrees: float) -> Shown:
    """What the same camera sees after a turn about its optical axis."""
    turn = rotation_from_vector(
        torch.tensor([0.0, 0.0, np.radians(degrees)], dtype=torch.float64)
    )
    warp = (camera.matrix @ turn @ torch.linalg.inv(camera.matrix)).numpy()
    size = (camera.width, camera.height)
    return (
        np.asarray(
            cv2.warpPerspective(image, warp, size, borderMode=cv2.BORDER_REPLICATE),
            np.uint8,
        ),
        camera,
        turn @ rotation,
    )


def pasted(
    image: Image,
    mask: NDArray[np.bool_],
    camera: Camera,
    rotation: Tensor,
    photograph: Image,
    rng: np.random.Generator,
) -> Shown:
    """The object alone in the photograph.

    The camera that would see it so has its principal point elsewhere.
    """
    x0, y0, x1, y1 = mask_box(torch.from_numpy(mask)).tolist()
    height, width = photograph.shape[:2]
    scale = min(
        float(rng.uniform(0.6, 1.6)), 0.95 * width / (x1 - x0), 0.95 * height / (y1 - y0)
    )
    left, top = (
        rng.uniform(0, width - scale * (x1 - x0)),
        rng.uniform(0, height - scale * (y1 - y0)),
    )
    warp = np.array(
        [[scale, 0, left - scale * x0], [0, scale, top - scale * y0], [0, 0, 1]]
    )
    alpha = cv2.warpPerspective(
        cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 0.6), warp, (width, height)
    )[..., None]
    there = cv2.warpPerspective(image, warp, (width, height))
    together = np.clip(alpha * there + (1 - alpha) * photograph, 0, 255).astype(np.uint8)
    return together, Camera(torch.from_numpy(warp) @ camera.matrix, width, height), rotation


def occluded(
    image: Image, mask: NDArray[np.bool_], photograph: Image, rng: np.random.Generator
) -> Image:
    """A rectangle of the photograph over 30 % of the object's box."""
    x0, y0, x1, y1 = mask_box(torch.from_numpy(mask)).tolist()
    share = np.sqrt(0.3) * np.exp(rng.uniform(-0.4, 0.4))
    width, height = int((x1 - x0) * min(share, 1.0)), int((y1 - y0) * min(0.3 / share, 1.0))
    left, top = int(rng.uniform(x0, x1 - width)), int(rng.uniform(y0, y1 - height))
    patch = cv2.resize(photograph, (width, height), interpolation=cv2.INTER_AREA)
    covered = image.copy()
    covered[top : top + height, left : left + width] = patch
    return covered


def fuse_around(
    alone: Sequence[Sequence[PoseEstimate]], rotations: Tensor, index: int
) -> PoseEstimate | None:
    """The fusion of an image's best estimate with those of the images taken from nearest to it,
    which come first.
    """
    towards = -rotations[:, 2]  # from the object to the camera, obj frame
    nearest = (
        (towards @ towards[index])
        .argsort(descending=True, stable=True)[:FUSED]
        .flip(0)
        .tolist()
    )
    order = [k for k in nearest if k != index] + [index]
    still = torch.zeros(3, dtype=torch.float64)
    motions = [from_parts(rotations[b] @ rotations[a].T, still) for a, b in pairwise(order)]
    best = [max(alone[k], key=lambda e: e.score, default=None) for k in order]
    return fuse(best, motions)


def plain_camera(photograph: Image) -> Camera:
    """A camera of 53 degrees of view."""
    height, width = photograph.shape[:2]
    matrix = torch.tensor(
        [[width, 0, width / 2], [0, width, height / 2], [0, 0, 1]], dtype=torch.float64
    )
    return Camera(matrix, width, height)


if __name__ == "__main__":
    politely(main)
