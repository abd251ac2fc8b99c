#!/usr/bin/env python3
"""Objects that touch in the image: whether both are found, and whether one is found twice.

    python benchmarks/touching.py mug/model mug --videos 'mug_0[12]' --backgrounds rooms --json -

VIDEOS is a category folder whose videos have exact masks and camera poses, and labels.json beside
them (or --labels). The object of one image is cut out and put beside the object of another one, in
its room: 0.8 to 1.25 times as large, so that the masks touch, or one object hides up to a tenth of
the smaller one's box; either may be in front. No mask and no box is given to the estimator.

    both, one       percent of the images in which so many of both objects are found: an estimate
                    has a box with an intersection over union of at least 0.5 with that of the
                    object's mask, one to one
    extra           percent of these images with an estimate that is of neither object
    median_deg, acc30
                    of the rotations of the objects found. A pasted object is seen along another
                    ray: its true rotation is turned with the ray
    twice           the same images with one object, percent with more than one estimate: as they
                    are, `covered` (a piece of a background over 30 % of the box) and `parted` (a
                    bar of a background across the middle)
    divided         percent of the images in which the parts of a region were tried
    false           percent of the backgrounds that get an estimate

Every figure is given with `search.touching_share` as it is and, as `without`, with 1: no region is
divided.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

import pose
from common import machine, politely, write
from real_world import RememberingEstimator
from uns_pose_ros.core.crops import mask_box
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import angle_between, look_at_rotation
from uns_pose_ros.core.types import Camera, Frame, PoseEstimate
from uns_pose_ros.estimation.stream.expectation import box_iou
from uns_pose_ros.evaluation.rotation_labels import fit_label_from_canon, load_labels
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.images import read_image
from uns_pose_ros.io.video_folder import list_videos, load_video, read_frame

FOUND = 0.5  # intersection over union of the boxes
SCALES = (
    0.8,
    1.25,
)  # of the longer side of the pasted object's box over that of the other one
HIDDEN = 0.1  # largest overlap, as a share of the smaller box
TRIES = 40  # directions and scales, until the pasted object is inside the image
Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Shown:
    """An object in an image, with its mask and its rotation."""

    image: Image
    mask: Mask  # the whole object, what hides it as well
    camera: Camera
    cam_from_label: Tensor  # (3, 3)

    @property
    def box(self) -> Tensor:
        """(4,) px"""
        return mask_box(torch.from_numpy(self.mask))


@dataclass(frozen=True, eq=False)
class Scene:
    """One image with its objects."""

    kind: str
    image: Image
    objects: Sequence[Shown]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("category", type=Path, metavar="VIDEOS")
    parser.add_argument("--backgrounds", type=Path, required=True, help="photographs")
    parser.add_argument(
        "--labels", type=Path, help="default: labels.json in the category's folder"
    )
    parser.add_argument(
        "--videos", help="that are tested (default: all with a label, not of the training)"
    )
    parser.add_argument("--every", type=int, default=1, help="one image in so many")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--save", type=Path, help="folder for the images, to look at them")
    parser.add_argument("--json", help="write the figures here; -: to standard output")
    args = parser.parse_args()
    model = artifacts.load_model(args.model)
    names = [folder.name for folder in list_videos(args.category)]
    labels = load_labels(
        args.labels or args.category / "labels.json", [*names, *model.training_poses]
    )
    tested = [
        folder.name
        for folder in list_videos(args.category, args.videos)
        if folder.name in labels
        and (args.videos or folder.name not in model.training_poses)
    ]
    photographs = [
        read_image(path).numpy()
        for path in sorted(args.backgrounds.rglob("*"))
        if path.suffix in {".jpg", ".png"}
    ]
    shown = [
        read_object(frame, labels[name])
        for name in tested
        for frame in load_video(args.category / name).frames[:: args.every]
    ]
    if not shown or not photographs:
        raise InvalidInput(f"{len(shown)} images, {len(photographs)} backgrounds: no test")
    estimator = RememberingEstimator(model, device=args.device)
    label_from_canon = fit_label_from_canon(model, labels)
    counts: dict[str, list[dict[str, Any]]] = {"with": [], "without": []}
    config = estimator.config
    for number, scene in enumerate(
        make_scenes(shown, photographs, np.random.default_rng(args.seed))
    ):
        estimator.forget()
        camera = (
            scene.objects[0].camera if scene.objects else pose.plain_camera(scene.image)
        )
        for name, share in (("without", 1.0), ("with", config.touching_share)):
            estimator.config = replace(config, touching_share=share)
            before = estimator.batches
            found = estimator(scene.image, camera)
            row = judge(scene, found, label_from_canon)
            # what has been read without division is remembered
            counts[name].append({**row, "divided": int(estimator.batches > before > 0)})
        if args.save:
            args.save.mkdir(parents=True, exist_ok=True)
            file = args.save / f"{number:04d}_{scene.kind}.png"
            cv2.imwrite(str(file), drawn(scene, found))
    figures = {name: summarize(rows) for name, rows in counts.items()}
    write({"machine": machine(), "videos": tested, **figures}, args.json)
    if args.json != "-":
        for name, figure in figures.items():
            print(name, json.dumps(figure))


def read_object(frame: Frame, label: Tensor) -> Shown:
    """The object of a frame; `label` (3, 3) is the labels' canon_from_obj of its video."""
    image, mask, camera = read_frame(frame)
    if mask is None or frame.cam_from_obj is None:
        raise InvalidInput(f"{frame.image}: a mask and a pose are needed to test with it")
    rotation = frame.cam_from_obj[:3, :3] @ label.T
    return Shown(image.numpy(), mask.numpy(), camera, rotation)


def make_scenes(
    shown: Sequence[Shown], photographs: Sequence[Image], random: np.random.Generator
) -> Iterator[Scene]:
    """Two objects in each image, and one as it is, covered, and parted; then the backgrounds."""
    for host in shown:
        donor = shown[int(random.integers(len(shown)))]
        photograph = photographs[int(random.integers(len(photographs)))]
        pair = paste_beside(host, donor, random)
        if pair is not None:
            yield pair
        yield Scene("alone", host.image, [host])
        covered = pose.occluded(host.image, host.mask, photograph, random)
        yield Scene("covered", covered, [host])
        yield Scene("parted", part(host, photograph, random), [host])
    for photograph in photographs:
        yield Scene("background", photograph, [])


def paste_beside(host: Shown, donor: Shown, random: np.random.Generator) -> Scene | None:
    """Put the donor's object beside the host's; None where it does not fit into the image."""
    height, width = host.mask.shape
    host_box, box = host.box, donor.box
    side, own = (float((each[2:] - each[:2]).max()) for each in (host_box, box))
    for _ in range(TRIES):
        scale = float(np.exp(random.uniform(*np.log(SCALES)))) * side / own
        angle = random.uniform(-30, 30) + 180 * random.integers(2)
        hidden = float(random.uniform(0, HIDDEN)) * random.integers(2)
        front = bool(random.integers(2))
        area = min(
            float((host_box[2:] - host_box[:2]).prod()),
            scale**2 * float((box[2:] - box[:2]).prod()),
        )
        toward = np.array([np.cos(np.radians(angle)), -np.sin(np.radians(angle))])
        middle, center = (((each[:2] + each[2:]) / 2).numpy() for each in (host_box, box))
        for far in np.arange(2.0 * side, 0.0, -1.0):
            shift = middle + far * toward - scale * center
            warp = np.array([[scale, 0, shift[0]], [0, scale, shift[1]], [0, 0, 1]])
            mask = cv2.warpAffine(donor.mask.astype(np.float32), warp[:2], (width, height))
            near = cv2.dilate((mask > 0.5).astype(np.uint8), np.ones((3, 3))) > 0
            if not (near & host.mask).any():
                continue
            if ((mask > 0.5) & host.mask).sum() >= hidden * area:
                break
        corners = scale * box.reshape(2, 2).numpy() + shift
        if (corners > 1).all() and (corners < np.array([width, height]) - 2).all():
            return compose(host, donor, warp, front)
    return None


def compose(host: Shown, donor: Shown, warp: NDArray[np.float64], front: bool) -> Scene:
    """Draw the donor's object into the host's image, in front of its object or behind it."""
    size = (host.camera.width, host.camera.height)
    soft = cv2.GaussianBlur(donor.mask.astype(np.float32), (0, 0), 0.6)
    alpha = cv2.warpAffine(soft, warp[:2], size)[..., None]
    if not front:
        alpha = alpha * (
            1 - cv2.GaussianBlur(host.mask.astype(np.float32), (0, 0), 0.6)[..., None]
        )
    pixels = cv2.warpAffine(donor.image, warp[:2], size)
    image = np.clip(alpha * pixels + (1 - alpha) * host.image, 0, 255).astype(np.uint8)
    mask = cv2.warpAffine(donor.mask.astype(np.float32), warp[:2], size) > 0.5
    center = ((donor.box[:2] + donor.box[2:]) / 2).numpy()
    before = _look_at(donor.camera, center)
    now = _look_at(host.camera, warp[:2, :2] @ center + warp[:2, 2])
    return Scene(
        "touching",
        image,
        [host, Shown(image, mask, host.camera, now.T @ before @ donor.cam_from_label)],
    )


def _look_at(camera: Camera, pixel: NDArray[np.float64]) -> Tensor:
    """(3, 3) view_from_cam of the view along a pixel's ray."""
    ray = np.linalg.inv(camera.matrix.numpy()) @ [*pixel, 1.0]
    return torch.from_numpy(look_at_rotation(ray[None])[0])


def part(shown: Shown, photograph: Image, random: np.random.Generator) -> Image:
    """A bar of the photograph across the middle of the object, upright or level."""
    x0, y0, x1, y1 = shown.box.round().long().tolist()
    share = float(random.uniform(0.2, 0.35))
    image = shown.image.copy()
    height, width = image.shape[:2]
    other = cv2.resize(photograph, (width, height))
    if random.integers(2):
        half, middle = int(share * (x1 - x0) / 2), (x0 + x1) // 2
        bar = np.s_[max(0, y0 - 10) : y1 + 10, middle - half : middle + half]
    else:
        half, middle = int(share * (y1 - y0) / 2), (y0 + y1) // 2
        bar = np.s_[middle - half : middle + half, max(0, x0 - 10) : x1 + 10]
    image[bar] = other[bar]
    return image


def judge(
    scene: Scene, found: Sequence[PoseEstimate], label_from_canon: Tensor
) -> dict[str, Any]:
    """How many of the objects are found, and the errors of these."""
    overlap = np.array(
        [[box_iou(one.box, shown.box) for one in found] for shown in scene.objects]
    ).reshape(len(scene.objects), len(found))
    pairs = [
        (row, column)
        for row, column in zip(*linear_sum_assignment(-overlap), strict=True)
        if overlap[row, column] >= FOUND
    ]
    errors = [
        float(
            angle_between(
                found[column].cam_from_canon[:3, :3],
                scene.objects[row].cam_from_label @ label_from_canon,
            )
        )
        for row, column in pairs
    ]
    return {
        "kind": scene.kind,
        "answers": len(found),
        "right": len(pairs),
        "errors": errors,
    }


def summarize(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The figures that the top of this file lists."""

    def percent(kind: str, key: str, least: int, most: int = 1000) -> float | None:
        some = [least <= row[key] <= most for row in rows if row["kind"] == kind]
        return round(100 * float(np.mean(some)), 1) if some else None

    pairs = [row for row in rows if row["kind"] == "touching"]
    errors = np.array([error for row in pairs for error in row["errors"]])
    alone = np.array(
        [error for row in rows if row["kind"] == "alone" for error in row["errors"]]
    )
    extra = [row["answers"] > row["right"] for row in pairs]
    single = ("alone", "covered", "parted")
    return {
        "images": len(pairs),
        "both": percent("touching", "right", 2),
        "one": percent("touching", "right", 1, 1),
        "extra": round(100 * float(np.mean(extra)), 1) if extra else None,
        "median_deg": round(float(np.median(errors)), 1) if len(errors) else None,
        "acc30": round(100 * float((errors < 30).mean()), 1) if len(errors) else None,
        "alone_acc30": round(100 * float((alone < 30).mean()), 1) if len(alone) else None,
        "singles": sum(row["kind"] == "alone" for row in rows),
        "found": {kind: percent(kind, "right", 1) for kind in single},
        "twice": {kind: percent(kind, "answers", 2) for kind in single},
        "divided": {
            kind: percent(kind, "divided", 1)
            for kind in ("touching", *single, "background")
        },
        "backgrounds": sum(row["kind"] == "background" for row in rows),
        "false": percent("background", "answers", 1),
    }


def drawn(scene: Scene, found: Sequence[PoseEstimate]) -> Image:
    """The image (BGR) with the true boxes in green and those of the estimates in red."""
    image = np.ascontiguousarray(scene.image[..., ::-1])
    boxes = [(shown.box, (0, 255, 0)) for shown in scene.objects]
    for box, color in [*boxes, *((one.box, (0, 0, 255)) for one in found)]:
        x0, y0, x1, y1 = (int(each) for each in box.round().tolist())
        cv2.rectangle(image, (x0, y0), (x1, y1), color, 1)
    return image


if __name__ == "__main__":
    politely(main)
