"""MATLAB 5 files as plain values: structs, cells, texts and numbers.

The files come from others, and the reader of scipy ends the whole process at some spoiled ones.
Format: "MAT-File Format", MathWorks; elements are a tag of type and length, and their data.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from uns_pose_ros.io.bounded_decompression import unpacked

_HEADER = 128  # bytes
_MOST = 16 * 2**20  # bytes that the packed elements may unpack to
_MAX_DEPTH = 16
_MOST_VALUES = 100_000  # of one file
_MATRIX, _COMPRESSED = 14, 15  # types of elements
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8"}
_NUMBERS |= {12: "i8", 13: "u8"}
_TEXTS = {1: "latin1", 2: "latin1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_CELL, _STRUCT, _OBJECT, _CHAR, _SPARSE = 1, 2, 3, 4, 5  # classes of matrices
_MOST_CLASS = 15  # 6 to 15 are numbers


def parse_matlab(data: bytes, variable: str) -> Any:
    """The value of a variable.

    A struct is a dict, an array of structs or of numbers a list, one number a float, a text a str,
    an empty matrix an empty list. Lists are in the order of the file, column by column.

    Args:
        data: The content of a file.
        variable: Its name.

    Raises:
        ValueError: The file is broken, or is no MATLAB 5 file.
        KeyError: It has no such variable.
    """
    if len(data) < _HEADER or data[126:128] not in (b"IM", b"MI"):
        raise ValueError("its header is not that of MATLAB 5")
    order = "<" if data[126:128] == b"IM" else ">"
    reader = _Reader(order)
    left = _MOST
    for kind, content in reader.elements(data[_HEADER:], top=True):
        if kind == _COMPRESSED:
            content = unpacked(zlib.decompressobj, content, left)
            left -= len(content)
            kind, content = next(reader.elements(content), (0, b""))
        if kind != _MATRIX:
            continue
        name, value = reader.matrix(content, 0)
        if name == variable:
            return value
    raise KeyError(variable)


@dataclass
class _Reader:
    """Reads elements of one file; what it makes is counted."""

    order: str  # "<" or ">"
    left: int = _MOST_VALUES

    def elements(self, data: bytes, top: bool = False) -> Iterator[tuple[int, bytes]]:
        """Type and data of each element."""
        at = 0
        while at + 8 <= len(data):
            first, count = struct.unpack(f"{self.order}II", data[at : at + 8])
            if first >> 16:  # small: the data stand in the tag
                kind, count = first & 0xFFFF, first >> 16
                start, end = at + 4, at + 8
                if count > 4:
                    raise ValueError("an element is longer than its tag says")
            else:
                kind, start = first, at + 8
                padding = 0 if kind == _COMPRESSED else -count % 8
                end = start + count + padding
                if start + count > len(data):
                    raise ValueError("it is cut off")
            yield kind, data[start : start + count]
            at = end
        if top and at < len(data) and any(data[at:]):
            raise ValueError("it is cut off")

    def matrix(self, data: bytes, depth: int) -> tuple[str, Any]:
        """Name and value of a matrix."""
        self.left -= 1
        if self.left < 0 or depth > _MAX_DEPTH:
            raise ValueError("it holds too many values, or too deep ones")
        if not data:
            return "", []
        parts = self.elements(data)
        flags = self._numbers(*next(parts))
        sides = self._numbers(*next(parts))
        name = next(parts)[1].decode("latin1")
        kind = int(flags[0]) & 0xFF
        if not all(0 <= side < 2**31 for side in sides):
            raise ValueError("a matrix has a side that is negative")
        count = math.prod(int(side) for side in sides)
        if kind in (_STRUCT, _OBJECT):
            return name, self._structs(parts, count, depth, kind == _OBJECT)
        if kind == _CELL:
            return name, self._matrices(parts, count, depth)
        if kind == _CHAR:
            return name, self._text(*next(parts, (2, b"")))
        if not _SPARSE < kind <= _MOST_CLASS:
            raise ValueError(f"matrices of class {kind} are not read")
        if not count:
            return name, []
        numbers = self._numbers(*next(parts))
        if len(numbers) != count:
            raise ValueError("a matrix has another number of values than its sides say")
        self.left -= count
        values = [float(number) for number in numbers]
        return name, values[0] if count == 1 else values

    def _matrices(self, parts: Iterator[tuple[int, bytes]], count: int, depth: int) -> Any:
        """The values of so many matrices."""
        values = list[Any]()
        for _, (kind, data) in zip(range(count), parts, strict=False):
            if kind != _MATRIX:
                raise ValueError("a cell is no matrix")
            values.append(self.matrix(data, depth + 1)[1])
        if len(values) != count:
            raise ValueError("cells are missing")
        return values

    def _structs(
        self, parts: Iterator[tuple[int, bytes]], count: int, depth: int, is_object: bool
    ) -> Any:
        """The dict of a struct, or the list of the dicts of an array of structs."""
        if is_object:
            next(parts)  # name of its class
        length = int(self._numbers(*next(parts))[0])
        text = next(parts)[1]
        if not 0 < length <= 1024 or len(text) % length:
            raise ValueError("the names of a struct are broken")
        names = [
            text[at : at + length].split(b"\0")[0].decode("latin1")
            for at in range(0, len(text), length)
        ]
        self.left -= count
        if self.left < 0:
            raise ValueError("it holds too many values, or too deep ones")
        values = self._matrices(parts, count * len(names), depth)
        width = len(names)
        rows = [
            dict(zip(names, values[at * width : (at + 1) * width], strict=True))
            for at in range(count)
        ]
        return rows[0] if count == 1 else rows

    def _numbers(self, kind: int, data: bytes) -> np.ndarray:
        if kind not in _NUMBERS:
            raise ValueError(f"an element of type {kind} is no numbers")
        return np.frombuffer(data, f"{self.order}{_NUMBERS[kind]}")

    def _text(self, kind: int, data: bytes) -> str:
        if kind not in _TEXTS:
            raise ValueError(f"an element of type {kind} is no text")
        coding = _TEXTS[kind]
        if coding in ("utf-16", "utf-32"):
            coding += "-le" if self.order == "<" else "-be"
        return data.decode(coding)
