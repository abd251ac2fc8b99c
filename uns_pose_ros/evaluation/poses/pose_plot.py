"""The result of `evaluate pose` as an image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from uns_pose_ros.evaluation.metrics import reliability
from uns_pose_ros.evaluation.poses.pose_evaluation import ImageResult
from uns_pose_ros.evaluation.poses.pose_figures import accuracy_by_bin
from uns_pose_ros.io.artifacts import atomic_write


def write_pose_plot(path: Path, results: Sequence[ImageResult]) -> None:
    """Plot the errors, the reliability of the scores, and the accuracy by view.

    The view is the elevation and the distance of the camera.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6.5), layout="constrained")
    FigureCanvasAgg(figure)
    (errors, scores), (elevation, distance) = figure.subplots(2, 2)
    errors.plot(
        [0, *sorted(result.error for result in results)],
        np.linspace(0, 100, len(results) + 1),
        drawstyle="steps-post",
    )
    errors.set(
        xlabel="rotation error below (°)", ylabel="images (%)", xlim=(0, 180), ylim=(0, 101)
    )
    tenths = reliability(
        [(r.estimate.score, r.error) for r in results if r.estimate is not None]
    )
    _bars(
        scores,
        [(f"{row['from']:.1f}", row["acc30"], row["count"]) for row in tenths],
        "score from",
    )
    for axes, name, unit in (
        (elevation, "elevation", "°"),
        (distance, "distance", "diameters"),
    ):
        rows = [
            (_range(row), row["acc30"], row["images"])
            for row in accuracy_by_bin(results, name)
        ]
        _bars(axes, rows, f"{name} of the camera ({unit})")
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:].lower(), dpi=110)


def _range(row: dict[str, Any]) -> str:
    low, high = row["from"], row["to"]
    return (
        f"< {high:g}"
        if low is None
        else f"≥ {low:g}"
        if high is None
        else f"{low:g} … {high:g}"
    )


def _bars(axes: Any, rows: Sequence[tuple[str, float, float]], label: str) -> None:
    """Draw a bar for each row of name, percent and number of images."""
    axes.set(xlabel=label, ylabel="within 30° (%)", ylim=(0, 112))
    if not rows:
        axes.text(
            0.5,
            0.5,
            "not known",
            transform=axes.transAxes,
            ha="center",
            va="center",
            color="gray",
        )
        return
    names, percent, counts = zip(*rows, strict=True)
    bars = axes.bar(names, percent)
    axes.bar_label(bars, [f"{count:g}" for count in counts], fontsize="small")
