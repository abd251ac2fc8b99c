"""What an artifact was made from, and whether it is current.

An artifact carries its provenance: the stage, the version, the settings and the hashes of all
files that the stage read. An artifact is current if a stage would write the same provenance now.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import uns_pose_ros
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Alignment
from uns_pose_ros.io import artifacts

MADE = "made.json"  # marks a folder of a video that this program made
# of a video: what people or other programs put there
_SOURCES = ("images", "masks", "sparse", "video.json")


class FileCache:
    """Hashes and alignments of files, each computed once for one run.

    A file counts as unchanged while its path, size and modification time stay the same.
    """

    def __init__(self) -> None:
        self._values: dict[tuple[str, Path, int, int], Any] = {}

    def hash(self, path: Path) -> str:
        """SHA-256 of a file's bytes, hexadecimal."""
        digest: str = self._read("hash", path, artifacts.file_hash)
        return digest

    def alignment(self, path: Path) -> Alignment:
        """The alignment in a file. It is shared: do not change it."""
        alignment: Alignment = self._read("alignment", path, artifacts.load_alignment)
        return alignment

    def alignment_provenance(self, path: Path) -> dict[str, Any] | None:
        """The provenance of an alignment, or None if the file is missing or broken."""
        record: dict[str, Any] | None = self._read(
            "provenance", path, artifacts.provenance_of
        )
        return record

    def _read(self, kind: str, path: Path, read: Callable[[Path], Any]) -> Any:
        if not path.exists():
            return read(path)  # the reader reports the missing file
        status = path.stat()
        key = (kind, path, status.st_size, status.st_mtime_ns)
        if key not in self._values:
            self._values[key] = read(path)
        return self._values[key]


def stage_provenance(
    stage: str, config: Any, inputs: Mapping[str, Any], **details: Any
) -> dict[str, Any]:
    """The provenance of an artifact that a stage makes.

    Args:
        stage: name of the stage.
        config: settings of the stage, a dataclass.
        inputs: hashes of the files that the stage reads, by name.
        details: further entries, such as the seed.

    Returns:
        The provenance as JSON types, except the inputs and details, which stay as they are.
    """
    return {
        "stage": stage,
        "version": uns_pose_ros.__version__,
        "config": artifacts.plain(config),
        "inputs": dict(inputs),
        **details,
    }


def is_current(path: Path, wanted: Mapping[str, Any]) -> bool:
    """Whether a whole artifact exists whose provenance contains all entries of `wanted`."""
    return contains_provenance(artifacts.provenance_of(path), wanted)


def contains_provenance(
    provenance: Mapping[str, Any] | None, wanted: Mapping[str, Any]
) -> bool:
    """Whether a provenance contains all entries of `wanted`; None contains nothing."""
    if provenance is None:
        return False
    return all(
        name in provenance and provenance[name] == value for name, value in wanted.items()
    )


def is_current_folder(folder: Path, wanted: Mapping[str, Any]) -> bool:
    """Whether this program made a folder with exactly the provenance `wanted`."""
    path = folder / MADE
    return path.exists() and artifacts.provenance_of(path) == artifacts.plain(wanted)


def folder_hashes(folder: Path, part: str, files: FileCache) -> dict[str, str]:
    """SHA-256 of all files in one part of a video, such as images/, by path in the video.

    made.json does not count, because it contains times.
    """
    paths = [path for path in (folder / part).rglob("*") if path.is_file()]
    return {
        path.relative_to(folder).as_posix(): files.hash(path)
        for path in sorted(paths)
        if path.name != MADE
    }


def video_inputs(folder: Path, files: FileCache) -> dict[str, str]:
    """SHA-256 of every file that a video consists of, by its path in the folder."""
    paths: list[Path] = []
    for source in (folder / name for name in _SOURCES):
        if source.is_file():
            paths.append(source)
        else:
            paths += [path for path in source.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): files.hash(path) for path in sorted(paths)}


def mesh_hash(folder: Path, files: FileCache) -> str:
    """SHA-256 of the features of a video.

    Raises InvalidInput if they are missing or do not belong to the files of the video.
    """
    path = folder / artifacts.FEATURES
    again = f"`uns-pose reconstruct {folder.parent}` makes it"
    if not path.exists():
        raise InvalidInput(f"{path}: not there; {again}")
    found = artifacts.provenance_of(path)
    if found is None:
        raise InvalidInput(
            f"{path}: broken, or not made for the {artifacts.MESH} beside it; {again} again"
        )
    if found.get("inputs") != video_inputs(folder, files):
        raise InvalidInput(
            f"{folder}: images, masks or poses have changed since {path.name} was made; "
            f"{again} again"
        )
    return files.hash(path)
