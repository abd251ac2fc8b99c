"""The file that describes a printed board of markers, YAML, which a person writes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io.schema.constraints import Rows4, check_rigid
from uns_pose_ros.io.schema.decoding import describe, read_file
from uns_pose_ros.io.schema.person_records import ROUNDED
from uns_pose_ros.io.schema.plain_yaml import parse_yaml

_MAX_BYTES = 64 * 2**10
_WHAT = "board of markers"
Squares = Annotated[int, Meta(ge=1, le=100)]
Length = Annotated[float, Meta(ge=1e-4, le=10.0)]  # m
Part = Annotated[float, Meta(gt=0.0, le=10.0)]


class BoardRecord(Struct, frozen=True, forbid_unknown_fields=True):
    """A flat board of markers; its lengths are m."""

    kind: Literal["charuco", "apriltag"]
    squares: tuple[Squares, Squares]  # columns and rows; of tags for apriltag
    square: Length  # side of a square of the chessboard, or of a tag
    # side of a marker; without: 0.75 of the square (charuco)
    marker: Length | None = None
    # between two tags; without: 0.3 of the tag (apriltag)
    gap: Length | None = None
    dictionary: str = ""  # name of OpenCV; empty: that of the kind
    # the rows of a charuco board with an even number of rows as OpenCV 4.5 and older print them
    legacy: bool = False
    # (4, 4) rigid, the object's frame on the board; without: the board's own frame
    board_from_object: Rows4 | None = None

    def __post_init__(self) -> None:
        if self.kind == "charuco":
            if min(self.squares) < 2 or max(self.squares) < 3:
                raise ValueError("squares: 3 and 2 or more are valid")
            if self.gap is not None:
                raise ValueError("gap: only of the kind apriltag")
            if self.marker is not None and not self.marker < self.square:
                raise ValueError("marker: less than the square is valid")
        elif self.marker is not None or self.legacy:
            raise ValueError("marker, legacy: only of the kind charuco")
        if self.board_from_object is not None:
            check_rigid(self.board_from_object, most=2 * ROUNDED)

    @property
    def marker_side(self) -> float:
        """Side of a marker, m."""
        return self.square if self.kind == "apriltag" else self.marker or 0.75 * self.square

    @property
    def tag_gap(self) -> float:
        """Distance between two tags of the kind apriltag, m."""
        return self.gap or 0.3 * self.square

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the printed board, m."""
        columns, rows = self.squares
        if self.kind == "charuco":
            return columns * self.square, rows * self.square
        step = self.square + self.tag_gap
        return columns * step - self.tag_gap, rows * step - self.tag_gap


def read_board_record(path: Path) -> BoardRecord:
    """Read the description of a board; InvalidInput names the file and the field."""
    value = parse_yaml(read_file(path, _WHAT, _MAX_BYTES), path, _WHAT)
    try:
        return msgspec.convert(value, BoardRecord)
    except (msgspec.MsgspecError, ValueError) as error:
        raise InvalidInput(f"{path}: not a valid {_WHAT} ({describe(error)})") from None
