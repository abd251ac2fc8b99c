"""The files of a recording that are whole, and copies of those that a crash has cut off.

A recording is never changed: what has to be repaired is copied into a temporary folder.
"""

from __future__ import annotations

import io
import logging
import shutil
import sqlite3
import struct
import sys
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any, BinaryIO

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from uns_pose_ros.core.errors import InvalidInput, shorten
from uns_pose_ros.io.bounded_decompression import MOST, SPARED

_STORAGES = (".mcap", ".db3")
_PLUGINS = ("mcap", "sqlite3")
_MAGIC = b"\x89MCAP0\r\n"
# the end of a file without an index: DataEnd, Footer, magic
_END = (
    b"\x0f"
    + struct.pack("<QI", 4, 0)
    + b"\x02"
    + struct.pack("<QQQI", 20, 0, 0, 0)
    + _MAGIC
)
_CHUNK, _DATA_END, _FOOTER = 0x06, 0x0F, 0x02
_HEAD = 9  # bytes of a record before its content
_BLOCK = 1 << 20

_log = logging.getLogger(__name__)


def readable_files(path: Path, scratch: Path) -> list[Path]:
    """The paths to give to `rosbags` for a recording.

    Args:
        path: The folder of a bag, or one of its files.
        scratch: An empty folder for copies.

    Returns:
        The folder, where its metadata can be used; else its files, some of them copies.

    Raises:
        InvalidInput: The folder holds no file, or there is no room for a copy.
    """
    if path.is_file():
        if path.suffix == ".db3" and (path.parent / "metadata.yaml").is_file():
            return readable_files(path.parent, scratch)
        return [_repaired(path, scratch)]
    files = sorted(file for file in path.iterdir() if file.suffix in _STORAGES)
    listed = _listed(path)
    if listed is not None:
        expected, plugin = listed
        names = {file.name for file in files}
        if absent := sorted(set(expected) - names):
            _log.warning("%s: metadata.yaml lists %s, not there", path, shorten(absent))
        # Humble's `ros2 bag reindex` writes no storage_identifier
        whole = not absent and plugin in _PLUGINS
        if present := [file for file in files if file.name in expected]:
            if others := sorted(names - set(expected)):
                _log.warning(
                    "%s: metadata.yaml does not list %s; left out", path, shorten(others)
                )
            files = present
        if whole and all(_repaired(file, None) == file for file in files):
            return [path]
    elif (path / "metadata.yaml").is_file():
        return [path]
    if not files:
        raise InvalidInput(f"{path}: no .mcap or .db3 file in the folder of the recording")
    return [_repaired(file, scratch) for file in files]


def _listed(folder: Path) -> tuple[list[str], str] | None:
    """Names of the files in metadata.yaml, and its storage, where it is not needed to read them.

    None without metadata, and where it says how the files are compressed.
    """
    try:
        record: Any = YAML(typ="safe").load((folder / "metadata.yaml").read_text())
        known = record["rosbag2_bagfile_information"]
        names = [PurePath(str(name)).name for name in known["relative_file_paths"]]
        if known.get("compression_mode", "").lower() not in ("", "none"):
            return None
        plugin = known["storage_identifier"]
    except (OSError, ValueError, TypeError, LookupError, AttributeError, YAMLError):
        return None
    return names, str(plugin)


def _repaired(file: Path, scratch: Path | None) -> Path:
    """The file itself where it is whole, else a repaired copy in `scratch`.

    Without `scratch` nothing is copied, and a file that is not whole gives another path.
    """
    if file.suffix == ".mcap":
        if _is_whole(file):
            return file
        return Path() if scratch is None else _recover_mcap(file, scratch)
    if file.suffix == ".db3":
        beside = [file.with_name(file.name + end) for end in ("-wal", "-journal")]
        kept = [other for other in beside if other.is_file() and other.stat().st_size]
        if not kept:
            return file
        return Path() if scratch is None else _recover_sqlite(file, kept, scratch)
    return file


def _is_whole(file: Path) -> bool:
    """Whether an mcap file has its end; a file that does not begin as one counts as whole."""
    with file.open("rb") as stream:
        if stream.read(len(_MAGIC)) != _MAGIC:
            return True
        if stream.seek(0, io.SEEK_END) < 2 * len(_MAGIC):
            return False
        stream.seek(-len(_MAGIC), io.SEEK_END)
        return stream.read() == _MAGIC


def _check_room(sources: Sequence[Path], scratch: Path) -> None:
    needed = sum(source.stat().st_size for source in sources)
    free = shutil.disk_usage(scratch).free - SPARED
    if needed > free:
        raise InvalidInput(
            f"{sources[0]}: it was cut off, and its repaired copy needs {needed} bytes in "
            f"{scratch.parent}, {max(free, 0)} are free; set TMPDIR to a larger disk"
        )


def _recover_sqlite(file: Path, beside: Sequence[Path], scratch: Path) -> Path:
    """Copy a database with its journal, and let sqlite3 bring the copy in order."""
    _check_room([file, *beside], scratch)
    copy = scratch / file.name
    for source in (file, *beside):
        shutil.copyfile(source, scratch / source.name)
    try:
        connection = sqlite3.connect(copy)
        try:
            connection.execute("PRAGMA journal_mode=DELETE").fetchall()
            connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise InvalidInput(f"{file}: sqlite3 cannot recover it ({error})") from None
    names = shorten(source.name for source in beside)
    _log.warning("%s: its recording was cut off; read with %s, in a copy", file, names)
    return copy


def _recover_mcap(file: Path, scratch: Path) -> Path:
    """Copy the records of a file without end, up to the cut, and end the copy."""
    _check_room([file], scratch)
    copy = scratch / file.name
    size = file.stat().st_size
    with file.open("rb") as source, copy.open("wb") as target:
        target.write(source.read(len(_MAGIC)))
        while True:
            start = source.tell()
            head = source.read(_HEAD)
            if len(head) < _HEAD or head[0] in (_DATA_END, _FOOTER):
                break
            (length,) = struct.unpack("<Q", head[1:])
            if start + _HEAD + length > size:
                if head[0] == _CHUNK:
                    target.write(_rest_of_chunk(source.read(MOST)))
                break
            target.write(head)
            _copy(source, target, length)
        target.write(_END)
    _log.warning(
        "%s: its recording was cut off; read up to byte %d of %d", file, start, size
    )
    return copy


def _copy(source: BinaryIO, target: BinaryIO, length: int) -> None:
    while length > 0:
        block = source.read(min(length, _BLOCK))
        if not block:
            return
        target.write(block)
        length -= len(block)


def _rest_of_chunk(content: bytes) -> bytes:
    """The whole records in a chunk that is cut off, as a chunk without compression."""
    if len(content) < 32:
        return b""
    first, last, size, _, name_size = struct.unpack_from("<QQQII", content)
    begin = 32 + name_size + 8
    if len(content) < begin:
        return b""
    records = _unpack_some(content[32 : 32 + name_size], content[begin:], min(size, MOST))
    end = 0
    while end + _HEAD <= len(records):
        after = end + _HEAD + struct.unpack_from("<Q", records, end + 1)[0]
        if after > len(records):
            break
        end = after
    if not end:
        return b""
    body = struct.pack("<QQQII", first, last, end, 0, 0) + struct.pack("<Q", end)
    body += records[:end]
    return bytes([_CHUNK]) + struct.pack("<Q", len(body)) + body


def _unpack_some(compression: bytes, data: bytes, most: int) -> bytes:
    """As much of cut data as can be unpacked, at most `most` bytes."""
    if compression == b"":
        return data[:most]
    try:
        if compression == b"zstd":
            if sys.version_info >= (3, 14):
                from compression import zstd
            else:
                from backports import zstd
            return bytes(zstd.ZstdDecompressor().decompress(data, max_length=most))
        if compression == b"lz4":
            from lz4.frame import LZ4FrameDecompressor

            return bytes(LZ4FrameDecompressor().decompress(data, max_length=most))
    except Exception:  # foreign bytes are parsed: anything may come
        return b""
    return b""
