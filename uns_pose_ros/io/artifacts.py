"""Every artefact on disk.

Written atomically, carrying where it came from, checked when it is read.

An artefact's provenance is a JSON object (config, hashes of the inputs, version, seed). It is
stored in the artefact itself, with the hashes of its companion files, so that an artefact torn
apart or half copied is never taken for a whole one.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Alignment, CategoryModel, FeatureMesh, Symmetry
from uns_pose_ros.io.ply import read_ply, write_ply
from uns_pose_ros.io.writing.replacement import atomic_write, atomic_writes, replace_folder

MESH, FEATURES = "mesh.ply", "features.safetensors"
TEMPLATE, WEIGHTS, MODEL = "template.ply", "model.safetensors", "model.json"
_MESH_TENSORS = tuple(
    f.name for f in fields(FeatureMesh) if f.name not in ("vertices", "triangles")
)  # those in mesh.ply
_MAX_VERTICES = 20_000  # of a template; who uses it takes memory by the vertex
_MAX_JSON = 256 * 2**20  # bytes


def stays_inside(name: str) -> bool:
    """Whether a name that a file gives is a plain path below the folder it is meant for."""
    path = Path(name)
    return (
        bool(name)
        and name.isprintable()
        and len(name.encode()) < 1000
        and all(len(part.encode()) < 256 for part in path.parts)
        and not path.is_absolute()
        and ".." not in path.parts
    )


@contextmanager
def _reading(path: Path, what: str) -> Iterator[None]:
    """Turn whatever a broken file throws at us into one line that names it."""
    try:
        yield
    except InvalidInput:
        raise
    except FileNotFoundError:
        raise InvalidInput(f"{path}: {what} is not there") from None
    except (
        OSError,
        LookupError,
        TypeError,
        ValueError,
        ArithmeticError,
        AttributeError,
        RuntimeError,
        SafetensorError,
    ) as error:
        reason = (
            f"{error} is missing"
            if isinstance(error, KeyError)
            else str(error).splitlines()[0]
        )
        raise InvalidInput(f"{path}: not a valid {what} ({reason})") from None


def read_json(path: Path) -> Any:
    """The JSON value in a file; InvalidInput names the file and the line that is wrong."""
    with _reading(path, "JSON file"):
        size = path.stat().st_size
        if size > _MAX_JSON:
            raise ValueError(f"{size} bytes, at most {_MAX_JSON} are read")
        return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON value atomically; NaN and infinity are refused."""
    with atomic_write(path) as temporary:
        temporary.write_text(
            json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8"
        )


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def plain(value: Any) -> Any:
    """`value` as JSON types: dataclasses become objects, paths strings, tuples lists."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def fingerprint(**parts: Any) -> str:
    """SHA-256 of the parts as canonical JSON.

    Equal parts in any order give an equal fingerprint.
    """
    return hashlib.sha256(
        json.dumps(plain(parts), sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()


def provenance_of(path: Path) -> dict[str, Any] | None:
    """The provenance of an artefact (features.safetensors, alignment.json, model.json).

    None where it is absent or torn.
    """
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                record = {k: json.loads(v) for k, v in (file.metadata() or {}).items()}
        else:
            record = read_json(path)
        for name, digest in record.get("companions", {}).items():
            if file_hash(path.parent / name) != digest:
                return None
        return dict(record["provenance"])
    except (OSError, KeyError, TypeError, ValueError, AttributeError, SafetensorError):
        return None


def save_feature_mesh(
    mesh: FeatureMesh, folder: Path, provenance: Mapping[str, Any]
) -> None:
    """Write mesh.ply and features.safetensors into a video's folder."""
    tensors = {name: getattr(mesh, name) for name in _MESH_TENSORS}
    tensors = {
        name: tensor.contiguous().cpu()
        for name, tensor in tensors.items()
        if tensor is not None
    }
    with atomic_writes([folder / MESH, folder / FEATURES]) as (shape, features):
        write_ply(shape, mesh.vertices, mesh.triangles)
        companions = {MESH: file_hash(shape)}
        save_file(
            tensors, features, _as_metadata(provenance=provenance, companions=companions)
        )


def load_feature_mesh(folder: Path) -> FeatureMesh:
    """The feature mesh that `save_feature_mesh` wrote into a video's folder."""
    path = folder / FEATURES
    if not path.exists():
        raise InvalidInput(
            f"{path}: not there; `uns-pose reconstruct {folder.parent}` makes it"
        )
    vertices, triangles = read_ply(folder / MESH)
    with _reading(path, "feature file"):
        if provenance_of(path) is None:
            raise ValueError(f"it was not made for the {MESH} beside it")
        return FeatureMesh(vertices, triangles, **load_file(path))


def save_alignment(alignment: Alignment, path: Path, provenance: Mapping[str, Any]) -> None:
    """Write alignment.json."""
    videos = {
        name: {
            "canon_from_obj": alignment.canon_from_obj[i].tolist(),
            "confidence": float(alignment.confidence[i]),
            "kept": bool(alignment.kept[i]),
            "residual_deg": float(alignment.residual[i]),
        }
        for i, name in enumerate(alignment.videos)
    }
    write_json(
        path,
        {
            "videos": videos,
            "symmetry": _symmetry_out(alignment.symmetry),
            "provenance": plain(provenance),
        },
    )


def load_alignment(path: Path) -> Alignment:
    """The alignment that `save_alignment` wrote."""
    if not path.exists():
        raise InvalidInput(f"{path}: not there; `uns-pose align {path.parent}` makes it")
    record = read_json(path)
    with _reading(path, "alignment"):
        rows = list(record["videos"].values())
        return Alignment(
            videos=tuple(record["videos"]),
            canon_from_obj=_doubles([row["canon_from_obj"] for row in rows], 4, 4),
            confidence=_doubles([row["confidence"] for row in rows]),
            kept=torch.tensor([bool(row["kept"]) for row in rows], dtype=torch.bool),
            residual=_doubles([row["residual_deg"] for row in rows]),
            symmetry=_symmetry_in(record["symmetry"]),
        )


def save_model(model: CategoryModel, folder: Path) -> None:
    """Write template.ply, model.safetensors and model.json with their hashes.

    The folder is replaced as a whole; other files in it stay.
    """
    tensors = {"bank": model.vertex_features, "clutter": model.background_features} | {
        f"head.{k}": v for k, v in model.head.items()
    }
    with replace_folder(folder) as new:
        write_ply(new / TEMPLATE, model.vertices, model.triangles)
        save_file(
            {name: tensor.contiguous().cpu() for name, tensor in tensors.items()},
            new / WEIGHTS,
        )
        (new / WEIGHTS).chmod(0o644)  # safetensors lets nobody else read its files
        record = {
            "category": model.category,
            "symmetry": _symmetry_out(model.symmetry),
            "diameter_m": model.diameter,
            "companions": {name: file_hash(new / name) for name in (TEMPLATE, WEIGHTS)},
            "provenance": plain(model.provenance),
        }
        write_json(new / MODEL, record)
        _copy_others(folder, new)


def _copy_others(folder: Path, new: Path) -> None:
    """Copy what only the older of two folders has."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if (new / path.name).exists():
            continue
        if path.is_dir():
            shutil.copytree(path, new / path.name, symlinks=True)
        else:
            shutil.copy2(path, new / path.name, follow_symlinks=False)


def load_model(folder: Path) -> CategoryModel:
    """The model in a folder that `save_model` wrote.

    A category folder that holds `model/` is understood too.
    """
    if not (folder / MODEL).exists() and (folder / "model" / MODEL).exists():
        folder = folder / "model"
    path = folder / MODEL
    if not path.exists():
        raise InvalidInput(
            f"{folder}: no model there ({MODEL}, {WEIGHTS}, {TEMPLATE}); `uns-pose train "
            "CATEGORY` makes one"
        )
    record = read_json(path)
    vertices, triangles = read_ply(folder / TEMPLATE)
    with _reading(path, "model"):
        if provenance_of(path) is None:
            raise ValueError(
                f"{TEMPLATE} or {WEIGHTS} is not the file that it was saved with"
            )
        if not 0 < len(vertices) <= _MAX_VERTICES:
            raise ValueError(
                f"a template of {len(vertices)} vertices, 1 to {_MAX_VERTICES} are valid"
            )
        tensors = load_file(folder / WEIGHTS)
        return CategoryModel(
            category=str(record["category"]),
            vertices=vertices,
            triangles=triangles,
            vertex_features=tensors["bank"],
            background_features=tensors["clutter"],
            head={
                name.removeprefix("head."): tensor
                for name, tensor in tensors.items()
                if name.startswith("head.")
            },
            symmetry=_symmetry_in(record["symmetry"]),
            diameter=None if record["diameter_m"] is None else float(record["diameter_m"]),
            provenance=record["provenance"],
        )


def _as_metadata(**parts: Any) -> dict[str, str]:
    return {name: json.dumps(plain(part)) for name, part in parts.items()}


def _doubles(values: Any, *shape: int) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).reshape(-1, *shape)


def _symmetry_out(symmetry: Symmetry) -> dict[str, Any]:
    return {"order": symmetry.order, "axis": symmetry.axis.tolist()}


def _symmetry_in(record: Mapping[str, Any]) -> Symmetry:
    return Symmetry(int(record["order"]), torch.tensor(record["axis"], dtype=torch.float64))
