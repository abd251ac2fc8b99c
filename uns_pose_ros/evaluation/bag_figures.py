"""The figures of the images of a recorded bag: accuracy, time, jitter and lost objects."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uns_pose_ros.core.geometry import (
    angle_between,
    invert,
    nearest_rotation,
)
from uns_pose_ros.core.types import CategoryModel, PoseEstimate
from uns_pose_ros.evaluation.metrics import accuracies, auroc, symmetric_angle

_PAUSE = 1.0  # s between two images above which nothing is said of jitter
_AGREE = 30.0  # degrees within which images agree on the truth's frame
_AT_REST = "an object and a camera at rest"
_MOVING = (
    "nothing: the camera or the object moved, which is part of it (--fixed-frame FRAME takes the "
    "camera's motion out)"
)
_LAG = 10  # images over which a motion adds up, and jitter does not
_MOVED = 10.0  # degrees over _LAG images from which on something moved
_FEW = 5  # images with truth below which a fit means nothing


@dataclass(frozen=True, eq=False)
class FrameResult:
    """The estimates of one image, and the truth."""

    stamp: int  # ns
    frame: str  # TF frame of the image
    estimates: tuple[PoseEstimate, ...]  # best first
    tracks: tuple[int, ...]  # of the estimates
    seconds: float  # that the estimation took
    # (4, 4) cam_from_truth, m; None where it is not known or not in the image
    truth: Tensor | None
    motion: Tensor | None  # (4, 4) cam_now_from_cam_before, m; None where it is not known
    fixed_from_cam: Tensor | None = None  # (4, 4), m; None where it is not known

    @property
    def best(self) -> PoseEstimate | None:
        """The estimate with the highest score, or None."""
        return self.estimates[0] if self.estimates else None


def fit_truth_from_canon(results: Sequence[FrameResult], model: CategoryModel) -> Tensor:
    """Fit the pose (4, 4) of the model's canonical frame in the frame of the truth.

    It is the pose on which most images agree, or the identity if no image has a truth.
    """
    pairs = [
        (a.truth, a.best.cam_from_canon, a.best.metric)
        for a in results
        if a.truth is not None and a.best is not None
    ]
    fitted = torch.eye(4, dtype=torch.float64)
    if not pairs:
        return fitted
    offset = torch.stack([invert(truth) @ estimate for truth, estimate, _ in pairs])
    rotation = offset[:, :3, :3]
    near = angle_between(rotation[:, None], rotation[None]) < _AGREE
    chosen = near[int(near.sum(1).argmax())]
    fitted[:3, :3] = nearest_rotation(rotation[chosen].mean(0))
    if all(metric for _, _, metric in pairs):
        fitted[:3, 3] = offset[chosen, :3, 3].median(0).values
    return fitted


@dataclass(frozen=True)
class PoseError:
    """The error of the best estimate of an image; half a turn if there is no estimate."""

    estimated: bool
    degrees: float = 180.0
    # degrees to the nearest of the poses that the category's symmetry makes equal
    symmetric: float = 180.0
    meters: float | None = None  # None where the model does not know its size
    # meters as percent of the true distance from the camera
    percent: float | None = None


def pose_errors(
    results: Sequence[FrameResult], model: CategoryModel, truth_from_canon: Tensor
) -> list[PoseError | None]:
    """The error in every image; None if the truth is not known."""
    return [
        None if a.truth is None else _error(a.best, model, a.truth @ truth_from_canon)
        for a in results
    ]


def _error(best: PoseEstimate | None, model: CategoryModel, truth: Tensor) -> PoseError:
    if best is None:
        return PoseError(False)
    pose = best.cam_from_canon
    meters = float((pose[:3, 3] - truth[:3, 3]).norm()) if best.metric else None
    distance = max(float(truth[:3, 3].norm()), 1e-9)
    return PoseError(
        True,
        float(angle_between(pose[:3, :3], truth[:3, :3])),
        float(symmetric_angle(pose[:3, :3].T, truth[:3, :3].T, model.symmetry)),
        meters,
        None if meters is None else 100 * meters / distance,
    )


def summarize_bag(
    results: Sequence[FrameResult], model: CategoryModel, truth_from_canon: Tensor
) -> dict[str, Any]:
    """The figures of a bag. With a truth, a missing estimate is wrong in every accuracy."""
    pairs = zip(results, pose_errors(results, model, truth_from_canon), strict=True)
    rows = [(result, error) for result, error in pairs if error is not None]
    return {
        "images": len(results),
        "estimated": sum(result.best is not None for result in results),
        "with_truth": len(rows),
        **accuracies(
            torch.tensor([error.degrees for _, error in rows], dtype=torch.float64)
        ),
        "symmetry_aware": accuracies(
            torch.tensor([error.symmetric for _, error in rows], dtype=torch.float64)
        ),
        "translation_m": _spread(
            [error.meters for _, error in rows if error.meters is not None]
        ),
        "translation_percent": _spread(
            [error.percent for _, error in rows if error.percent is not None]
        ),
        "auroc": auroc(
            [
                (result.best.score, error.degrees)
                for result, error in rows
                if result.best is not None
            ]
        ),
        # what depth did for the estimates; empty without depth
        "depth": dict(
            Counter(
                one.depth_use
                for result in results
                for one in result.estimates
                if one.depth_use
            )
        ),
        "seconds": _spread([result.seconds for result in results]),
        "jitter": jitter(results, model),
        "tracks": track_gaps(results),
    }


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    """Median, 95th percentile and maximum of the values; None if there are no values."""
    if not values:
        return None
    return {
        "p50": float(np.percentile(values, 50)),
        "p95": float(np.percentile(values, 95)),
        "max": max(values),
    }


def jitter(results: Sequence[FrameResult], model: CategoryModel) -> dict[str, Any]:
    """The motion of an object between images, besides its true motion.

    The true motion comes from the truth, else from the camera's motion, else it is zero. `against`
    names the source that most images had.
    """
    turns, shifts, sources = list[float](), list[float](), list[str]()
    for before, now in itertools.pairwise(results):
        if before.best is None or now.best is None or before.tracks[0] != now.tracks[0]:
            continue
        if not 0 < now.stamp - before.stamp <= _PAUSE * 1e9:
            continue
        if before.truth is not None and now.truth is not None:
            step, source = now.truth @ invert(before.truth), "truth"
        elif now.motion is not None:
            step, source = now.motion, "camera's motion"
        else:
            step, source = torch.eye(4, dtype=torch.float64), _AT_REST
        expected, pose = step @ before.best.cam_from_canon, now.best.cam_from_canon
        turns.append(
            float(symmetric_angle(pose[:3, :3].T, expected[:3, :3].T, model.symmetry))
        )
        sources.append(source)
        if now.best.metric:
            shifts.append(float((pose[:3, 3] - expected[:3, 3]).norm()))
    against = max(set(sources), key=sources.count) if sources else None
    if against == _AT_REST and _has_moved(results, model, float(np.median(turns))):
        against = _MOVING
    return {
        "against": against,
        "steps": len(turns),
        "deg": _spread(turns),
        "m": _spread(shifts),
    }


def _has_moved(
    results: Sequence[FrameResult], model: CategoryModel, step_deg: float
) -> bool:
    """Whether the object turns before the camera by more than jitter does.

    Args:
        results: of the images.
        model: of the category.
        step_deg: median turn between two images, degrees.
    """
    poses = [result.best.cam_from_canon for result in results if result.best is not None]
    lag = min(_LAG, len(poses) // 2)
    turns = [
        float(symmetric_angle(now[:3, :3].T, before[:3, :3].T, model.symmetry))
        for before, now in zip(poses, poses[lag:], strict=False)
    ]
    return lag > 1 and float(np.median(turns)) > max(_MOVED, 2 * step_deg)


def advise_fit(
    results: Sequence[FrameResult], model: CategoryModel, truth_from_canon: Tensor
) -> str:
    """Say that the frames of model and truth differ by a constant rotation; empty if they do not.

    Args:
        results: of the images.
        model: of the category.
        truth_from_canon: (4, 4) that was used for the figures.
    """
    fitted = fit_truth_from_canon(results, model)
    medians = []
    for frame in (truth_from_canon, fitted):
        errors = [
            error for error in pose_errors(results, model, frame) if error is not None
        ]
        if sum(error.estimated for error in errors) < _FEW:
            return ""
        medians.append(float(np.median([error.symmetric for error in errors])))
    before, after = medians
    if before < _MOVED or after > before / 2:
        return ""
    turn = float(angle_between(truth_from_canon[:3, :3], fitted[:3, :3]))
    return (
        f"the frame of the truth is turned by a constant {turn:.0f}° from the model's: with --fit "
        f"the median would be {after:.1f}° in place of {before:.1f}°; or name the model's axes by "
        "`uns-pose align --up, --front`"
    )


def track_gaps(results: Sequence[FrameResult]) -> dict[str, Any]:
    """The number of track ids, and the gaps.

    A gap is a row of images without an estimate, after the object was first seen.
    """
    first = next(
        (k for k, result in enumerate(results) if result.best is not None), len(results)
    )
    gaps, seconds = list[int](), list[float]()
    for missing, group in itertools.groupby(
        range(first, len(results)), lambda k: results[k].best is None
    ):
        if missing:
            inside = list(group)
            gaps.append(len(inside))
            end = results[min(inside[-1] + 1, len(results) - 1)].stamp
            seconds.append((end - results[inside[0] - 1].stamp) / 1e9)
    ids = {number for result in results for number in result.tracks}
    return {
        "ids": len(ids),
        "gaps": len(gaps),
        "images_in_gaps": sum(gaps),
        "longest_gap_images": max(gaps, default=0),
        "longest_gap_s": max(seconds, default=0.0),
    }
