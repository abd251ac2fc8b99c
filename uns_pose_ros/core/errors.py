"""Errors that end a command with one line and exit code 2: bad input, and a disk that refuses."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable
from pathlib import Path


class InvalidInput(ValueError):
    """The user's input cannot be used.

    The message names the fault, its place and what is valid (exit code 2). It is one printable
    line, whatever a file or another library put into it.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(make_printable(message))


def make_printable(text: str) -> str:
    """The text with a space for each character that would break its line or steer a terminal."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else " " for character in text)


def shorten(names: Iterable[str], most: int = 8) -> str:
    """Names in one line: a, b, c and 12 more."""
    listed = list(names)
    rest = len(listed) - most
    return ", ".join(listed[:most]) + (f" and {rest} more" if rest > 0 else "")


# what a person can do about an error of the disk
_REMEDIES = {
    errno.ENOSPC: "free space on that disk, then run it again",
    errno.EDQUOT: "the quota of this user is used up: delete something, then run it again",
    errno.EFBIG: "a larger limit of file sizes is needed (ulimit -f), or another disk",
    errno.EROFS: "the disk is mounted for reading only; a place that can be written is valid",
    errno.EACCES: "this user may not do that; its owner may (chmod), or take another place",
    errno.EPERM: "this user may not do that; its owner may (chmod), or take another place",
    errno.ENAMETOOLONG: "a shorter name is valid",
    errno.EIO: "the disk or its cable fails (`dmesg` says which); take another disk",
    errno.EMFILE: "too many files are open; a larger limit is needed (ulimit -n)",
    errno.ENFILE: "too many files are open on this machine",
    errno.ENOTDIR: "a part of this path is a file; a folder is needed there",
    errno.EISDIR: "a folder is there; a file name is valid",
    errno.EEXIST: "something else has appeared there; delete it, or take another name",
    errno.ENOTEMPTY: "something else has appeared there; delete it, or take another name",
    errno.ENOENT: "its folder has vanished meanwhile; run it again",
    errno.ELOOP: "its symbolic links lead in a circle",
    errno.ESTALE: "the network disk has lost it; mount that disk again",
    errno.EBUSY: "something uses it; end that, then run it again",
    errno.ENODEV: "the disk is gone",
    errno.ENXIO: "the disk is gone",
    errno.EXDEV: "another disk is mounted inside; unmount it, or take another place",
    errno.EMLINK: "the folder holds too many entries",
}
_RUST = re.compile(r"\(os error (\d+)\)")  # as safetensors writes it
_SQLITE = {
    "disk is full": errno.ENOSPC,
    "disk I/O error": errno.EIO,
    "readonly database": errno.EROFS,
    "unable to open database": errno.EACCES,
}


class DiskError(InvalidInput, OSError):
    """The disk refuses a file or a folder (exit code 2).

    The message names the place, the error and what to do.
    """

    def __init__(self, message: str, code: int) -> None:
        """Make the error of an `errno` code."""
        ValueError.__init__(self, make_printable(message), code)
        self.errno = code
        self.strerror = os.strerror(code)

    def __str__(self) -> str:
        return str(self.args[0])

    @classmethod
    def of(
        cls, error: BaseException, place: Path | None = None, done: str = "written"
    ) -> DiskError | None:
        """The one line of an error of the disk; None for any other error.

        Args:
            error: any exception; libraries that do not raise OSError are understood too.
            place: the file or folder to name; None: the one that the error names.
            done: what cannot be done with it.
        """
        code = _disk_code(error)
        if code not in _REMEDIES:
            return None
        where = place or getattr(error, "filename", None) or "the disk"
        what = f"{where}: cannot be {done} ({os.strerror(code)})"
        return cls(f"{what}; {_REMEDIES[code]}", code)


def _disk_code(error: BaseException) -> int:
    """The `errno` code of an error of the disk; 0 for any other error."""
    if isinstance(error, OSError):
        return error.errno or 0
    text = str(error)
    if type(error).__module__ == "sqlite3":
        return next((code for part, code in _SQLITE.items() if part in text), 0)
    match = _RUST.search(text)
    return int(match[1]) if match else 0
