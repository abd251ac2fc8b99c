"""A disk that fails, or a process that dies, at the n-th change of files below a folder."""

from __future__ import annotations

import builtins
import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError

from uns_pose_ros.io import artifacts

CODES = (
    errno.ENOSPC,
    errno.EROFS,
    errno.EACCES,
    errno.EDQUOT,
    errno.ENAMETOOLONG,
    errno.EIO,
)
# what a full disk refuses from one moment on; it still deletes
_PERSISTENT = (errno.ENOSPC, errno.EDQUOT)
DEAD = 9  # exit code of a process that died
DELETING = ("unlink", "rmdir", "remove")
_CHANGES = ("mkdir", "rename", "replace", "link", *DELETING, "chmod", "ftruncate", "fsync")


class FaultyDisk:
    """Counts the changes below a folder, and acts at one of them."""

    def __init__(self, root: Path, act: Callable[[str, str], None]) -> None:
        """Count from now on.

        Args:
            root: the folder.
            act: gets the name and the path of each change, before it happens.
        """
        self.count = 0
        self._root = os.path.realpath(root)
        self._act = act

    def change(self, name: str, path: object) -> None:
        """A change is about to happen."""
        if isinstance(path, str | bytes | os.PathLike):
            text = os.path.realpath(os.fsdecode(path))
            if text.startswith(self._root):
                self.count += 1
                self._act(name, text)


@contextmanager
def watched_disk(root: Path, act: Callable[[str, str], None]) -> Iterator[FaultyDisk]:
    """Call `act` before every change of files below `root` by this process."""
    disk = FaultyDisk(root, act)
    saved = {name: getattr(os, name) for name in _CHANGES}
    saved_open, saved_os_open = io.open, os.open
    saved_save = safetensors.torch.save_file

    def watched(name: str) -> Callable[..., Any]:
        def call(path: Any, *rest: Any, **options: Any) -> Any:
            folder = options.get("dir_fd")
            above = "" if folder is None else os.readlink(f"/proc/self/fd/{folder}")
            if isinstance(path, int):
                path_named = os.readlink(f"/proc/self/fd/{path}")
            else:
                path_named = os.path.join(above, path)
            disk.change(name, path_named)
            return saved[name](path, *rest, **options)

        return call

    def open_file(path: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
        if not set(mode) & set("wax+"):
            return saved_open(path, mode, *rest, **options)
        disk.change("open", path)
        file = saved_open(path, mode, *rest, **options)
        write = file.write

        def checked_write(data: Any) -> Any:
            disk.change("write", path)
            return write(data)

        file.write = checked_write  # type: ignore[method-assign]
        return file

    def open_descriptor(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            disk.change("open", path)
        return saved_os_open(path, flags, *rest, **options)

    def save_file(tensors: Any, path: Any, *rest: Any, **options: Any) -> None:
        try:
            disk.change("write", path)
        except OSError as error:  # as the library says it
            raise SafetensorError(
                f"I/O error: {error.strerror} (os error {error.errno})"
            ) from None
        saved_save(tensors, path, *rest, **options)

    try:
        for name in _CHANGES:
            setattr(os, name, watched(name))
        io.open = builtins.open = open_file  # type: ignore[assignment]
        os.open = open_descriptor
        for module in (safetensors.torch, artifacts):
            setattr(module, "save_file", save_file)  # noqa: B010
        yield disk
    finally:
        for name, function in saved.items():
            setattr(os, name, function)
        io.open = builtins.open = saved_open
        os.open = saved_os_open
        safetensors.torch.save_file = artifacts.save_file = saved_save


class Failing:
    """An action for `watched_disk`: the change `number`, counted from 1, fails.

    A full disk refuses all that write after it too.
    """

    def __init__(self, number: int, code: int) -> None:
        self.failed: tuple[str, str] = ("", "")  # the first change that failed
        self._seen = 0
        self._number = number
        self._code = code

    def __call__(self, name: str, path: str) -> None:
        """Fail, or not."""
        self._seen += 1
        later = self._code in _PERSISTENT and name not in DELETING
        if self._seen == self._number or (self._seen > self._number and later):
            self.failed = self.failed if self.failed[0] else (name, path)
            raise OSError(
                self._code, os.strerror(self._code), None if name == "write" else path
            )


class Dying:
    """An action for `watched_disk`: the process dies at the change `number` of some kinds."""

    def __init__(self, number: int, kinds: tuple[str, ...]) -> None:
        self.seen = 0
        self._number = number
        self._kinds = kinds

    def __call__(self, name: str, path: str) -> None:
        """Die, or not."""
        self.seen += name in self._kinds
        if self.seen == self._number and name in self._kinds:
            os._exit(DEAD)
