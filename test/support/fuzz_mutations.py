"""Ways to spoil a file: every mutation follows from its random generator alone."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from random import Random
from typing import Any

_INTEGERS = (
    0,
    1,
    2,
    127,
    128,
    255,
    256,
    65535,
    2**16,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**40,
    2**63 - 1,
    2**63,
    2**64 - 1,
)
_WORDS = (
    b"",
    b"-1",
    b"0",
    b"1",
    b"nan",
    b"inf",
    b"-inf",
    b"1e999",
    b"1e38",
    b"2147483648",
    b"4294967296",
    b"9" * 30,
    b"9" * 5000,
    b"null",
    b"true",
    b"[]",
    b"{}",
    b'""',
    b"..",
    b"/",
    b"../../x",
    b"\x00",
    b"\xff",
    b"%s",
    b"[" * 5000,
)
_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2,
    3,
    10**9,
    2**31,
    2**63,
    10**30,
    -(10**30),
    0.5,
    1e308,
    -1e-308,
    float("nan"),
    float("inf"),
    "",
    "x",
    "..",
    "../../x",
    "/etc/passwd",
    "a\nb",
    "\x00",
    "x" * 1000,
    [],
    [0],
    [[]],
    [[[1]]],
    {},
    {"x": 1},
    [0] * 1000,
)


def mutate(data: bytes, name: str, random: Random) -> bytes:
    """`data`, a file called `name`, spoiled once to four times.

    As its format allows, or just anywhere.
    """
    special = {
        ".json": _json,
        ".jgz": _gzipped,
        ".safetensors": _safetensors,
        ".png": _png,
        ".ply": _words,
        ".txt": _words,
    }
    suffix = name[name.rfind(".") :]
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        if suffix in special and random.random() < 0.7:
            try:
                data = special[suffix](data, random)
                continue
            except (
                ValueError,
                KeyError,
                IndexError,
                OSError,
                struct.error,
                zlib.error,
                EOFError,
                RecursionError,
                TypeError,
                AttributeError,
            ):
                pass  # an earlier turn broke the format
        data = random.choice(
            (_cut, _flip, _number, _number, _words, _delete, _double, _insert)
        )(data, random)
    return data


def _place(data: bytes, random: Random) -> int:
    """A position in the file; headers, which stand at its ends, are met more often."""
    near = min(len(data), 300)
    return random.choice(
        (
            random.randrange(len(data) + 1),
            random.randrange(near + 1),
            len(data) - random.randrange(near + 1),
        )
    )


def _cut(data: bytes, random: Random) -> bytes:
    return data[: _place(data, random)]


def _flip(data: bytes, random: Random) -> bytes:
    spoiled = bytearray(data)
    for _ in range(random.choice((1, 1, 3, 20))):
        at = _place(data, random)
        if at < len(spoiled):
            spoiled[at] ^= 1 << random.randrange(8)
    return bytes(spoiled)


def _number(data: bytes, random: Random) -> bytes:
    """Write an integer that limits are made of over 1, 2, 4 or 8 bytes."""
    size, order = random.choice((1, 2, 4, 8)), random.choice(("<", ">"))
    code = {1: "B", 2: "H", 4: "I", 8: "Q"}[size]
    number = struct.pack(order + code, random.choice(_INTEGERS) % (1 << 8 * size))
    at = _place(data, random)
    return data[:at] + number + data[at + size :]


def _words(data: bytes, random: Random) -> bytes:
    """Another word, or none, for one of a text."""
    at = _place(data, random)
    start = at
    while start < len(data) and start < at + 200 and not chr(data[start]).isalnum():
        start += 1
    end = start
    while (
        end < len(data)
        and end < start + 200
        and (chr(data[end]).isalnum() or data[end : end + 1] in (b".", b"-"))
    ):
        end += 1
    return data[:start] + random.choice(_WORDS) + data[end:]


def _delete(data: bytes, random: Random) -> bytes:
    at = _place(data, random)
    return data[:at] + data[at + random.choice((1, 4, 16, 200)) :]


def _double(data: bytes, random: Random) -> bytes:
    at = _place(data, random)
    return (
        data[:at]
        + data[at : at + random.choice((1, 8, 64, 1000))] * random.choice((2, 3, 50))
        + data[at:]
    )


def _insert(data: bytes, random: Random) -> bytes:
    at = _place(data, random)
    return data[:at] + random.randbytes(random.choice((1, 4, 64))) + data[at:]


def _json(data: bytes, random: Random) -> bytes:
    """Another value for one, or none, anywhere in a JSON text.

    Now and then nesting that no reader can follow.
    """
    if random.random() < 0.02:
        return b"[" * 100_000 + b"]" * 100_000
    return json.dumps(_other(json.loads(data), random)).encode()


def _other(value: Any, random: Random) -> Any:
    if isinstance(value, dict) and value and random.random() < 0.9:
        key = random.choice(list(value))
        if random.random() < 0.1:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: _other(value[key], random)}
    if isinstance(value, list) and value and random.random() < 0.85:
        at = random.randrange(len(value))
        if random.random() < 0.1:
            return value[:at] + value[at + 1 :]
        return [*value[:at], _other(value[at], random), *value[at + 1 :]]
    return random.choice(_VALUES)


def _gzipped(data: bytes, random: Random) -> bytes:
    return gzip.compress(_json(gzip.decompress(data), random), 1)


def _safetensors(data: bytes, random: Random) -> bytes:
    """Another header (shapes, types, offsets, metadata), or other numbers."""
    (length,) = struct.unpack_from("<Q", data)
    if random.random() < 0.3:
        return data[: 8 + length] + _number(data[8 + length :], random)
    header = json.loads(data[8 : 8 + length])
    texts = sorted(dict(header.get("__metadata__", {})))
    if texts and random.random() < 0.4:  # JSON in a text of the metadata
        name = random.choice(texts)
        value = _other(json.loads(header["__metadata__"][name]), random)
        header["__metadata__"][name] = json.dumps(value)
    elif random.random() < 0.5:  # what a safetensors header may really say
        name = random.choice([key for key in header if key != "__metadata__"])
        if random.random() < 0.5:
            header[name]["dtype"] = random.choice(
                ("F64", "F32", "F16", "BF16", "I64", "I32", "U8", "BOOL", "F8_E4M3")
            )
        else:
            shape = random.choice(
                (
                    [0],
                    [0, 2**40],
                    [2**62, 4],
                    [1, *header[name]["shape"]],
                    header[name]["shape"][::-1],
                    [],
                )
            )
            header[name]["shape"] = shape
    else:
        header = _other(header, random)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def _png(data: bytes, random: Random) -> bytes:
    """Another width, height, depth or colour type, with its right checksum."""
    fields = list(struct.unpack_from(">IIBBBBB", data, 16))
    which = random.randrange(len(fields))
    fields[which] = random.choice(_INTEGERS) % (2**32 if which < 2 else 256)
    head = b"IHDR" + struct.pack(">IIBBBBB", *fields)
    return data[:12] + head + struct.pack(">I", zlib.crc32(head)) + data[33:]
