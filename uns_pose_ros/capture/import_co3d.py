"""Sequences of CO3D version 2 (Reizenstein et al., ICCV 2021): images, masks and cameras.

PyTorch3D's cameras: a point (row) is X_cam = X_world R + T with x to the left, y up and z forward.
Focal length and principal point are in NDC, where +1 is half of the shorter image side
("ndc_isotropic") or half of each side ("ndc_norm_image_bounds"), from the image's middle, x to the
left and y up.
"""

from __future__ import annotations

import gzip
import json
import logging
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uns_pose_ros.capture.video_writer import VideoWriter, number_frames, select_sharpest
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import from_parts
from uns_pose_ros.core.left_out import LeftOut
from uns_pose_ros.core.types import Camera, Progress
from uns_pose_ros.io.given_files import open_given, path_inside
from uns_pose_ros.io.images import decode, decode_mask, open_image, sharpness
from uns_pose_ros.io.schema.constraints import check_rotation

_ANNOTATIONS = "frame_annotations.jgz"
_CHUNK = 2**20  # characters of one read
_LONGEST = 4 * 2**20  # characters of one annotation, at most
_MOST = 4 * 2**30  # characters of the annotations of one category, at most
# characters that a byte of the file may unpack to; CO3D's annotations unpack to some 10
_RATIO = 40
_SPARED = 16 * 2**20  # characters that any file may unpack to
_FAR = 1e9  # obj units
_MOST_ITEMS = 1_000_000  # annotations of one category, at most
# characters of an annotation on average, at least, beyond the first few
_LEAST, _FEW = 100, 1000
_SEPARATORS = re.compile(r"[\s,]*")

_log = logging.getLogger(__name__)


def is_co3d(folder: Path) -> bool:
    """Whether a folder is a sequence: images/ in it, the category's annotations beside it."""
    return (folder / "images").is_dir() and (folder.parent / _ANNOTATIONS).is_file()


@dataclass(frozen=True)
class _AnnotatedFrame:
    """One frame of a sequence whose files and viewpoint can be used."""

    image: Path
    mask: Path | None
    camera: Camera
    cam_from_obj: Tensor  # (4, 4) float64
    sharpness: float


def import_co3d(folder: Path, writer: VideoWriter, progress: Progress) -> None:
    """Import the sharpest annotated frames of one sequence with masks and poses.

    Every frame has its own camera. Frames that cannot be used are left out and counted by reason.
    Where no frame has a mask that can be used, all are imported without.
    """
    annotations = folder.parent / _ANNOTATIONS
    progress(f"reading {annotations.name}", 0, 1)
    left_out = LeftOut()
    mine = list(
        islice(_of_sequence(annotations, folder.name, left_out), writer.config.most)
    )
    if not mine:
        raise InvalidInput(
            f"{annotations}: no frame of the sequence {folder.name} has a viewpoint"
        )
    mine.sort(key=_frame_number)
    category = folder.parent
    with_masks, without_masks = [], []
    of_masks = LeftOut()
    for done, annotation in enumerate(mine, 1):
        try:
            frame = _read_frame(category, annotation, left_out)
        except InvalidInput as error:
            left_out.add("frames whose image cannot be used", str(error))
            frame = None
        if frame is not None:
            without_masks.append(frame)
            mask = _usable_mask(category, annotation, frame.camera, of_masks)
            if mask is not None:
                with_masks.append(replace(frame, mask=mask))
        progress(f"reading {folder.name}", done, len(mine))
    usable = with_masks or without_masks
    if with_masks:
        left_out.extend(of_masks)
    elif of_masks:
        reasons = "; ".join(of_masks.lines())
        _log.warning("%s: no mask can be used, none is imported: %s", folder, reasons)
    chosen = select_sharpest([frame.sharpness for frame in usable], writer.config.frames)
    for index, name in number_frames(chosen).items():
        _write_frame(name, usable[index], writer, left_out)
        progress(f"writing {folder.name}", len(writer.names), len(chosen))
    for line in left_out.lines():
        _log.warning("%s: %s", folder, line)
    record = {
        "pictures_read": len(mine),
        "sequence": folder.name,
        "left_out": left_out.counts,
    }
    writer.finish(str(folder), "co3d", record)


def _read_frame(
    category: Path, annotation: Mapping[str, Any], left_out: LeftOut
) -> _AnnotatedFrame | None:
    """A frame without its mask; None, and counted: its viewpoint is no camera of its image.

    InvalidInput: the image cannot be used.
    """
    path = _path(category, annotation, "image")
    size = open_image(path, "image").size
    gray = np.array(decode(path, "image", draft=True).convert("L"))
    annotated = annotation["image"].get("size")
    if annotated is not None and not _has_shape(size, annotated):
        what = f"{path.name}: {size[1]} x {size[0]} px (h x w), annotated {annotated!r:.40}"
        left_out.add("frames of another shape than annotated", what)
        return None
    try:
        camera, pose = parse_viewpoint(annotation["viewpoint"], *size)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        left_out.add("frames whose viewpoint cannot be used", f"{path.name}: {reason}")
        return None
    return _AnnotatedFrame(path, None, camera, pose, sharpness(gray))


def _has_shape(size: tuple[int, int], annotated: object) -> bool:
    """Whether width and height have the proportions of an annotated height and width."""
    if not isinstance(annotated, list) or len(annotated) != 2:
        return False
    height, width = annotated
    if not all(isinstance(side, int | float) and side > 0 for side in annotated):
        return False
    return bool(abs(size[0] * height - size[1] * width) <= max(*size, width, height))


def _usable_mask(
    category: Path, annotation: Mapping[str, Any], camera: Camera, left_out: LeftOut
) -> Path | None:
    """The file of a frame's mask; None, and counted: it shows nothing or does not fit."""
    try:
        path = _path(category, annotation, "mask")
        mask = decode_mask(path)
    except InvalidInput as error:
        left_out.add("frames whose mask cannot be read", str(error))
        return None
    height, width = mask.shape
    if (width, height) != (camera.width, camera.height):
        what = f"{path.name}: {width} x {height} px"
        left_out.add("frames whose mask has another size", what)
        return None
    if not mask.any():
        left_out.add("frames whose mask is empty", path.name)
        return None
    return path


def _write_frame(
    name: str, frame: _AnnotatedFrame, writer: VideoWriter, left_out: LeftOut
) -> None:
    """Write one frame; an image that cannot be decoded as a whole is left out."""
    try:
        image = np.array(decode(frame.image, "image").convert("RGB"))
    except InvalidInput as error:
        left_out.add("frames whose image cannot be used", str(error))
        return
    mask = None
    if frame.mask is not None:
        mask = decode_mask(frame.mask)
    data = frame.image.read_bytes()
    writer.add(name, image, frame.camera, data, frame.cam_from_obj, mask)


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
    check_rotation(rotation.tolist())
    if not float(translation.abs().max()) < _FAR:
        raise ValueError(f"T is not below {_FAR:g}")
    return Camera(torch.tensor(matrix, dtype=torch.float64), width, height), from_parts(
        rotation, translation
    )


def _of_sequence(
    annotations: Path, sequence: str, left_out: LeftOut
) -> Iterator[dict[str, Any]]:
    """The annotations of one sequence that have a viewpoint."""
    for annotation in read_annotations(annotations):
        if annotation["sequence_name"] != sequence:
            continue
        if isinstance(annotation.get("viewpoint"), dict):
            yield annotation
        else:
            number = annotation.get("frame_number")
            left_out.add("frames without a viewpoint", f"frame {number}")


def _frame_number(annotation: Mapping[str, Any]) -> int:
    number = annotation.get("frame_number")
    return number if isinstance(number, int) else 0


def _path(category: Path, annotation: Mapping[str, Any], what: str) -> Path:
    entry = annotation.get(what)
    name = entry.get("path") if isinstance(entry, dict) else None
    if not isinstance(name, str):
        raise InvalidInput(f"frame {_frame_number(annotation)} has no path of its {what}")
    return path_inside(category.parent, name, category)


def read_annotations(path: Path) -> Iterator[dict[str, Any]]:
    """The items of a gzipped JSON list one by one.

    Neither a large file nor a decompression bomb fills the memory or takes long: what is unpacked
    is bounded by the size of the file, and an item has the name of a sequence.
    """
    decode_next = json.JSONDecoder().raw_decode
    try:
        with (
            open_given(path) as packed,
            gzip.open(packed, "rt", encoding="utf-8", newline="") as file,
        ):
            most = min(_MOST, _SPARED + _RATIO * os.fstat(packed.fileno()).st_size)
            text = file.read(_CHUNK).lstrip()
            at, total, count = 1, 0, 0
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
                    if total > most:
                        raise ValueError(
                            f"unpacks to more than {most} characters, which is not plausible"
                        ) from None
                    if not more or len(text) - at > _LONGEST:
                        raise
                    text, at = text[at:] + more, 0
                    continue
                count += 1
                if not isinstance(item, dict) or "sequence_name" not in item:
                    raise ValueError(f"item {count} is no annotation of a frame")
                if count > min(_MOST_ITEMS, _FEW + (total + at) // _LEAST):
                    raise ValueError(f"{count} annotations are too many for its size")
                yield item
    except InvalidInput:
        raise
    except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidInput(
            f"{path}: not a gzipped JSON list of annotations ({reason})"
        ) from None
