"""The command that writes a page with a board of markers, for `evaluate bag --truth-board`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from uns_pose_ros.cli.arguments import Json
from uns_pose_ros.cli.console import emit
from uns_pose_ros.evaluation.boards.board_page import write_board_page
from uns_pose_ros.io.schema.board_record import read_board_record


def board_command(
    board: Annotated[
        Positional[Path],
        arg(metavar="BOARD.yaml", help="kind, squares, square; see docs/evaluation.md"),
    ],
    page: Annotated[Positional[Path], arg(metavar="PAGE", help="written: .pdf or .svg")],
    paper: Annotated[str, arg(help="a4, a3, a2 or letter")] = "a4",
    json: Json = None,
) -> None:
    """Write a page with a board of markers at true size.

    Print it at 100 %, measure the line below the board, and put the object on it: then `evaluate
    bag --truth-board` measures errors without motion capture.
    """
    record = read_board_record(board)
    write_board_page(page, record, paper)
    width, height = record.size
    emit(
        {"page": str(page), "paper": paper, "board_m": [width, height]},
        f"{page}: a board of {1000 * width:.0f} x {1000 * height:.0f} mm; print it at 100 % "
        "and measure its line",
        json,
    )
