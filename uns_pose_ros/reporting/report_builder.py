"""From a category's folder to its report: what is loaded, estimated, measured and drawn."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import split_similarity
from uns_pose_ros.core.left_out import LeftOut
from uns_pose_ros.core.types import (
    Alignment,
    CategoryModel,
    FeatureMesh,
    Frame,
    PoseEstimate,
    Progress,
    Video,
)
from uns_pose_ros.estimation.estimator import Estimator
from uns_pose_ros.evaluation import metrics, rotation_labels
from uns_pose_ros.evaluation.metrics import ANGLES
from uns_pose_ros.evaluation.poses import pose_evaluation, pose_figures
from uns_pose_ros.evaluation.poses.pose_evaluation import ImageResult
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.images import read_image
from uns_pose_ros.io.video_folder import list_videos, load_video
from uns_pose_ros.pipeline import frame_axes, stage_progress, training_stage
from uns_pose_ros.pipeline.true_boxes import measure_true_boxes
from uns_pose_ros.reporting.category_report import (
    ReportContents,
    ReportImage,
    write_report,
)
from uns_pose_ros.reporting.label_preview import preview_labels
from uns_pose_ros.reporting.video_summary import VideoSummary, summarize_video
from uns_pose_ros.visualization import drawing

REPORT = "report.html"
_LABELS = "labels.json"
_SEEN_VIDEOS = 4  # videos that are estimated if the model was trained on all of them
_SEEN_IMAGES = 4  # images of each of these videos
_FEW_TURNS = 3  # estimates of a video below which nothing is said of their agreement


@dataclass(frozen=True, eq=False)
class _Trial:
    """The model's estimates in videos of the category."""

    videos: Sequence[Video] = ()  # with only the frames that are estimated
    results: Sequence[ImageResult] = ()
    labeled: bool = False  # the results have errors
    trained_on: bool = False  # the model was trained on these videos
    without_box: LeftOut = field(
        default_factory=LeftOut
    )  # videos whose boxes are not known


def make_report(
    category: Path,
    patterns: str | None,
    labels: Path | None,
    out: Path,
    images: int,
    device: str,
    progress: Progress,
) -> dict[str, Any]:
    """Write the report of a category.

    Args:
        category: folder with one subfolder for each video, an alignment and maybe a model.
        patterns: names of the videos to estimate in; None: those the model was not trained on,
            or some of the others if the model was trained on all.
        labels: file of label rotations; None: labels.json of the category, if it exists.
        out: the HTML file.
        images: greatest number of images of a video to estimate.
        device: auto, cpu, cuda or cuda:N.
        progress: is called with the step, the items done and all items.

    Returns:
        Path of the report, number of estimated images, and accuracies, as JSON types.

    Raises:
        InvalidInput: the alignment, the model, a video or the labels cannot be used.
    """
    alignment = artifacts.load_alignment(category / frame_axes.ALIGNMENT)
    folders = {folder.name: folder for folder in list_videos(category)}
    meshes = _load_meshes(alignment, folders)
    model = _load_model(category)
    rotations = _load_labels(category, labels, list(folders))
    trial = _Trial()
    if model is not None:
        trial = _try_model(category, model, patterns, rotations, images, device, progress)
    accuracies = _accuracies(alignment, rotations, trial)
    contents = ReportContents(
        category=category.resolve().name,
        alignment=alignment,
        meshes=meshes,
        model=model,
        images=[] if model is None else _draw_trial(trial, model),
        errors=[result.error for result in trial.results] if trial.labeled else [],
        accuracies=accuracies,
        agreement=None
        if model is None
        else measure_agreement(trial.videos, trial.results, model),
        videos=_summarize_videos(
            folders, meshes, progress, up_directions(category, alignment)
        ),
        seconds=stage_progress.stage_seconds(category, model),
        trained_on=trial.trained_on,
        labels=preview_labels(category, progress),
    )
    write_report(out, contents)
    return {"report": str(out), "images": len(trial.results), "accuracies": accuracies}


def draw_report_images(
    results: Sequence[ImageResult],
    videos: Sequence[Video],
    model: CategoryModel,
    labeled: bool,
    most: int = 24,
) -> list[ReportImage]:
    """Draw the worst results, and some of the others, into their images.

    Args:
        results: of the images.
        videos: the videos of these images.
        model: of the category.
        labeled: whether the errors of the results are known; without them the score ranks.
        most: greatest number of images that are drawn; one half of them are the worst.

    Returns:
        The images, the worst first.
    """
    frames = {(video.name, frame.name): frame for video in videos for frame in video.frames}

    def badness(result: ImageResult) -> float:
        if labeled:
            return result.error
        return 1 - _score(result)

    ranked = sorted(results, key=badness, reverse=True)
    worst = ranked[: most // 2]
    rest = ranked[most // 2 :]
    step = max(1, len(rest) // max(1, most - len(worst)))
    others = rest[step - 1 :: step][: most - len(worst)]
    return [
        _draw_result(result, frames[result.video, result.frame], model, labeled)
        for result in worst + others
    ]


def thin_video(video: Video, most: int) -> Video:
    """The video with at most `most` of its frames, evenly distributed."""
    count = len(video.frames)
    chosen = sorted({round(k) for k in np.linspace(0, count - 1, min(most, count))})
    return replace(video, frames=tuple(video.frames[k] for k in chosen))


def _load_meshes(
    alignment: Alignment, folders: Mapping[str, Path]
) -> dict[str, FeatureMesh]:
    """The meshes of the aligned videos whose folders still exist."""
    return {
        name: artifacts.load_feature_mesh(folders[name])
        for name in alignment.videos
        if name in folders
    }


def _load_model(category: Path) -> CategoryModel | None:
    if not (category / training_stage.MODEL / artifacts.MODEL).exists():
        return None
    return artifacts.load_model(category)


def _load_labels(
    category: Path, labels: Path | None, names: Sequence[str]
) -> dict[str, Tensor]:
    """Label rotations (3, 3) by video; empty without a file."""
    if labels is None and (category / _LABELS).exists():
        labels = category / _LABELS
    return {} if labels is None else rotation_labels.load_labels(labels, names)


def _try_model(
    category: Path,
    model: CategoryModel,
    patterns: str | None,
    rotations: Mapping[str, Tensor],
    images: int,
    device: str,
    progress: Progress,
) -> _Trial:
    """Estimate images of videos that the model was not trained on, or of others if none is left."""
    folders = _unseen_videos(category, patterns, model)
    trained_on = not folders
    if trained_on:
        folders = list_videos(category)[:_SEEN_VIDEOS]
        images = min(images, _SEEN_IMAGES)
    has_labels = bool(rotations) and all(folder.name in rotations for folder in folders)
    labeled = has_labels and not trained_on
    whole = [load_video(folder, need_masks=False, need_poses=labeled) for folder in folders]
    videos = [thin_video(video, images) for video in whole]
    left_out = LeftOut()
    results: list[ImageResult] = []
    if videos:
        estimator = Estimator(model, device=device)
        if labeled:
            results = pose_evaluation.evaluate_poses(
                estimator,
                model,
                videos,
                rotations,
                progress,
                without_threshold=estimator.without_threshold,
                boxes=measure_true_boxes(whole, rotations, left_out),
            )
        else:
            results = _estimate_unlabeled(estimator, videos, progress)
    return _Trial(videos, results, labeled, trained_on, left_out)


def _unseen_videos(
    category: Path, patterns: str | None, model: CategoryModel
) -> list[Path]:
    """The named videos; without names, those that the model was not trained on."""
    folders = list_videos(category, patterns)
    if patterns is not None:
        return folders
    return [folder for folder in folders if folder.name not in model.training_poses]


def _estimate_unlabeled(
    estimator: Estimator, videos: Sequence[Video], progress: Progress
) -> list[ImageResult]:
    """The best estimate in every frame; the errors of these results mean nothing."""
    jobs = [(video, frame) for video in videos for frame in video.frames]
    results = []
    for done, (video, frame) in enumerate(jobs, 1):
        image = read_image(frame.image)
        start = time.perf_counter()
        estimates = estimator(image, frame.camera)
        seconds = time.perf_counter() - start
        best = _best(estimates)
        results.append(ImageResult(video.name, frame.name, best, 0.0, 0.0, seconds))
        progress("estimate", done, len(jobs))
    return results


def _best(estimates: Sequence[PoseEstimate]) -> PoseEstimate | None:
    return max(estimates, key=lambda estimate: estimate.score, default=None)


def _accuracies(
    alignment: Alignment, rotations: Mapping[str, Tensor], trial: _Trial
) -> dict[str, dict[str, Any]]:
    """The figures of everything that has labels, by title."""
    accuracies: dict[str, dict[str, Any]] = {}
    if len(set(rotations) & set(alignment.videos)) > 1:
        accuracies["alignment"] = rotation_labels.evaluate_alignment(alignment, rotations)
    if trial.results and trial.labeled:
        accuracies["estimates in unseen videos"] = pose_figures.summarize_poses(
            trial.results, trial.without_box.counts
        )
    return accuracies


def _draw_trial(trial: _Trial, model: CategoryModel) -> list[ReportImage]:
    return draw_report_images(trial.results, trial.videos, model, trial.labeled)


def _draw_result(
    result: ImageResult, frame: Frame, model: CategoryModel, labeled: bool
) -> ReportImage:
    image: drawing.RgbImage = read_image(frame.image).numpy()
    words = [f"{result.video}/{result.frame}"]
    if result.estimate is None:
        words.append("nothing found")
    else:
        image = drawing.draw_estimate(image, frame.camera, result.estimate, model)
        words.append(f"score {result.estimate.score:.2f}")
        if labeled:
            words.append(f"{result.error:.1f}° off")
    error = result.error if labeled else None
    return ReportImage(image, ", ".join(words), _score(result), error)


def _score(result: ImageResult) -> float:
    return 0.0 if result.estimate is None else result.estimate.score


def up_directions(category: Path, alignment: Alignment) -> dict[str, Tensor]:
    """The direction up (3,) in the obj frame of each kept video; empty if no axes are known."""
    if frame_axes.axes_record(category) is None:
        return {}
    return {
        name: split_similarity(pose)[0][2]
        for name, pose, kept in zip(
            alignment.videos, alignment.canon_from_obj, alignment.kept, strict=True
        )
        if kept
    }


def measure_agreement(
    videos: Sequence[Video], results: Sequence[ImageResult], model: CategoryModel
) -> dict[str, Any] | None:
    """How well the estimates of each video agree with each other and with the camera's motion.

    The camera's motion takes the estimates of a video to one object frame. There the error of an
    image is the angle to the rotation on which most images of its video agree. No label is needed;
    an object that is turned the same way in every image is not noticed.

    Args:
        videos: with the camera poses of the frames.
        results: of the images.
        model: of the category.

    Returns:
        The figures of `pose_figures.summarize_poses` that the report shows; None without camera
        poses.
    """
    poses = {
        (video.name, frame.name): frame.cam_from_obj
        for video in videos
        for frame in video.frames
        if frame.cam_from_obj is not None
    }
    errors: list[float] = []
    estimated = 0
    for video in videos:
        mine = [r for r in results if (r.video, r.frame) in poses and r.video == video.name]
        turns = [
            poses[r.video, r.frame][:3, :3].T @ r.estimate.cam_from_canon[:3, :3]
            for r in mine
            if r.estimate is not None
        ]
        if len(turns) < _FEW_TURNS:
            continue
        canon_from_obj = torch.stack(turns).mT
        between = metrics.symmetric_angle(
            canon_from_obj[:, None], canon_from_obj[None], model.symmetry
        )
        center = int((between < ANGLES[0]).sum(1).argmax())
        errors += between[center].tolist()
        errors += [180.0] * (len(mine) - len(turns))
        estimated += len(turns)
    if not errors:
        return None
    figures = metrics.accuracies(torch.tensor(errors, dtype=torch.float64))
    return {
        "images": len(errors),
        "estimated": estimated,
        **figures,
        "symmetry_aware": figures,
    }


def _summarize_videos(
    folders: Mapping[str, Path],
    meshes: Mapping[str, FeatureMesh],
    progress: Progress,
    up: Mapping[str, Tensor],
) -> list[VideoSummary]:
    """The summary of every video that has a mesh and can still be read."""
    summaries = []
    for done, (name, mesh) in enumerate(meshes.items(), 1):
        progress("report: videos", done, len(meshes))
        provenance = artifacts.provenance_of(folders[name] / artifacts.FEATURES) or {}
        with suppress(InvalidInput):  # the user deleted images since
            video = load_video(folders[name])
            summaries.append(summarize_video(video, mesh, provenance, up.get(name)))
    return summaries
