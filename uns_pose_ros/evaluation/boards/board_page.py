"""A page with a board of markers at true size, for a printer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.evaluation.boards.truth_board import make_board
from uns_pose_ros.io.schema.board_record import BoardRecord
from uns_pose_ros.io.writing.replacement import atomic_write

PAGE_SUFFIXES = (".pdf", ".svg")
PAPERS = {  # m, upright
    "a4": (0.210, 0.297),
    "a3": (0.297, 0.420),
    "a2": (0.420, 0.594),
    "letter": (0.2159, 0.2794),
}
_MARGIN = 0.010  # m
_SCALE = 0.100  # m, length of the line that is measured after printing
_BELOW = 0.018  # m, for this line and the text
_INCH = 0.0254  # m
_RESOLUTION = 600  # px per inch of the markers, at most
_LARGEST = 4000  # px


def write_board_page(path: Path, record: BoardRecord, paper: str = "a4") -> None:
    """Write a page with the board in its middle and a line of 100 mm below it.

    Args:
        path: .pdf or .svg.
        record: The board.
        paper: Name of `PAPERS`; it is turned where the board is wide.

    Raises:
        InvalidInput: The suffix or the paper is not known, or the board is larger than the paper.
        DiskError: The disk refuses it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if path.suffix.lower() not in PAGE_SUFFIXES:
        raise InvalidInput(
            f"{path}: a name that ends with {' or '.join(PAGE_SUFFIXES)} is valid"
        )
    width, height = _page(record, paper)
    board_width, board_height = record.size
    left = (width - board_width) / 2
    low = (height - board_height + _BELOW) / 2
    figure = Figure(figsize=(width / _INCH, height / _INCH))
    FigureCanvasAgg(figure)
    page = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
    page.set_axis_off()
    page.imshow(
        draw_board(record),
        cmap="gray",
        vmin=0,
        vmax=255,
        interpolation="none",
        extent=(left, left + board_width, low, low + board_height),
        aspect="auto",
    )
    line = min(_SCALE, board_width)
    page.plot([left, left + line], [low - 0.006] * 2, "k|-", linewidth=1, markersize=6)
    page.text(
        left,
        low - 0.014,
        f"{1000 * line:g} mm: print at 100 %, then measure this line. {_describe(record)}",
        fontsize=7,
    )
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:].lower(), dpi=_RESOLUTION)


def draw_board(record: BoardRecord, resolution: float = _RESOLUTION) -> NDArray[np.uint8]:
    """Draw the board without a margin.

    Args:
        record: The board.
        resolution: px per inch, at most; large boards have less.

    Returns:
        (H, W) uint8.
    """
    width, height = record.size
    per_meter = min(resolution / _INCH, _LARGEST / max(width, height))
    pixels = (round(width * per_meter), round(height * per_meter))
    return np.asarray(make_board(record).generateImage(pixels, marginSize=0), np.uint8)


def _page(record: BoardRecord, paper: str) -> tuple[float, float]:
    """Width and height of the paper as it lies, m."""
    if paper not in PAPERS:
        raise InvalidInput(f"paper {paper!r}: {', '.join(PAPERS)} are valid")
    width, height = record.size
    for across, down in (PAPERS[paper], PAPERS[paper][::-1]):
        if width + 2 * _MARGIN <= across and height + 2 * _MARGIN + _BELOW <= down:
            return across, down
    raise InvalidInput(
        f"the board is {1000 * width:.0f} x {1000 * height:.0f} mm, too large for {paper} with "
        f"margins: smaller squares, fewer of them or --paper {' or '.join(PAPERS)} are valid"
    )


def _describe(record: BoardRecord) -> str:
    columns, rows = record.squares
    side = f"{1000 * record.square:g} mm"
    if record.kind == "apriltag":
        return f"apriltag, {columns} x {rows} tags of {side}, {1000 * record.tag_gap:g} mm apart"
    return (
        f"charuco, {columns} x {rows} squares of {side}, markers of "
        f"{1000 * record.marker_side:g} mm"
    )
