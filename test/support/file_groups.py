"""What lies below a folder, by artifact: an artifact is the old one or the new one, as a whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

Contents = dict[str, bytes]
_PAIR = ("mesh.ply", "features.safetensors")  # written together
_FOLDERS = ("images", "masks", "sparse", "depth", "model")  # that appear as a whole


def contents(folder: Path) -> Contents:
    """The bytes of every file below a folder that is not hidden, by path."""
    return {
        path.relative_to(folder).as_posix(): _bytes_of(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not is_hidden(path.relative_to(folder))
    }


def _bytes_of(path: Path) -> bytes:
    """The bytes of a file; safetensors writes its header in any order, report.json has seconds."""
    data = path.read_bytes()
    if path.name == "report.json":
        record = json.loads(data)
        record["seconds"] = list(record.get("seconds", ()))
        return json.dumps(record).encode()
    if path.suffix != ".safetensors":
        return data
    end = 8 + int.from_bytes(data[:8], "little")
    return json.dumps(json.loads(data[8:end]), sort_keys=True).encode() + data[end:]


def hidden_files(folder: Path) -> list[str]:
    """Hidden files and folders below a folder."""
    paths = (path.relative_to(folder) for path in folder.rglob(".*"))
    return sorted(path.as_posix() for path in paths)


def is_hidden(path: Path) -> bool:
    """Whether a part of a path begins with a dot."""
    return any(part.startswith(".") for part in path.parts)


def torn_artifacts(
    now: Contents, old: Contents, new: Contents, whole: tuple[str, ...] = ()
) -> list[str]:
    """Artifacts that are neither the old one nor the new one.

    Args:
        now: contents of a folder.
        old: contents before a command.
        new: contents after the undisturbed command.
        whole: names of more folders that appear as a whole.
    """
    names = {_artifact(Path(path), whole) for path in (*now, *old, *new)}
    return sorted(
        name
        for name in names
        if _part(now, name, whole) not in (_part(old, name, whole), _part(new, name, whole))
    )


def _artifact(path: Path, whole: tuple[str, ...]) -> str:
    for depth, part in enumerate(path.parts[:-1]):
        if part in (*_FOLDERS, *whole):
            return "/".join(path.parts[: depth + 1])
    return str(path.parent / "mesh") if path.name in _PAIR else path.as_posix()


def _part(files: Mapping[str, bytes], name: str, whole: tuple[str, ...]) -> Contents:
    return {
        path: data for path, data in files.items() if _artifact(Path(path), whole) == name
    }
