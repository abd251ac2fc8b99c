"""The command that shows a category on one page."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from torch import Tensor
from tyro.conf import arg

from uns_pose_ros import evaluation, storage
from uns_pose_ros.cli_arguments import Category, Device, Json, Videos
from uns_pose_ros.console import emit, progress_bar
from uns_pose_ros.datatypes import CategoryModel, Progress, Video
from uns_pose_ros.evaluation import ImageResult
from uns_pose_ros.inference import Estimator
from uns_pose_ros.report import Contents, shots_of, thinned, unlabelled, write_report
from uns_pose_ros.video import list_videos, load_video, read_image


def report(
    category: Category,
    videos: Videos = None,
    labels: Annotated[Path | None, arg(metavar="FILE", help="default: CATEGORY/labels.json where it exists")] = None,
    out: Annotated[Path | None, arg(metavar="FILE", help="the page; default: CATEGORY/report.html")] = None,
    images: Annotated[int, arg(metavar="N", help="images a video that are estimated, evenly spread")] = 12,
    device: Device = "auto",
    json: Json = None,
) -> None:
    """Write one HTML page with the aligned meshes, confidences, training, and estimates in videos the model has not seen.

    --videos: those to estimate in; default: all that the model was not trained on. Labels, where there are any, only measure.
    """
    alignment = storage.load_alignment(category / "alignment.json")
    folders = {folder.name: folder for folder in list_videos(category)}
    meshes = {name: storage.load_feature_mesh(folders[name]) for name in alignment.videos if name in folders}
    model = storage.load_model(category) if (category / "model" / storage.MODEL).exists() else None
    labels = category / "labels.json" if labels is None and (category / "labels.json").exists() else labels
    known = {} if labels is None else evaluation.load_labels(labels, list(folders))
    accuracies = {}
    if len(set(known) & set(alignment.videos)) > 1:
        accuracies["alignment"] = evaluation.evaluate_alignment(alignment, known)
    chosen, results = list[Video](), list[ImageResult]()
    labelled = False
    if model is not None:
        unseen = _unseen(category, videos, model)
        labelled = bool(known) and all(folder.name in known for folder in unseen)
        chosen = [thinned(load_video(folder, need_masks=False, need_poses=labelled), images) for folder in unseen]
        with progress_bar() as progress:
            results = _results(chosen, model, known if labelled else {}, device, progress)
    if results and labelled:
        accuracies["estimates in unseen videos"] = evaluation.summarise(results)
    contents = Contents(
        category=category.resolve().name,
        alignment=alignment,
        meshes={name: (mesh.vertices, mesh.triangles) for name, mesh in meshes.items()},
        model=model,
        shots=[] if model is None else shots_of(results, chosen, model, labelled),
        errors=[result.error for result in results] if labelled else [],
        accuracies=accuracies,
    )
    out = out or category / "report.html"
    write_report(out, contents)
    emit(
        {"report": str(out), "images": len(results), "accuracies": accuracies}, f"{out}: {len(results)} images estimated", json
    )


def _unseen(category: Path, patterns: str | None, model: CategoryModel) -> list[Path]:
    trained = model.provenance.get("canon_from_obj")
    trained = trained if isinstance(trained, Mapping) else {}
    folders = list_videos(category, patterns)
    return folders if patterns is not None else [folder for folder in folders if folder.name not in trained]


def _results(
    videos: Sequence[Video], model: CategoryModel, labels: Mapping[str, Tensor], device: str, progress: Progress
) -> list[ImageResult]:
    """The estimate of every frame; with errors where there are labels."""
    if not videos:
        return []
    estimator = Estimator(model, device=device)
    if labels:
        return evaluation.evaluate_poses(estimator, model, videos, labels, progress)
    jobs = [(video, frame) for video in videos for frame in video.frames]
    results = []
    for done, (video, frame) in enumerate(jobs, 1):
        image, start = read_image(frame.image), time.perf_counter()
        found = estimator(image, frame.camera)
        results.append(unlabelled(video.name, frame.name, found, time.perf_counter() - start))
        progress("estimate", done, len(jobs))
    return results
