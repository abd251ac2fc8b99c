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
from contextlib import suppress
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
_SQLITE_MAGIC = b"SQLite format 3\0"
_TABLES = ("schema", "message_definitions", "topics")  # beside messages
_MOST_FAILURES = 10_000  # rows in a row that cannot be read, before the copy ends
_HEAD = 9  # bytes of a record before its content
_BLOCK = 1 << 20
_LONGEST = 100  # characters of a reason

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


def salvaged_files(path: Path, scratch: Path) -> list[Path]:
    """Copies of the databases of a recording with every message that can be read.

    Args:
        path: The folder of a bag, or one of its files.
        scratch: A folder for copies.

    Returns:
        The copies; none where a file is no database.

    Raises:
        InvalidInput: The topics cannot be read, or there is no room for a copy.
    """
    files = [path] if path.is_file() else sorted(path.glob("*.db3"))
    return [_copy_rows(file, _missing_bytes(file), scratch) for file in files]


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
        if kept:
            return Path() if scratch is None else _recover_sqlite(file, kept, scratch)
        if missing := _missing_bytes(file):
            return Path() if scratch is None else _copy_rows(file, missing, scratch)
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
        raise InvalidInput(
            f"{file}: sqlite3 cannot recover it ({_reason(error)})"
        ) from None
    names = shorten(source.name for source in beside)
    _log.warning("%s: its recording was cut off; read with %s, in a copy", file, names)
    return copy


def _missing_bytes(file: Path) -> int:
    """Bytes that a database lacks by its own header; 0 where it is no database."""
    with file.open("rb") as stream:
        head = stream.read(100)
        size = stream.seek(0, io.SEEK_END)
    if len(head) < 100 or not head.startswith(_SQLITE_MAGIC) or head[24:28] != head[92:96]:
        return 0  # the count of pages is valid only where the two agree
    (page,) = struct.unpack_from(">H", head, 16)
    (pages,) = struct.unpack_from(">I", head, 28)
    return max(pages * (65536 if page == 1 else page) - size, 0)


def _copy_rows(file: Path, missing: int, scratch: Path) -> Path:
    """Copy the messages of a database without its end that can still be read.

    sqlite3 itself leaves out rows of the missing part without an error.
    """
    _check_room([file, file], scratch)
    copy, whole_pages = scratch / file.name, scratch / f".{file.name}"
    _copy_whole_pages(file, whole_pages)
    source, target = sqlite3.connect(whole_pages), sqlite3.connect(copy)
    try:
        for table in _TABLES:
            _copy_table(source, target, table)
        with suppress(sqlite3.Error):  # it is written last, and not needed
            _copy_table(source, target, "metadata")
        count = _copy_messages(source, target)
        target.commit()
    except sqlite3.Error as error:
        raise InvalidInput(
            f"{file}: {_damage_of(missing)}, and its topics cannot be read "
            f"({_reason(error)})"
        ) from None
    finally:
        source.close()
        target.close()
        whole_pages.unlink()
    _log.warning(
        "%s: %s; %d messages can be read, in a copy", file, _damage_of(missing), count
    )
    return copy


def _damage_of(missing: int) -> str:
    return (
        f"its recording was cut off, {missing} bytes are missing"
        if missing
        else "it is broken in its midst"
    )


def _reason(error: sqlite3.Error) -> str:
    """What sqlite3 says, without the whole text that it could not decode."""
    return str(error)[:_LONGEST]


def _copy_whole_pages(file: Path, copy: Path) -> None:
    """Copy a database up to its last whole page, with a header that says so.

    sqlite3 reads nothing of a database that is shorter than its header says.
    """
    shutil.copyfile(file, copy)
    with copy.open("r+b") as stream:
        head = stream.read(32)
        (size,) = struct.unpack_from(">H", head, 16)
        size = 65536 if size == 1 else size
        pages = copy.stat().st_size // max(size, 512)
        stream.truncate(pages * size)
        stream.seek(28)
        stream.write(struct.pack(">I", pages))


def _make_table(
    source: sqlite3.Connection, target: sqlite3.Connection, table: str
) -> list[str]:
    """Make a table with the columns of another database, and return them; none: no table."""
    known = source.execute("SELECT type FROM sqlite_master WHERE name = ?", (table,))
    if known.fetchone() != ("table",):
        return []
    columns = [str(row[1]) for row in source.execute(f"PRAGMA table_info({table})")]
    quoted = ", ".join('"' + name.replace('"', '""') + '"' for name in columns)
    target.execute(f"CREATE TABLE {table} ({quoted})")
    return columns


def _copy_table(source: sqlite3.Connection, target: sqlite3.Connection, table: str) -> None:
    columns = _make_table(source, target, table)
    places = ", ".join("?" * len(columns))
    for row in source.execute(f"SELECT * FROM {table}") if columns else ():
        target.execute(f"INSERT INTO {table} VALUES ({places})", row)


def _copy_messages(source: sqlite3.Connection, target: sqlite3.Connection) -> int:
    """Copy the rows of messages one by one, and return how many can be read."""
    places = ", ".join("?" * len(_make_table(source, target, "messages")))
    count = number = failures = 0
    while failures < _MOST_FAILURES:
        number, failures = number + 1, failures + 1
        with suppress(sqlite3.Error):
            row = source.execute(
                "SELECT * FROM messages WHERE id = ?", (number,)
            ).fetchone()
            if row is not None:
                target.execute(f"INSERT INTO messages VALUES ({places})", row)
                count, failures = count + 1, 0
    return count


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
