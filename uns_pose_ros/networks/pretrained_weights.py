"""The cache of pretrained weights, which is read without the network.

It is $XDG_CACHE_HOME/uns_pose_ros (default ~/.cache/uns_pose_ros); `weight_fetching` fills it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.given_files import require_regular
from uns_pose_ros.networks.weight_catalog import (
    EXTRAS,
    NAMES,
    STANDARD,
    Weight,
    weight_named,
)


@dataclass(frozen=True)
class Status:
    """State of one set of weights in the cache."""

    weight: Weight
    path: Path
    cached: bool
    intact: bool  # the checksum is right; False if the weights are not cached


_CHECKED = set[tuple[Path, int, int, int]]()  # files whose content was checked


def cache_folder() -> Path:
    """Folder of the cached weights.

    Raises:
        InvalidInput: Neither XDG_CACHE_HOME nor a home folder is known.
    """
    given = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(given) if given else Path.home() / ".cache") / "uns_pose_ros"
    except RuntimeError:
        raise InvalidInput(
            "this user has no home folder: set XDG_CACHE_HOME to a folder for the weights"
        ) from None


def find(name: str) -> Path:
    """Path of the cached weights called `name`; does not use the network.

    Raises:
        InvalidInput: The weights are unknown, or have not been fetched yet.
    """
    path = cache_folder() / weight_named(name).filename
    if not path.is_file():
        command = "uns-pose weights" if name in NAMES else f"uns-pose weights {name}"
        raise InvalidInput(
            f"weights {name} are not in {path.parent}: `{command}` fetches them"
        )
    return path


def find_intact(name: str) -> Path:
    """Path of the cached weights called `name`, whose content was checked in this process.

    The content is checked again where the file has changed since.

    Raises:
        InvalidInput: The weights are not there, or their content is not the one known.
    """
    path, weight = find(name), weight_named(name)
    require_regular(path)
    status = path.stat()
    state = (path, status.st_size, status.st_mtime_ns, status.st_ino)
    if state not in _CHECKED:
        if not is_intact(path, weight):
            command = "uns-pose weights" if name in NAMES else f"uns-pose weights {name}"
            raise InvalidInput(
                f"{path}: damaged or another file than the weights {name}; `{command}` "
                "fetches them again"
            )
        _CHECKED.add(state)
    return path


def status() -> list[Status]:
    """State of the cache: one entry for each of `NAMES` and of the cached extras.

    The checksums are verified.
    """
    entries = []
    for weight in (*STANDARD, *EXTRAS):
        path = cache_folder() / weight.filename
        if weight in EXTRAS and not path.is_file():
            continue
        entries.append(Status(weight, path, path.is_file(), is_intact(path, weight)))
    return entries


def is_intact(path: Path, weight: Weight) -> bool:
    """Whether a file of the cache has the content that is known of these weights."""
    try:
        digest = (
            tensor_hash(safetensors.torch.load_file(path))
            if weight.converted
            else artifacts.file_hash(path)
        )
    except (OSError, InvalidInput, safetensors.SafetensorError):
        return False
    return digest == weight.content_sha256


def tensor_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and values of tensors.

    The bytes of a safetensors file do not serve: its header may vary with the library's version.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tuple(tensors[name].shape)}\n".encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()
