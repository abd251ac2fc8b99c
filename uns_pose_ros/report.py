"""One HTML page that shows what a category's videos became, without any other file: pictures are inside it."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

import uns_pose_ros
from uns_pose_ros import drawing
from uns_pose_ros.alignment_picture import VIEWS, mesh_strip
from uns_pose_ros.datatypes import Alignment, CategoryModel, PoseEstimate, Video
from uns_pose_ros.drawing import Floats, Picture
from uns_pose_ros.evaluation import ANGLES, ImageResult
from uns_pose_ros.geometry import transform
from uns_pose_ros.storage import atomic_write
from uns_pose_ros.video import read_image

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #222; }
h1, h2 { font-weight: 600; } h2 { margin-top: 2.5rem; } .note { color: #666; }
table { border-collapse: collapse; } td, th { padding: .25rem .8rem; text-align: right; border-bottom: 1px solid #ddd; }
td:first-child, th:first-child { text-align: left; } tr.out td { color: #b00; }
.grid { display: flex; flex-wrap: wrap; gap: 1rem; } figure { margin: 0; } figcaption { font-size: 13px; max-width: 20rem; }
.bad { color: #b00; } img { max-width: 100%; }
"""


@dataclass(frozen=True, eq=False)
class Shot:
    """An estimate drawn into its image."""

    picture: Picture  # (H, W, 3) uint8 RGB
    caption: str
    score: float  # 0 where nothing was found
    error: float | None  # degrees; None without a label


@dataclass(frozen=True, eq=False)
class Contents:
    """What the page shows; what is None or empty is said to be missing."""

    category: str
    alignment: Alignment
    meshes: Mapping[str, tuple[Tensor, Tensor]]  # vertices (V, 3), obj frame, and triangles (T, 3) by video
    model: CategoryModel | None = None
    shots: Sequence[Shot] = ()
    errors: Sequence[float] = ()  # degrees, of all evaluated images
    accuracies: Mapping[str, Mapping[str, Any]] | None = None  # title: figures of `evaluate alignment` or `evaluate pose`


def write_report(path: Path, contents: Contents) -> None:
    """Write the page."""
    title = f"{contents.category}: from videos to poses"
    sections = [
        f"<h1>{html.escape(title)}</h1><p class='note'>uns_pose_ros {uns_pose_ros.__version__}</p>",
        _accuracy_section(contents),
        _estimate_section(contents.shots),
        _alignment_section(contents),
        _training_section(contents.model),
    ]
    head = f"<meta charset='utf-8'><title>{html.escape(title)}</title><style>{_STYLE}</style>"
    with atomic_write(path) as temporary:
        page = f"<!doctype html><html lang='en'><head>{head}</head><body>{''.join(sections)}</body></html>\n"
        temporary.write_text(page, encoding="utf-8")


def shots_of(
    results: Sequence[ImageResult], videos: Sequence[Video], model: CategoryModel, labelled: bool, most: int = 24
) -> list[Shot]:
    """Overlays of the worst results and of some others, failures first: by error where there are labels, else by score."""
    frames = {(video.name, frame.name): frame for video in videos for frame in video.frames}

    def badness(result: ImageResult) -> float:
        return result.error if labelled else 1 - (0.0 if result.estimate is None else result.estimate.score)

    ranked = sorted(results, key=badness, reverse=True)
    worst, rest = ranked[: most // 2], ranked[most // 2 :]
    step = max(1, len(rest) // max(1, most - len(worst)))
    shots = []
    for result in worst + rest[step - 1 :: step][: most - len(worst)]:
        frame = frames[result.video, result.frame]
        picture: Picture = read_image(frame.image).numpy()
        score = 0.0
        words = [f"{result.video}/{result.frame}"]
        if result.estimate is None:
            words.append("nothing found")
        else:
            score = result.estimate.score
            picture = drawing.overlay(picture, frame.camera, result.estimate, model)
            words.append(f"score {score:.2f}")
        if labelled and result.estimate is not None:
            words.append(f"{result.error:.1f}° off")
        shots.append(Shot(picture, ", ".join(words), score, result.error if labelled else None))
    return shots


def thinned(video: Video, most: int) -> Video:
    """The video with at most `most` of its frames, evenly spread."""
    count = len(video.frames)
    chosen = sorted({round(k) for k in np.linspace(0, count - 1, min(most, count))})
    return replace(video, frames=tuple(video.frames[k] for k in chosen))


def unlabelled(video: str, frame: str, estimates: Sequence[PoseEstimate], seconds: float) -> ImageResult:
    """The result of an image without a label; its errors say nothing."""
    return ImageResult(video, frame, max(estimates, key=lambda e: e.score, default=None), 0.0, 0.0, seconds)


def _accuracy_section(contents: Contents) -> str:
    if not contents.accuracies:
        return "<h2>Accuracy</h2><p class='note'>No labels were given, so nothing here says how right the poses are.</p>"
    header = ["", "number", *(f"@{angle}° %" for angle in ANGLES), "median °", "@30° % up to symmetry"]
    rows = []
    for title, values in contents.accuracies.items():
        number = f"{values['pairs']} pairs" if "pairs" in values else f"{values['estimated']} of {values['images']} images"
        figures = [values[f"acc{angle}"] for angle in ANGLES] + [values["median_deg"], values["symmetry_aware"]["acc30"]]
        rows.append([title, number, *("–" if value is None else f"{value:.1f}" for value in figures)])
    plot = _error_plot(contents.errors) if len(contents.errors) else ""
    note = "<p class='note'>Percent below the angle. An image without an estimate counts as wrong.</p>"
    return f"<h2>Accuracy</h2>{_table(header, rows)}{note}{plot}"


def _estimate_section(shots: Sequence[Shot]) -> str:
    if not shots:
        return "<h2>Estimates</h2><p class='note'>No model, or no video that it was not trained on.</p>"
    figures = [_figure(shot.picture, shot.caption, 320, bad=(shot.error or 0) > ANGLES[0]) for shot in shots]
    by = "the largest error" if shots[0].error is not None else "the lowest score"
    note = f"<p class='note'>Images of videos that the model was not trained on; {by} first. Axes: x red, y green, z blue.</p>"
    return f"<h2>Estimates</h2>{note}<div class='grid'>{''.join(figures)}</div>"


def _alignment_section(contents: Contents) -> str:
    alignment, rows = contents.alignment, []
    pictures = []
    for k, name in enumerate(alignment.videos):
        confidence, kept = float(alignment.confidence[k]), bool(alignment.kept[k])
        rows.append([name, f"{confidence:.2f}", f"{float(alignment.residual[k]):.1f}", "yes" if kept else "no"])
        if name in contents.meshes:
            vertices, triangles = contents.meshes[name]
            canonical = transform(alignment.canon_from_obj[k], vertices.double())
            caption = f"{name}, confidence {confidence:.2f}"
            pictures.append(_figure(mesh_strip(canonical, triangles, _position_colours(canonical)), caption, 420, bad=not kept))
    out = [not bool(kept) for kept in alignment.kept]
    note = (
        f"<p class='note'>Confidence: the part of a video's pairs that agree with the whole. Residual: median disagreement. "
        f"Symmetry: {alignment.symmetry.name}. Videos in red were left out.</p>"
    )
    views = f"<p class='note'>The videos' meshes in the canonical frame, seen from {', '.join(VIEWS)}; colour is position.</p>"
    table = _table(["video", "confidence", "residual °", "kept"], rows, out)
    return f"<h2>Alignment</h2>{note}{table}{views}<div class='grid'>{''.join(pictures)}</div>"


def _training_section(model: CategoryModel | None) -> str:
    if model is None:
        return "<h2>Training</h2><p class='note'>Not trained yet.</p>"
    trained = model.provenance.get("canon_from_obj")
    names = ", ".join(map(html.escape, trained)) if isinstance(trained, Mapping) else "videos that it does not name"
    size = "unknown size" if model.diameter is None else f"{model.diameter:.3f} m across"
    text = f"<p>Template of {len(model.vertices)} vertices, {size}, trained on {names}.</p>"
    vertices = model.vertices.double()
    strip = _figure(mesh_strip(vertices, model.triangles, _position_colours(vertices)), "the template", 420)
    return f"<h2>Training</h2>{text}<div class='grid'>{strip}{_training_plot(model.provenance.get('training'))}</div>"


def _position_colours(vertices: Tensor) -> Floats:
    """Colours (V, 3) RGB 0..255 of canonical positions."""
    return np.clip(255 * (vertices.numpy() + 0.5), 0, 255)


def _training_plot(curve: Any) -> str:
    """The losses over the steps, where the model's provenance has them: {"step": […], NAME: […], …}."""
    if not isinstance(curve, Mapping) or not curve.get("step"):
        return ""
    figure = Figure(figsize=(4.5, 2.6), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="loss, nats")
    for name, values in curve.items():
        if name != "step":
            axes.plot(curve["step"], values, label=name)
    axes.legend(frameon=False)
    return _plot(figure, "training loss")


def _error_plot(errors: Sequence[float]) -> str:
    figure = Figure(figsize=(4.5, 2.6), layout="constrained")
    axes = figure.add_subplot(xlabel="error below, degrees", ylabel="images, %", xlim=(0, 180), ylim=(0, 101))
    axes.plot([0, *sorted(errors)], np.linspace(0, 100, len(errors) + 1), drawstyle="steps-post")
    axes.grid(alpha=0.3)
    return _plot(figure, "errors of all evaluated images")


def _plot(figure: Figure, caption: str) -> str:
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return _data_figure("png", buffer.getvalue(), caption)


def _figure(picture: Picture, caption: str, width: int, bad: bool = False) -> str:
    """A picture (H, W, 3) at most `width` px wide, inside the page."""
    height = max(1, round(picture.shape[0] * width / picture.shape[1]))
    if picture.shape[1] > width:
        picture = np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    data = cv2.imencode(".jpg", np.ascontiguousarray(picture[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
    return _data_figure("jpeg", data, caption, bad)


def _data_figure(kind: str, data: bytes, caption: str, bad: bool = False) -> str:
    text = html.escape(caption)
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    mark = " class='bad'" if bad else ""
    return (
        f"<figure><img src='{source}' alt='{html.escape(caption, quote=True)}'><figcaption{mark}>{text}</figcaption></figure>"
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], marked: Sequence[bool] = ()) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    lines = []
    for k, row in enumerate(rows):
        mark = " class='out'" if k < len(marked) and marked[k] else ""
        lines.append(f"<tr{mark}>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>")
    return f"<table><tr>{head}</tr>{''.join(lines)}</table>"
