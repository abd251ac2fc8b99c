"""Error and latency over the time of a bag, as an image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.evaluation.bag_figures import FrameResult, PoseError
from uns_pose_ros.io.artifacts import atomic_write

PLOT_SUFFIXES = (".png", ".svg", ".pdf")
_MISSED = "tab:red"


def check_plot_path(path: Path) -> None:
    """Raise InvalidInput if the suffix of the path is no format of a plot."""
    if path.suffix.lower() not in PLOT_SUFFIXES:
        raise InvalidInput(
            f"{path}: a name that ends with {', '.join(PLOT_SUFFIXES)} is valid"
        )


def write_bag_plot(
    path: Path, results: Sequence[FrameResult], errors: Sequence[PoseError | None]
) -> None:
    """Plot rotation error, translation error and time of every image over the time of the bag.

    Images without an estimate are marked red.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    check_plot_path(path)
    time = [(result.stamp - results[0].stamp) / 1e9 for result in results]
    missed = [t for t, result in zip(time, results, strict=True) if result.best is None]
    known = [(t, error) for t, error in zip(time, errors, strict=True) if error is not None]
    turned = [(t, error.degrees) for t, error in known if error.estimated]
    shifted = [(t, error.meters) for t, error in known if error.meters is not None]
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    FigureCanvasAgg(figure)
    top, middle, bottom = figure.subplots(3, 1, sharex=True)
    _draw(
        top,
        turned,
        missed,
        "rotation error (°)",
        "no truth is known" if not known else "no estimate",
    )
    _draw(middle, shifted, missed, "translation error (m)", "no truth or no size is known")
    _draw(
        bottom,
        list(zip(time, (result.seconds for result in results), strict=True)),
        missed,
        "time per image (s)",
        "",
    )
    bottom.set_xlabel("time in the bag (s)")
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:].lower(), dpi=110)


def _draw(
    axes: Any,
    points: list[tuple[float, float]],
    missed: list[float],
    label: str,
    nothing: str,
) -> None:
    """Draw points of time and value; ticks at the bottom mark missing estimates."""
    axes.set_ylabel(label)
    axes.grid(alpha=0.3)
    if points:
        axes.plot(*zip(*points, strict=True), marker=".", linewidth=0.8)
        axes.set_ylim(bottom=0)
    else:
        axes.text(
            0.5,
            0.5,
            nothing,
            transform=axes.transAxes,
            ha="center",
            va="center",
            color="gray",
        )
    axes.plot(
        missed,
        [0.02] * len(missed),
        "|",
        color=_MISSED,
        markersize=9,
        transform=axes.get_xaxis_transform(),
    )
