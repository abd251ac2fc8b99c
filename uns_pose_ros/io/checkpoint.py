"""Where long work leaves what it has made so far, so that it goes on there after a kill."""

from __future__ import annotations

import fcntl
import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io import artifacts

_KEY, _LOCK, _NOTES, _TENSORS = "key.json", "lock", "notes.json", "tensors.safetensors"
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Unfinished:
    """A folder of one piece of work, known by its key; what another key left there is dropped.

    Arrays lie in memory-mapped files, which a killed process leaves whole but a machine that went
    down does not: the key tells the machine's start too.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any]) -> None:
        """Raises InvalidInput where another process works there."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._kept = True
        self._lock = (folder / _LOCK).open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise InvalidInput(
                f"{folder}: another process is at work here; wait for it, or end it"
            ) from None
        boot = _BOOT.read_text().strip() if _BOOT.exists() else ""
        wanted = {"key": artifacts.fingerprint(**key), "boot": boot}
        path = folder / _KEY
        if not path.exists() or _record(path) != wanted:
            for old in folder.iterdir():
                if old.name != _LOCK:
                    old.unlink()
            artifacts.write_json(path, wanted)

    def array(self, name: str, shape: Sequence[int], kind: torch.dtype) -> Tensor:
        """The array of that name, as it was left; zeros at first.

        Where the disk has no room it is in memory, and not kept.
        """
        path, count = self._folder / f"{name}.bin", math.prod(shape)
        size = count * torch.empty((), dtype=kind).element_size()
        try:
            with path.open("ab") as file:
                os.posix_fallocate(
                    file.fileno(), 0, max(size, 1)
                )  # mapped files on a full disk end in a signal
        except OSError:
            self._kept = False
            return torch.zeros(*shape, dtype=kind)
        return torch.from_file(str(path), shared=True, size=count, dtype=kind).view(*shape)

    def note(self, name: str) -> Any:
        """What was noted under that name, None where nothing was."""
        return _record(self._folder / _NOTES).get(name)

    def write_note(self, name: str, value: Any) -> None:
        """Note a JSON value, unless an array that it may speak of is not kept."""
        if self._kept:
            artifacts.write_json(
                self._folder / _NOTES, {**_record(self._folder / _NOTES), name: value}
            )

    def save(self, tensors: Mapping[str, Tensor], facts: Any) -> None:
        """Keep tensors with a JSON value, in place of those kept before, both or neither."""
        plain = {
            name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()
        }
        with artifacts.atomic_write(self._folder / _TENSORS) as temporary:
            safetensors.torch.save_file(plain, temporary, {"facts": json.dumps(facts)})

    def load(self) -> tuple[dict[str, Tensor], Any] | None:
        """What was saved last."""
        path = self._folder / _TENSORS
        if not path.exists():
            return None
        with safetensors.safe_open(path, "pt") as file:
            facts = json.loads(file.metadata()["facts"])
        return safetensors.torch.load_file(path), facts

    def close(self, done: bool) -> None:
        """Let others work here; done: everything is dropped."""
        if done:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._lock.close()


def _record(path: Path) -> Any:
    try:
        return artifacts.read_json(path) if path.exists() else {}
    except InvalidInput:
        return {}
