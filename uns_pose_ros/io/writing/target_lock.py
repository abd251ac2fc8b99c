"""One lock for every video, alignment, model and other target that several processes may write."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EACCES, EPERM, EROFS
from pathlib import Path

import filelock

from uns_pose_ros.core.errors import DiskError, InvalidInput
from uns_pose_ros.io.writing.replacement import (
    delete_strays,
    disk_errors,
    make_folder,
    remove_empty,
)
from uns_pose_ros.io.writing.staged_names import machine_token, stem_of


class TargetLock:
    """The lock of a file or folder, which one process of all holds."""

    def __init__(self, target: Path, patience: float = 0.0) -> None:
        """Take the lock.

        In a folder that this process cannot write, nobody needs a lock.

        Args:
            target: What is locked.
            patience: How long to wait for another process, s.

        Raises:
            InvalidInput: another process holds it; the message names the process.
            DiskError: the disk is full.
        """
        self.target = target
        self._path = target.with_name(f".{stem_of(target.name).lstrip('.')}.lock")
        self._made: list[Path] = []
        with disk_errors(target):
            self._made = make_folder(target.parent)
        # every user may hold it, not only the one who made it
        self._lock = filelock.FileLock(
            self._path, mode=0o666, blocking=patience > 0, thread_local=False
        )
        try:
            self._lock.acquire(timeout=patience)
        except filelock.Timeout:
            raise InvalidInput(
                f"{target}: {_holder(self._path)} is at work here; wait for it, or end it"
            ) from None
        except OSError as error:
            if error.errno not in (EACCES, EPERM, EROFS):
                self.release()
                raise DiskError.of(error, target) or error from None
        else:
            with suppress(OSError):  # who asks for the holder gets a name, or none
                self._path.write_text(f"{machine_token()}\n{os.getpid()}\n{_command()}\n")
        delete_strays(target.parent)
        delete_strays(target)

    def release(self) -> None:
        """Give the lock back; folders that were made for it and stayed empty go."""
        if self._lock.is_locked:
            with suppress(
                OSError
            ):  # before others get the lock: they see that this file is gone
                self._path.unlink(missing_ok=True)
            self._lock.release()
        remove_empty(self._made)


@contextmanager
def lock_target(target: Path, patience: float = 0.0) -> Iterator[None]:
    """Hold the lock of a file or folder; see `TargetLock`."""
    lock = TargetLock(target, patience)
    try:
        yield
    finally:
        lock.release()


def _command() -> str:
    """The command of this process, as people know it."""
    program = Path(sys.argv[0])
    name = program.parent.name if program.name == "__main__.py" else program.name
    return " ".join([name, *sys.argv[1:2]]) if name == "uns-pose" else name


def _holder(path: Path) -> str:
    """Who holds a lock, for messages."""
    try:
        machine, process, command = path.read_text(errors="replace")[:200].split("\n")[:3]
    except (OSError, ValueError):
        return "another process"
    if not (command + process).isprintable():
        return "another process"
    elsewhere = "" if machine == machine_token() else " of another machine"
    return f"`{command}` (process {process}{elsewhere})"
