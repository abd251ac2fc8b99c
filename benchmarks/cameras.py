#!/usr/bin/env python3
"""Two and three cameras against one, on rendered views of one scene.

    python benchmarks/cameras.py demo/out/chair/model
    python benchmarks/cameras.py demo/out/chair/model --video demo/data/live/live_02 --json -

The images of a film show one object at rest from known places: some of them at a time are what as
many cameras see. Each image is estimated once, and fused with those of the others by the code of
the fusion node. Then one of three cameras is taken away for a third of the time. The poses of the
film place the cameras; its scale stands for a known size of the object.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common import LIVE, machine, politely, write
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import invert
from uns_pose_ros.core.types import CategoryModel, PoseEstimate
from uns_pose_ros.estimation.cameras.camera_fusion import (
    CameraFusion,
    CameraView,
    FusedObject,
)
from uns_pose_ros.estimation.estimator import Estimator
from uns_pose_ros.estimation.metric_scale import to_metres
from uns_pose_ros.evaluation.bag_figures import FrameResult, fit_truth_from_canon
from uns_pose_ros.evaluation.metrics import symmetric_angle
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.images import read_image
from uns_pose_ros.io.video_folder import load_video

LIMITS = (10.0, 30.0)  # degrees
STEP = 10**9  # ns between two groups of images, whose objects may differ


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="folder that `uns-pose train` wrote")
    parser.add_argument(
        "--video",
        type=Path,
        nargs="+",
        default=[LIVE, LIVE.parent / "live_02"],
        help="films with poses (default: the demo's)",
    )
    parser.add_argument("--json", help="write the figures here; - for standard output")
    args = parser.parse_args()
    model = artifacts.load_model(args.model)
    figures = benchmark(model, args.video)
    if args.json != "-":
        print(table(figures))
    write({"cameras": figures, "machine": machine()}, args.json)


def benchmark(model: CategoryModel, videos: Sequence[Path]) -> dict[str, Any]:
    """Figures of one, two and three cameras over all films."""
    estimator = Estimator(model)
    errors: dict[str, list[float]] = {"1": [], "2": [], "3": []}
    killed: dict[str, list[Any]] = {"errors": [], "ids": []}
    for video in videos:
        results = estimate_film(estimator, video)
        turn = fit_truth_from_canon(results, model)
        for count in (1, 2, 3):
            groups = camera_groups(len(results), count)
            errors[str(count)] += group_errors(results, groups, model, turn)
        found, numbers = kill_camera(results, model, turn)
        killed["errors"] += found
        killed["ids"].append(numbers)
    return {
        "videos": [video.name for video in videos],
        "cameras": {count: rates(values) for count, values in errors.items()},
        "killed_and_back": {
            **rates(killed["errors"]),
            "ids_per_object": sum(killed["ids"]) / len(killed["ids"]),
        },
    }


def estimate_film(estimator: Estimator, video: Path) -> list[FrameResult]:
    """The best estimate of each image, in the unit of the film's poses."""
    results = []
    for number, frame in enumerate(load_video(video).frames):
        if frame.cam_from_obj is None:
            raise InvalidInput(f"{video}: a video with the pose of every image is valid")
        found = estimator(read_image(frame.image).numpy(), frame.camera)
        results.append(
            FrameResult(
                number * STEP,
                f"camera_{number}",
                tuple(found[:1]),
                (0,) * len(found[:1]),
                0.0,
                frame.cam_from_obj,
                None,
                invert(frame.cam_from_obj),
            )
        )
    return with_size(results)


def with_size(results: Sequence[FrameResult]) -> list[FrameResult]:
    """Give all estimates one size, and the film's frame its origin in the object."""
    pairs = [
        (result.truth, result.best.cam_from_canon[:3, 3] / result.best.scale)
        for result in results
        if result.best is not None and result.truth is not None
    ]
    factor, center = object_in_film(
        [truth for truth, _ in pairs], [place for _, place in pairs]
    )
    middle = torch.eye(4, dtype=torch.float64)
    middle[:3, 3] = center

    def sized(estimate: PoseEstimate) -> PoseEstimate:
        unit = replace(estimate, metric=False)
        return to_metres(unit, factor)

    return [
        replace(
            result,
            estimates=tuple(sized(each) for each in result.estimates),
            truth=result.truth @ middle,
            fixed_from_cam=invert(result.truth @ middle),
        )
        for result in results
        if result.truth is not None
    ]


def object_in_film(
    truths: Sequence[Tensor], places: Sequence[Tensor]
) -> tuple[float, Tensor]:
    """Fit where a film's object is, and how large.

    Args:
        truths: cam_from_film (4, 4) of images.
        places: (3,) of the object in the camera, diameters.

    Returns:
        The diameter and the position (3,) in the film's frame and unit.
    """
    if len(places) < 2:
        raise InvalidInput(
            "two images with an estimate are needed: a model of its category"
        )
    rows = [
        torch.cat([place[:, None], -truth[:3, :3]], 1)
        for truth, place in zip(truths, places, strict=True)
    ]
    wanted = torch.cat([truth[:3, 3] for truth in truths])
    found = torch.linalg.lstsq(torch.cat(rows), wanted[:, None]).solution[:, 0]
    return float(found[0]), found[1:]


def camera_groups(images: int, count: int) -> list[list[int]]:
    """For each image, `count` images that lie apart by equal parts of the film."""
    return [
        [(first + k * images // count) % images for k in range(count)]
        for first in range(images)
    ]


def group_errors(
    results: Sequence[FrameResult],
    groups: Sequence[Sequence[int]],
    model: CategoryModel,
    turn: Tensor,
) -> list[float]:
    """Errors of the fused rotation, degrees; 180 where no camera sees the object."""
    errors = []
    for group in groups:
        objects = CameraFusion().update([view_of(results, k, 0) for k in group])
        errors.append(error_of(objects, model, turn))
    return errors


def view_of(results: Sequence[FrameResult], index: int, stamp: int) -> CameraView:
    """What a camera at the place of an image sees at a time, ns."""
    result = results[index]
    assert result.fixed_from_cam is not None
    return CameraView(
        result.frame, stamp, result.fixed_from_cam, result.estimates, result.tracks
    )


def error_of(objects: Sequence[FusedObject], model: CategoryModel, turn: Tensor) -> float:
    """Error of the best object, whose true pose in the film's frame is `turn`, degrees."""
    if not objects:
        return 180.0
    best = max(objects, key=lambda each: each.estimate.score).estimate.cam_from_canon
    return float(symmetric_angle(best[:3, :3].T, turn[:3, :3].T, model.symmetry))


def kill_camera(
    results: Sequence[FrameResult], model: CategoryModel, turn: Tensor
) -> tuple[list[float], int]:
    """Three cameras, the first of which is away in the second third of nine results each.

    Returns:
        The errors while it is away, and how many numbers the object got.
    """
    errors, numbers = list[float](), 0
    groups = camera_groups(len(results), 3)
    for group in groups:
        fusion, seen = CameraFusion(), set[int]()
        for step in range(9):
            away = 3 <= step < 6
            cameras = group[1:] if away else group
            stamp = step * STEP // 10
            objects = fusion.update([view_of(results, k, stamp) for k in cameras])
            seen |= {each.number for each in objects}
            if away:
                errors.append(error_of(objects, model, turn))
        numbers += len(seen)
    return errors, round(numbers / len(groups))


def rates(errors: Sequence[float]) -> dict[str, float]:
    """Percent of the errors above each limit, and their median."""
    values = torch.tensor(errors, dtype=torch.float64)
    record = {
        f"errors{limit:.0f}": 100 * float((values > limit).double().mean())
        for limit in LIMITS
    }
    return {"count": len(errors), **record, "median_deg": float(values.median())}


def table(figures: dict[str, Any]) -> str:
    lines = [
        f"{'cameras':>18s} {'groups':>6s} {'> 10° %':>8s} {'> 30° %':>8s} {'median °':>8s}"
    ]
    rows = [*figures["cameras"].items(), ("3, one killed", figures["killed_and_back"])]
    for name, row in rows:
        lines.append(
            f"{name:>18s} {row['count']:6d} {row['errors10']:8.1f} {row['errors30']:8.1f} "
            f"{row['median_deg']:8.1f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    politely(main)
