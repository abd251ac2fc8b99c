#!/usr/bin/env python3
"""Named frames on instances never seen: snapped to the instance's own surface, or carried rigidly.

    python benchmarks/frames.py rooms_mug/mug mug/model --labels rooms_mug/mug/labels.json
    python benchmarks/frames.py demo/data/chair demo/out/chair/model --toward 1 0 0 --json -

CATEGORY holds the videos of the training and others, with exact masks and camera poses. The frame
is where the template ends in the direction --toward of the labels' axes: the handle of a mug, the
front edge of a chair's seat. Its true place on an instance is where the hull that its masks carve
ends in this direction. The frame is defined once, on the template, and nothing of a test video is
read but its images. Only images count whose best pose, at any score, is at most --most degrees off.

    within10        percent of these images whose frame lies within 10 % of the object's diameter
    median          of the distance, diameters
    at_distance     the same, after the object is moved along its ray to its true distance: what a
                    depth image or a known size gives. One image tells the distance of an object of
                    unknown shape to some percent only, and no frame can be better than that
    across          the same, of the distance across the line of sight alone
    region95        percent of the true places that lie in the 95 % region of the covariance
    seen            percent of the frames that say that the image shows them
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common import machine, politely, write
from uns_pose_ros.cli.frames_command import extreme_point
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import angle_between, split_similarity, transform
from uns_pose_ros.core.named_frames import NamedFrame, PlacedFrame
from uns_pose_ros.core.types import CategoryModel, PoseEstimate, Video
from uns_pose_ros.estimation.estimator import Estimator
from uns_pose_ros.estimation.frame_placement import carry_frames
from uns_pose_ros.evaluation import rotation_labels
from uns_pose_ros.evaluation.poses.pose_evaluation import ObjectExtent
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.video_folder import list_videos, load_video, read_frame
from uns_pose_ros.reconstruction.visual_hull import HullConfig, carve_visual_hull

HULL = HullConfig(resolution=64, vertices=3000, outvoted=0.0)
TIP = 0.04  # of the hull's length: so near to its end are the vertices of the true place
NEAR = 0.1  # diameters
REGION = 7.815  # squared Mahalanobis distance of the 95 % region in three dimensions


@dataclass(frozen=True, eq=False)
class Truth:
    """Where the frame of an instance is, and how large the instance is; obj frame."""

    place: Tensor  # (3,)
    extent: ObjectExtent


@dataclass(frozen=True)
class Distance:
    """From a frame to its true place in one image, diameters."""

    video: str
    whole: float
    at_distance: float
    across: float
    inside: bool  # of the 95 % region
    seen: bool


def carve(video: Video) -> Tensor:
    """Vertices (V, 3) float64 of the hull of a video's masks, obj frame."""
    masks, matrices, poses = [], [], []
    for frame in video.frames:
        _, mask, camera = read_frame(frame)
        if mask is not None and frame.cam_from_obj is not None and bool(mask.any()):
            masks.append(mask)
            matrices.append(camera.matrix)
            poses.append(frame.cam_from_obj)
    if len(masks) < 2:
        raise InvalidInput(f"{video.folder}: masks and camera poses are needed")
    vertices, _ = carve_visual_hull(masks, torch.stack(matrices), torch.stack(poses), HULL)
    return vertices.double()


def true_place(vertices: Tensor, label: Tensor, direction: Tensor) -> Truth:
    """The mean of the last vertices (V, 3) in a direction (3,) of the label's (3, 3) axes."""
    along = vertices @ label.T @ direction
    length = along.max() - along.min()
    place = vertices[along >= along.max() - TIP * length].mean(0)
    return Truth(place, ObjectExtent.of(vertices))


def canonical_diameter(model: CategoryModel, diameters: dict[str, float]) -> float:
    """Canonical units of an object's diameter: the median over the videos of the training."""
    return float(
        np.median(
            [
                float(split_similarity(pose)[2]) * diameters[name]
                for name, pose in model.training_poses.items()
            ]
        )
    )


def measure(
    placed: PlacedFrame,
    estimate: PoseEstimate,
    truth: Truth,
    cam_from_obj: Tensor,
    center: Tensor,
    unit: float,
    video: str,
) -> Distance:
    """Compare a frame with its true place.

    Args:
        placed: The frame.
        estimate: Its estimate.
        truth: Of the instance.
        cam_from_obj: (4, 4) true pose.
        center: (3,) of the template's box, canonical units.
        unit: Canonical units of a diameter.
        video: Name of the video.
    """
    scale = estimate.scale * unit
    place = placed.cam_from_frame[:3, 3] / scale
    true = transform(cam_from_obj, truth.place[None])[0] / truth.extent.diameter
    away = float(
        (transform(cam_from_obj, truth.extent.center[None])[0]).norm()
    )  # obj units
    rotation, shift = estimate.cam_from_canon[:3, :3], estimate.cam_from_canon[:3, 3]
    object_center = (rotation @ center * estimate.scale + shift) / scale
    factor = away / truth.extent.diameter / float(object_center.norm())
    off, sight = place - true, true / true.norm()
    assert placed.covariance is not None
    covariance = placed.covariance / scale**2
    return Distance(
        video,
        float(off.norm()),
        float((place * factor - true).norm()),
        float((off - (off @ sight) * sight).norm()),
        float(off @ torch.linalg.solve(covariance, off)) <= REGION,
        placed.seen,
    )


def summarize(distances: Sequence[Distance]) -> dict[str, Any]:
    """The figures of one way to place frames."""

    def figures(values: Sequence[float]) -> dict[str, float]:
        return {
            "within10": round(100 * float(np.mean([v <= NEAR for v in values])), 1),
            "median": round(float(np.median(values)), 4),
        }

    return {
        **figures([one.whole for one in distances]),
        "at_distance": figures([one.at_distance for one in distances]),
        "across": figures([one.across for one in distances]),
        "region95": round(100 * float(np.mean([one.inside for one in distances])), 1),
        "seen": round(100 * float(np.mean([one.seen for one in distances])), 1),
    }


def benchmark(
    model: CategoryModel,
    videos: Sequence[Video],
    labels: dict[str, Tensor],
    tested: Sequence[str],
    direction: Tensor,
    most: float,
    device: str = "auto",
) -> dict[str, Any]:
    """Figures of both ways to place a frame.

    Args:
        model: The model.
        videos: Those of the training and the tested ones.
        labels: Rotations (3, 3) by video, of the labels' frame from obj.
        tested: Names of the tested videos.
        direction: (3,) in the labels' frame.
        most: Degrees by which a pose may be off.
        device: Of the estimator.
    """
    label_from_canon = rotation_labels.fit_label_from_canon(model, labels)
    place = extreme_point(model, label_from_canon.T @ direction)
    frame = NamedFrame("tested", place, torch.eye(3, dtype=torch.float64))
    model = replace(model, frames=(frame,))
    hulls = {
        video.name: carve(video)
        for video in videos
        if video.name in model.training_poses or video.name in tested
    }
    diameters = {name: ObjectExtent.of(hull).diameter for name, hull in hulls.items()}
    unit = canonical_diameter(model, diameters)
    center = ObjectExtent.of(model.vertices).center
    estimator = Estimator(model, device=device)
    images, ways = 0, {"rigid": list[Distance](), "snapped": list[Distance]()}
    for video in (video for video in videos if video.name in tested):
        truth = true_place(hulls[video.name], labels[video.name], direction)
        for image in video.frames:
            if image.cam_from_obj is None:
                continue
            images += 1
            pixels, _, camera = read_frame(image)
            true = image.cam_from_obj[:3, :3] @ labels[video.name].T @ label_from_canon
            for one in estimator.without_threshold(pixels, camera)[:1]:
                if float(angle_between(one.cam_from_canon[:3, :3], true)) > most:
                    continue
                rigid = carry_frames(one, model.frames)
                for way, placed in (("rigid", rigid[0]), ("snapped", one.frames[0])):
                    ways[way].append(
                        measure(
                            placed,
                            one,
                            truth,
                            image.cam_from_obj,
                            center,
                            unit,
                            video.name,
                        )
                    )
    if not ways["rigid"]:
        raise InvalidInput(f"no pose is within {most:g} degrees")
    return {
        "videos": list(tested),
        "images": images,
        "images_within_angle": len(ways["rigid"]),
        "angle_deg": most,
        **{way: summarize(distances) for way, distances in ways.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("category", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument(
        "--labels", type=Path, help="default: labels.json in the category's folder"
    )
    parser.add_argument(
        "--videos", help="that are tested (default: all with a label, not of the training)"
    )
    parser.add_argument(
        "--toward", type=float, nargs=3, default=[1.0, 0.0, 0.0], metavar=("X", "Y", "Z")
    )
    parser.add_argument("--most", type=float, default=15.0, help="default: %(default)s")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", help="write the figures here; -: to standard output")
    args = parser.parse_args()
    model = artifacts.load_model(args.model)
    known = [folder.name for folder in list_videos(args.category)]
    labels = rotation_labels.load_labels(
        args.labels or args.category / "labels.json", known + list(model.training_poses)
    )
    if missing := [name for name in model.training_poses if name not in known]:
        raise InvalidInput(
            f"{args.category}: {', '.join(missing)} of the training not there"
        )
    tested = [
        folder.name
        for folder in list_videos(args.category, args.videos)
        if folder.name in labels
        and (args.videos or folder.name not in model.training_poses)
    ]
    figures = benchmark(
        model,
        [load_video(args.category / name) for name in known],
        labels,
        tested,
        torch.tensor(args.toward, dtype=torch.float64),
        args.most,
        args.device,
    )
    write({"machine": machine(), "toward": args.toward, **figures}, args.json)
    if args.json != "-":
        print(f"{figures['images_within_angle']} of {figures['images']} images")
        for way in ("rigid", "snapped"):
            one = figures[way]
            print(
                f"{way:8} within 10 %: {one['within10']:5.1f} %, at the true distance "
                f"{one['at_distance']['within10']:5.1f} %, across "
                f"{one['across']['within10']:5.1f} % (median {one['across']['median']:.3f})"
            )


if __name__ == "__main__":
    politely(main)
