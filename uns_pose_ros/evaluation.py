"""Accuracies of alignments and poses against labels; the labels are read here and nowhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from uns_pose_ros.datatypes import Alignment, Camera, CategoryModel, InvalidInput, PoseEstimate, Progress, Symmetry, Video
from uns_pose_ros.geometry import (
    angle_between,
    nearest_equivalent,
    nearest_rotation,
    split_similarity,
    symmetry_rotations,
    vector_from_rotation,
)
from uns_pose_ros.storage import read_json
from uns_pose_ros.video import read_image, shorten

ANGLES = (30, 15, 10)  # degrees, of the accuracies
WRONG = 30.0  # degrees: an estimate further off is one that a good score should tell
MISSING = 180.0  # degrees, the error of an image without an estimate
_CONSENSUS = 30.0  # degrees within which training videos agree on the labels' frame
_REGION = 7.815  # chi square of 3 degrees of freedom that 95 % stay below
_NOT_A_ROTATION = 0.01  # largest entry of R R^T - 1 that rounding explains

EstimateImage = Callable[[Tensor, Camera], Sequence[PoseEstimate]]


@dataclass(frozen=True, eq=False)
class ImageResult:
    """One evaluated image."""

    video: str
    frame: str
    estimate: PoseEstimate | None  # the one with the highest score
    error: float  # degrees
    symmetric_error: float  # degrees, to the nearest equivalent pose
    seconds: float
    inside: bool | None = None  # the true rotation lies in the 95 % region that the estimate gives; None: it gives none


def load_labels(path: Path, known: Sequence[str]) -> dict[str, Tensor]:
    """Label rotations (3, 3) float64 by video, canon (of the labels) from obj; InvalidInput for a video that is not `known`."""
    record = read_json(path)
    if not isinstance(record, dict) or not record:
        raise InvalidInput(f'{path}: {{"VIDEO": {{"canon_from_obj": 3x3 rotation}}, …}} is needed')
    unknown = [name for name in record if name not in known]
    if unknown:
        raise InvalidInput(f"{path}: labels for unknown videos: {shorten(unknown)}; there are {shorten(known)}")
    return {name: _rotation(path, name, label) for name, label in record.items()}


def _rotation(path: Path, name: str, label: Any) -> Tensor:
    try:
        matrix = torch.tensor(label["canon_from_obj"], dtype=torch.float64)
        off = (matrix @ matrix.T - torch.eye(3, dtype=torch.float64)).abs().max()
        if matrix.shape == (3, 3) and float(off) < _NOT_A_ROTATION and float(torch.linalg.det(matrix)) > 0:
            return nearest_rotation(matrix)
    except (TypeError, LookupError, ValueError, ArithmeticError, RuntimeError):
        pass
    raise InvalidInput(f"{path}: the label of {name} has no 3x3 rotation under canon_from_obj")


def symmetric_angle(a: Tensor, b: Tensor, symmetry: Symmetry) -> Tensor:
    """Angle in degrees (...) between rotations a, b (..., 3, 3) into the canonical frame, up to the category's symmetry.

    The least angle from a to g b over the group's rotations g; for a continuous symmetry the angle between the two axes,
    because a turn about the axis removes the rest (swing-twist decomposition).
    """
    if symmetry.order == 0:
        axis = symmetry.axis / symmetry.axis.norm()
        chord = ((a.transpose(-1, -2) - b.transpose(-1, -2)) @ axis).norm(dim=-1) / 2
        return torch.rad2deg(2 * torch.asin(chord.clamp(max=1.0)))
    group = symmetry_rotations(symmetry.order, symmetry.axis)
    return angle_between(a[..., None, :, :], group @ b[..., None, :, :]).amin(-1)


def accuracies(errors: Tensor) -> dict[str, float | None]:
    """acc30, acc15, acc10 (percent below the angle) and median_deg of errors (N,) in degrees; None without any."""
    percent = {f"acc{angle}": float((errors < angle).double().mean()) * 100 if len(errors) else None for angle in ANGLES}
    return percent | {"median_deg": float(errors.quantile(0.5)) if len(errors) else None}


def evaluate_alignment(
    alignment: Alignment, labels: Mapping[str, Tensor], videos: Sequence[str] | None = None
) -> dict[str, Any]:
    """Accuracies over unordered pairs of labelled videos (of `videos`, where given), left out or not.

    The error of a pair is the angle between its relative rotation by the alignment and by the labels.
    """
    chosen = [name for name in alignment.videos if name in labels and (videos is None or name in videos)]
    if len(chosen) < 2:
        raise InvalidInput(f"{len(chosen)} aligned videos have labels, 2 needed; aligned: {shorten(alignment.videos)}")
    index = torch.tensor([alignment.videos.index(name) for name in chosen])
    rotation = split_similarity(alignment.canon_from_obj[index])[0]
    canon_from_label = rotation @ torch.stack([labels[name] for name in chosen]).transpose(-1, -2)
    i, j = torch.triu_indices(len(chosen), len(chosen), 1)
    plain = accuracies(angle_between(canon_from_label[i], canon_from_label[j]))
    symmetric = accuracies(symmetric_angle(canon_from_label[i], canon_from_label[j], alignment.symmetry))
    return {"videos": len(chosen), "pairs": len(i)} | plain | {"symmetry_aware": symmetric}


def fit_label_from_canon(model: CategoryModel, labels: Mapping[str, Tensor]) -> Tensor:
    """The rotation (3, 3) from the model's canonical frame to the labels', by the labelled videos it was trained on.

    Flips are bimodal, so a mean would be wrong twice: the video that most others agree with is chosen (up to symmetry, then
    exactly), and only those that agree are averaged.
    """
    trained = model.provenance.get("canon_from_obj")
    trained = trained if isinstance(trained, Mapping) else {}
    names = [name for name in trained if name in labels]
    if not names:
        raise InvalidInput(f"none of the videos that the model was trained on has a label: {shorten(trained) or 'none named'}")
    canon_from_obj = split_similarity(torch.tensor([trained[name] for name in names], dtype=torch.float64))[0]
    canon_from_label = canon_from_obj @ torch.stack([labels[name] for name in names]).transpose(-1, -2)
    a, b = canon_from_label[:, None], canon_from_label[None]
    same, close = symmetric_angle(a, b, model.symmetry) < _CONSENSUS, angle_between(a, b) < _CONSENSUS
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
) -> list[ImageResult]:
    """Estimate every image of the videos and compare with its label; `estimate` gets the image and its own camera."""
    if missing := [video.name for video in videos if video.name not in labels]:
        raise InvalidInput(f"no labels for {shorten(missing)}; there are labels for {shorten(labels)}")
    label_from_canon = fit_label_from_canon(model, labels)
    jobs = [(video, frame) for video in videos for frame in video.frames if frame.cam_from_obj is not None]
    results = []
    for done, (video, frame) in enumerate(jobs, 1):
        image = read_image(frame.image)
        start = time.perf_counter()
        found = estimate(image, frame.camera)
        seconds = time.perf_counter() - start
        assert frame.cam_from_obj is not None
        cam_from_canon = frame.cam_from_obj[:3, :3] @ labels[video.name].T @ label_from_canon
        results.append(judge(found, model, cam_from_canon, video.name, frame.name, seconds))
        if progress is not None:
            progress("evaluate", done, len(jobs))
    return results


def judge(
    found: Sequence[PoseEstimate], model: CategoryModel, cam_from_canon: Tensor, video: str, frame: str, seconds: float
) -> ImageResult:
    """The best of an image's estimates of the model's category against the true rotation (3, 3)."""
    best = max((e for e in found if e.category == model.category), key=lambda e: e.score, default=None)
    if best is None:
        return ImageResult(video, frame, None, MISSING, MISSING, seconds)
    true, estimated = cam_from_canon.T, best.cam_from_canon[:3, :3].T
    errors = float(angle_between(true, estimated)), float(symmetric_angle(true, estimated, model.symmetry))
    return ImageResult(video, frame, best, *errors, seconds, in_region(best, cam_from_canon))


def in_region(estimate: PoseEstimate, cam_from_canon: Tensor) -> bool | None:
    """Whether a rotation (3, 3), or one equivalent by symmetry, lies in the estimate's 95 % region; None without covariance.

    A turn about the axis of a continuous symmetry has no right value and does not count.
    """
    if estimate.covariance is None:
        return None
    symmetry, rotation = estimate.symmetry, estimate.cam_from_canon[:3, :3]
    true = nearest_equivalent(cam_from_canon, rotation, symmetry.order, symmetry.axis)
    off = vector_from_rotation(true @ rotation.T)
    return float(off @ torch.linalg.pinv(estimate.covariance[3:, 3:], hermitian=True) @ off) <= _REGION


def summarise(results: Sequence[ImageResult]) -> dict[str, Any]:
    """The figures of `evaluate pose`. A missing estimate is wrong in every accuracy and has no say in the others.

    coverage95: percent of the estimates whose 95 % region of rotations holds the true one.
    """
    error = torch.tensor([r.error for r in results], dtype=torch.float64)
    symmetric = torch.tensor([r.symmetric_error for r in results], dtype=torch.float64)
    scored = [(r.estimate.score, r.error) for r in results if r.estimate is not None]
    inside = [r.inside for r in results if r.inside is not None]
    trust = {"auroc": auroc(scored), "coverage95": 100 * sum(inside) / len(inside) if inside else None}
    seconds = float(torch.tensor([r.seconds for r in results]).double().mean())
    figures = {"images": len(results), "estimated": len(scored)} | accuracies(error)
    return figures | {"symmetry_aware": accuracies(symmetric)} | trust | {"seconds_per_image": seconds}


def auroc(scored: Sequence[tuple[float, float]]) -> float | None:
    """Chance that a right estimate scores above a wrong one (error > 30 degrees), ties half; None unless there are both."""
    right = torch.tensor([score for score, error in scored if error <= WRONG], dtype=torch.float64)
    wrong = torch.tensor([score for score, error in scored if error > WRONG], dtype=torch.float64)
    if not len(right) or not len(wrong):
        return None
    difference = right[:, None] - wrong[None]
    return float(((difference > 0).double() + (difference == 0).double() / 2).mean())
