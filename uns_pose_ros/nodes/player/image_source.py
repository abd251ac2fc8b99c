"""Images of a film, a folder or a bag, each with its camera and its time; no ROS is needed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from uns_pose_ros.capture import import_movie
from uns_pose_ros.capture.import_images import sort_image_folder
from uns_pose_ros.core.camera import assumed_camera, resize_camera
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Camera
from uns_pose_ros.io.colmap import has_sparse
from uns_pose_ros.io.image_metadata import read_upright
from uns_pose_ros.io.images import Pixels, is_image_file
from uns_pose_ros.io.ros import rosbag
from uns_pose_ros.io.ros.ros_messages import decode_image, read_camera_info
from uns_pose_ros.io.schema.video_record import read_video_record
from uns_pose_ros.io.video_folder import frames_of

FOLDER_RATE = 5.0  # images a second, of images without a time
ASSUMED = "assumed"  # source of a camera that nobody knows
_MOST = 10_000_000  # images of a film or a bag
_VALID = "a film, a folder of images, a video folder or a rosbag2 recording is valid"

_log = logging.getLogger(__name__)


class PlayedImage(NamedTuple):
    """An image as a camera gives it."""

    pixels: Pixels  # (H, W, 3) uint8 RGB, upright
    camera: Camera
    camera_from: str  # source of the camera: given, exif, video, camera_info or assumed
    seconds: float  # since the first image
    frame: str  # TF frame of an image of a bag, else empty


@dataclass(frozen=True)
class ImageSource:
    """What is played, and how."""

    path: Path
    camera: Camera | None = None  # of the upright images; None: what the source knows
    rate: float | None = None  # images a second; None: as recorded, FOLDER_RATE for images
    longest: int = 1280  # px, longer side of the images; larger ones are made smaller
    image_topic: str | None = None  # of a bag; None: the only one

    def images(self) -> Iterator[PlayedImage]:
        """Yield the images once, in their order.

        Raises:
            InvalidInput: The source cannot be used, or has no image.
        """
        count, last = 0, 0.0
        for image in self._read():
            last = max(last, image.seconds)
            seconds = last if self.rate is None else count / self.rate
            yield self._fitted(image)._replace(seconds=seconds)
            count += 1
        if not count:
            raise InvalidInput(f"{self.path}: no image can be read; {_VALID}")

    def _read(self) -> Iterator[PlayedImage]:
        path = self.path
        if not path.exists():
            raise InvalidInput(f"{path}: not there; {_VALID}")
        if rosbag.is_bag(path):
            return self._bag_images()
        if path.is_dir():
            return self._folder_images()
        if is_image_file(path):
            return self._image_files([path])
        if path.suffix.lower() in import_movie.ENDINGS:
            return self._film_images()
        raise InvalidInput(f"{path}: cannot be played; {_VALID}")

    def _fitted(self, image: PlayedImage) -> PlayedImage:
        """The image with the given camera, and not larger than `longest`."""
        height, width = image.pixels.shape[:2]
        if self.camera is not None:
            camera = resize_camera(self.camera, width, height)
            image = image._replace(camera=camera, camera_from="given")
        factor = self.longest / max(width, height)
        if factor >= 1:
            return image
        size = round(width * factor), round(height * factor)
        pixels = cv2.resize(image.pixels, size, interpolation=cv2.INTER_AREA)
        return image._replace(
            pixels=np.asarray(pixels, np.uint8), camera=resize_camera(image.camera, *size)
        )

    def _film_images(self) -> Iterator[PlayedImage]:
        for pixels, seconds in import_movie.read_film(self.path, _MOST):
            yield _without_calibration(pixels, seconds)

    def _folder_images(self) -> Iterator[PlayedImage]:
        if not (self.path / "images").is_dir():
            paths, others = sort_image_folder(self.path)
            for line in others.lines():
                _log.warning("%s: left out: %s", self.path, line)
            yield from self._image_files(paths)
            return
        frames, left_out, _ = frames_of(self.path, False, False)
        if left_out:
            _log.warning(
                "%s: %d images left out; the first: %s",
                self.path,
                len(left_out),
                left_out[0],
            )
        calibrated = read_video_record(self.path).camera_from not in ("", "guessed")
        known = calibrated or has_sparse(self.path / "sparse")
        for number, frame in enumerate(frames):
            pixels = read_upright(frame.image).pixels
            source = "video" if known else ASSUMED
            yield PlayedImage(pixels, frame.camera, source, number / FOLDER_RATE, "")

    def _image_files(self, paths: list[Path]) -> Iterator[PlayedImage]:
        for number, path in enumerate(paths):
            upright = read_upright(path)
            camera, source = upright.camera()
            yield PlayedImage(upright.pixels, camera, source, number / FOLDER_RATE, "")

    def _bag_images(self) -> Iterator[PlayedImage]:
        begun: int | None = None
        faults: list[str] = []
        with rosbag.open_bag(self.path) as reader:
            kinds = rosbag.kinds_of(reader)
            topic = rosbag.image_topic(self.path, kinds, self.image_topic)
            info = None
            if self.camera is None:
                info = rosbag.camera_info(
                    self.path, reader, kinds, topic, None, ", or --camera"
                )
            messages = rosbag.timed_messages(self.path, reader, [topic], _MOST)
            for _, arrival, message in messages:
                begun = arrival if begun is None else begun
                seconds = (arrival - begun) / 1e9
                try:
                    pixels = decode_image(message)
                    image = _without_calibration(pixels, seconds)
                    if info is not None:
                        height, width = pixels.shape[:2]
                        rectified = rosbag.is_rectified(topic)
                        camera = read_camera_info(info, width, height, rectified)
                        image = image._replace(camera=camera, camera_from="camera_info")
                except InvalidInput as error:
                    faults.append(str(error))
                    continue
                yield image._replace(frame=message.header.frame_id.lstrip("/"))
        if faults:
            _log.warning(
                "%s: %d images left out; the first: %s", self.path, len(faults), faults[0]
            )


def _without_calibration(pixels: Pixels, seconds: float) -> PlayedImage:
    """An image whose camera nobody knows."""
    camera = assumed_camera(pixels.shape[1], pixels.shape[0])
    return PlayedImage(pixels, camera, ASSUMED, seconds, "")
