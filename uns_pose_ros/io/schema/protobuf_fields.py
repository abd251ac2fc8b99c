"""Fields of protobuf messages by their numbers, without a schema."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

_MAX_SHIFT = 63  # bits, of the last byte of a number


def message_fields(message: memoryview) -> dict[int, list[Any]]:
    """All fields of one protobuf message: values by number.

    A value is an int, or the bytes of a string, a message or a number of fixed size.

    Raises:
        ValueError, IndexError, KeyError: the message is broken.
    """
    fields: dict[int, list[Any]] = {}
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        kind = key & 7
        value: Any
        if kind == 0:
            value, position = _varint(message, position)
        else:
            size, position = (
                _varint(message, position) if kind == 2 else ({1: 8, 5: 4}[kind], position)
            )
            if position + size > len(message):
                raise ValueError(f"cut off at byte {len(message)}")
            value, position = message[position : position + size], position + size
        fields.setdefault(key >> 3, []).append(value)
    return fields


def packed_varints(message: memoryview) -> Iterator[int]:
    """The numbers of a packed field of varints."""
    position = 0
    while position < len(message):
        value, position = _varint(message, position)
        yield value


def float_values(values: list[Any]) -> list[float]:
    """The numbers of a repeated field of float32, packed or one by one."""
    numbers = list[float]()
    for value in values:
        if isinstance(value, int):
            raise ValueError("an integer where a float is needed")
        numbers += np.frombuffer(value, "<f4").tolist()
    return numbers


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = message[position]
        value, shift, position = value | (byte & 127) << shift, shift + 7, position + 1
        if shift > _MAX_SHIFT + 7:
            raise ValueError(f"a number of more than 64 bits at byte {position}")
        if byte < 128:
            return value, position
