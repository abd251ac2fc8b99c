"""Sequences of CO3D version 2 (Reizenstein et al., ICCV 2021): images, masks and cameras.

PyTorch3D's cameras: a point (row) is X_cam = X_world R + T with x to the left, y up and z forward.
Focal length and principal point are in NDC, where +1 is half of the shorter image side
("ndc_isotropic") or half of each side ("ndc_norm_image_bounds"), from the image's middle, x to the
left and y up.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uns_pose_ros.capture.video_writer import VideoWriter, number_frames, select_sharpest
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import from_parts
from uns_pose_ros.core.types import Camera, Progress
from uns_pose_ros.io.given_files import stays_inside
from uns_pose_ros.io.images import decode, sharpness

_ANNOTATIONS = "frame_annotations.jgz"
_CHUNK = 2**20  # characters of one read
_LONGEST = 4 * 2**20  # characters of one annotation, at most
_MOST = 4 * 2**30  # characters of the annotations of one category, at most
_SEPARATORS = re.compile(r"[\s,]*")


def is_co3d(folder: Path) -> bool:
    """Whether a folder is a sequence: images/ in it, the category's annotations beside it."""
    return (folder / "images").is_dir() and (folder.parent / _ANNOTATIONS).is_file()


def import_co3d(folder: Path, writer: VideoWriter, progress: Progress) -> None:
    """Import the sharpest annotated frames of one sequence with masks and poses.

    Every frame has its own camera.
    """
    annotations = folder.parent / _ANNOTATIONS
    progress(f"reading {annotations.name}", 0, 1)
    mine = list(islice(_of_sequence(annotations, folder.name), writer.config.most))
    if not mine:
        raise InvalidInput(
            f"{annotations}: no frame of the sequence {folder.name} has a viewpoint"
        )
    mine.sort(key=_frame_number)
    root = folder.parent.parent  # paths in the annotations start with the category
    scores = []
    for done, annotation in enumerate(mine, 1):
        image_path = _path(root, annotation, "image", annotations)
        scores.append(sharpness(np.array(decode(image_path, "image", True).convert("L"))))
        progress(f"reading {folder.name}", done, len(mine))
    for index, name in number_frames(select_sharpest(scores, writer.config.frames)).items():
        annotation = mine[index]
        path = _path(root, annotation, "image", annotations)
        image = np.array(decode(path, "image").convert("RGB"))
        try:
            camera, pose = parse_viewpoint(
                annotation["viewpoint"], image.shape[1], image.shape[0]
            )
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InvalidInput(
                f"{annotations}: the viewpoint of {path.name} cannot be used ({error})"
            ) from None
        mask = None
        if annotation.get("mask"):
            mask = np.array(
                decode(_path(root, annotation, "mask", annotations), "mask").convert("L")
            )
        writer.add(name, image, camera, path.read_bytes(), pose, mask)
        progress(
            f"writing {folder.name}",
            len(writer.names),
            min(len(mine), writer.config.frames),
        )
    writer.finish(
        str(folder), "co3d", {"pictures_read": len(mine), "sequence": folder.name}
    )


def parse_viewpoint(
    annotation: Mapping[str, Any], width: int, height: int
) -> tuple[Camera, Tensor]:
    """Camera and cam_from_obj (4, 4) of a CO3D viewpoint annotation, in OpenCV's axes."""
    kind = annotation.get("intrinsics_format", "ndc_norm_image_bounds")
    if kind not in ("ndc_isotropic", "ndc_norm_image_bounds"):
        raise ValueError(f"intrinsics format {kind!r} is unknown")
    half = np.array([width, height]) / 2
    scale = np.full(2, half.min()) if kind == "ndc_isotropic" else half
    focal = np.array(annotation["focal_length"], float).reshape(2) * scale
    middle = half - np.array(annotation["principal_point"], float).reshape(2) * scale - 0.5
    matrix = [[focal[0], 0, middle[0]], [0, focal[1], middle[1]], [0, 0, 1]]
    flip = torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64)
    rotation = (
        torch.tensor(annotation["R"], dtype=torch.float64).reshape(3, 3).T * flip[:, None]
    )
    translation = torch.tensor(annotation["T"], dtype=torch.float64).reshape(3) * flip
    return Camera(torch.tensor(matrix, dtype=torch.float64), width, height), from_parts(
        rotation, translation
    )


def _of_sequence(annotations: Path, sequence: str) -> Iterator[dict[str, Any]]:
    """The annotations of one sequence that have a viewpoint."""
    for annotation in _annotations(annotations):
        if not isinstance(annotation, dict) or annotation.get("sequence_name") != sequence:
            continue
        if isinstance(annotation.get("viewpoint"), dict):
            yield annotation


def _frame_number(annotation: Mapping[str, Any]) -> int:
    number = annotation.get("frame_number")
    return number if isinstance(number, int) else 0


def _path(root: Path, annotation: Mapping[str, Any], what: str, where: Path) -> Path:
    entry = annotation.get(what)
    name = entry.get("path") if isinstance(entry, dict) else None
    if not isinstance(name, str) or not stays_inside(name):
        raise InvalidInput(f"{where}: a frame has no valid path under {what!r}")
    return root / name


def _annotations(path: Path) -> Iterator[Any]:
    """The items of a gzipped JSON list one by one.

    Neither a large file nor a decompression bomb fills the memory.
    """
    decode_next = json.JSONDecoder().raw_decode
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            text = file.read(_CHUNK).lstrip()
            at, total = 1, 0
            if text[:1] != "[":
                raise ValueError("a list of annotations is needed")
            while True:
                at = _SEPARATORS.match(text, at).end()  # type: ignore[union-attr]
                if text[at : at + 1] == "]":
                    return
                try:
                    item, at = decode_next(text, at)
                except ValueError:  # the item may continue in the next chunk
                    more, total = file.read(_CHUNK), total + _CHUNK
                    if not more or len(text) - at > _LONGEST or total > _MOST:
                        raise
                    text, at = text[at:] + more, 0
                    continue
                yield item
    except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidInput(
            f"{path}: not a gzipped JSON list of annotations ({reason})"
        ) from None
