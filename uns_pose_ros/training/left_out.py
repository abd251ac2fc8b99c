"""What to expect of a model: images of videos that a head has not seen, estimated as a robot would.

The two heads of the calibration estimate whole images of the videos that they did not learn from.
The alignment knows the poses, so no label is needed. Each head learned from half of the videos and
for fewer steps, so that the model itself is rather better than these figures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from uns_pose_ros.core.geometry import (
    nearest_equivalent,
    split_similarity,
    vector_from_rotation,
)
from uns_pose_ros.core.types import Camera, Frame, PoseEstimate, Progress, Symmetry, Video
from uns_pose_ros.estimation.score_calibration import REGION, ScoreCalibration
from uns_pose_ros.estimation.solver.pose_evidence import EVIDENCE
from uns_pose_ros.io.video_folder import read_frame

_ANGLES = (30, 15, 10)  # degrees, of the accuracies

EstimateImage = Callable[[Tensor, Camera], Sequence[PoseEstimate]]


@dataclass(frozen=True, eq=False)
class LeftOutImage:
    """The K estimates of an image, at any score."""

    video: str
    score: Tensor  # (K,) float64, without a calibration
    evidence: Tensor  # (K, F) float64
    error: Tensor  # (K, 3) float64, rad, from the estimate to the truth, canonical axes
    fit: Tensor  # (K, 3, 3) float64, rad^2, covariance of the fit alone, canonical axes
    spread: Tensor  # (K, 2, 3, 3) float64, rad^2, see `PoseEstimate.hypothesis_spread`


def error_and_fit(
    estimate: PoseEstimate, true: Tensor, symmetry: Symmetry
) -> tuple[Tensor, Tensor]:
    """Compare an estimate with the truth, in the axes of the canonical frame.

    Args:
        estimate: The estimate.
        true: (3, 3) float64, rotation cam_from_canon.
        symmetry: Symmetry of the category: the nearest equivalent pose counts.

    Returns:
        The rotation vector (3,), rad, from the estimate to the truth, and the covariance (3, 3),
        rad^2, of the estimate's rotation.
    """
    rotation = estimate.cam_from_canon[:3, :3]
    true = nearest_equivalent(true, rotation, symmetry.order, symmetry.axis)
    assert estimate.covariance is not None
    fit = rotation.T @ estimate.covariance[3:, 3:] @ rotation
    return vector_from_rotation(rotation.T @ true), fit


def estimate_left_out(
    estimate: EstimateImage,
    videos: Mapping[str, tuple[Video, Tensor]],
    symmetry: Symmetry,
    most: int,
    progress: Progress | None = None,
) -> list[LeftOutImage]:
    """Estimate whole images of videos that the head has not seen.

    Args:
        estimate: Returns all estimates of an image, without a threshold.
        videos: Videos by name, with canon_from_obj (4, 4).
        symmetry: Symmetry of the category.
        most: Number of images of all videos together, evenly chosen.
        progress: Receives the number of images that are estimated.
    """
    show = progress or (lambda what, done, total: None)
    everything = [
        (name, frame, pose)
        for name, (video, pose) in videos.items()
        for frame in video.frames
        if frame.mask and frame.cam_from_obj is not None
    ]
    # the middle of each of `most` equal parts
    step = max(1.0, len(everything) / max(most, 1))
    count = min(most, len(everything))
    chosen = [everything[int((k + 0.5) * step)] for k in range(count)]
    images = []
    for done, (name, frame, pose) in enumerate(chosen, 1):
        images.append(_estimate(estimate, name, frame, pose, symmetry))
        show("images", done, count)
    return images


def _estimate(
    estimate: EstimateImage, name: str, frame: Frame, pose: Tensor, symmetry: Symmetry
) -> LeftOutImage:
    image, _, camera = read_frame(frame)
    assert frame.cam_from_obj is not None
    true = split_similarity(frame.cam_from_obj @ torch.linalg.inv(pose))[0]
    facts = [
        (one, *error_and_fit(one, true, symmetry))
        for one in estimate(image, camera)
        if one.evidence is not None and one.covariance is not None
    ]
    if not facts:
        empty = torch.zeros(0, dtype=torch.float64)
        return LeftOutImage(
            name,
            empty,
            empty.view(0, 1).expand(0, len(EVIDENCE)),
            empty.view(0, 1).expand(0, 3),
            empty.view(0, 1, 1).expand(0, 3, 3),
            empty.view(0, 1, 1, 1).expand(0, 2, 3, 3),
        )
    estimates, errors, fits = zip(*facts, strict=True)
    return LeftOutImage(
        name,
        torch.tensor([one.score for one in estimates], dtype=torch.float64),
        torch.stack([one.evidence for one in estimates]).double(),
        torch.stack(errors).double(),
        torch.stack(fits).double(),
        torch.stack([one.hypothesis_spread for one in estimates]).double(),
    )


def summarize_left_out(
    images: Sequence[LeftOutImage], calibration: ScoreCalibration | None, threshold: float
) -> dict[str, Any]:
    """Compute what `provenance["left_out"]` of a model records.

    Args:
        images: The images.
        calibration: That of the model; None: none, and the images' own scores count.
        threshold: Score of an answer without a calibration.

    Returns:
        `images`; percent of them that are `answered`, with an error below each angle (`acc30`,
        `acc15`, `acc10`; an image without an answer is wrong), and of the answers whose 95 % region
        of rotations holds the truth (`region95`; null without a calibration or an answer);
        `median_deg`, null if less than half are answered; `videos`: name: percent within 30
        degrees.
    """
    threshold = threshold if calibration is None else calibration.threshold
    degrees = []
    inside = []
    by_video: dict[str, list[float]] = {}
    for image in images:
        scores = image.score if calibration is None else calibration.score(image.evidence)
        error = torch.inf
        if len(scores) and float(scores.max()) >= threshold:
            best = int(scores.argmax())
            error = float(torch.rad2deg(image.error[best].norm()))
            if calibration is not None:
                one = slice(best, best + 1)
                near, far = image.spread[one].unbind(1)
                region = calibration.spread(near) + calibration.doubt(
                    image.evidence[one], far
                )
                region = region[0] + calibration.fit_share * image.fit[best]
                gap = image.error[best]
                inside.append(float(gap @ torch.linalg.solve(region, gap)) <= REGION)
        degrees.append(error)
        by_video.setdefault(image.video, []).append(error)
    errors = torch.tensor(degrees)
    median = float(errors.quantile(0.5, interpolation="higher"))
    return {
        "images": len(images),
        "answered": _percent(errors.isfinite()),
        **{f"acc{angle}": _percent(errors < angle) for angle in _ANGLES},
        "median_deg": round(median, 2) if median < torch.inf else None,
        "region95": _percent(torch.tensor(inside)) if inside else None,
        "videos": {
            name: _percent(torch.tensor(some) < _ANGLES[0])
            for name, some in by_video.items()
        },
    }


def _percent(true: Tensor) -> float:
    return round(100 * float(true.double().mean()), 1)
