"""Frames of a folder of images."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from uns_pose_ros.capture.video_writer import VideoWriter, number_frames, select_sharpest
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.left_out import LeftOut
from uns_pose_ros.core.types import Progress
from uns_pose_ros.io.image_metadata import read_upright
from uns_pose_ros.io.images import (
    HEIF_REMEDY,
    Pixels,
    find_heif_reader,
    is_heif,
    is_image_file,
    natural_order,
    sharpness,
)

_FILM_ENDINGS = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".3gp", ".mts")
_RAW_ENDINGS = (".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".raw")
_OTHER_IMAGES = (
    ".gif",
    ".avif",
    ".jp2",
    ".jxl",
    ".svg",
    ".psd",
    ".exr",
    ".tga",
    ".pgm",
    ".ppm",
)
_VALID = "JPEG, PNG, BMP, WebP, TIFF and HEIC are valid"
_ONE_LENS = (
    1.05  # the largest of the focal lengths over the smallest, of images of one lens
)
_ZOOMED = "the focal length changes between the images; one camera is assumed for all"


def list_images(folder: Path) -> list[Path]:
    """Image files directly in a folder, in natural order of their names."""
    return sort_image_folder(folder)[0]


def sort_image_folder(folder: Path) -> tuple[list[Path], LeftOut]:
    """Image files directly in a folder, in natural order, and what else is there."""
    images, others = list[Path](), LeftOut()
    for path in sorted(folder.iterdir(), key=lambda path: natural_order(path.name)):
        if path.name[0] == ".":
            continue
        if path.is_dir():
            others.add("folders, which are not searched", path.name)
        elif not path.is_file():
            others.add("pipes, devices or broken links", path.name)
        elif is_image_file(path):
            images.append(path)
        else:
            others.add(_reason_of(path), path.name)
    return images, others


def _reason_of(path: Path) -> str:
    """Why a file of a folder of images is not imported."""
    ending = path.suffix.lower()
    if ending in _FILM_ENDINGS:
        return "films, each of which is a source by itself"
    if ending in _RAW_ENDINGS:
        return f"raw images of a camera; {_VALID}"
    if ending in _OTHER_IMAGES:
        return f"images of other formats; {_VALID}"
    return "files that are no images"


def import_image_folder(folder: Path, writer: VideoWriter, progress: Progress) -> None:
    """Import images in natural order of their names, turned upright, all of one size.

    The focal length is the median of those in the metadata that are to be trusted.
    """
    paths, others = sort_image_folder(folder)
    writer.left_out.extend(others)
    for path in paths[writer.config.most :]:
        writer.left_out.add(f"images after the first {writer.config.most}", path.name)
    paths = paths[: writer.config.most]
    scores: dict[Path, float] = {}
    sizes: dict[Path, tuple[int, int]] = {}
    focals: dict[Path, float] = {}
    has_heif_reader = find_heif_reader() is not None
    for done, path in enumerate(paths, 1):
        if not has_heif_reader and is_heif(path):
            writer.left_out.add(f"HEIC files; {HEIF_REMEDY}", path.name)
            continue
        try:
            image = read_upright(path)
        except InvalidInput as error:
            writer.left_out.add("images that cannot be read", str(error))
            continue
        height, width = image.pixels.shape[:2]
        sizes[path] = width, height
        scores[path] = sharpness(_gray(image.pixels))
        if image.metadata.focal is not None:
            focals[path] = image.metadata.focal
        for note in image.metadata.notes:
            writer.notes.add(note.kind, f"{path.name}: {note.detail}")
        progress(f"reading {folder.name}", done, len(paths))
    size = Counter(sizes.values()).most_common(1)[0][0] if sizes else (0, 0)
    most = f"most have {size[0]} x {size[1]}"
    for path in (path for path in sizes if sizes[path] != size):
        found = f"{sizes[path][0]} x {sizes[path][1]} px"
        writer.left_out.add("images of another size", f"{path.name}: {found}, {most}")
    good = [path for path in paths if sizes.get(path) == size]
    if not good:
        reasons = "; ".join(["", *writer.left_out.lines()])
        raise InvalidInput(f"{folder}: no usable image{reasons}")
    names = number_frames(
        select_sharpest([scores[path] for path in good], writer.config.frames)
    )
    known = [focals[path] for path in good if path in focals]
    camera, camera_from = writer.choose_camera(
        *size, exif=float(np.median(known)) if known else None
    )
    if camera_from == "exif" and max(known) > _ONE_LENS * min(known):
        writer.notes.add(_ZOOMED, f"{min(known):.4g} to {max(known):.4g} px")
    files = {}
    for index, name in names.items():
        path = good[index]
        image = read_upright(path)
        original = (
            path.read_bytes() if image.format == "JPEG" and not image.turned else None
        )
        writer.add(name, image.pixels, camera, original)
        files[name] = path.name
        progress(f"writing {folder.name}", len(files), len(names))
    writer.finish(str(folder), camera_from, {"pictures_read": len(paths), "files": files})


def _gray(pixels: Pixels) -> Pixels:
    """An RGB image as gray, by Pillow's weights."""
    return np.asarray(Image.fromarray(pixels).convert("L"))
