"""Sequences of CO3D version 2 (Reizenstein et al., ICCV 2021): images, masks and the cameras of their annotations.

PyTorch3D's cameras: a point (row) is X_cam = X_world R + T with x to the left, y up and z forward; focal length and principal
point are in NDC, where +1 is half of the shorter image side ("ndc_isotropic") or half of each side
("ndc_norm_image_bounds"), from the image's middle, x to the left and y up.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uns_pose_ros.datatypes import Camera, InvalidInput, Progress
from uns_pose_ros.draft import Draft, numbered, sharpest, sharpness
from uns_pose_ros.geometry import from_parts
from uns_pose_ros.video import decode

_ANNOTATIONS = "frame_annotations.jgz"
_MAX_BYTES = 4 * 2**30  # of the annotations of one category, unpacked


def is_co3d(folder: Path) -> bool:
    """Whether a folder is a sequence: images/ in it, its category's annotations beside it."""
    return (folder / "images").is_dir() and (folder.parent / _ANNOTATIONS).is_file()


def import_co3d(folder: Path, draft: Draft, progress: Progress) -> None:
    """The sharpest annotated frames of one sequence with masks and poses; every frame has a camera of its own."""
    annotations = folder.parent / _ANNOTATIONS
    progress(f"reading {annotations.name}", 0, 1)
    mine = [a for a in _read(annotations) if isinstance(a, dict) and a.get("sequence_name") == folder.name]
    mine = [a for a in mine if a.get("viewpoint") is not None]
    if not mine:
        raise InvalidInput(f"{annotations}: no frame of the sequence {folder.name} has a viewpoint")
    mine.sort(key=lambda annotation: annotation.get("frame_number", 0))
    mine = mine[: draft.config.most]
    root = folder.parent.parent  # paths in the annotations start with the category
    scores = []
    for done, annotation in enumerate(mine, 1):
        scores.append(sharpness(np.array(decode(_path(root, annotation, "image", annotations), "image", True).convert("L"))))
        progress(f"reading {folder.name}", done, len(mine))
    for index, name in numbered(sharpest(scores, draft.config.frames)).items():
        annotation = mine[index]
        path = _path(root, annotation, "image", annotations)
        image = np.array(decode(path, "image").convert("RGB"))
        try:
            camera, pose = viewpoint(annotation["viewpoint"], image.shape[1], image.shape[0])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InvalidInput(f"{annotations}: the viewpoint of {path.name} cannot be used ({error})") from None
        mask = None
        if annotation.get("mask"):
            mask = np.array(decode(_path(root, annotation, "mask", annotations), "mask").convert("L"))
        draft.add(name, image, camera, path.read_bytes(), pose, mask)
        progress(f"writing {folder.name}", len(draft.names), min(len(mine), draft.config.frames))
    draft.finish(str(folder), "co3d", {"pictures_read": len(mine), "sequence": folder.name})


def viewpoint(annotation: Mapping[str, Any], width: int, height: int) -> tuple[Camera, Tensor]:
    """Camera and cam_from_obj (4, 4) of a CO3D viewpoint annotation, in our conventions."""
    kind = annotation.get("intrinsics_format", "ndc_norm_image_bounds")
    if kind not in ("ndc_isotropic", "ndc_norm_image_bounds"):
        raise ValueError(f"intrinsics format {kind!r} is unknown")
    half = np.array([width, height]) / 2
    scale = np.full(2, half.min()) if kind == "ndc_isotropic" else half
    focal = np.array(annotation["focal_length"], float).reshape(2) * scale
    middle = half - np.array(annotation["principal_point"], float).reshape(2) * scale - 0.5
    matrix = [[focal[0], 0, middle[0]], [0, focal[1], middle[1]], [0, 0, 1]]
    flip = torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64)
    rotation = torch.tensor(annotation["R"], dtype=torch.float64).reshape(3, 3).T * flip[:, None]
    translation = torch.tensor(annotation["T"], dtype=torch.float64).reshape(3) * flip
    return Camera(torch.tensor(matrix, dtype=torch.float64), width, height), from_parts(rotation, translation)


def _path(root: Path, annotation: Mapping[str, Any], what: str, where: Path) -> Path:
    entry = annotation.get(what)
    name = entry.get("path") if isinstance(entry, dict) else None
    if not isinstance(name, str) or Path(name).is_absolute() or ".." in Path(name).parts:
        raise InvalidInput(f"{where}: a frame has no valid path under {what!r}")
    return root / name


def _read(path: Path) -> list[Any]:
    try:
        with gzip.open(path, "rb") as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise ValueError(f"more than {_MAX_BYTES} bytes")
        value = json.loads(data)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise InvalidInput(f"{path}: not a gzipped JSON list of annotations ({str(error).splitlines()[0]})") from None
    if not isinstance(value, list):
        raise InvalidInput(f"{path}: a list of annotations is needed")
    return value
