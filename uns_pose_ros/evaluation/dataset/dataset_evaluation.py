"""Accuracy of a model on a public data set, in two rows.

detected: the estimator gets the whole image and nothing else; of the camera it knows only what a
robot would know. true crop: box, camera matrix and translation are the true ones, as in the paper;
the estimator adds the rotation.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import cv2
import numpy as np
import torch
from torch import Tensor

from uns_pose_ros.core.camera import assumed_camera
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import angle_between, nearest_rotation
from uns_pose_ros.core.left_out import LeftOut
from uns_pose_ros.core.types import Camera, CategoryModel, PoseEstimate, Progress
from uns_pose_ros.datasets.labeled_object import LabeledObject, crop_around_origin
from uns_pose_ros.estimation.stream.expectation import box_iou
from uns_pose_ros.evaluation.dataset.object_results import (
    FrameTie,
    ObjectResult,
    place_estimate,
    score_object,
)
from uns_pose_ros.evaluation.poses.pose_evaluation import EstimateImage
from uns_pose_ros.io.images import read_image

ROWS = ("detected", "true_crop")
MATCH_IOU = (
    0.25  # of boxes in the image; an estimate with less overlap is of another object
)
_AGREE, _MOST_FITTED = 30.0, 500  # degrees; number of objects of a fit
EstimateRegion = Callable[[Tensor, Camera, Tensor], Sequence[PoseEstimate]]


@dataclass(frozen=True, eq=False)
class ImageEstimates:
    """An image with the estimates of the whole image, and those of its true crops."""

    objects: tuple[LabeledObject, ...]
    estimates: tuple[PoseEstimate, ...]
    cropped: tuple[PoseEstimate | None, ...]  # one for each object
    seconds: float  # of the estimates of the whole image
    crop_seconds: float


@dataclass(frozen=True, eq=False)
class _Detection:
    """An estimate of an image against each of the image's true objects."""

    score: float
    results: tuple[ObjectResult, ...]


@dataclass(frozen=True, eq=False)
class DatasetRow:
    """All results of one row of a category."""

    objects: tuple[LabeledObject, ...]
    results: tuple[ObjectResult, ...]
    detections: tuple[tuple[_Detection, ...], ...]  # by image
    seconds: tuple[float, ...]  # of each image


def estimate_objects(
    find: EstimateImage,
    find_in_region: EstimateRegion,
    category: str,
    objects: Sequence[LabeledObject],
    left_out: LeftOut,
    progress: Progress | None = None,
) -> list[ImageEstimates]:
    """Estimate all images of labeled objects, as a whole and in the true crops.

    Args:
        find: Is called with an image and the camera that a robot would know.
        find_in_region: Is called with an image, the true camera and one box (1, 4); it returns a
            pose even where its score is low.
        category: The model's category; other estimates do not count.
        objects: The labeled objects; those of one image are neighbors.
        left_out: Receives the images that do not have the annotated size.
        progress: Is called with the step, the images done and all images.
    """
    groups = [
        tuple(group)
        for _, group in groupby(objects, key=lambda one: (one.image, one.film_frame))
    ]
    images = list[ImageEstimates]()
    for done, (group, image) in enumerate(_read_images(groups), 1):
        camera = group[0].camera
        if image is None or tuple(image.shape[:2]) != (camera.height, camera.width):
            left_out.add("images of another size than annotated", group[0].label)
        else:
            images.append(_estimate_image(find, find_in_region, category, group, image))
        if progress is not None:
            progress(f"evaluate {category}", done, len(groups))
    if not images:
        raise InvalidInput(
            f"no image of {category} can be evaluated: "
            f"{'; '.join(left_out.lines()) or 'the split lists none'}"
        )
    return images


def _read_images(
    groups: Sequence[tuple[LabeledObject, ...]],
) -> Iterator[tuple[tuple[LabeledObject, ...], Tensor | None]]:
    """The pixels (H, W, 3) uint8 of each group; None: a film ends before that frame.

    The frames of a film are read in their order.
    """
    film, path, at = None, None, 0
    for group in groups:
        number = group[0].film_frame
        if number is None:
            yield group, read_image(group[0].image)
            continue
        if film is None or path != group[0].image or number < at:
            path, at = group[0].image, 0
            film = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        while at < number and film.grab():
            at += 1
        ok, frame = film.read() if at == number else (False, None)
        at += int(ok)
        if not ok or frame is None:
            yield group, None
            continue
        yield group, torch.from_numpy(np.ascontiguousarray(frame[..., ::-1]))


def _estimate_image(
    find: EstimateImage,
    find_in_region: EstimateRegion,
    category: str,
    group: tuple[LabeledObject, ...],
    image: Tensor,
) -> ImageEstimates:
    camera = group[0].camera
    if not group[0].calibrated:
        camera = assumed_camera(camera.width, camera.height)
    start = time.perf_counter()
    estimates = tuple(one for one in find(image, camera) if one.category == category)
    middle = time.perf_counter()
    cropped = list[PoseEstimate | None]()
    for labeled in group:
        region = crop_around_origin(labeled)[None]
        answers = [
            one
            for one in find_in_region(image, labeled.camera, region)
            if one.category == category
        ]
        cropped.append(max(answers, key=lambda one: one.score, default=None))
    seconds = middle - start, time.perf_counter() - middle
    return ImageEstimates(group, estimates, tuple(cropped), *seconds)


def match_estimates(image: ImageEstimates) -> list[PoseEstimate | None]:
    """The estimate of each object of an image, by the overlap of the boxes in the image.

    An estimate is that of one object at most; the largest overlap is matched first.
    """
    matched: list[PoseEstimate | None] = [None] * len(image.objects)
    pairs = [
        (box_iou(labeled.box, estimate.box), i, k)
        for i, labeled in enumerate(image.objects)
        for k, estimate in enumerate(image.estimates)
    ]
    used = set[int]()
    for overlap, i, k in sorted(pairs, key=lambda pair: (-pair[0], pair[1:])):
        if overlap >= MATCH_IOU and matched[i] is None and k not in used:
            matched[i] = image.estimates[k]
            used.add(k)
    return matched


def fit_object_from_canon(
    images: Sequence[ImageEstimates], model: CategoryModel
) -> Tensor | None:
    """The rotation (3, 3) on which most true crops agree; None: no crop has an estimate.

    It is fitted on the images that are evaluated, so it is for figures of a model whose frame is
    arbitrary, and the figures are a little too good.
    """
    tie = FrameTie.of(model, torch.eye(3, dtype=torch.float64))
    pairs = [
        (labeled, estimate)
        for image in images
        for labeled, estimate in zip(image.objects, image.cropped, strict=True)
        if estimate is not None
    ][:_MOST_FITTED]
    if not pairs:
        return None
    turned = torch.stack(
        [
            labeled.cam_from_object[:3, :3].T
            @ place_estimate(estimate, labeled, tie, True)[0]
            for labeled, estimate in pairs
        ]
    )
    near = angle_between(turned[:, None], turned[None]) < _AGREE
    return nearest_rotation(turned[near[int(near.sum(1).argmax())]].mean(0))


def score_rows(images: Sequence[ImageEstimates], tie: FrameTie) -> dict[str, DatasetRow]:
    """Both rows of a category."""
    objects = tuple(labeled for image in images for labeled in image.objects)
    detected, cropped = list[ObjectResult](), list[ObjectResult]()
    found, given = list[tuple[_Detection, ...]](), list[tuple[_Detection, ...]]()
    for image in images:
        for labeled, estimate in zip(image.objects, match_estimates(image), strict=True):
            detected.append(score_object(estimate, labeled, tie, False))
        found.append(
            tuple(
                _Detection(
                    estimate.score,
                    tuple(
                        score_object(estimate, labeled, tie, False)
                        for labeled in image.objects
                    ),
                )
                for estimate in image.estimates
            )
        )
        for labeled, estimate in zip(image.objects, image.cropped, strict=True):
            result = score_object(estimate, labeled, tie, True)
            cropped.append(result)
            if estimate is not None:
                given.append((_Detection(estimate.score, (result,)),))
    seconds = tuple(image.seconds for image in images)
    crop_seconds = tuple(image.crop_seconds for image in images)
    return {
        "detected": DatasetRow(objects, tuple(detected), tuple(found), seconds),
        "true_crop": DatasetRow(objects, tuple(cropped), tuple(given), crop_seconds),
    }
