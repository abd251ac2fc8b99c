"""Frames of an mp4 or mov file, upright."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from uns_pose_ros.capture.video_writer import VideoWriter, number_frames, select_sharpest
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Progress
from uns_pose_ros.io.images import sharpness

ENDINGS = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm")
_MAX_SIDE = 8192  # px
_VALID = "an mp4 or mov file as phones and cameras write it is valid"

_log = logging.getLogger(__name__)


def import_movie(path: Path, writer: VideoWriter, progress: Progress) -> None:
    """Import a film in two passes.

    The first pass measures the sharpness of every image, the second writes the sharpest image of
    each window.
    """
    scores: list[float] = []
    claimed = _claimed_length(path)
    for image, _ in _read_images(path, writer.config.most):
        scores.append(sharpness(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)))
        progress(f"reading {path.name}", len(scores), max(claimed, len(scores)))
    if not scores:
        raise InvalidInput(f"{path}: not one image can be read; {_VALID}")
    if len(scores) < 0.9 * claimed:
        _log.warning(
            "%s: %d of its %d images can be read, is it cut off?",
            path,
            len(scores),
            claimed,
        )
    names = number_frames(select_sharpest(scores, writer.config.frames))
    camera_from = ""
    for number, (image, stamp) in enumerate(_read_images(path, writer.config.most)):
        if number in names:
            camera, camera_from = writer.choose_camera(image.shape[1], image.shape[0])
            writer.add(names[number], image[..., ::-1], camera, stamp=stamp)
            progress(f"writing {path.name}", len(writer.names), len(names))
    writer.finish(str(path), camera_from, {"pictures_read": len(scores)})


def _claimed_length(path: Path) -> int:
    """Number of images in the file's header, which may be wrong."""
    with _opened(path) as film:
        return max(0, int(min(film.get(cv2.CAP_PROP_FRAME_COUNT), 1e9)))


def _read_images(path: Path, most: int) -> Iterator[tuple[np.ndarray, float]]:
    """Every image (H, W, 3) uint8 BGR, upright, and its time in s."""
    with _opened(path) as film:
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
            yield image, max(0.0, film.get(cv2.CAP_PROP_POS_MSEC) / 1000)


@contextmanager
def _opened(path: Path) -> Iterator[cv2.VideoCapture]:
    """A film, turned upright by its rotation metadata.

    Messages of its decoder do not reach the terminal.
    """
    # OpenCV reads this once, when it loads the decoder
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    film = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
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
