"""One HTML page that shows what a category's videos became, without any other file.

Pictures are inside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import uns_pose_ros
from uns_pose_ros.core.types import (
    Alignment,
    CategoryModel,
    FeatureMesh,
    PoseEstimate,
    Symmetry,
    Video,
)
from uns_pose_ros.evaluation.metrics import ANGLES, ImageResult
from uns_pose_ros.io.artifacts import atomic_write
from uns_pose_ros.io.images import read_image
from uns_pose_ros.reporting import html
from uns_pose_ros.reporting.video_summary import (
    VideoSummary,
    canonical_vertices,
    choose_pair,
    draw_correspondences,
    draw_viewpoints,
    position_colors,
)
from uns_pose_ros.visualization import drawing
from uns_pose_ros.visualization.alignment_figure import VIEWS, draw_mesh_views
from uns_pose_ros.visualization.drawing import RgbImage
from uns_pose_ros.visualization.training_figure import plot_training

_UNSURE = 0.5  # confidence of a video below which the page says so
_PICTURED = 12  # videos whose frames are shown, the doubtful ones first
_PLOT = (4.5, 2.6)  # inches


@dataclass(frozen=True, eq=False)
class ReportImage:
    """An estimate drawn into its image."""

    picture: RgbImage  # (H, W, 3) uint8 RGB
    caption: str
    score: float  # 0 where nothing was found
    error: float | None  # degrees; None without a label


@dataclass(frozen=True, eq=False)
class ReportContents:
    """What the page shows; what is None or empty is said to be missing."""

    category: str
    alignment: Alignment
    meshes: Mapping[str, FeatureMesh]  # by video
    model: CategoryModel | None = None
    shots: Sequence[ReportImage] = ()
    errors: Sequence[float] = ()  # degrees, of all evaluated images
    # title: figures of `evaluate alignment` or `evaluate pose`
    accuracies: Mapping[str, Mapping[str, Any]] | None = None
    videos: Sequence[VideoSummary] = ()
    # by stage of the whole category, where they were noted
    seconds: Mapping[str, float] | None = None
    # the shots are of videos that the model was trained on, for want of others
    trained_on: bool = False


def write_report(path: Path, contents: ReportContents) -> None:
    """Write the page."""
    sections = [
        ("What to look at", _attention(contents)),
        ("Accuracy", _accuracy(contents)),
        ("Estimates", _estimates(contents)),
        ("Videos", _videos(contents.videos)),
        ("Alignment", _alignment(contents)),
        ("Correspondences", _correspondences(contents)),
        ("Symmetry", _symmetry(contents)),
        ("Training", _training(contents.model)),
        ("Time", _time(contents)),
    ]
    title = f"{contents.category}: from videos to poses"
    with atomic_write(path) as temporary:
        temporary.write_text(
            html.page_document(title, f"uns_pose_ros {uns_pose_ros.__version__}", sections),
            encoding="utf-8",
        )


def draw_report_images(
    results: Sequence[ImageResult],
    videos: Sequence[Video],
    model: CategoryModel,
    labeled: bool,
    most: int = 24,
) -> list[ReportImage]:
    """Overlays of the worst results and of some others, failures first.

    By error where there are labels, else by score.
    """
    frames = {(video.name, frame.name): frame for video in videos for frame in video.frames}

    def badness(result: ImageResult) -> float:
        return (
            result.error
            if labeled
            else 1 - (0.0 if result.estimate is None else result.estimate.score)
        )

    ranked = sorted(results, key=badness, reverse=True)
    worst, rest = ranked[: most // 2], ranked[most // 2 :]
    step = max(1, len(rest) // max(1, most - len(worst)))
    shots = []
    for result in worst + rest[step - 1 :: step][: most - len(worst)]:
        frame = frames[result.video, result.frame]
        picture: RgbImage = read_image(frame.image).numpy()
        score = 0.0
        words = [f"{result.video}/{result.frame}"]
        if result.estimate is None:
            words.append("nothing found")
        else:
            score = result.estimate.score
            picture = drawing.draw_estimate(picture, frame.camera, result.estimate, model)
            words.append(f"score {score:.2f}")
        if labeled and result.estimate is not None:
            words.append(f"{result.error:.1f}° off")
        shots.append(
            ReportImage(picture, ", ".join(words), score, result.error if labeled else None)
        )
    return shots


def thin_video(video: Video, most: int) -> Video:
    """The video with at most `most` of its frames, evenly spread."""
    count = len(video.frames)
    chosen = sorted({round(k) for k in np.linspace(0, count - 1, min(most, count))})
    return replace(video, frames=tuple(video.frames[k] for k in chosen))


def unlabeled_result(
    video: str, frame: str, estimates: Sequence[PoseEstimate], seconds: float
) -> ImageResult:
    """The result of an image without a label; its errors say nothing."""
    return ImageResult(
        video, frame, max(estimates, key=lambda e: e.score, default=None), 0.0, 0.0, seconds
    )


def _attention(contents: ReportContents) -> str:
    """Everything that went wrong, in one list before all else."""
    alignment, lines = contents.alignment, list[str]()
    for name, confidence, kept in zip(
        alignment.videos,
        alignment.confidence.tolist(),
        alignment.kept.tolist(),
        strict=True,
    ):
        if not kept:
            lines.append(
                f"{name}: left out of the training, it agrees with too few others (confidence "
                f"{confidence:.2f})"
            )
        elif confidence < _UNSURE:
            lines.append(
                f"{name}: confidence {confidence:.2f}, it may be turned; compare it with the "
                "others below"
            )
    lines += [warning for facts in contents.videos for warning in facts.warnings]
    missed = sum(shot.score == 0 for shot in contents.shots)
    wrong = sum(error > ANGLES[0] for error in contents.errors)
    if wrong:
        lines.append(
            f"{wrong} of {len(contents.errors)} labeled images are off by more than "
            f"{ANGLES[0]}° or without an estimate"
        )
    elif missed:
        lines.append(f"{missed} of the {len(contents.shots)} images shown have no estimate")
    return (
        html.bullet_list(lines, "bad") if lines else html.paragraph("Nothing stands out.")
    )


def _accuracy(contents: ReportContents) -> str:
    if not contents.accuracies:
        return html.paragraph(
            "No labels were given, so nothing here says how right the poses are.", "note"
        )
    header = [
        "",
        "number",
        *(f"@{angle}° %" for angle in ANGLES),
        "median °",
        "@30° % up to symmetry",
    ]
    rows = []
    for title, values in contents.accuracies.items():
        number = (
            f"{values['pairs']} pairs"
            if "pairs" in values
            else f"{values['estimated']} of {values['images']} images"
        )
        figures = [values[f"acc{angle}"] for angle in ANGLES] + [
            values["median_deg"],
            values["symmetry_aware"]["acc30"],
        ]
        rows.append(
            [
                title,
                number,
                *("–" if value is None else f"{value:.1f}" for value in figures),
            ]
        )
    note = html.paragraph(
        "Percent below the angle. An image without an estimate counts as wrong.", "note"
    )
    return (
        html.data_table(header, rows)
        + note
        + (_error_plot(contents.errors) if len(contents.errors) else "")
    )


def _estimates(contents: ReportContents) -> str:
    shots = contents.shots
    if not shots:
        return html.paragraph("No model, or no video to try it on.", "note")
    figures = [
        html.image_figure(
            shot.picture, shot.caption, 320, bad=(shot.error or 0) > ANGLES[0]
        )
        for shot in shots
    ]
    by = "the largest error" if shots[0].error is not None else "the lowest score"
    whose = "videos that the model was not trained on"
    if contents.trained_on:
        whose = (
            "videos that the model was trained on, as there are no others: new objects "
            "will look worse"
        )
    note = f"Images of {whose}; {by} first. Axes: x red, y green, z blue."
    return html.paragraph(note, "note") + html.figure_grid(figures, small=True)


def _videos(videos: Sequence[VideoSummary]) -> str:
    if not videos:
        return html.paragraph("The videos' folders were not looked at.", "note")
    header = [
        "video",
        "frames",
        "used",
        "widest gap °",
        "elevations °",
        "mask and hull",
        "poses",
        "masks",
    ]
    rows = []
    for one in videos:
        heights = f"{round(one.elevations.min())} to {round(one.elevations.max())}"
        overlap = "–" if one.overlap is None else f"{one.overlap:.2f}"
        rows.append(
            [
                one.name,
                str(one.frames),
                str(one.views),
                f"{one.gap:.0f}",
                heights,
                overlap,
                one.poses,
                one.masks,
            ]
        )
    note = (
        "Gap: the widest turn around the object without a view. Mask and hull: the median "
        "overlap of the masks with the mesh "
        "that they carved. In the pictures the mask is outlined in yellow, the mesh in red; "
        "the ring shows the viewpoints from "
        "above."
    )
    ranked = sorted(videos, key=lambda one: -len(one.warnings))
    parts = [
        html.data_table(header, rows, [bool(one.warnings) for one in videos]),
        html.paragraph(note, "note"),
    ]
    for one in ranked[:_PICTURED]:
        ring = html.image_figure(
            draw_viewpoints(one), f"{one.name}, {one.views} views", 150
        )
        frames = [html.image_figure(picture, one.name, 240) for picture in one.pictures]
        parts.append(html.figure_grid([ring, *frames], small=True))
    if len(ranked) > _PICTURED:
        parts.append(
            html.paragraph(
                f"{len(ranked) - _PICTURED} more videos are in the table only.", "note"
            )
        )
    return "".join(parts)


def _alignment(contents: ReportContents) -> str:
    alignment, rows, figures = contents.alignment, [], []
    order = sorted(
        range(len(alignment.videos)),
        key=lambda k: (bool(alignment.kept[k]), float(alignment.confidence[k])),
    )
    for k in order:
        name, confidence, kept = (
            alignment.videos[k],
            float(alignment.confidence[k]),
            bool(alignment.kept[k]),
        )
        rows.append(
            [
                name,
                f"{confidence:.2f}",
                f"{float(alignment.residual[k]):.1f}",
                "yes" if kept else "no",
            ]
        )
        if name in contents.meshes:
            mesh = contents.meshes[name]
            vertices = canonical_vertices(name, alignment, mesh)
            strip = draw_mesh_views(vertices, mesh.triangles, position_colors(vertices))
            figures.append(
                html.image_figure(
                    strip, f"{name}, confidence {confidence:.2f}", 420, bad=not kept
                )
            )
    note = (
        "Confidence: the part of a video's pairs that agree with the whole. Residual: median "
        "disagreement. The least sure come "
        "first; videos in red were left out."
    )
    views = (
        f"The videos' meshes in the canonical frame, seen from {', '.join(VIEWS)}; color "
        "is position."
    )
    table = html.data_table(
        ["video", "confidence", "residual °", "kept"],
        rows,
        [row[-1] == "no" for row in rows],
    )
    return (
        html.paragraph(note, "note")
        + table
        + html.paragraph(views, "note")
        + html.figure_grid(figures)
    )


def _correspondences(contents: ReportContents) -> str:
    pair = choose_pair(contents.alignment, contents.meshes)
    if pair is None:
        return html.paragraph("Fewer than two videos were kept.", "note")
    a, b = draw_correspondences(*pair, contents.alignment, contents.meshes)
    note = (
        f"{pair[0]} is colored by position; every vertex of {pair[1]}, the least sure of the "
        "kept, has the color of the "
        f"vertex of {pair[0]} whose features are most alike. Where features tell parts apart, "
        "the colors lie alike on both."
    )
    figures = [
        html.image_figure(a, f"{pair[0]}, by position", 420),
        html.image_figure(b, f"{pair[1]}, by its features", 420),
    ]
    return html.paragraph(note, "note") + html.figure_grid(figures)


def _symmetry(contents: ReportContents) -> str:
    symmetry = contents.alignment.symmetry
    if symmetry.order == 1:
        return html.paragraph(
            "None was found: every orientation of the object is told from every other."
        )
    return html.paragraph(
        f"{symmetry.name}: {_meaning(symmetry)} The estimator gives one of the equal poses."
    )


def _meaning(symmetry: Symmetry) -> str:
    axis = ", ".join(f"{value:.2f}" for value in symmetry.axis.tolist())
    turns = "turns" if symmetry.order == 0 else f"turns by {360 / symmetry.order:.0f}°"
    return (
        f"{turns} about the axis ({axis}) of the canonical frame change nothing that the "
        "features show."
    )


def _training(model: CategoryModel | None) -> str:
    if model is None:
        return html.paragraph("Not trained yet.", "note")
    trained = model.provenance.get("canon_from_obj")
    names = (
        ", ".join(trained)
        if isinstance(trained, Mapping)
        else "videos that it does not name"
    )
    size = "unknown size" if model.diameter is None else f"{model.diameter:.3f} m across"
    text = html.paragraph(
        f"Template of {len(model.vertices)} vertices, {size}, trained on {names}."
    )
    vertices = model.vertices.double()
    strip = html.image_figure(
        draw_mesh_views(vertices, model.triangles, position_colors(vertices)),
        "the template",
        420,
    )
    return text + html.figure_grid(
        [strip, _training_plot(model.provenance.get("training"))]
    )


def _training_plot(curve: Any) -> str:
    if not isinstance(curve, Mapping) or not curve.get("step"):
        return ""
    return html.plot_figure(
        plot_training(curve),
        "training: losses, and how often it is right where it did not learn",
    )


def _error_plot(errors: Sequence[float]) -> str:
    figure = Figure(figsize=_PLOT, layout="constrained")
    axes = figure.add_subplot(
        xlabel="error below, degrees", ylabel="images, %", xlim=(0, 180), ylim=(0, 101)
    )
    axes.plot(
        [0, *sorted(errors)], np.linspace(0, 100, len(errors) + 1), drawstyle="steps-post"
    )
    axes.grid(alpha=0.3)
    return html.plot_figure(figure, "errors of all evaluated images")


def _time(contents: ReportContents) -> str:
    spent: dict[str, float] = {}
    for facts in contents.videos:
        for stage, seconds in facts.seconds.items():
            spent[stage] = spent.get(stage, 0.0) + seconds
    spent |= contents.seconds or {}
    if not spent:
        return html.paragraph("No stage noted its time.", "note")
    rows = [
        [stage, f"{spent[stage]:.0f}"]
        for stage in ("poses", "masks", "reconstruct", "align", "train")
        if stage in spent
    ]
    note = html.paragraph(
        "Seconds, all videos together, on the machine that made them.", "note"
    )
    return html.data_table(["stage", "seconds"], rows) + note
