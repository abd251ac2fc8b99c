"""Bytes of a JSON file to a record; what is wrong of them is one line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io.given_files import read_given

Record = TypeVar("Record")
MAX_JSON = 256 * 2**20  # bytes of a file
MAX_DEPTH = 64  # lists and objects in one another
_PLACE = re.compile(r"(.*) - at `\$\.?(.*)`", re.DOTALL)
_BYTE = re.compile(r"(.*) \(byte (\d+)\)")


def read_record(path: Path, kind: type[Record], what: str) -> Record:
    """Read a JSON file as a record of a kind.

    Raises:
        InvalidInput: The file is missing or not such a record; the message names file and field.
    """
    return decode_record(read_file(path, what), kind, path, what)


def read_file(path: Path, what: str, most: int = MAX_JSON) -> bytes:
    """The bytes of a file; InvalidInput where it cannot be read."""
    try:
        return read_given(path, most)
    except FileNotFoundError:
        raise InvalidInput(f"{path}: {what} is not there") from None
    except (OSError, ValueError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput(f"{path}: not a valid {what} ({_line(error)})") from None


def decode_record(data: bytes, kind: type[Record], path: Path, what: str) -> Record:
    """JSON bytes as a record; InvalidInput names `path` and the field that is wrong."""
    try:
        return msgspec.json.decode(data, type=kind)
    except RecursionError:
        reason = f"lists or objects lie more than {MAX_DEPTH} deep"
    except (msgspec.MsgspecError, ValueError) as error:
        reason = describe(error, data)
    raise InvalidInput(f"{path}: not a valid {what} ({reason})")


def decode_json(data: bytes, path: Path, what: str) -> Any:
    """JSON bytes as plain values that are not nested too deeply."""
    value: Any = decode_record(data, object, path, what)
    try:
        check_nesting(value)
    except ValueError as error:
        raise InvalidInput(f"{path}: not a valid {what} ({error})") from None
    return value


def check_nesting(value: Any, most: int = MAX_DEPTH) -> None:
    """ValueError where lists and objects lie more than `most` deep."""
    level = [value]
    for _ in range(most + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, list | Mapping)
            for inner in (outer.values() if isinstance(outer, Mapping) else outer)
            if isinstance(inner, list | Mapping)
        ]
        if not level:
            return
    raise ValueError(f"lists or objects lie more than {most} deep")


def describe(error: Exception, data: bytes = b"") -> str:
    """What is wrong and at which field, or in which line of `data`."""
    text = _line(error)
    if place := _PLACE.fullmatch(text):
        return f"{place[2]}: {place[1]}"
    if byte := _BYTE.fullmatch(text):
        number = data.count(b"\n", 0, int(byte[2])) + 1
        return f"{byte[1]}, line {number}"
    return text


def _line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:300]
