"""Checkpoints of long work, which continues after a kill from its last checkpoint."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from msgspec import convert
from msgspec.structs import asdict
from torch import Tensor

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.given_files import require_regular
from uns_pose_ros.io.schema.decoding import decode_json, describe, read_record
from uns_pose_ros.io.schema.made_record import CheckpointKey, CheckpointNotes
from uns_pose_ros.io.writing.replacement import atomic_write, discard, disk_errors
from uns_pose_ros.io.writing.target_lock import TargetLock, lock_target

_KEY, _NOTES, _TENSORS = "key.json", "notes.json", "tensors.safetensors"
# parts of notes.json, and of the metadata of the tensors
_NOTED, _SIZES, _DIGEST = "notes", "sizes", "sha256"
_BOOT = Path("/proc/sys/kernel/random/boot_id")

_log = logging.getLogger(__name__)


class Checkpoint:
    """A folder with the state of one piece of work, which its key identifies.

    State of another key is deleted. Arrays lie in memory-mapped files. A killed process leaves them
    whole, but a machine that loses power does not. Therefore, the key contains the boot of the
    machine.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any]) -> None:
        """Lock the folder; spoiled state is deleted, and one warning says so.

        Raises:
            InvalidInput: another process works there.
            DiskError: the disk refuses the folder.
        """
        self._folder = folder
        self._kept = True
        self._sizes: dict[str, int] = {}  # of the arrays, bytes
        self._lock = TargetLock(folder)
        try:
            with disk_errors(folder):
                folder.mkdir(exist_ok=True)
                self._drop_foreign_state(key)
        except BaseException:
            self._lock.release()
            raise

    def _drop_foreign_state(self, key: Mapping[str, Any]) -> None:
        """Delete everything that is not the whole state of this work."""
        wanted = _key_record(key)
        path = self._folder / _KEY
        try:
            if path.exists() and read_record(path, CheckpointKey, "key") == wanted:
                self._check_arrays()
                self.load()
                return
        except InvalidInput as error:
            self.report_spoiled(error)
        for old in self._folder.iterdir():
            discard(old)
        artifacts.write_json(path, asdict(wanted))

    def report_spoiled(self, reason: object) -> None:
        """Warn that what is left of the stopped run is not used, and why."""
        _log.warning(
            "%s: the state of the stopped run is spoiled (%s); it begins anew",
            self._folder,
            reason,
        )

    def _check_arrays(self) -> None:
        """Raise _SpoiledState where the notes or an array that they tell of are not whole."""
        for name, size in self._read_notes().sizes.items():
            path = self._folder / f"{name}.bin"
            if not path.is_file() or path.stat().st_size != size:
                raise _SpoiledState(f"{path.name} is cut off")

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
            discard(path)
            self._kept = False
            return torch.zeros(*shape, dtype=kind)
        self._sizes[name] = path.stat().st_size
        return torch.from_file(str(path), shared=True, size=count, dtype=kind).view(*shape)

    def read_note(self, name: str) -> Any:
        """Return the JSON value that was noted under a name.

        None without a note, or where an array is not kept to which it may refer.
        """
        if not self._kept:
            return None
        return self._read_notes().notes.get(name)

    def write_note(self, name: str, value: Any) -> None:
        """Note a JSON value, unless an array is not kept to which the note may refer."""
        if self._kept:
            before = self._read_notes()
            record = {
                _NOTED: {**before.notes, name: value},
                _SIZES: {**before.sizes, **self._sizes},
            }
            artifacts.write_json(
                self._folder / _NOTES, {**record, _DIGEST: artifacts.fingerprint(**record)}
            )

    def _read_notes(self) -> CheckpointNotes:
        """The notes, and the sizes of the arrays; raises _SpoiledState where they are not whole."""
        path = self._folder / _NOTES
        if not path.exists():
            return CheckpointNotes({}, {})
        record = artifacts.read_json(path)
        digest = record.pop(_DIGEST, None) if isinstance(record, dict) else None
        if digest is None or artifacts.fingerprint(**record) != digest:
            raise _SpoiledState(f"{path.name} is not whole")
        try:
            return convert(record, CheckpointNotes)
        except ValueError as error:
            raise _SpoiledState(f"{path.name}: {describe(error)}") from None

    def save(self, tensors: Mapping[str, Tensor], facts: Any) -> None:
        """Save tensors and a JSON value at once; they replace those that were saved before."""
        plain = {
            name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()
        }
        text = json.dumps(facts)
        metadata = {"facts": text, _DIGEST: _digest(plain, text)}
        with atomic_write(self._folder / _TENSORS) as temporary:
            safetensors.torch.save_file(plain, temporary, metadata)

    def load(self) -> tuple[dict[str, Tensor], Any] | None:
        """Return the tensors and the JSON value that were saved last; None at first.

        Raises InvalidInput where the file is spoiled, which is noticed when the folder is opened.
        """
        path = self._folder / _TENSORS
        if not path.exists():
            return None
        require_regular(path)
        try:
            with safetensors.safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
            tensors = safetensors.torch.load_file(path)
            text = metadata["facts"]
            if _digest(tensors, text) != metadata[_DIGEST]:
                raise _SpoiledState(f"{path.name} is not what was saved")
            return tensors, decode_json(text.encode(), path, "state")
        except (
            OSError,
            LookupError,
            ValueError,
            RuntimeError,
            safetensors.SafetensorError,
        ) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise _SpoiledState(f"{path.name} is cut off or broken: {reason}") from None

    def close(self, done: bool) -> None:
        """Unlock the folder, and delete it if the work is done."""
        if done:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._lock.release()


def drop_finished(folder: Path, key: Mapping[str, Any]) -> None:
    """Delete the state of work that is done, which a process left that was killed at its end.

    State of another key, and of a process that is at work, stays.
    """
    if folder.is_dir():
        try:
            if read_record(folder / _KEY, CheckpointKey, "key") != _key_record(key):
                return
        except InvalidInput:
            pass
    with suppress(InvalidInput), lock_target(folder):
        discard(folder)


def _key_record(key: Mapping[str, Any]) -> CheckpointKey:
    """A key and the boot of the machine as JSON types."""
    boot = _BOOT.read_text().strip() if _BOOT.exists() else ""
    return CheckpointKey(key=artifacts.fingerprint(**key), boot=boot)


class _SpoiledState(InvalidInput):
    """The state of a stopped run is not as it was written."""


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    """SHA-256 of tensors with their names, types and shapes, and of a text."""
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
