"""Accuracy of alignments and poses against labels, which no other module reads."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from msgspec import convert
from torch import Tensor

from uns_pose_ros.core.errors import InvalidInput, shorten
from uns_pose_ros.core.geometry import (
    angle_between,
    nearest_equivalent,
    nearest_rotation,
    split_similarity,
    symmetry_rotations,
    transform,
    vector_from_rotation,
)
from uns_pose_ros.core.types import (
    Alignment,
    Camera,
    CategoryModel,
    PoseEstimate,
    Progress,
    Symmetry,
    Video,
)
from uns_pose_ros.estimation.score_calibration import REGION
from uns_pose_ros.evaluation.box_figures import (
    BoxResult,
    TrueBox,
    compare_boxes,
    summarize_boxes,
)
from uns_pose_ros.io.artifacts import read_json
from uns_pose_ros.io.images import read_image
from uns_pose_ros.io.schema.decoding import describe
from uns_pose_ros.io.schema.person_records import LabelRecord

ANGLES = (30, 15, 10)  # degrees, of the accuracies
WRONG = 30.0  # degrees; an estimate with a larger error is wrong
MISSING = 180.0  # degrees, the error of an image without an estimate
_CONSENSUS = 30.0  # degrees within which training videos agree on the labels' frame
BINS = {
    "elevation": (-30.0, 0.0, 30.0, 60.0),
    "distance": (1.0, 2.0, 3.0, 5.0),
}  # edges, degrees and diameters

EstimateImage = Callable[[Tensor, Camera], Sequence[PoseEstimate]]


@dataclass(frozen=True, eq=False)
class ImageResult:
    """The result of one evaluated image."""

    video: str
    frame: str
    estimate: PoseEstimate | None  # the one with the highest score
    error: float  # degrees
    symmetric_error: float  # degrees, to the nearest equivalent pose
    seconds: float
    # the true rotation lies in the 95 % region that the estimate gives; None: it gives none
    inside: bool | None = None
    # diameters from the true position to the estimated one; None: not known
    shift: float | None = None
    aside: float | None = None  # diameters, the part of it across the line of sight
    elevation: float | None = None  # degrees of the camera above the labels' xy plane
    distance: float | None = None  # diameters from the camera to the object
    # score and error, degrees, of the best pose below the threshold, if there is no estimate
    rejected: tuple[float, float] | None = None
    box: BoxResult | None = None  # None: the true box is not known

    @property
    def scored(self) -> tuple[float, float]:
        """Score and error, degrees, without a threshold; score 0 if there is no pose at all."""
        if self.estimate is not None:
            return self.estimate.score, self.error
        return self.rejected or (0.0, MISSING)


@dataclass(frozen=True, eq=False)
class ObjectExtent:
    """The center of an object's bounding box, and its size."""

    center: Tensor  # (3,) float64, in the frame at hand
    diameter: float  # largest distance of two vertices

    @staticmethod
    def of(vertices: Tensor) -> ObjectExtent:
        """The extent of a mesh with vertices (V, 3), in the frame of the mesh."""
        points = vertices.double()
        return ObjectExtent(
            (points.amin(0) + points.amax(0)) / 2, float(torch.cdist(points, points).max())
        )


def load_labels(path: Path, known: Sequence[str]) -> dict[str, Tensor]:
    """Read label rotations (3, 3) float64 by video, canon (of the labels) from obj.

    Args:
        path: a JSON file.
        known: names of the videos that may have a label.

    Raises:
        InvalidInput: the file is no label file, or labels a video that is not known.
    """
    record = read_json(path)
    if not isinstance(record, dict) or not record:
        raise InvalidInput(
            f'{path}: {{"VIDEO": {{"canon_from_obj": 3x3 rotation}}, …}} is needed'
        )
    unknown = [name for name in record if name not in known]
    if unknown:
        raise InvalidInput(
            f"{path}: labels for unknown videos: {shorten(unknown)}; there are {shorten(known)}"
        )
    return {name: _rotation(path, name, label) for name, label in record.items()}


def _rotation(path: Path, name: str, label: Any) -> Tensor:
    try:
        rows = convert(label, LabelRecord).canon_from_obj
    except ValueError as error:
        raise InvalidInput(
            f"{path}: the label of {name} has no 3x3 rotation under canon_from_obj "
            f"({describe(error)})"
        ) from None
    return nearest_rotation(torch.tensor(rows, dtype=torch.float64))


def symmetric_angle(a: Tensor, b: Tensor, symmetry: Symmetry) -> Tensor:
    """Angle (...), degrees, between rotations a and b up to the symmetry of the category.

    For a finite symmetry it is the least angle from a to g b over all rotations g of the group. For
    a continuous symmetry it is the angle between the two axes, because a turn about the axis
    removes the rest (swing-twist decomposition).

    Args:
        a: (..., 3, 3), into the canonical frame.
        b: (..., 3, 3), into the canonical frame.
        symmetry: symmetry of the category.
    """
    if symmetry.order == 0:
        axis = symmetry.axis / symmetry.axis.norm()
        chord = ((a.transpose(-1, -2) - b.transpose(-1, -2)) @ axis).norm(dim=-1) / 2
        return torch.rad2deg(2 * torch.asin(chord.clamp(max=1.0)))
    group = symmetry_rotations(symmetry.order, symmetry.axis)
    return angle_between(a[..., None, :, :], group @ b[..., None, :, :]).amin(-1)


def accuracies(errors: Tensor) -> dict[str, float | None]:
    """acc30, acc15, acc10 (percent below the angle) and median_deg of errors (N,), degrees.

    Each is None if errors is empty.
    """
    percent = {
        f"acc{angle}": float((errors < angle).double().mean()) * 100
        if len(errors)
        else None
        for angle in ANGLES
    }
    return percent | {"median_deg": float(errors.quantile(0.5)) if len(errors) else None}


def evaluate_alignment(
    alignment: Alignment, labels: Mapping[str, Tensor], videos: Sequence[str] | None = None
) -> dict[str, Any]:
    """Measure an alignment over all unordered pairs of labeled videos, kept or left out.

    The error of a pair is the angle between its relative rotation by the alignment and by the
    labels.

    Args:
        alignment: the alignment.
        labels: label rotations by video.
        videos: names of the videos to use; without: all.

    Raises:
        InvalidInput: fewer than two aligned videos have labels.
    """
    chosen = [
        name
        for name in alignment.videos
        if name in labels and (videos is None or name in videos)
    ]
    if len(chosen) < 2:
        raise InvalidInput(
            f"{len(chosen)} aligned videos have labels, 2 needed; aligned: "
            f"{shorten(alignment.videos)}"
        )
    index = torch.tensor([alignment.videos.index(name) for name in chosen])
    rotation = split_similarity(alignment.canon_from_obj[index])[0]
    canon_from_label = rotation @ torch.stack([labels[name] for name in chosen]).transpose(
        -1, -2
    )
    i, j = torch.triu_indices(len(chosen), len(chosen), 1)
    plain = accuracies(angle_between(canon_from_label[i], canon_from_label[j]))
    symmetric = accuracies(
        symmetric_angle(canon_from_label[i], canon_from_label[j], alignment.symmetry)
    )
    return {"videos": len(chosen), "pairs": len(i)} | plain | {"symmetry_aware": symmetric}


def fit_label_from_canon(model: CategoryModel, labels: Mapping[str, Tensor]) -> Tensor:
    """Fit the rotation (3, 3) from the model's canonical frame to the frame of the labels.

    It is fitted on the labeled videos of the training. Flips make two peaks, and the mean of two
    peaks is wrong. Therefore, the video that agrees with most others is chosen, up to symmetry,
    then exactly. Only videos that agree with it are averaged.

    Args:
        model: the category's model.
        labels: label rotations by video.

    Raises:
        InvalidInput: no video of the training has a label.
    """
    trained = model.training_poses
    names = [name for name in trained if name in labels]
    if not names:
        raise InvalidInput(
            "none of the videos that the model was trained on has a label: "
            f"{shorten(trained) or 'none named'}"
        )
    canon_from_obj = split_similarity(torch.stack([trained[name] for name in names]))[0]
    canon_from_label = canon_from_obj @ torch.stack(
        [labels[name] for name in names]
    ).transpose(-1, -2)
    a, b = canon_from_label[:, None], canon_from_label[None]
    same, close = (
        symmetric_angle(a, b, model.symmetry) < _CONSENSUS,
        angle_between(a, b) < _CONSENSUS,
    )
    best = int((same.sum(1) * (len(names) + 1) + close.sum(1)).argmax())
    group = symmetry_rotations(model.symmetry.order, model.symmetry.axis)
    turned = group @ canon_from_label[same[best]][:, None]
    nearest = angle_between(turned, canon_from_label[best]).argmin(1)
    return nearest_rotation(turned[torch.arange(len(turned)), nearest].mean(0)).T


def evaluate_poses(
    estimate: EstimateImage,
    model: CategoryModel,
    videos: Sequence[Video],
    labels: Mapping[str, Tensor],
    progress: Progress | None = None,
    extents: Mapping[str, ObjectExtent] = {},
    without_threshold: EstimateImage | None = None,
    boxes: Mapping[str, TrueBox] = {},
) -> list[ImageResult]:
    """Estimate every image of the videos and compare the results with the labels.

    Args:
        estimate: is called with an image and its own camera.
        model: the category's model.
        videos: the videos; each needs a label.
        labels: label rotations by video.
        progress: is called with the step, the images done and all images.
        extents: extent of a video's object in its obj frame, for videos whose translations count.
        without_threshold: is called where `estimate` returns nothing, for `ImageResult.rejected`.
        boxes: the true box of a video's object, for videos whose boxes are compared.

    Raises:
        InvalidInput: a video has no label.
    """
    if missing := [video.name for video in videos if video.name not in labels]:
        raise InvalidInput(
            f"no labels for {shorten(missing)}; there are labels for {shorten(labels)}"
        )
    label_from_canon = fit_label_from_canon(model, labels)
    jobs = [
        (video, frame)
        for video in videos
        for frame in video.frames
        if frame.cam_from_obj is not None
    ]
    results = []
    for done, (video, frame) in enumerate(jobs, 1):
        image = read_image(frame.image)
        start = time.perf_counter()
        estimates = estimate(image, frame.camera)
        seconds = time.perf_counter() - start
        pose = frame.cam_from_obj
        assert pose is not None
        true = pose[:3, :3] @ labels[video.name].T @ label_from_canon
        score = partial(
            score_estimates,
            model=model,
            cam_from_canon=true,
            video=video.name,
            frame=frame.name,
            seconds=seconds,
        )
        result = score(estimates)
        if result.estimate is None and without_threshold is not None:
            best = score(without_threshold(image, frame.camera))
            result = replace(result, rejected=best.scored)
        if (truth := boxes.get(video.name)) is not None:
            result = add_box(result, model, truth, pose, label_from_canon)
        results.append(
            add_translation_error(
                result, model, pose, labels[video.name], extents.get(video.name)
            )
        )
        if progress is not None:
            progress("evaluate", done, len(jobs))
    return results


def score_estimates(
    estimates: Sequence[PoseEstimate],
    model: CategoryModel,
    cam_from_canon: Tensor,
    video: str,
    frame: str,
    seconds: float,
) -> ImageResult:
    """Compare the best estimate of an image with its true rotation.

    Args:
        estimates: all estimates of the image; those of other categories do not count.
        model: the category's model.
        cam_from_canon: (3, 3) true rotation.
        video: name of the video.
        frame: name of the frame.
        seconds: time of the estimation.
    """
    best = max(
        (e for e in estimates if e.category == model.category),
        key=lambda e: e.score,
        default=None,
    )
    if best is None:
        return ImageResult(video, frame, None, MISSING, MISSING, seconds)
    true, estimated = cam_from_canon.T, best.cam_from_canon[:3, :3].T
    errors = (
        float(angle_between(true, estimated)),
        float(symmetric_angle(true, estimated, model.symmetry)),
    )
    return ImageResult(
        video, frame, best, *errors, seconds, is_in_confidence_region(best, cam_from_canon)
    )


def add_translation_error(
    result: ImageResult,
    model: CategoryModel,
    cam_from_obj: Tensor,
    label: Tensor,
    extent: ObjectExtent | None,
) -> ImageResult:
    """Add elevation, distance and translation error to the result of an image.

    Distance and translation error need the extent of the object. Both are in diameters of the
    object; an estimate is in diameters of its own size. Therefore, an unknown size does not count.

    Args:
        result: the result of `score_estimates`.
        model: the category's model.
        cam_from_obj: (4, 4) true pose.
        label: (3, 3) label of the video.
        extent: extent of the object in its obj frame, or None.
    """
    towards = label @ -(
        cam_from_obj[:3, :3].T @ cam_from_obj[:3, 3]
        + (0 if extent is None else extent.center)
    )
    result = replace(
        result, elevation=float(torch.rad2deg(torch.atan2(towards[2], towards[:2].norm())))
    )
    if extent is None:
        return result
    true = transform(cam_from_obj, extent.center[None])[0] / extent.diameter
    result = replace(result, distance=float(true.norm()))
    if result.estimate is None:
        return result
    template, pose = ObjectExtent.of(model.vertices), result.estimate.cam_from_canon
    position = pose[:3, :3] @ template.center + pose[:3, 3] / result.estimate.scale
    off, sight = position / template.diameter - true, true / true.norm()
    return replace(
        result, shift=float(off.norm()), aside=float((off - (off @ sight) * sight).norm())
    )


def add_box(
    result: ImageResult,
    model: CategoryModel,
    truth: TrueBox,
    cam_from_obj: Tensor,
    label_from_canon: Tensor,
) -> ImageResult:
    """Add how well the estimated box fits the true one, see `box_figures.compare_boxes`."""
    found = result.estimate
    fit = compare_boxes(found, model.center, truth, cam_from_obj, label_from_canon)
    return replace(result, box=fit)


def is_in_confidence_region(estimate: PoseEstimate, cam_from_canon: Tensor) -> bool | None:
    """Whether a true rotation (3, 3) lies in the 95 % region of an estimate.

    A rotation that the symmetry makes equal counts too. A turn about the axis of a continuous
    symmetry has no true value and does not count. The result is None if the estimate has no
    covariance.
    """
    if estimate.covariance is None:
        return None
    symmetry, rotation = estimate.symmetry, estimate.cam_from_canon[:3, :3]
    true = nearest_equivalent(cam_from_canon, rotation, symmetry.order, symmetry.axis)
    off = vector_from_rotation(true @ rotation.T)
    return (
        float(off @ torch.linalg.pinv(estimate.covariance[3:, 3:], hermitian=True) @ off)
        <= REGION
    )


def summarize_poses(
    results: Sequence[ImageResult], without_box: Mapping[str, int] = {}
) -> dict[str, Any]:
    """The figures of `evaluate pose`.

    A missing estimate is wrong in every accuracy and does not count in the others. answered:
    percent of the images that have an estimate. auroc: of the score over all images without a
    threshold, of which `wrong` are more than 30 degrees off. coverage95: percent of the estimates
    whose 95 % region of rotations contains the true one. shift, aside:
    median distance to the true position, and its part across the line of sight, diameters. score:
    for each tenth of the scores the number of estimates and the percent of them within 30 degrees.
    by: accuracies by BINS of the view. iou3d: figures of the boxes in space, see
    `box_figures.summarize_boxes`; `without_box` are the numbers of videos without, by reason.
    """
    error = torch.tensor([r.error for r in results], dtype=torch.float64)
    symmetric = torch.tensor([r.symmetric_error for r in results], dtype=torch.float64)
    scored = [(r.estimate.score, r.error) for r in results if r.estimate is not None]
    inside = [r.inside for r in results if r.inside is not None]
    everything = [result.scored for result in results]
    trust = {
        "auroc": auroc(everything),
        "wrong": sum(error > WRONG for _, error in everything),
        "coverage95": 100 * sum(inside) / len(inside) if inside else None,
    }
    seconds = float(torch.tensor([r.seconds for r in results]).double().mean())
    figures: dict[str, Any] = {
        "images": len(results),
        "estimated": len(scored),
        "answered": 100 * len(scored) / len(results) if results else None,
    } | accuracies(error)
    figures |= {
        f"{name}_diameters": _median([getattr(r, name) for r in results])
        for name in ("shift", "aside")
    }
    figures |= {"score": reliability(scored)}
    figures |= {"by": {name: accuracy_by_bin(results, name) for name in BINS}}
    return (
        figures
        | {"symmetry_aware": accuracies(symmetric)}
        | trust
        | {"seconds_per_image": seconds}
        | {"iou3d": summarize_boxes([r.box for r in results if r.box], without_box)}
    )


def _median(values: Sequence[float | None]) -> float | None:
    known = torch.tensor(
        [value for value in values if value is not None], dtype=torch.float64
    )
    return float(known.median()) if len(known) else None


def reliability(scored: Sequence[tuple[float, float]]) -> list[dict[str, float]]:
    """The accuracy at each tenth of the scores.

    Args:
        scored: pairs of score and error, degrees.

    Returns:
        from (the lowest score), count and acc30 of each tenth that has any estimate.
    """
    tenths = [min(9, int(score * 10)) for score, _ in scored]
    groups = {
        k: [error for tenth, (_, error) in zip(tenths, scored, strict=True) if tenth == k]
        for k in sorted(set(tenths))
    }
    return [
        {
            "from": k / 10,
            "count": len(errors),
            "acc30": 100 * sum(error < WRONG for error in errors) / len(errors),
        }
        for k, errors in groups.items()
    ]


def accuracy_by_bin(results: Sequence[ImageResult], name: str) -> list[dict[str, Any]]:
    """Accuracies of the results by elevation or distance.

    Args:
        results: the results.
        name: "elevation" or "distance".

    Returns:
        from and to (None: no limit), images and `accuracies` of each bin that has any image.
    """
    known = [(getattr(r, name), r.error) for r in results if getattr(r, name) is not None]
    edges, rows = [-math.inf, *BINS[name], math.inf], list[dict[str, Any]]()
    for low, high in pairwise(edges):
        errors = torch.tensor(
            [error for value, error in known if low <= value < high], dtype=torch.float64
        )
        if len(errors):
            ends = {
                "from": None if math.isinf(low) else low,
                "to": None if math.isinf(high) else high,
            }
            rows.append(ends | {"images": len(errors)} | accuracies(errors))
    return rows


def auroc(scored: Sequence[tuple[float, float]]) -> float | None:
    """Probability that a right estimate scores above a wrong one; ties count half.

    An estimate is wrong above 30 degrees. The result is None unless both kinds exist.
    """
    right = torch.tensor(
        [score for score, error in scored if error <= WRONG], dtype=torch.float64
    )
    wrong = torch.tensor(
        [score for score, error in scored if error > WRONG], dtype=torch.float64
    )
    if not len(right) or not len(wrong):
        return None
    difference = right[:, None] - wrong[None]
    return float(((difference > 0).double() + (difference == 0).double() / 2).mean())
