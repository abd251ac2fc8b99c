"""One HTML page that shows what the videos of a category became.

The page needs no other file: its images are inside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

import uns_pose_ros
from uns_pose_ros.core.types import Alignment, CategoryModel, FeatureMesh, Symmetry
from uns_pose_ros.evaluation.box_figures import describe_boxes
from uns_pose_ros.evaluation.metrics import ANGLES
from uns_pose_ros.io.artifacts import atomic_write
from uns_pose_ros.reporting import html
from uns_pose_ros.reporting.expectation import describe_expectation
from uns_pose_ros.reporting.label_preview import LabelPreview
from uns_pose_ros.reporting.mask_review import LOW_CONFIDENCE
from uns_pose_ros.reporting.video_summary import (
    VideoSummary,
    canonical_vertices,
    choose_pair,
    draw_correspondences,
    draw_viewpoints,
    position_colors,
)
from uns_pose_ros.visualization.alignment_figure import VIEWS, draw_mesh_views
from uns_pose_ros.visualization.drawing import RgbImage
from uns_pose_ros.visualization.training_figure import plot_training

_VIDEOS_WITH_IMAGES = 12  # videos whose frames are shown; those with most warnings first
_PLOT_SIZE = (4.5, 2.6)  # inches
_NO_LABELS = (
    "No labels were given, so it is not measured whether the axes are the right ones."
)
_LOOK = (
    "Look at the estimates below: an axis must point to the same part of every object. `uns-pose "
    "report CATEGORY --labels FILE` and `uns-pose evaluate pose` measure it."
)
_NOT_MEASURED = "not measured"
_AGREEMENT = (
    "Agreement: the poses of the images of one video are compared with each other, after the "
    "known motion of the camera; the angle is that to the pose on which most of them agree. It "
    "shows poses that jump. It does not show an object that is turned the same way in every "
    "image, as by half a turn."
)
_BOXES = (
    "Boxes: the box of an estimate is compared with the box around the hull of the masks, which "
    "are taken as exact, along the axes of the labels. One image does not tell size from distance, "
    "so the box is first moved along its ray to the true depth and scaled as much. The mean "
    "overlap and the sides are those of the estimates; the shares are of all images."
)
_LEARNED = (
    "The dotted curve, right where it did not learn: some images of the same videos are held back "
    "from the training. In them it is the percentage of cells of the object (14 px) for which the "
    "likeliest point of the template is the right one, or at most a tenth of the object's diameter "
    "away. It tells whether more training helps, and says nothing about new objects."
)


@dataclass(frozen=True, eq=False)
class ReportImage:
    """An estimate drawn into its image."""

    image: RgbImage  # (H, W, 3) uint8 RGB
    caption: str
    score: float  # 0 if nothing was found
    error: float | None  # degrees; None without a label


@dataclass(frozen=True, eq=False)
class ReportContents:
    """What the page shows; the page says that what is None or empty is missing."""

    category: str
    alignment: Alignment
    meshes: Mapping[str, FeatureMesh]  # by video
    model: CategoryModel | None = None
    images: Sequence[ReportImage] = ()
    errors: Sequence[float] = ()  # degrees, of all evaluated images
    # title: figures of `evaluate alignment` or `evaluate pose`
    accuracies: Mapping[str, Mapping[str, Any]] | None = None
    videos: Sequence[VideoSummary] = ()
    # by stage of the whole category, if they were recorded
    seconds: Mapping[str, float] | None = None
    # the images are of videos that the model was trained on, because no others exist
    trained_on: bool = False
    # figures of the agreement of the estimates with the camera's motion, without labels
    agreement: Mapping[str, Any] | None = None
    labels: LabelPreview | None = None  # what an export of labels would write


def write_report(path: Path, contents: ReportContents) -> None:
    """Write the page."""
    sections = [
        ("What to look at", _warnings_section(contents)),
        ("Accuracy", _accuracy_section(contents)),
        ("Estimates", _estimates_section(contents)),
        ("Videos", _videos_section(contents.videos)),
        ("Labels", _labels_section(contents.labels)),
        ("Alignment", _alignment_section(contents)),
        ("Correspondences", _correspondences_section(contents)),
        ("Symmetry", _symmetry_section(contents.alignment.symmetry)),
        ("Training", _training_section(contents.model)),
        ("Time", _time_section(contents)),
    ]
    title = f"{contents.category}: from videos to poses"
    note = f"uns_pose_ros {uns_pose_ros.__version__}"
    page = html.page_document(title, note, sections)
    with atomic_write(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _warnings_section(contents: ReportContents) -> Markup:
    """Everything that went wrong, in one list."""
    lines = _alignment_warnings(contents.alignment)
    for video in contents.videos:
        lines += video.warnings
    missed = sum(image.score == 0 for image in contents.images)
    wrong = sum(error > ANGLES[0] for error in contents.errors)
    if wrong:
        lines.append(
            f"{wrong} of {len(contents.errors)} labeled images are off by more than "
            f"{ANGLES[0]}° or without an estimate"
        )
    elif missed:
        lines.append(
            f"{missed} of the {len(contents.images)} images shown have no estimate"
        )
    if not lines:
        return html.paragraph("Nothing stands out.")
    return html.bullet_list(lines, "bad")


def _alignment_warnings(alignment: Alignment) -> list[str]:
    lines = []
    if not alignment.is_measured:
        lines.append(
            f"the confidence is not measured: each video was aligned to {alignment.reference} by "
            "itself, as published; compare them below"
        )
    for k, name in enumerate(alignment.videos):
        confidence = float(alignment.confidence[k])
        if not alignment.kept[k]:
            lines.append(
                f"{name}: left out of the training, it agrees with too few others (confidence "
                f"{confidence:.2f})"
            )
        elif confidence < LOW_CONFIDENCE:
            lines.append(
                f"{name}: confidence {confidence:.2f}, it may be turned; compare it with the "
                "others below"
            )
    return lines


def _accuracy_section(contents: ReportContents) -> Markup:
    rows = [_accuracy_row(*row) for row in (contents.accuracies or {}).items()]
    if contents.agreement is not None:
        rows.append(_accuracy_row("agreement with the camera's motion", contents.agreement))
    lines = [] if contents.model is None else describe_expectation(contents.model)
    expected = html.bullet_list(lines) if lines else Markup("")
    if not rows:
        return expected + html.paragraph(f"{_NO_LABELS} {_LOOK}", "note")
    header = ["", "number", *(f"@{angle}° %" for angle in ANGLES)]
    header += ["median °", "@30° % up to symmetry"]
    text = "Percent below the angle. An image without an estimate counts as wrong."
    section = expected + html.data_table(header, rows) + html.paragraph(text, "note")
    section += _boxes_part(contents.accuracies or {})
    if contents.agreement is not None:
        section += html.paragraph(_AGREEMENT, "note")
    if not contents.accuracies:
        section += html.paragraph(f"{_NO_LABELS} {_LOOK}", "note")
    if contents.errors:
        section += _error_plot(contents.errors)
    return section


def _boxes_part(accuracies: Mapping[str, Mapping[str, Any]]) -> Markup:
    """What is known of the boxes in space: one paragraph for each title."""
    parts = [
        html.paragraph(f"{title}: {line}.", "note")
        for title, values in accuracies.items()
        if "iou3d" in values
        for line in describe_boxes(values["iou3d"]).splitlines()
    ]
    return Markup("").join([*parts, html.paragraph(_BOXES, "note")]) if parts else Markup()


def _accuracy_row(title: str, values: Mapping[str, Any]) -> list[str]:
    if "pairs" in values:
        number = f"{values['pairs']} pairs"
    else:
        number = f"{values['estimated']} of {values['images']} images"
    figures = [values[f"acc{angle}"] for angle in ANGLES]
    figures += [values["median_deg"], values["symmetry_aware"]["acc30"]]
    cells = ["–" if value is None else f"{value:.1f}" for value in figures]
    return [title, number, *cells]


def _estimates_section(contents: ReportContents) -> Markup:
    if not contents.images:
        return html.paragraph("No model, or no video to try it on.", "note")
    figures = [
        html.image_figure(
            image.image, image.caption, 320, bad=(image.error or 0) > ANGLES[0]
        )
        for image in contents.images
    ]
    has_labels = contents.images[0].error is not None
    order = "the largest error" if has_labels else "the lowest score"
    source = "videos that the model was not trained on"
    if contents.trained_on:
        source = (
            "videos that the model was trained on, as there are no others: new objects "
            "will look worse"
        )
    note = f"Images of {source}; {order} first. Axes: x red, y green, z blue."
    return html.paragraph(note, "note") + html.figure_grid(figures, small=True)


def _videos_section(videos: Sequence[VideoSummary]) -> Markup:
    if not videos:
        return html.paragraph("The videos' folders were not looked at.", "note")
    header = ["video", "frames", "used", "widest gap °", "elevations °"]
    header += ["mask and hull", "poses", "masks"]
    rows = [_video_row(video) for video in videos]
    marked = [bool(video.warnings) for video in videos]
    note = (
        "Gap: the widest turn around the object without a view. Elevations: of the cameras, from "
        "the object, above the plane that is level by the up axis (z of the aligned meshes; for a "
        "video that was left out, by the camera's path). Mask and hull: the overlap of the masks "
        "with the mesh that they carved, median and worst. The worst masks are shown first, the "
        "mask outlined in yellow, the mesh in red; the ring shows the viewpoints from above."
    )
    section = html.data_table(header, rows, marked) + html.paragraph(note, "note")
    ranked = sorted(videos, key=lambda video: -len(video.warnings))
    for video in ranked[:_VIDEOS_WITH_IMAGES]:
        section += _video_figures(video)
    more = len(ranked) - _VIDEOS_WITH_IMAGES
    if more > 0:
        section += html.paragraph(f"{more} more videos are in the table only.", "note")
    return section


def _video_row(video: VideoSummary) -> list[str]:
    lowest = round(video.elevations.min())
    highest = round(video.elevations.max())
    return [
        video.name,
        str(video.frames),
        str(video.views),
        f"{video.gap:.0f}",
        f"{lowest} to {highest}",
        _overlap_cell(video),
        video.poses,
        video.masks,
    ]


def _overlap_cell(video: VideoSummary) -> str:
    if video.overlap is None:
        return "–"
    worst = "" if video.worst is None else f", {video.worst[1]:.2f}"
    return f"{video.overlap:.2f}{worst}"


def _video_figures(video: VideoSummary) -> Markup:
    """The viewpoints of a video and some of its frames."""
    ring = draw_viewpoints(video)
    figures = [html.image_figure(ring, f"{video.name}, {video.views} views", 150)]
    captions = video.captions or [video.name] * len(video.images)
    figures += [
        html.image_figure(image, caption, 240)
        for image, caption in zip(video.images, captions, strict=True)
    ]
    return html.figure_grid(figures, small=True)


def _labels_section(labels: LabelPreview | None) -> Markup:
    """What `uns-pose export labels` would write."""
    if labels is None:
        return html.paragraph("The labels were not looked at.", "note")
    if labels.fault:
        return html.paragraph(labels.fault, "bad")
    note = (
        "What `uns-pose export labels` would write: masks (yellow), boxes (white) and boxes in 3D "
        "(x red, y green, z blue). To strike out a frame, put the line below its image into "
        "exclude.txt beside the videos; the name of a video strikes out all of it."
    )
    header = ["video", "frames", "lengths"]
    rows = [
        [video.name, str(video.frames), "m" if video.metric else "no known unit"]
        for video in labels.videos
    ]
    section = html.data_table(header, rows) + html.paragraph(note, "note")
    if labels.left_out:
        section += html.bullet_list([f"left out: {line}" for line in labels.left_out])
    for video in labels.videos[:_VIDEOS_WITH_IMAGES]:
        figures = [
            html.image_figure(shown.image, shown.caption, 200) for shown in video.images
        ]
        section += html.figure_grid(figures, small=True)
    more = len(labels.videos) - _VIDEOS_WITH_IMAGES
    if more > 0:
        section += html.paragraph(f"{more} more videos are in the table only.", "note")
    return section


def _alignment_section(contents: ReportContents) -> Markup:
    alignment = contents.alignment
    order = sorted(
        range(len(alignment.videos)),
        key=lambda k: (bool(alignment.kept[k]), float(alignment.confidence[k])),
    )
    note = (
        f"Each video was aligned to {alignment.reference} by itself, as published: the confidence "
        "is not measured, and no video is left out."
    )
    if alignment.is_measured:
        note = (
            "Confidence: the part of a video's pairs that agree with the whole. Residual: median "
            "disagreement. The least sure come first; videos in red were left out."
        )
    views = (
        f"The videos' meshes in the canonical frame, seen from {', '.join(VIEWS)}; color "
        "is position."
    )
    table = html.data_table(
        ["video", "confidence", "residual °", "kept"],
        [_alignment_row(alignment, k) for k in order],
        [not alignment.kept[k] for k in order],
    )
    figures = [
        _aligned_mesh_figure(contents, k)
        for k in order
        if alignment.videos[k] in contents.meshes
    ]
    section = html.paragraph(note, "note") + table + html.paragraph(views, "note")
    return section + html.figure_grid(figures)


def _alignment_row(alignment: Alignment, k: int) -> list[str]:
    confidence = f"{float(alignment.confidence[k]):.2f}"
    residual = f"{float(alignment.residual[k]):.1f}"
    if not alignment.is_measured:
        confidence = residual = _NOT_MEASURED
    return [
        alignment.videos[k],
        confidence,
        residual,
        "yes" if alignment.kept[k] else "no",
    ]


def _aligned_mesh_figure(contents: ReportContents, k: int) -> Markup:
    """The mesh of the alignment's video k in the canonical frame."""
    alignment = contents.alignment
    name = alignment.videos[k]
    mesh = contents.meshes[name]
    vertices = canonical_vertices(name, alignment, mesh)
    image = draw_mesh_views(vertices, mesh.triangles, position_colors(vertices))
    caption = name
    if alignment.is_measured:
        caption += f", confidence {float(alignment.confidence[k]):.2f}"
    return html.image_figure(image, caption, 420, bad=not alignment.kept[k])


def _correspondences_section(contents: ReportContents) -> Markup:
    pair = choose_pair(contents.alignment, contents.meshes)
    if pair is None:
        return html.paragraph("Fewer than two videos were kept.", "note")
    first, second = pair
    images = draw_correspondences(first, second, contents.alignment, contents.meshes)
    second_is = f"{second}, the least sure of the kept,"
    if not contents.alignment.is_measured:
        second_is = second
    note = (
        f"{first} is colored by position; every vertex of {second_is} has the color of the vertex "
        f"of {first} whose features are most alike. Where features tell parts apart, the colors "
        "lie alike on both."
    )
    figures = [
        html.image_figure(images[0], f"{first}, by position", 420),
        html.image_figure(images[1], f"{second}, by its features", 420),
    ]
    return html.paragraph(note, "note") + html.figure_grid(figures)


def _symmetry_section(symmetry: Symmetry) -> Markup:
    if symmetry.order == 1:
        return html.paragraph(
            "None was found: the object looks different in every orientation."
        )
    axis = ", ".join(f"{value:.2f}" for value in symmetry.axis.tolist())
    turns = "turns" if symmetry.order == 0 else f"turns by {360 / symmetry.order:.0f}°"
    return html.paragraph(
        f"{symmetry.name}: {turns} about the axis ({axis}) of the canonical frame change "
        "nothing that the features show. The estimator gives one of the equal poses."
    )


def _training_section(model: CategoryModel | None) -> Markup:
    if model is None:
        return html.paragraph("Not trained yet.", "note")
    names = ", ".join(model.training_poses) or "videos that it does not name"
    size = "unknown size" if model.diameter is None else f"{model.diameter:.3f} m across"
    text = f"Template of {len(model.vertices)} vertices, {size}, trained on {names}."
    vertices = model.vertices.double()
    image = draw_mesh_views(
        vertices, model.triangles, position_colors(vertices), model.frames
    )
    shown = ", ".join(frame.name for frame in model.frames)
    caption = f"the template, with the frames {shown}" if shown else "the template"
    figures = [html.image_figure(image, caption, 420)]
    curve = model.training_curve
    if curve.get("step"):
        caption = "training: losses, and how often it is right where it did not learn"
        figures.append(html.plot_figure(plot_training(curve), caption))
    section = html.paragraph(text) + html.figure_grid(figures)
    if curve.get("watched_step"):
        section += html.paragraph(_LEARNED, "note")
    return section


def _error_plot(errors: Sequence[float]) -> Markup:
    figure = Figure(figsize=_PLOT_SIZE, layout="constrained")
    axes = figure.add_subplot(
        xlabel="error below, degrees", ylabel="images, %", xlim=(0, 180), ylim=(0, 101)
    )
    percent = np.linspace(0, 100, len(errors) + 1)
    axes.plot([0, *sorted(errors)], percent, drawstyle="steps-post")
    axes.grid(alpha=0.3)
    return html.plot_figure(figure, "errors of all evaluated images")


def _time_section(contents: ReportContents) -> Markup:
    spent: dict[str, float] = {}
    for video in contents.videos:
        for stage, seconds in video.seconds.items():
            spent[stage] = spent.get(stage, 0.0) + seconds
    spent |= contents.seconds or {}
    if not spent:
        return html.paragraph("No stage noted its time.", "note")
    stages = ("poses", "masks", "reconstruct", "align", "train")
    rows = [[stage, f"{spent[stage]:.0f}"] for stage in stages if stage in spent]
    note = "Seconds, all videos together, on the machine that made them."
    return html.data_table(["stage", "seconds"], rows) + html.paragraph(note, "note")
