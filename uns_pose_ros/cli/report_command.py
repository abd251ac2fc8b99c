"""The command that shows a category on one page."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from torch import Tensor
from tyro.conf import arg

from uns_pose_ros.cli.arguments import Category, Device, Json, Videos
from uns_pose_ros.cli.console import emit, progress_bar
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import CategoryModel, FeatureMesh, Progress, Video
from uns_pose_ros.estimation.estimator import Estimator
from uns_pose_ros.evaluation import metrics
from uns_pose_ros.evaluation.metrics import ImageResult
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.images import read_image
from uns_pose_ros.io.video_folder import list_videos, load_video
from uns_pose_ros.pipeline import stages
from uns_pose_ros.reporting.category_report import (
    ReportContents,
    draw_report_images,
    thin_video,
    unlabeled_result,
    write_report,
)
from uns_pose_ros.reporting.video_summary import VideoSummary, summarize_video

PAGE = "report.html"
_TRAINED = (
    4  # videos, and images of each, that are estimated where the model was trained on all
)


def report_command(
    category: Category,
    videos: Videos = None,
    labels: Annotated[
        Path | None,
        arg(metavar="FILE", help="default: CATEGORY/labels.json where it exists"),
    ] = None,
    out: Annotated[
        Path | None, arg(metavar="FILE", help="the page; default: CATEGORY/report.html")
    ] = None,
    images: Annotated[
        int, arg(metavar="N", help="images a video that are estimated, evenly spread")
    ] = 12,
    device: Device = "auto",
    json: Json = None,
) -> None:
    """Write one HTML page.

    What to look at, accuracy, estimates, videos, alignment, correspondences, training, time.

    --videos: those to estimate in. Default: all that the model was not trained on; if it was
    trained on all, some of these.
    Labels, where there are any, only measure.
    """
    with progress_bar() as progress:
        record = make_report(
            category, videos, labels, out or category / PAGE, images, device, progress
        )
    emit(record, f"{record['report']}: {record['images']} images estimated", json)


def make_report(
    category: Path,
    patterns: str | None,
    labels: Path | None,
    out: Path,
    images: int,
    device: str,
    progress: Progress,
) -> dict[str, Any]:
    """Write the page `out` of a category; what the command says of it as JSON."""
    alignment = artifacts.load_alignment(category / stages.ALIGNMENT)
    folders = {folder.name: folder for folder in list_videos(category)}
    meshes = {
        name: artifacts.load_feature_mesh(folders[name])
        for name in alignment.videos
        if name in folders
    }
    model = (
        artifacts.load_model(category)
        if (category / stages.MODEL / artifacts.MODEL).exists()
        else None
    )
    labels = (
        category / "labels.json"
        if labels is None and (category / "labels.json").exists()
        else labels
    )
    known = {} if labels is None else metrics.load_labels(labels, list(folders))
    accuracies = {}
    if len(set(known) & set(alignment.videos)) > 1:
        accuracies["alignment"] = metrics.evaluate_alignment(alignment, known)
    chosen, results = list[Video](), list[ImageResult]()
    labeled = trained_on = False
    if model is not None:
        tried = _unseen(category, patterns, model)
        if trained_on := not tried:
            tried, images = list(folders.values())[:_TRAINED], min(images, _TRAINED)
        labeled = (
            bool(known) and not trained_on and all(folder.name in known for folder in tried)
        )
        chosen = [
            thin_video(load_video(folder, need_masks=False, need_poses=labeled), images)
            for folder in tried
        ]
        results = _results(chosen, model, known if labeled else {}, device, progress)
    if results and labeled:
        accuracies["estimates in unseen videos"] = metrics.summarize_poses(results)
    contents = ReportContents(
        category=category.resolve().name,
        alignment=alignment,
        meshes=meshes,
        model=model,
        shots=[] if model is None else draw_report_images(results, chosen, model, labeled),
        errors=[result.error for result in results] if labeled else [],
        accuracies=accuracies,
        videos=_facts(folders, meshes, progress),
        seconds=stages.stage_seconds(category, model),
        trained_on=trained_on,
    )
    write_report(out, contents)
    return {"report": str(out), "images": len(results), "accuracies": accuracies}


def _facts(
    folders: Mapping[str, Path], meshes: Mapping[str, FeatureMesh], progress: Progress
) -> list[VideoSummary]:
    """What there is to say of every video with a mesh that can still be read."""
    found = []
    for done, (name, mesh) in enumerate(meshes.items(), 1):
        progress("report: videos", done, len(meshes))
        provenance = artifacts.provenance_of(folders[name] / artifacts.FEATURES) or {}
        with suppress(InvalidInput):  # pictures that were deleted since
            found.append(summarize_video(load_video(folders[name]), mesh, provenance))
    return found


def _unseen(category: Path, patterns: str | None, model: CategoryModel) -> list[Path]:
    trained = model.provenance.get("canon_from_obj")
    trained = trained if isinstance(trained, Mapping) else {}
    folders = list_videos(category, patterns)
    return (
        folders
        if patterns is not None
        else [folder for folder in folders if folder.name not in trained]
    )


def _results(
    videos: Sequence[Video],
    model: CategoryModel,
    labels: Mapping[str, Tensor],
    device: str,
    progress: Progress,
) -> list[ImageResult]:
    """The estimate of every frame; with errors where there are labels."""
    if not videos:
        return []
    estimator = Estimator(model, device=device)
    if labels:
        return metrics.evaluate_poses(estimator, model, videos, labels, progress)
    jobs = [(video, frame) for video in videos for frame in video.frames]
    results = []
    for done, (video, frame) in enumerate(jobs, 1):
        image, start = read_image(frame.image), time.perf_counter()
        found = estimator(image, frame.camera)
        results.append(
            unlabeled_result(video.name, frame.name, found, time.perf_counter() - start)
        )
        progress("estimate", done, len(jobs))
    return results
