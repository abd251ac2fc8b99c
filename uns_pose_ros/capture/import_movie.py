"""Frames of an mp4 or mov file, upright."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np

from uns_pose_ros.capture.film_tracks import (
    FilmTrack,
    choose_track,
    copy_with_one_track,
    read_film_tracks,
)
from uns_pose_ros.capture.video_writer import VideoWriter, number_frames, select_sharpest
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Camera, Progress
from uns_pose_ros.io.images import sharpness
from uns_pose_ros.io.writing.replacement import disk_errors

ENDINGS = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm")
_MAX_SIDE = 8192  # px
_MAX_ASPECT = 4.0  # of pixels; more is a wrong entry
_VALID = "an mp4 or mov file as phones and cameras write it is valid"

_log = logging.getLogger(__name__)


def import_movie(path: Path, writer: VideoWriter, progress: Progress) -> None:
    """Import a film in two passes.

    The first pass measures the sharpness of every image, the second writes the sharpest image of
    each window.
    """
    tracks = read_film_tracks(path)
    if len(tracks) < 2:
        _import_track(path, path, tracks[0] if tracks else None, writer, progress)
        return
    chosen = choose_track(tracks)
    sizes = [f"{track.width} x {track.height} px" for track in tracks]
    for number, size in enumerate(sizes):
        if number != chosen:
            what = f"track {number + 1}: {size}, the largest has {sizes[chosen]}"
            writer.left_out.add("further video tracks", what)
    if chosen == 0:
        _import_track(path, path, tracks[0], writer, progress)
        return
    copy = writer.folder / f".film{path.suffix}"
    try:
        with disk_errors(copy):
            copy_with_one_track(path, tracks, chosen, copy)
        _import_track(path, copy, tracks[chosen], writer, progress)
    finally:
        copy.unlink(missing_ok=True)


def read_film(path: Path, most: int) -> Iterator[tuple[np.ndarray, float]]:
    """Yield every image of the largest track of a film, and its time.

    Args:
        path: the film.
        most: images; more are an error.

    Yields:
        The image (H, W, 3) uint8 RGB, upright and with square pixels, and its time, s.

    Raises:
        InvalidInput: the film cannot be read.
    """
    tracks = read_film_tracks(path)
    chosen = choose_track(tracks) if len(tracks) > 1 else 0
    track = tracks[chosen] if tracks else None
    mirror = track.turn if track is not None and track.mirrored else None
    with TemporaryDirectory(prefix="uns_pose_film_") as scratch:
        readable = path
        if chosen:
            readable = Path(scratch) / f"film{path.suffix}"
            copy_with_one_track(path, tracks, chosen, readable)
        aspect = _pixel_aspect(readable, path)
        for image, seconds in _read_images(readable, path, most, mirror):
            yield _make_square(image, aspect, mirror)[..., ::-1], seconds


def _import_track(
    path: Path,
    readable: Path,
    track: FilmTrack | None,
    writer: VideoWriter,
    progress: Progress,
) -> None:
    """Import the first video track of `readable`, which may be a copy of `path`."""
    if track is not None and track.oblique:
        what = "films that are turned by no multiple of 90 degrees, which is ignored"
        writer.notes.add(what, path.name)
    scores: list[float] = []
    claimed = _claimed_length(readable, path)
    for image, _ in _read_images(readable, path, writer.config.most):
        scores.append(sharpness(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)))
        progress(f"reading {path.name}", len(scores), max(claimed, len(scores)))
    if not scores:
        raise InvalidInput(f"{path}: not one image can be read; {_VALID}")
    if len(scores) < 0.9 * claimed:
        _log.warning(
            "%s: %d of its %d images can be read: is it cut off, or trimmed by an editor that "
            "keeps the rest in the file?",
            path,
            len(scores),
            claimed,
        )
    names = number_frames(select_sharpest(scores, writer.config.frames))
    camera_from = ""
    aspect = _pixel_aspect(readable, path)
    if aspect != (1.0, 1.0):
        what = "films whose pixels are not square, which are stretched"
        if _fits_stored(writer.given_camera, readable, path):
            what, aspect = "films whose pixels are not square, as in --camera", (1.0, 1.0)
        writer.notes.add(what, f"{path.name}: by {aspect[0]:.4g} x {aspect[1]:.4g}")
    mirror = track.turn if track is not None and track.mirrored else None
    images = _read_images(readable, path, writer.config.most, mirror)
    for number, (image, stamp) in enumerate(images):
        if number in names:
            image = _make_square(image, aspect, mirror)
            camera, camera_from = writer.choose_camera(image.shape[1], image.shape[0])
            writer.add(names[number], image[..., ::-1], camera, stamp=stamp)
            progress(f"writing {path.name}", len(writer.names), len(names))
    writer.finish(str(path), camera_from, {"pictures_read": len(scores)})


def _pixel_aspect(readable: Path, path: Path) -> tuple[float, float]:
    """Factors of width and height, at least 1, that make the pixels of the upright film square."""
    with _opened(readable, path) as film:
        film.read()
        numerator = film.get(cv2.CAP_PROP_SAR_NUM)
        denominator = film.get(cv2.CAP_PROP_SAR_DEN)
        turned = round(film.get(cv2.CAP_PROP_ORIENTATION_META)) % 180 == 90
    if not (numerator > 0 and denominator > 0):
        return 1.0, 1.0
    ratio = numerator / denominator
    if not 1 / _MAX_ASPECT <= ratio <= _MAX_ASPECT or abs(ratio - 1) < 0.005:
        return 1.0, 1.0
    factors = max(1.0, ratio), max(1.0, 1 / ratio)
    return factors[::-1] if turned else factors


def _fits_stored(camera: Camera | None, readable: Path, path: Path) -> bool:
    """Whether a camera has the shape of the stored pixels."""
    if camera is None:
        return False
    with _opened(readable, path) as film:
        width = film.get(cv2.CAP_PROP_FRAME_WIDTH)
        height = film.get(cv2.CAP_PROP_FRAME_HEIGHT)
    return abs(camera.width * height - camera.height * width) <= max(width, height)


def _make_square(
    image: np.ndarray,
    aspect: tuple[float, float],
    mirror: tuple[float, float, float, float] | None,
) -> np.ndarray:
    """An upright image with square pixels; `aspect` is that of `_pixel_aspect`."""
    if aspect == (1.0, 1.0):
        return image
    swapped = mirror is not None and abs(mirror[1]) > abs(mirror[0])
    return _stretch(image, aspect[::-1] if swapped else aspect)


def _stretch(image: np.ndarray, factors: tuple[float, float]) -> np.ndarray:
    height, width = image.shape[:2]
    size = round(width * factors[0]), round(height * factors[1])
    return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)


def _mirror(image: np.ndarray, turn: tuple[float, float, float, float]) -> np.ndarray:
    """Turn an image by a matrix that mirrors."""
    a, b, _, _ = turn
    if abs(a) >= abs(b):
        return cv2.flip(image, 1 if a < 0 else 0)
    transposed = cv2.transpose(image)
    return transposed if b > 0 else cv2.flip(transposed, -1)


def _claimed_length(readable: Path, path: Path) -> int:
    """Number of images in the file's header, which may be wrong."""
    with _opened(readable, path) as film:
        return max(0, int(min(film.get(cv2.CAP_PROP_FRAME_COUNT), 1e9)))


def _read_images(
    readable: Path,
    path: Path,
    most: int,
    mirror: tuple[float, float, float, float] | None = None,
) -> Iterator[tuple[np.ndarray, float]]:
    """Every image (H, W, 3) uint8 BGR, upright, and its time in s."""
    with _opened(readable, path) as film:
        if mirror is not None:  # OpenCV takes a mirrored image for a turned one
            film.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
        shape = None
        for count in range(most + 1):
            good, image = film.read()
            if not good:
                return
            if count == most:
                raise InvalidInput(
                    f"{path}: longer than {most} images; cut it, or raise --most"
                )
            shape = shape or image.shape
            if image.shape != shape:
                raise InvalidInput(
                    f"{path}: the size of its images changes; one size is valid"
                )
            upright = image if mirror is None else _mirror(image, mirror)
            yield upright, max(0.0, film.get(cv2.CAP_PROP_POS_MSEC) / 1000)


@contextmanager
def _opened(readable: Path, path: Path) -> Iterator[cv2.VideoCapture]:
    """A film, turned upright by its rotation metadata.

    Messages of its decoder do not reach the terminal.
    """
    # OpenCV reads this once, when it loads the decoder
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    film = cv2.VideoCapture(str(readable), cv2.CAP_FFMPEG)
    cv2.utils.logging.setLogLevel(level)
    try:
        if not film.isOpened():
            raise InvalidInput(f"{path}: broken, cut off or of unknown format; {_VALID}")
        film.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
        width = film.get(cv2.CAP_PROP_FRAME_WIDTH)
        height = film.get(cv2.CAP_PROP_FRAME_HEIGHT)
        if not (0 < width <= _MAX_SIDE and 0 < height <= _MAX_SIDE):
            raise InvalidInput(
                f"{path}: images of {width:g} x {height:g} px; at most {_MAX_SIDE} px a side "
                "are read"
            )
        yield film
    finally:
        film.release()
