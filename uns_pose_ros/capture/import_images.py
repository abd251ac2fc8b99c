"""Frames of a folder of images."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from uns_pose_ros.capture.video_writer import VideoWriter, number_frames, select_sharpest
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Progress
from uns_pose_ros.io.images import ENDINGS, decode, sharpness

# EXIF tags
_EXIF = 0x8769
_ORIENTATION = 0x0112
_FOCAL = 0x920A
_FOCAL_35 = 0xA405
_PER_UNIT = 0xA20E
_UNIT = 0xA210

_DIAGONAL_35 = 43.267  # mm, of a 35 mm film image
_MM = {2: 25.4, 3: 10.0, 4: 1.0}  # EXIF's units of resolution in mm

_log = logging.getLogger(__name__)


def list_images(folder: Path) -> list[Path]:
    """Image files directly in a folder, by name."""
    return sorted(
        p
        for p in folder.iterdir()
        if p.suffix.lower() in ENDINGS and p.is_file() and p.name[0] != "."
    )


def import_image_folder(folder: Path, writer: VideoWriter, progress: Progress) -> None:
    """Import images in the order of their names, turned upright by EXIF, all of one size.

    The focal length is the median of EXIF's focal lengths.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # broken EXIF counts as no EXIF
        _import_upright(folder, writer, progress)


def _import_upright(folder: Path, writer: VideoWriter, progress: Progress) -> None:
    paths = list_images(folder)[: writer.config.most]
    scores: dict[Path, float] = {}
    sizes: dict[Path, tuple[int, int]] = {}
    focals: list[float] = []
    reasons: list[str] = []
    for done, path in enumerate(paths, 1):
        try:
            image = decode(path, "image")
        except InvalidInput as error:
            reasons.append(str(error))
            continue
        upright = ImageOps.exif_transpose(image)
        sizes[path] = upright.size
        scores[path] = sharpness(np.array(upright.convert("L")))
        if (focal := exif_focal(image)) is not None:
            focals.append(focal)
        progress(f"reading {folder.name}", done, len(paths))
    size = Counter(sizes.values()).most_common(1)[0][0] if sizes else (0, 0)
    odd = [path for path in sizes if sizes[path] != size]
    reasons += [
        f"{path}: {sizes[path][0]} x {sizes[path][1]} px, most have {size[0]} x {size[1]}"
        for path in odd
    ]
    good = [path for path in paths if sizes.get(path) == size]
    for reason in reasons:
        _log.warning("image left out: %s", reason)
    if not good:
        raise InvalidInput(
            f"{folder}: no usable image" + (f"; {reasons[0]}" if reasons else "")
        )
    names = number_frames(
        select_sharpest([scores[path] for path in good], writer.config.frames)
    )
    camera, camera_from = writer.choose_camera(
        *size, exif=float(np.median(focals)) if focals else None
    )
    files = {}
    for index, name in names.items():
        path = good[index]
        image = decode(path, "image")
        turned = image.getexif().get(_ORIENTATION, 1) != 1
        original = path.read_bytes() if image.format == "JPEG" and not turned else None
        writer.add(
            name, np.array(ImageOps.exif_transpose(image).convert("RGB")), camera, original
        )
        files[name] = path.name
        progress(f"writing {folder.name}", len(files), len(names))
    writer.finish(str(folder), camera_from, {"pictures_read": len(paths), "files": files})


def exif_focal(image: Image.Image) -> float | None:
    """Focal length in px from EXIF, or None.

    It comes from the resolution in the focal plane, else from the 35 mm equivalent.
    """
    tags = image.getexif().get_ifd(_EXIF)
    try:
        if _FOCAL in tags and _PER_UNIT in tags:
            focal = (
                float(tags[_FOCAL]) * float(tags[_PER_UNIT]) / _MM[int(tags.get(_UNIT, 2))]
            )
        else:
            focal = float(tags[_FOCAL_35]) * float(np.hypot(*image.size)) / _DIAGONAL_35
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    # between a view of 140 and of 2 degrees; anything else is a wrong entry
    return focal if 0.18 < focal / max(image.size) < 29 else None
