"""The text files of a COLMAP model, as COLMAP and as other programs write them.

Programs differ in blanks, tabs, commas, line ends, encodings, comments, empty lines and in whether
images.txt has a line of 2D points after each image. Every line is classified by itself. What
cannot be read is left out and counted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.left_out import LeftOut
from uns_pose_ros.io.colmap_model.binary_files import MAX_FILE
from uns_pose_ros.io.colmap_model.camera_models import CameraRow
from uns_pose_ros.io.colmap_model.image_row import MOST_OBSERVED, ImageRow
from uns_pose_ros.io.given_files import read_given

_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+([eE][-+]?\d+)?")
_LINE_END = re.compile(r"\r\n|\r|\n")
_NUMBERS = 9  # of an image before its name
_MAX_INTEGER = 2**53
_LONGEST = 200  # characters, of what is said of a line
_POINTS_CHECKED = 12  # columns by which a line of 2D points is recognized: four points


def read_text_cameras(path: Path, left_out: LeftOut) -> list[tuple[str, CameraRow]]:
    """The cameras of cameras.txt, each with the words that name its place."""
    cameras = []
    for place, line in _lines(path):
        word = _split(line.partition("#")[0])
        try:
            row = CameraRow(
                _integer(word[0]),
                word[1],
                _integer(word[2]),
                _integer(word[3]),
                [float(w) for w in word[4:]],
            )
        except (ValueError, IndexError) as error:
            valid = "CAMERA_ID MODEL WIDTH HEIGHT PARAMETERS…"
            left_out.add("lines that are no camera", _explain(place, error, valid))
            continue
        cameras.append((place, row))
    return cameras


def read_text_images(path: Path, left_out: LeftOut) -> list[tuple[str, ImageRow]]:
    """The images of images.txt, each with the words that name its place."""
    images: list[tuple[str, ImageRow]] = []
    may_be_points = False
    for place, line in _lines(path):
        if may_be_points and _is_points(line):
            may_be_points = False
            if images:
                images[-1] = (images[-1][0], _with_observed(images[-1][1], line))
            continue
        try:
            row = _parse_image(line)
        except (ValueError, IndexError) as error:
            valid = "IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME"
            left_out.add("lines that are no image", _explain(place, error, valid))
        else:
            images.append((place, row))
        may_be_points = True
    return images


def read_text_points(
    path: Path, left_out: LeftOut
) -> list[tuple[float, float, float, float]]:
    """Id, x, y, z of the points of points3D.txt; NaN where the id is no number."""
    rows = []
    for place, line in _lines(path):
        word = _split(line, 4)
        try:
            number = float(word[0]) if word[0].isdecimal() else math.nan
            rows.append((number, float(word[1]), float(word[2]), float(word[3])))
        except (ValueError, IndexError) as error:
            valid = "POINT3D_ID X Y Z R G B ERROR TRACK…"
            left_out.add("lines that are no point", _explain(place, error, valid))
    return rows


def _parse_image(line: str) -> ImageRow:
    words = line.split(maxsplit=_NUMBERS)
    try:
        numbers = [_number(word) for word in words[:_NUMBERS]]
    except ValueError:
        words = line.split(";" if ";" in line else ",", _NUMBERS)
        numbers = [_number(word) for word in words[:_NUMBERS]]
    name = words[_NUMBERS].strip()
    if len(name) > 1 and name[0] == name[-1] == '"':
        name = name[1:-1]
    return ImageRow(name, _integer(str(numbers[8])), numbers[1:8])


def _is_points(line: str) -> bool:
    """Whether a line is X Y POINT3D_ID, any number of times."""
    words = _split(line, _POINTS_CHECKED)
    if len(words) % 3:
        return False
    try:
        for column, word in enumerate(words):
            _ = int(word) if column % 3 == 2 else float(word)
    except ValueError:
        return False
    return True


def _with_observed(row: ImageRow, line: str) -> ImageRow:
    """An image with some of the points in its line of 2D points."""
    words = _split(line, 3 * MOST_OBSERVED)
    try:
        points = [
            (float(u), float(v), int(point))
            for u, v, point in zip(words[::3], words[1::3], words[2::3], strict=False)
        ]
    except ValueError:  # the line is broken further on
        points = []
    return replace(row, observed=tuple(point for point in points if point[2] >= 0))


def _split(line: str, most: int = 1000) -> list[str]:
    """The first columns of a line, whether blanks, tabs, commas or semicolons part them."""
    # the rest is cut off before it is looked at: lines of points are long
    words = line.split(maxsplit=most)[:most]
    start = " ".join(words)
    if "," not in start and ";" not in start:
        return words
    columns = []
    for word in start.replace(";", " ").split():
        word = word.strip(",")
        if _DECIMAL_COMMA.fullmatch(word):
            columns.append(word.replace(",", "."))
        else:
            columns += filter(None, word.split(","))
    return columns[:most]


def _number(word: str) -> float:
    """A number that a comma may follow, or part from its decimals."""
    word = word.strip().strip(",;")
    return float(word.replace(",", ".") if _DECIMAL_COMMA.fullmatch(word) else word)


def _integer(word: str) -> int:
    """A whole number, also as 640.0."""
    value = float(word)
    if not value.is_integer() or abs(value) > _MAX_INTEGER:
        raise ValueError(f"{word} is not a whole number")
    return int(value)


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """The place and text of every line that is not empty and no comment."""
    text = _read_text(path)
    lines = _LINE_END.split(text) if "\r" in text else text.split("\n")
    for number, line in enumerate(lines, 1):
        line = line.strip()
        if line and line[0] != "#":
            yield f"{path.name}, line {number}", line


def _read_text(path: Path) -> str:
    """The text of a file in UTF-8, UTF-16 with its mark, or Windows' Western encoding."""
    try:
        data = read_given(path, MAX_FILE)
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            return data.decode("utf-16")
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError:
            if b"\0" in data:
                raise
            return data.decode("cp1252")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path}: cannot be read as text ({error})") from None


def _explain(place: str, error: Exception, valid: str) -> str:
    said = str(error)
    said = said if len(said) <= _LONGEST else f"{said[:_LONGEST]}…"
    return f"{place}: {said}; a line there reads: {valid}"
