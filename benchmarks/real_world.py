#!/usr/bin/env python3
"""Poses in rooms, under cover and on backgrounds, of instances and places never seen.

    python benchmarks/real_world.py DATA --work /tmp/real --json real.json
    python benchmarks/real_world.py DATA --work /tmp/real --sets mug --folds 1

DATA holds what this finds there:

    mug             videos in rooms, folds of two and three videos are left out
    mug-bare        the same without their masks and camera poses
    car, horse      photographs on plain ground: trained on one half of the directions, tested on
                    the other half, with instances that were left out
    car-rooms, horse-rooms
                    those models on eth80_rooms/, the same photographs set into rooms
    backgrounds/    photographs without any of the objects

Every test image is estimated without mask or box as it is, and `covered`: a piece of a photograph
lies over 30 % of the object's box. Labels are read to score and for nothing else. What is done
already in --work is not done again.

    answered        percent of the images with an estimate, at the default threshold
    acc30, acc10    percent of the images with an error below, at the default threshold; an image
                    without an answer is wrong
    auroc           of the score over all images, without threshold
    wrong           number of images above 30 degrees, without threshold
    region95        percent of the answers whose 95 % region of rotations contains the true one
    false_percent   percent of the backgrounds that get an answer, at the default threshold
    iou3d           of the boxes in space, as in `uns-pose evaluate pose`, at the default threshold:
                    the true box is that of the hull of the exact masks along the labels' axes, the
                    estimated one is scaled along its ray to the true depth (`unscaled`: as it is)
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import pose
from common import machine, politely
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import nearest_rotation
from uns_pose_ros.core.left_out import LeftOut
from uns_pose_ros.core.types import CategoryModel, Video
from uns_pose_ros.estimation.estimator import Estimator
from uns_pose_ros.evaluation import metrics, rotation_labels
from uns_pose_ros.evaluation.box_figures import TrueBox, summarize_boxes
from uns_pose_ros.evaluation.poses import pose_evaluation
from uns_pose_ros.evaluation.poses.pose_evaluation import ImageResult
from uns_pose_ros.io.images import read_image
from uns_pose_ros.io.video_folder import list_videos, load_video, read_frame
from uns_pose_ros.pipeline.true_boxes import measure_true_boxes

SETS = ("mug", "mug-bare", "car", "horse", "car-rooms", "horse-rooms")
ROOMS = "eth80_rooms"


@dataclass(frozen=True, eq=False)
class Fold:
    """A model is trained on the named videos of `train`; the images of `test` are estimated."""

    train: Path
    known: Sequence[str]
    test: Path
    unseen: Sequence[str]
    labels: Path  # of the test
    known_labels: Path  # of the training
    given: bool  # masks and camera poses are given to the training


class RememberingEstimator(Estimator):
    """An estimator that reads no image with the backbone twice, until `forget` is called."""

    def forget(self) -> None:
        """Forget the tokens of all images."""
        self._remembered: dict[bytes, Tensor] = {}

    @property
    def batches(self) -> int:
        """Number of batches that the backbone read since `forget`."""
        return len(self._remembered)

    def _tokens(self, images: Tensor) -> Tensor:
        key = images.cpu().numpy().tobytes()
        if key not in self._remembered:
            self._remembered[key] = super()._tokens(images)
        return self._remembered[key]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument(
        "--work", type=Path, required=True, help="folder for meshes, alignments and models"
    )
    parser.add_argument("--sets", default=",".join(SETS), help="default: %(default)s")
    parser.add_argument("--folds", type=int, help="only the first ones (default: all)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, help="write the figures here after every fold")
    args = parser.parse_args()
    chosen = args.sets.split(",")
    if unknown := set(chosen) - set(SETS):
        raise InvalidInput(
            f"--sets {', '.join(sorted(unknown))}: {', '.join(SETS)} are valid"
        )
    backgrounds = [
        read_image(path).numpy() for path in sorted((args.data / "backgrounds").iterdir())
    ]
    figures: dict[str, Any] = {"machine": machine()}
    for name in chosen:
        start = time.perf_counter()
        results = {"plain": list[Pair](), "covered": list[Pair]()}
        false = shown = 0
        for number, fold in enumerate(folds(args.data, name)[: args.folds]):
            work = args.work / name.removesuffix("-rooms")
            estimator, folder = trained(work, fold, args.device)
            (model,) = estimator.models
            label_from_canon = fit_label_from_canon(model, fold, folder)
            for variant, pair in estimate_fold(
                estimator, fold, label_from_canon, backgrounds, number
            ):
                results[variant].append(pair)
            for photograph in backgrounds:
                false += bool(estimator(photograph, pose.plain_camera(photograph)))
                shown += 1
                estimator.forget()
            figures[name] = {
                variant: summarize(pairs) for variant, pairs in results.items()
            } | {
                "false_percent": 100 * false / max(shown, 1),
                "folds": number + 1,
                "seconds": time.perf_counter() - start,
            }
            if args.json:
                args.json.write_text(json.dumps(figures, indent=1))
            print(name, json.dumps(figures[name]), file=sys.stderr)
    print(table(figures))


@dataclass(frozen=True, eq=False)
class Pair:
    """The results of one image: at the default threshold, and without threshold."""

    default: ImageResult
    every: ImageResult


def folds(data: Path, name: str) -> list[Fold]:
    """Who is learned from and who is left out, for one of SETS."""
    if name.startswith("mug"):
        source, given = data / "mug", name == "mug"
        videos = [folder.name for folder in list_videos(source)]
        return [
            Fold(
                source,
                [video for video in videos if video not in unseen],
                source,
                unseen,
                source / "labels.json",
                source / "labels.json",
                given,
            )
            for unseen in pose.folds(videos, 2)
        ]
    category = name.removesuffix("-rooms")
    half = data / "split" / category
    if not (half / "a").exists():
        raise InvalidInput(
            f"{half}: halves of the directions are needed in a and b (view_split.py)"
        )
    videos = [folder.name for folder in list_videos(half / "a")]
    test = half / "b" if name == category else data / ROOMS / category
    return [
        Fold(
            half / "a",
            [video for video in videos if video not in unseen],
            test,
            unseen,
            test / "labels.json",
            half / "a" / "labels.json",
            True,
        )
        for unseen in pose.folds(videos, 3)
    ]


def trained(work: Path, fold: Fold, device: str) -> tuple[RememberingEstimator, Path]:
    """The model of a fold in an estimator, and the folder of its category."""
    source = fold.train
    if not fold.given:
        source = work / "images-only"
        for video in fold.known:
            if not (source / video).exists():
                shutil.copytree(fold.train / video / "images", source / video / "images")
    category = fold.train.parent.name if fold.train.name == "a" else fold.train.name
    model = pose.train(work, category, source, fold.known, device)
    estimator = RememberingEstimator(model, device=device)
    estimator.forget()
    return estimator, work / f"from {' '.join(fold.known)}" / category


def estimate_fold(
    estimator: RememberingEstimator,
    fold: Fold,
    label_from_canon: Tensor,
    backgrounds: Sequence[pose.Image],
    seed: int,
) -> Iterator[tuple[str, Pair]]:
    """Every image of the unseen videos, as it is and covered."""
    (model,) = estimator.models
    truth = json.loads(fold.labels.read_text())
    chosen = _unseen_directions(fold)
    videos = {name: load_video(fold.test / name) for name in fold.unseen}
    # the cameras of ROOMS are far away, and no hull comes from them
    in_rooms = fold.test.parent.name == ROOMS
    boxes = {} if in_rooms else true_boxes(list(videos.values()), truth)
    for number, (name, video) in enumerate(videos.items()):
        for index, frame in enumerate(video.frames):
            if frame.cam_from_obj is None:
                continue
            if chosen is not None and (name, frame.name) not in chosen:
                continue
            image, mask, camera = read_frame(frame)
            assert mask is not None
            label = _cam_from_label(truth[name], frame.name, frame.cam_from_obj)
            rng = np.random.default_rng([seed, number, index])
            photograph = backgrounds[int(rng.integers(len(backgrounds)))]
            covered = pose.occluded(image.numpy(), mask.numpy(), photograph, rng)
            for variant, pixels in (("plain", image.numpy()), ("covered", covered)):
                results = []
                config = estimator.config
                for threshold in (config.score_threshold, 0.0):
                    estimator.config = replace(config, score_threshold=threshold)
                    found = estimator(pixels, camera)
                    result = pose_evaluation.score_estimates(
                        found, model, label @ label_from_canon, name, frame.name, 0.0
                    )
                    if name in boxes:
                        result = pose_evaluation.add_box(
                            result, model, boxes[name], frame.cam_from_obj, label_from_canon
                        )
                    results.append(result)
                estimator.config = config
                estimator.forget()
                yield variant, Pair(*results)


def true_boxes(
    videos: Sequence[Video], truth: Mapping[str, Mapping[str, Any]]
) -> dict[str, TrueBox]:
    """The true boxes of the videos, along the axes of their labels."""
    labels = {
        name: nearest_rotation(torch.tensor(record["canon_from_obj"], dtype=torch.float64))
        for name, record in truth.items()
    }
    return measure_true_boxes(videos, labels, LeftOut())


def _unseen_directions(fold: Fold) -> set[tuple[str, str]] | None:
    """Images (video, frame) of eth80_rooms from directions of the other half; None: all images."""
    if fold.test.parent.name != ROOMS:
        return None
    half = fold.train.parent / "b"
    return {
        (name, frame.name)
        for name in fold.unseen
        for frame in load_video(half / name).frames
    }


def _cam_from_label(record: Mapping[str, Any], frame: str, cam_from_obj: Tensor) -> Tensor:
    """(3, 3) of an image, from its own label or from that of its video."""
    own = record.get("cam_from_canon", {}).get(frame)
    if own is not None:
        return nearest_rotation(torch.tensor(own, dtype=torch.float64))
    label = nearest_rotation(torch.tensor(record["canon_from_obj"], dtype=torch.float64))
    return cam_from_obj[:3, :3] @ label.T


def fit_label_from_canon(model: CategoryModel, fold: Fold, category: Path) -> Tensor:
    """(3, 3) from the model's frame to that of the labels, by the videos of the training.

    Args:
        model: The model of the fold.
        fold: The fold.
        category: Folder of the videos as they were reconstructed for the training.
    """
    truth = json.loads(fold.known_labels.read_text())
    labels = {}
    for name in model.training_poses:
        if fold.given:
            rows = truth[name]["canon_from_obj"]
            labels[name] = nearest_rotation(torch.tensor(rows, dtype=torch.float64))
            continue
        # the training found a frame of its own for each video
        turns = [
            _cam_from_label(truth[name], frame.name, frame.cam_from_obj).T
            @ frame.cam_from_obj[:3, :3]
            for frame in load_video(category / name).frames
            if frame.cam_from_obj is not None
        ]
        labels[name] = nearest_rotation(torch.stack(turns).mean(0))
    return rotation_labels.fit_label_from_canon(model, labels)


def summarize(pairs: Sequence[Pair]) -> dict[str, Any]:
    """The figures of the images, see the top of this file."""
    errors = np.array([pair.default.error for pair in pairs])
    free = np.array([pair.every.error for pair in pairs])
    answers = [pair.default for pair in pairs if pair.default.estimate is not None]
    scored = [
        (pair.every.estimate.score if pair.every.estimate else 0.0, pair.every.error)
        for pair in pairs
    ]
    inside = [result.inside for result in answers if result.inside is not None]
    return {
        "images": len(pairs),
        "answered": 100 * len(answers) / len(pairs),
        "acc30": 100 * float((errors < 30).mean()),
        "acc15": 100 * float((errors < 15).mean()),
        "acc10": 100 * float((errors < 10).mean()),
        "acc30_without_threshold": 100 * float((free < 30).mean()),
        "median_deg": float(np.median(errors)),
        "auroc": metrics.auroc(scored),
        "wrong": int((free > 30).sum()),
        "region95": 100 * float(np.mean(inside)) if inside else None,
        "iou3d": summarize_boxes(
            [pair.default.box for pair in pairs if pair.default.box is not None],
            {"images without a true box": sum(pair.default.box is None for pair in pairs)},
        ),
    }


def table(figures: Mapping[str, Any]) -> str:
    """The figures for people, one line a set and variant."""
    head = "set          variant  images answ.  @30  @10  AUROC wrong region false  IoU ≥.25  ≥.5"
    lines = [head]
    for name, of in figures.items():
        for variant in ("plain", "covered"):
            if variant in of:
                row, boxes = of[variant], of[variant]["iou3d"]
                lines.append(
                    f"{name:12} {variant:8} {row['images']:5} {row['answered']:6.1f} "
                    f"{row['acc30']:5.1f} {row['acc10']:4.1f} {row['auroc'] or 0:6.3f} "
                    f"{row['wrong']:4} {row['region95'] or 0:6.1f} {of['false_percent']:5.1f} "
                    f"{boxes['mean'] or 0:4.2f} {boxes['share25'] or 0:5.1f} "
                    f"{boxes['share50'] or 0:5.1f}"
                )
    return "\n".join(lines)


if __name__ == "__main__":
    politely(main)
