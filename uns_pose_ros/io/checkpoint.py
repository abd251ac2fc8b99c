"""Checkpoints of long work, which continues after a kill from its last checkpoint."""

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


class Checkpoint:
    """A folder with the state of one piece of work, which its key identifies.

    State of another key is deleted. Arrays lie in memory-mapped files. A killed process leaves them
    whole, but a machine that loses power does not. Therefore, the key contains the boot of the
    machine.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any]) -> None:
        """Lock the folder; raises InvalidInput if another process works there."""
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
        """Return an array with the values of the last checkpoint, or zeros at first.

        If the disk is full, the array lies in memory and is not kept.

        Args:
            name: Name of the array.
            shape: Its shape.
            kind: Its type.
        """
        path = self._folder / f"{name}.bin"
        count = math.prod(shape)
        size = count * torch.empty((), dtype=kind).element_size()
        try:
            with path.open("ab") as file:
                # a write to a mapped file on a full disk would end in a signal
                os.posix_fallocate(file.fileno(), 0, max(size, 1))
        except OSError:
            self._kept = False
            return torch.zeros(*shape, dtype=kind)
        return torch.from_file(str(path), shared=True, size=count, dtype=kind).view(*shape)

    def read_note(self, name: str) -> Any:
        """Return the JSON value that was noted under a name; None without a note."""
        return _record(self._folder / _NOTES).get(name)

    def write_note(self, name: str, value: Any) -> None:
        """Note a JSON value, unless an array is not kept to which the note may refer."""
        if self._kept:
            artifacts.write_json(
                self._folder / _NOTES, {**_record(self._folder / _NOTES), name: value}
            )

    def save(self, tensors: Mapping[str, Tensor], facts: Any) -> None:
        """Save tensors and a JSON value at once; they replace those that were saved before."""
        plain = {
            name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()
        }
        with artifacts.atomic_write(self._folder / _TENSORS) as temporary:
            safetensors.torch.save_file(plain, temporary, {"facts": json.dumps(facts)})

    def load(self) -> tuple[dict[str, Tensor], Any] | None:
        """Return the tensors and the JSON value that were saved last; None at first."""
        path = self._folder / _TENSORS
        if not path.exists():
            return None
        with safetensors.safe_open(path, "pt") as file:
            facts = json.loads(file.metadata()["facts"])
        return safetensors.torch.load_file(path), facts

    def close(self, done: bool) -> None:
        """Unlock the folder, and delete it if the work is done."""
        if done:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._lock.close()


def _record(path: Path) -> Any:
    try:
        return artifacts.read_json(path) if path.exists() else {}
    except InvalidInput:
        return {}
