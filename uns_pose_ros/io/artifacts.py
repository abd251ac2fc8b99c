"""Every artefact on disk.

Written atomically, carrying where it came from, checked when it is read.

An artefact's provenance is a JSON object (config, hashes of the inputs, version, seed). It is
stored in the artefact itself, with the hashes of its companion files, so that an artefact torn
apart or half copied is never taken for a whole one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Alignment, CategoryModel, FeatureMesh, Symmetry
from uns_pose_ros.io.given_files import open_given, path_inside, read_given
from uns_pose_ros.io.ply import parse_ply, write_ply
from uns_pose_ros.io.schema import model_tensors
from uns_pose_ros.io.schema.alignment_record import (
    PUBLISHED,
    AlignedVideo,
    AlignmentOrigin,
    AlignmentRecord,
    SymmetryRecord,
)
from uns_pose_ros.io.schema.artifact_values import check_mesh, check_model
from uns_pose_ros.io.schema.decoding import (
    decode_json,
    decode_record,
    read_file,
    read_record,
)
from uns_pose_ros.io.schema.frames_record import FRAMES, read_frames, write_frames
from uns_pose_ros.io.schema.made_record import OriginRecord
from uns_pose_ros.io.schema.model_record import (
    MeshOrigin,
    ModelOrigin,
    ModelRecord,
    check_companions,
)
from uns_pose_ros.io.writing.replacement import atomic_write, atomic_writes, replace_folder

MESH, FEATURES = "mesh.ply", "features.safetensors"
ALIGNMENT = "alignment.json"
TEMPLATE, WEIGHTS, MODEL = "template.ply", "model.safetensors", "model.json"
_MESH_TENSORS = tuple(
    f.name for f in fields(FeatureMesh) if f.name not in ("vertices", "triangles")
)  # those in mesh.ply
_MAX_VERTICES = 20_000  # of a template; who uses it takes memory by the vertex
_MAX_TENSORS = 4 * 2**30  # bytes of a file
_MAX_HEADER = 64 * 2**20  # bytes of a safetensors file's header
_MAX_NUMBER = 10_000  # of tensors in a file
# for how often, and with which pause in s, an artefact is read whose files do not belong together
_TRIES, _PAUSE = 10, 0.05
_MODEL_FILES = (TEMPLATE, WEIGHTS)

Artifact = TypeVar("Artifact")


@contextmanager
def _reading(path: Path, what: str) -> Iterator[None]:
    """Turn whatever a broken file throws at us into one line that names it."""
    try:
        yield
    except InvalidInput:
        raise
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
    return decode_json(read_file(path, "JSON file"), path, "JSON file")


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
    """The provenance of an artefact: features.safetensors, alignment.json, model.json, made.json.

    None where it is absent or torn.
    """
    try:
        if path.suffix == ".safetensors":
            companions, provenance = _mesh_metadata(_read_header(path), path)
        elif path.name == MODEL:
            record = decode_record(read_file(path, "model"), ModelRecord, path, "model")
            companions = record.companions
            check_companions(companions, _MODEL_FILES)
            provenance = _provenance(bytes(record.provenance), ModelOrigin, path)
        else:
            entry = decode_record(read_file(path, "record"), OriginRecord, path, "record")
            companions = {}
            kind: type[Any] = AlignmentOrigin if path.name == ALIGNMENT else dict
            provenance = _provenance(bytes(entry.provenance), kind, path)
        for name, digest in companions.items():
            if _hash(read_given(path_inside(path.parent, name), _MAX_TENSORS)) != digest:
                return None
    except (OSError, ValueError):
        return None
    return provenance


def _provenance(data: bytes, kind: type[Any], path: Path) -> dict[str, Any]:
    """A provenance whose entries that are read are as a record of a kind says."""
    decode_record(data, kind, path, "provenance")
    provenance: dict[str, Any] = decode_json(data, path, "provenance")
    return provenance


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
    return _read_untorn(lambda: _read_mesh(folder))


def _read_mesh(folder: Path) -> FeatureMesh:
    path = folder / FEATURES
    data = read_file(path, "feature file", _MAX_TENSORS)
    with _reading(path, "feature file"):
        companions, _ = _mesh_metadata(_header(data, len(data)), path)
        shape = _read_companion(folder, MESH, companions, path)
        vertices, triangles = parse_ply(shape, folder / MESH)
        mesh = FeatureMesh(vertices, triangles, **load(data))
        check_mesh(mesh)
    return mesh


def _mesh_metadata(
    header: Mapping[str, str], path: Path
) -> tuple[dict[str, str], dict[str, Any]]:
    """Companions and provenance of a feature file's metadata."""
    companions = decode_record(
        header.get("companions", "{}").encode(), dict[str, str], path, "feature file"
    )
    check_companions(companions, (MESH,))
    data = header.get("provenance", "").encode()
    return companions, _provenance(data, MeshOrigin, path)


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
    record = read_record(path, AlignmentRecord, "alignment")
    origin = decode_record(bytes(record.provenance), AlignmentOrigin, path, "provenance")
    rows = [
        decode_record(bytes(row), AlignedVideo, path, f"alignment of {name}")
        for name, row in record.videos.items()
    ]
    with _reading(path, "alignment"):
        return Alignment(
            videos=tuple(record.videos),
            canon_from_obj=_doubles([row.canon_from_obj for row in rows], 4, 4),
            confidence=_doubles([row.confidence for row in rows]),
            kept=torch.tensor([row.kept for row in rows], dtype=torch.bool),
            residual=_doubles([row.residual_deg for row in rows]),
            symmetry=_symmetry_in(record.symmetry),
            reference=origin.reference if origin.method == PUBLISHED else None,
        )


def save_model(model: CategoryModel, folder: Path) -> None:
    """Write template.ply, model.safetensors and model.json with their hashes, and frames.yaml.

    The folder is replaced as a whole; other files in it stay. Without named frames there is no
    frames.yaml.
    """
    with replace_folder(folder) as new:
        write_ply(new / TEMPLATE, model.vertices, model.triangles)
        save_file(
            {
                name: tensor.contiguous().cpu()
                for name, tensor in model_tensors.join(model).items()
            },
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
        if model.frames:
            write_frames(model.frames, new / FRAMES)
        _copy_others(folder, new)


def _copy_others(folder: Path, new: Path) -> None:
    """Copy what only the older of two folders has, without its named frames."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name == FRAMES or (new / path.name).exists():
            continue
        if path.is_dir():
            shutil.copytree(path, new / path.name, symlinks=True)
        else:
            shutil.copy2(path, new / path.name, follow_symlinks=False)


def load_model(folder: Path) -> CategoryModel:
    """The model in a folder that `save_model` wrote, with its named frames.

    A category folder that holds `model/` is understood too.
    """
    folder = model_folder(folder)
    path = folder / MODEL
    if not path.exists():
        raise InvalidInput(
            f"{folder}: no model there ({MODEL}, {WEIGHTS}, {TEMPLATE}); `uns-pose train "
            "CATEGORY` makes one"
        )
    return _read_untorn(lambda: _read_model(folder))


def model_folder(folder: Path) -> Path:
    """The folder of a model: the given one, or `model/` in a category folder."""
    if not (folder / MODEL).exists() and (folder / "model" / MODEL).exists():
        return folder / "model"
    return folder


def _read_model(folder: Path) -> CategoryModel:
    path = folder / MODEL
    content = read_file(path, "model")
    record = decode_record(content, ModelRecord, path, "model")
    provenance = _provenance(bytes(record.provenance), ModelOrigin, path)
    with _reading(path, "model"):
        check_companions(record.companions, _MODEL_FILES)
        template = _read_companion(folder, TEMPLATE, record.companions, path)
        weights = _read_companion(folder, WEIGHTS, record.companions, path)
        vertices, triangles = parse_ply(template, folder / TEMPLATE)
        if not 0 < len(vertices) <= _MAX_VERTICES:
            raise ValueError(
                f"a template of {len(vertices)} vertices, 1 to {_MAX_VERTICES} are valid"
            )
        _header(weights, len(weights))  # how many tensors, before they are made
        tensors = load(weights)
        model = CategoryModel(
            category=record.category,
            vertices=vertices,
            triangles=triangles,
            vertex_features=tensors[model_tensors.VERTICES],
            background_features=tensors[model_tensors.BACKGROUND],
            head=model_tensors.head_weights(tensors),
            symmetry=_symmetry_in(record.symmetry),
            diameter=record.diameter_m,
            provenance=provenance,
            frames=read_frames(folder),
            taught=model_tensors.taught_objects(tensors),
        )
        check_model(model)
    if read_file(path, "model") != content:  # then the frames may belong to another model
        raise _Torn(f"{path}: it changes again and again while it is read")
    return model


class _Torn(InvalidInput):
    """Files of an artefact that do not belong together, maybe because one is saved right now."""


def _read_untorn(read: Callable[[], Artifact]) -> Artifact:
    """Read an artefact again for a moment while its files do not belong together.

    A writer replaces them one by one, so what is read is the whole old or the whole new one.
    """
    for _ in range(_TRIES):
        try:
            return read()
        except _Torn as error:
            torn = str(error)
        time.sleep(_PAUSE)
    raise InvalidInput(torn)


def _read_companion(
    folder: Path, name: str, companions: Mapping[str, str], path: Path
) -> bytes:
    """The bytes of a file that belongs to the artefact at `path`, of the recorded hash."""
    try:
        data = read_given(path_inside(folder, name), _MAX_TENSORS)
    except FileNotFoundError:
        raise _Torn(f"{path}: {name} beside it is not there") from None
    if _hash(data) != companions[name]:
        raise _Torn(f"{path}: {name} beside it is not the file that it was saved with")
    return data


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class _Place(msgspec.Struct, frozen=True):
    """Where a tensor lies behind the header."""

    data_offsets: tuple[int, int]


def _read_header(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file, of which no tensor is read."""
    with open_given(path) as file:
        start = file.read(8)
        start += file.read(min(_header_length(start), _MAX_HEADER))
        return _header(start, os.fstat(file.fileno()).st_size)


def _header(data: bytes, size: int) -> dict[str, str]:
    """The metadata of a safetensors file of `size` bytes that starts with `data`.

    ValueError where it is cut off, or names too many tensors.
    """
    length = _header_length(data)
    if not 0 < length <= min(_MAX_HEADER, len(data) - 8):
        raise ValueError("its header is cut off or too long")
    try:
        entries = msgspec.json.decode(data[8 : 8 + length], type=dict[str, msgspec.Raw])
        if len(entries) > _MAX_NUMBER:
            raise ValueError(f"{len(entries)} tensors, at most {_MAX_NUMBER} are read")
        metadata = entries.pop("__metadata__", msgspec.Raw(b"{}"))
        places = [msgspec.json.decode(raw, type=_Place) for raw in entries.values()]
        end = max((place.data_offsets[1] for place in places), default=0)
        if size != 8 + length + end:
            raise ValueError(f"{size} bytes where its tensors take {8 + length + end}")
        return msgspec.json.decode(metadata, type=dict[str, str])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(f"its header is broken: {error}") from None


def _header_length(data: bytes) -> int:
    return int.from_bytes(data[:8], "little")


def _as_metadata(**parts: Any) -> dict[str, str]:
    return {name: json.dumps(plain(part)) for name, part in parts.items()}


def _doubles(values: Any, *shape: int) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).reshape(-1, *shape)


def _symmetry_out(symmetry: Symmetry) -> dict[str, Any]:
    return {"order": symmetry.order, "axis": symmetry.axis.tolist()}


def _symmetry_in(record: SymmetryRecord) -> Symmetry:
    return Symmetry(record.order, torch.tensor(record.axis, dtype=torch.float64))
