"""Compressed bags unpack to so much and no more.

A small file must not fill the memory or the disk.
"""

from __future__ import annotations

import bz2
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

MOST = (
    1 << 30
)  # bytes that a chunk or a message may have: three of the largest images that are read
RATIO = 100  # by which a whole file, or all of a bag, may grow, where it grows beyond MOST
SPARED = 1 << 30  # bytes of the disk that are left free


def unpacked(make: Callable[[], Any], data: bytes, most: int) -> bytes:
    """What some bytes are when unpacked.

    ValueError where that is more than `most` bytes, of which no more are made.

    make: a decompressor with Python's usual methods (bz2.BZ2Decompressor, …), of which one is
    needed for each frame.
    """
    parts, left = list[bytes](), most
    while data:
        one = make()
        part = one.decompress(data, max_length=left + 1)
        if len(part) > left:
            raise ValueError(f"{len(data)} bytes unpack to more than {most}")
        if not one.eof:
            raise ValueError("compressed data that are cut off")
        parts.append(part)
        left, data = left - len(part), one.unused_data or b""
    return b"".join(parts)


class _Budget(threading.local):
    """What a bag may still unpack to while it is read once in this thread."""

    most = left = sys.maxsize  # bytes


_BUDGET = _Budget()


def begin_bag(path: Path) -> None:
    """Bound what a bag unpacks to in all while it is read once, from now on in this thread."""
    files = (
        [path] if path.is_file() else [file for file in path.iterdir() if file.is_file()]
    )
    size = sum(file.stat().st_size for file in files)
    _BUDGET.most = _BUDGET.left = max(MOST, RATIO * size)


def _unpack_part(make: Callable[[], Any], data: bytes, most: int) -> bytes:
    """Unpack a chunk or a message of a bag; ValueError where it, or the whole bag, is too large."""
    if min(most, MOST) > _BUDGET.left:
        most = _BUDGET.left
        try:
            part = unpacked(make, data, most)
        except ValueError as error:
            raise ValueError(
                f"its parts unpack to more than {_BUDGET.most} bytes together"
            ) from error
    else:
        part = unpacked(make, data, min(most, MOST))
    _BUDGET.left -= len(part)
    return part


def bound_rosbags() -> None:
    """Let `rosbags` unpack within these bounds, in this process from now on."""
    from lz4.frame import LZ4FrameDecompressor
    from rosbags.rosbag1 import reader as first
    from rosbags.rosbag2 import reader as second
    from rosbags.rosbag2 import storage_mcap

    module: Any = second
    if isinstance(module.zstd, _Zstd):
        return
    module.zstd = _Zstd(module.zstd)
    kinds = {"zstd": module.zstd.ZstdDecompressor, "lz4": LZ4FrameDecompressor}
    storage_mcap.DECOMPRESSORS.update(
        {name: _of_known_size(make) for name, make in kinds.items()}
    )
    bags: Any = first.decompressors
    bags.update(
        {
            name: _of_any_size(make)
            for name, make in {
                "bz2": bz2.BZ2Decompressor,
                "lz4": LZ4FrameDecompressor,
            }.items()
        }
    )


def _of_known_size(make: Callable[[], Any]) -> Callable[[bytes, int], bytes]:
    return lambda data, size: _unpack_part(make, data, size)


def _of_any_size(make: Callable[[], Any]) -> Callable[[bytes], bytes]:
    return lambda data: _unpack_part(make, data, MOST)


class _Zstd:
    """What rosbags uses of the module zstd."""

    def __init__(self, module: Any) -> None:
        self._module = module
        self.ZstdDecompressor = module.ZstdDecompressor

    def decompress(self, data: bytes) -> bytes:
        return _unpack_part(self.ZstdDecompressor, data, MOST)

    def open(self, file: BinaryIO, mode: str) -> _File:
        """A compressed file, to be read into the folder for temporary files."""
        free = shutil.disk_usage(tempfile.gettempdir()).free - SPARED
        most = min(max(MOST, RATIO * os.fstat(file.fileno()).st_size), free)
        return _File(self._module.open(file, mode), most)


class _File:
    """Reads a file of which there may be so many bytes; ValueError where there are more."""

    def __init__(self, file: Any, most: int) -> None:
        self._file, self._left, self._most = file, most, most

    def __enter__(self) -> _File:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def read(self, size: int) -> bytes:
        data = bytes(self._file.read(size))
        self._left -= len(data)
        if self._left < 0:
            raise ValueError(
                f"a compressed file unpacks to more than {max(self._most, 0)} bytes: too much, "
                "or too little room"
            )
        return data
