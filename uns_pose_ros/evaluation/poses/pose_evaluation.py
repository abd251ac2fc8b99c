"""The estimates of labeled images, each compared with the true pose and box."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from uns_pose_ros.core.errors import InvalidInput, shorten
from uns_pose_ros.core.geometry import (
    angle_between,
    nearest_equivalent,
    transform,
    vector_from_rotation,
)
from uns_pose_ros.core.types import Camera, CategoryModel, PoseEstimate, Progress, Video
from uns_pose_ros.estimation.score_calibration import REGION
from uns_pose_ros.evaluation.box_figures import BoxResult, TrueBox, compare_boxes
from uns_pose_ros.evaluation.metrics import MISSING, symmetric_angle
from uns_pose_ros.evaluation.rotation_labels import fit_label_from_canon
from uns_pose_ros.io.images import read_image

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
