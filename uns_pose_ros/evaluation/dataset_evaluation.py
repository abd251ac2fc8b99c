"""Accuracy of a model on a public data set, in two rows.

detected: the estimator gets the whole image and nothing else; of the camera it knows only what a
robot would know. true crop: box, camera matrix and translation are the true ones, as in the paper;
the estimator adds the rotation.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from uns_pose_ros.core.camera import assumed_camera
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import (
    angle_between,
    nearest_equivalent,
    nearest_rotation,
    rotation_from_vector,
)
from uns_pose_ros.core.left_out import LeftOut
from uns_pose_ros.core.types import (
    Camera,
    CategoryModel,
    PoseEstimate,
    Progress,
    Symmetry,
)
from uns_pose_ros.datasets.labeled_object import LabeledObject, crop_around_origin
from uns_pose_ros.estimation.stream.expectation import box_iou
from uns_pose_ros.evaluation.box_overlap import OrientedBox, average_precision, box_iou_3d
from uns_pose_ros.evaluation.metrics import MISSING, accuracies, symmetric_angle
from uns_pose_ros.evaluation.poses.pose_evaluation import EstimateImage
from uns_pose_ros.io.images import read_image

ROWS = ("detected", "true_crop")
MATCH_IOU = (
    0.25  # of boxes in the image; an estimate with less overlap is of another object
)
_NOCS_IOU = 0.1  # of boxes in space, of a match in the NOCS figures
_IOU_THRESHOLDS = {"ap25": 0.25, "ap50": 0.5}
# degrees; m, or None; share of the diameter, or None
_POSE_THRESHOLDS: dict[str, tuple[float, float | None, float | None]] = {
    "ap5deg5cm": (5.0, 0.05, None),
    "ap10deg5cm": (10.0, 0.05, None),
    "ap10deg10pct": (10.0, None, 0.1),
}
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
class FrameTie:
    """How a model's canonical frame lies in the frame of the data set's objects."""

    object_from_canon: Tensor  # (3, 3) float64
    center: Tensor  # (3,) float64, of the model's box, canonical units
    symmetry: Symmetry  # of the model, in the frame of the objects

    @staticmethod
    def of(model: CategoryModel, object_from_canon: Tensor) -> FrameTie:
        """The tie of a model by a rotation (3, 3)."""
        axis = object_from_canon @ model.symmetry.axis
        return FrameTie(
            object_from_canon,
            model.center,
            Symmetry(model.symmetry.order, axis),
        )


@dataclass(frozen=True, eq=False)
class ObjectResult:
    """The result of one object in one row."""

    answered: bool
    error: float = MISSING  # degrees
    symmetric_error: float = MISSING  # degrees
    iou: float = 0.0  # of boxes in space
    size_error: float | None = None  # mean over the sides, share of the true side
    shift: float | None = None  # from the true center; m
    shift_share: float | None = None  # diameters


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
            labeled.cam_from_object[:3, :3].T @ _place(estimate, labeled, tie, True)[0]
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


def score_object(
    estimate: PoseEstimate | None, labeled: LabeledObject, tie: FrameTie, is_crop: bool
) -> ObjectResult:
    """Compare an estimate with the truth.

    Args:
        estimate: The estimate; None counts as wrong.
        labeled: The truth.
        tie: How the model's frame lies in the object's frame.
        is_crop: Box, camera and translation were given.
    """
    if estimate is None:
        return ObjectResult(False)
    rotation, center, scale, is_metric = _place(estimate, labeled, tie, is_crop)
    true, position = labeled.cam_from_object[:3, :3], labeled.cam_from_object[:3, 3]
    rotation = rotation @ tie.object_from_canon.T
    equal, symmetric = _nearest_equal(rotation, labeled, labeled.symmetry or tie.symmetry)
    errors = float(angle_between(true, rotation)), symmetric
    if labeled.extents is None or labeled.diameter is None:
        return ObjectResult(True, *errors)
    size = estimate.size * scale
    box = OrientedBox(equal @ tie.object_from_canon, center, size)
    iou = box_iou_3d(box, OrientedBox(true, position, labeled.extents))
    sides = tie.object_from_canon.abs() @ size / labeled.extents
    shift = None if is_crop else float((center - position).norm())
    return ObjectResult(
        True,
        *errors,
        iou,
        float((sides - 1).abs().mean()),
        shift if is_metric else None,
        None if shift is None else shift / labeled.diameter,
    )


def _nearest_equal(
    rotation: Tensor, labeled: LabeledObject, symmetry: Symmetry
) -> tuple[Tensor, float]:
    """Of the rotations that symmetry makes equal, the nearest to the truth; its error, degrees.

    Args:
        rotation: (3, 3), cam_from_object.
        labeled: The truth.
        symmetry: About one axis, in the object's frame.
    """
    true = labeled.cam_from_object[:3, :3]
    if labeled.is_sphere:
        return true, 0.0
    turns = (
        torch.eye(3, dtype=torch.float64)[None] if labeled.turns is None else labeled.turns
    )
    errors = symmetric_angle((true @ turns).mT, rotation.T, symmetry)
    turn = turns[int(errors.argmin())]
    equal = nearest_equivalent(rotation, true @ turn, symmetry.order, symmetry.axis)
    return equal @ turn.T, float(errors.min())


def _place(
    estimate: PoseEstimate, labeled: LabeledObject, tie: FrameTie, is_crop: bool
) -> tuple[Tensor, Tensor, float, bool]:
    """An estimate in the camera's frame and the units of the truth.

    Where the translation is given, or where the camera of the truth looks at the object, the object
    is turned about the camera to where it truly is: its rotation against the line of sight stays.

    Returns:
        cam_from_canon (3, 3), the center of the box (3,), the factor from the estimate's units to
        those of the truth, and whether both are meters.
    """
    rotation = estimate.cam_from_canon[:3, :3]
    center = estimate.box_pose(tie.center)[:3, 3]
    position = labeled.cam_from_object[:3, 3]
    is_metric = estimate.metric and labeled.metric
    scale = 1.0 if is_metric else float(position.norm() / center.norm())
    if is_crop or not labeled.calibrated:
        rotation = _shortest_rotation(center, position) @ rotation
    if is_crop:
        return rotation, position, scale, is_metric
    return rotation, center * scale, scale, is_metric


def _shortest_rotation(source: Tensor, target: Tensor) -> Tensor:
    """The rotation (3, 3) by the least angle that turns a direction (3,) to another one."""
    a, b = source / source.norm(), target / target.norm()
    axis = torch.linalg.cross(a, b)
    sine = float(axis.norm())
    if sine < 1e-12:
        return torch.eye(3, dtype=torch.float64)
    angle = torch.atan2(axis.norm(), a @ b)
    return rotation_from_vector(axis / sine * angle)


def summarize_row(row: DatasetRow) -> dict[str, Any]:
    """The figures of a row.

    Accuracies are percent of all objects below the angle, strictly; an object without an estimate
    is wrong. boxes: figures of the boxes in space, None where the data set has none.
    """
    results = row.results
    error = torch.tensor([one.error for one in results], dtype=torch.float64)
    symmetric = torch.tensor([one.symmetric_error for one in results], dtype=torch.float64)
    answered = sum(one.answered for one in results)
    figures: dict[str, Any] = {
        "images": len(row.seconds),
        "objects": len(results),
        "answered": 100 * answered / len(results) if results else None,
    }
    seconds = sum(row.seconds) / len(row.seconds) if row.seconds else None
    return (
        figures
        | accuracies(error)
        | {"symmetry_aware": accuracies(symmetric)}
        | {"boxes": _summarize_boxes(row), "seconds_per_image": seconds}
    )


def _summarize_boxes(row: DatasetRow) -> dict[str, float | None] | None:
    if not row.objects or any(labeled.extents is None for labeled in row.objects):
        return None
    answered = [one for one in row.results if one.answered]
    figures = {
        "iou_mean": 100 * sum(one.iou for one in row.results) / len(row.results),
        "size_error_pct": _percent(_middle([one.size_error for one in answered])),
        "translation_m": _middle([one.shift for one in answered]),
        "translation_pct": _percent(_middle([one.shift_share for one in answered])),
    }
    for name, least in _IOU_THRESHOLDS.items():
        figures[name] = _precision(row, least, lambda _: True)
    for name, limits in _POSE_THRESHOLDS.items():
        known = any(
            (one.shift if limits[1] is not None else one.shift_share) is not None
            for one in answered
        )
        figures[name] = (
            _precision(row, _NOCS_IOU, partial(_is_within, limits=limits))
            if known
            else None
        )
    return figures


def _is_within(
    result: ObjectResult, limits: tuple[float, float | None, float | None]
) -> bool:
    degrees, meters, share = limits
    if not result.symmetric_error < degrees:
        return False
    if meters is not None:
        return result.shift is not None and result.shift < meters
    return share is None or (result.shift_share is not None and result.shift_share < share)


def _precision(
    row: DatasetRow, least_iou: float, accept: Callable[[ObjectResult], bool]
) -> float | None:
    """Average precision; a detection is right if it is the first on an object that it fits."""
    scored = list[tuple[float, bool]]()
    for image in row.detections:
        used = set[int]()
        for detection in sorted(image, key=lambda one: -one.score):
            free = [k for k in range(len(detection.results)) if k not in used]
            best = max(free, key=lambda k: detection.results[k].iou, default=None)
            right = (
                best is not None
                and detection.results[best].iou >= least_iou
                and accept(detection.results[best])
            )
            if right and best is not None:
                used.add(best)
            scored.append((detection.score, right))
    return average_precision(scored, len(row.objects))


def summarize_dataset(
    rows: Mapping[str, Mapping[str, DatasetRow]], in_paper: Sequence[str] = ()
) -> dict[str, Any]:
    """The figures of all categories, and their means.

    Args:
        rows: The rows by category.
        in_paper: Categories of the paper's table; empty: all.

    Returns:
        categories: figures by category and row. mean: each figure's mean over the categories, as
        in the paper. paper_mean: the same over the categories of the paper's table, None unless all
        of them are there. weighted: over all objects at once, as NeMo does.
    """
    categories = {
        category: {name: summarize_row(row) for name, row in both.items()}
        for category, both in rows.items()
    }
    record: dict[str, Any] = {"categories": categories, "mean": {}, "paper_mean": {}}
    record["weighted"] = {}
    for name in ROWS:
        record["mean"][name] = _mean_figures([both[name] for both in categories.values()])
        listed = [categories[key][name] for key in in_paper if key in categories]
        complete = bool(in_paper) and len(listed) == len(in_paper)
        record["paper_mean"][name] = _mean_figures(listed) if complete else None
        record["weighted"][name] = summarize_row(_joined([r[name] for r in rows.values()]))
    return record


def _joined(rows: Sequence[DatasetRow]) -> DatasetRow:
    return DatasetRow(
        tuple(one for row in rows for one in row.objects),
        tuple(one for row in rows for one in row.results),
        tuple(one for row in rows for one in row.detections),
        tuple(one for row in rows for one in row.seconds),
    )


def _mean_figures(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean of every number; counts are added up; None if a category does not have it."""
    mean = dict[str, Any]()
    for key in records[0] if records else ():
        values = [record[key] for record in records]
        if any(value is None for value in values):
            mean[key] = None
        elif isinstance(values[0], Mapping):
            mean[key] = _mean_figures(values)
        elif key in ("images", "objects"):
            mean[key] = sum(values)
        else:
            mean[key] = sum(values) / len(values)
    return mean


def _middle(values: Sequence[float | None]) -> float | None:
    numbers = torch.tensor([v for v in values if v is not None], dtype=torch.float64)
    return float(numbers.quantile(0.5)) if len(numbers) else None


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share
