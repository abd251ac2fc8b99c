"""Files and names that others give: checked before anything of them is used.

A name in a file stays below its folder, and a file is a regular one of a bounded size. A FIFO or a
device is never waited for.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from uns_pose_ros.core.errors import InvalidInput


def stays_inside(name: str) -> bool:
    """Whether a name that a file gives is a plain path below the folder it is meant for."""
    path = Path(name)
    return (
        bool(path.parts)
        and name.isprintable()
        and len(name.encode()) < 1000
        and all(len(part.encode()) < 256 for part in path.parts)
        and not path.is_absolute()
        and ".." not in path.parts
    )


def is_entry_name(name: str) -> bool:
    """Whether a name that a file gives is one entry of a folder, such as `clip_01`."""
    return stays_inside(name) and Path(name).name == name


def path_inside(folder: Path, name: str, root: Path | None = None) -> Path:
    """The path of a name that a file gives; links are followed within `root` only.

    Args:
        folder: The folder that the name is relative to.
        name: The name.
        root: The folder that the file must be in; None: `folder`.

    Raises:
        InvalidInput: The name, or a link that it passes, leaves the folder.
    """
    path, root = folder / name, root or folder
    try:
        inside = stays_inside(name) and path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):  # a loop of links
        inside = False
    if not inside:
        raise InvalidInput(
            f"{folder}: {name[:200]!r} leaves the folder; a file in it is valid, and links to "
            "files in it"
        )
    return path


def expand_home(text: str, what: str) -> Path:
    """The path that a person gave, with ~ replaced.

    Raises:
        InvalidInput: It names a user who does not exist, or holds a null byte.
    """
    try:
        path = Path(text).expanduser()
    except RuntimeError:
        raise InvalidInput(
            f"{what} {text!r}: there is no such user; a folder such as ~/mug is valid"
        ) from None
    if "\0" in text:
        raise InvalidInput(f"{what} {text!r}: a path without a null byte is valid")
    return path


def open_given(path: Path) -> BinaryIO:
    """Open a regular file to read.

    Raises:
        InvalidInput: It is a FIFO, a device, a socket or a folder.
        OSError: It cannot be opened.
    """
    # a FIFO without a writer would block for ever
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise InvalidInput(f"{path}: not a regular file, which is needed")
    return os.fdopen(number, "rb")


def require_regular(path: Path) -> None:
    """InvalidInput where a path exists and is no regular file."""
    if path.exists() and not path.is_file():
        raise InvalidInput(f"{path}: not a regular file, which is needed")


def read_given(path: Path, most: int) -> bytes:
    """The bytes of a regular file.

    Raises:
        InvalidInput: It is no regular file, or has more than `most` bytes.
        OSError: It cannot be read.
    """
    with open_given(path) as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read(size) if size <= most else b""
    if size > most:
        raise InvalidInput(f"{path}: {size} bytes, at most {most} are read")
    return data
