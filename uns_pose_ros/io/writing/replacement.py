"""Files and folders that appear whole or not at all.

They are made under a hidden name beside their place and then renamed. An error of the disk is one
line: what, where, what to do. The next process that works there deletes what a dead one left.
"""

from __future__ import annotations

import ctypes
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from errno import ENOSPC
from functools import cache
from pathlib import Path

from uns_pose_ros.core.errors import DiskError
from uns_pose_ros.io.writing.staged_names import final_name, list_strays, staged_name

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of renameat2(2)

_log = logging.getLogger(__name__)
_swept: set[tuple[int, Path]] = set()  # process and folder


@contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """Turn an error of the disk into one line.

    The line names the file that the error is about, or `target` where the error names none.
    """
    try:
        yield
    except DiskError:
        raise
    except Exception as error:
        named = getattr(error, "filename", None)
        place = final_name(named if isinstance(named, str | Path) else target)
        target = final_name(target)
        ours = place.parent == target.parent or target in place.parents
        ours = ours or place in target.parents
        line = DiskError.of(error, place, "written" if ours else "read or written")
        if line is None:
            raise
        raise line from None


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a hidden path beside `path`, which it replaces when the block ends well.

    It is deleted when the block does not end well. A device or a pipe cannot be replaced: it is
    yielded itself.

    Raises:
        DiskError: the disk refuses it.
    """
    with disk_errors(path):
        special = path.exists() and not path.is_file() and not path.is_dir()
    if special:
        with disk_errors(path):
            yield path
        return
    with atomic_writes([path]) as [staged]:
        yield staged


@contextmanager
def atomic_writes(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Yield a hidden path beside each path; all are replaced when the block ends well, in order.

    If one of them cannot be replaced, those before it become again what they were.

    Raises:
        DiskError: the disk refuses one.
    """
    staged = [staged_name(path, "tmp") for path in paths]
    made: list[Path] = []
    undo: list[
        tuple[Path, Path | None]
    ] = []  # what was replaced, and where the old file is
    done = False
    try:
        with disk_errors(paths[0]):
            for path in paths:
                made += make_folder(path.parent)
                _sweep_once(path.parent)
            yield staged
        for path, temporary in zip(paths, staged, strict=True):
            with disk_errors(path):
                temporary.chmod(0o644)  # safetensors lets nobody else read its files
                old = _back_up(path) if path != paths[-1] else None
                undo.append((path, old))
                os.replace(temporary, path)
        done = True
    finally:
        if not done:
            for path, old in undo[: len(paths) - 1]:
                with suppress(OSError):
                    path.unlink(missing_ok=True) if old is None else os.replace(old, path)
            remove_empty(made)
        for place in (*staged, *(old for _, old in undo if old is not None)):
            discard(place)


@contextmanager
def staged_folder(target: Path) -> Iterator[Path]:
    """Yield a new hidden folder beside `target`, which is deleted when the block ends.

    The caller holds the lock of the target, or of the folder that it lies in.

    Raises:
        DiskError: the disk refuses it.
    """
    repair_folder(target)
    new = staged_name(target, "new")
    made: list[Path] = []
    try:
        with disk_errors(target):
            made = make_folder(target.parent)
            new.mkdir()
            yield new
    finally:
        discard(new)
        remove_empty(made)


@contextmanager
def replace_folder(target: Path) -> Iterator[Path]:
    """Yield a new hidden folder beside `target`, which it replaces when the block ends well.

    The old folder goes as a whole after that. The caller holds the lock of the target, or of the
    folder that it lies in.

    Raises:
        DiskError: the disk refuses it.
    """
    target = target if target.name else target.absolute()
    with staged_folder(target) as new:
        yield new
        old = staged_name(target, "old")
        try:
            if not target.exists():
                os.rename(new, target)
            elif not _exchange(new, target):
                os.rename(target, old)
                os.rename(new, target)
        finally:
            _settle(target, old)


def repair_folder(target: Path) -> None:
    """Put a folder back that a process, which is dead now, had moved away to replace it.

    What it had made of the new one is deleted. One warning says so.
    """
    for path, kind in list_strays(target.parent, target.name):
        if kind == "old" and not os.path.lexists(target):
            _settle(target, path)
            _log.warning(
                "%s: a process was stopped while it replaced this; the old is back", target
            )
        elif kind == "old":
            discard(path)
        else:
            discard(path)
            _log.warning("%s: what a stopped process left half made is deleted", target)


def delete_strays(folder: Path) -> None:
    """Delete the half made files and folders that dead processes left in a folder.

    What was moved away stays for `repair_folder`.
    """
    for path, kind in list_strays(folder):
        if kind != "old" or not path.is_dir():
            discard(path)
        if kind == "new":
            target = final_name(path)
            _log.warning("%s: what a stopped process left half made is deleted", target)


def check_writable(path: Path) -> None:
    """Raise DiskError where a file cannot be made at a path."""
    staged = staged_name(path, "tmp")
    made: list[Path] = []
    try:
        with disk_errors(path):
            made = make_folder(path.parent)
            staged.write_bytes(b"\0")
    finally:
        discard(staged)
        remove_empty(made)


def check_room(folder: Path, size: int) -> None:
    """Raise DiskError where a disk has less room than `size` bytes.

    It is for libraries that end the process where they cannot write.
    """
    with disk_errors(folder):
        free = shutil.disk_usage(folder).free
    if free < size:
        said = f"only {free / 1e6:.0f} MB are free and {size / 1e6:.0f} MB are needed"
        raise DiskError(
            f"{folder}: {said}; free space on that disk, or set TMPDIR to another one",
            ENOSPC,
        )


def _settle(target: Path, old: Path) -> None:
    """Delete what was moved away, or move it back where nothing has taken its place."""
    if os.path.lexists(old) and not os.path.lexists(target):
        with suppress(OSError):
            os.rename(old, target)
    else:
        discard(old)


def _exchange(path: Path, other: Path) -> bool:
    """Exchange two folders in one step; False where the system cannot."""
    rename = _renameat2()
    arguments = (_AT_FDCWD, os.fsencode(path), _AT_FDCWD, os.fsencode(other))
    return rename is not None and rename(*arguments, _RENAME_EXCHANGE) == 0


@cache
def _renameat2() -> Callable[..., int] | None:
    try:
        function = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):
        return None
    function.argtypes = (
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_uint,
    )
    return function


def _sweep_once(folder: Path) -> None:
    """Delete strays in a folder, but not again at every image that a process writes."""
    place = (os.getpid(), folder.absolute())
    if place not in _swept:
        _swept.add(place)
        delete_strays(folder)


def _back_up(path: Path) -> Path | None:
    """Give a file a second, hidden name; None where the file does not exist."""
    if not path.exists():
        return None
    old = staged_name(path, "old")
    try:
        os.link(path, old)
    except OSError:  # a disk without hard links
        shutil.copy2(path, old)
    return old


def make_folder(folder: Path) -> list[Path]:
    """Make a folder and those above it; returns the new ones, the innermost first."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
    return missing


def remove_empty(folders: Sequence[Path]) -> None:
    """Delete those folders that are empty."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def discard(path: Path) -> None:
    """Delete a file or folder; what cannot be deleted now is a stray for the next start."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)
