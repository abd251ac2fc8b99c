"""The writer of a video folder that every import uses; the folder is complete or not there.

Frames go to disk one by one, so that a long recording is never in memory. The small files that
make the folder a video come last; whoever opened the writer renames the folder to its place.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from uns_pose_ros.core.camera import assumed_camera, centered_camera, resize_camera
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.left_out import LeftOut
from uns_pose_ros.core.types import Camera
from uns_pose_ros.io.artifacts import write_json
from uns_pose_ros.io.camera_json import camera_record
from uns_pose_ros.io.colmap import SparseImage, write_sparse
from uns_pose_ros.io.depth_images import Depth, depth_path, encode_depth
from uns_pose_ros.io.images import fills_border
from uns_pose_ros.io.metadata_removal import remove_private_metadata
from uns_pose_ros.io.video_folder import MIN_FRAMES
from uns_pose_ros.io.writing.replacement import disk_errors

RECORD = "video.json"
_LOSSLESS = (".png", ".bmp", ".tif", ".tiff")  # endings

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImportConfig:
    """Number and size of the frames of an import."""

    # at most; a longer source is split into so many windows, and the sharpest image of each is kept
    frames: int = 40
    longest: int = 1920  # px, longer side above which images are shrunk
    quality: int = 95  # of JPEG files where images cannot be copied as they are
    most: int = 36_000  # images that are read of one source, 20 minutes at 30 Hz
    focal: float | None = None  # px at the source's size, where nothing better is known
    image_topic: str | None = None  # bags; not needed where there is one topic with images
    # bags; default: camera_info beside the image topic
    camera_info_topic: str | None = None
    # bags: the frame in which the object stands, such as odom; poses come from /tf
    fixed_frame: str | None = None
    # bags: topic of the transforms, its static one goes with it; default: that of the camera
    tf_topic: str | None = None
    # bags: depth aligned to the images, kept where it has their stamps
    depth_topic: str | None = None

    def __post_init__(self) -> None:
        for name, least in (
            ("frames", MIN_FRAMES),
            ("longest", 32),
            ("quality", 1),
            ("most", MIN_FRAMES),
        ):
            if getattr(self, name) < least:
                raise InvalidInput(
                    f"{name} {getattr(self, name)}: at least {least} is valid"
                )
        if self.quality > 100:
            raise InvalidInput(f"quality {self.quality}: 1 to 100 is valid")
        if self.focal is not None and not 0 < self.focal < 1e6:
            raise InvalidInput(
                f"focal {self.focal}: a focal length in px is valid, such as 1000"
            )


@dataclass
class VideoWriter:
    """Writes the frames of one video into its folder."""

    folder: Path
    config: ImportConfig
    given_camera: Camera | None = None  # --camera
    names: list[str] = field(default_factory=list)
    _cameras: list[Camera] = field(default_factory=list)
    _index: list[int] = field(default_factory=list)  # into _cameras, one a frame
    _poses: list[Tensor] = field(default_factory=list)
    _stamps: dict[str, float] = field(default_factory=dict)
    left_out: LeftOut = field(default_factory=LeftOut)  # parts of the source, by reason
    notes: LeftOut = field(default_factory=LeftOut)  # what is doubtful about imported parts

    def choose_camera(
        self, width: int, height: int, info: Camera | None = None, exif: float | None = None
    ) -> tuple[Camera, str]:
        """The camera of images of width x height px, and its source.

        Args:
            width: px.
            height: px.
            info: the camera of a camera_info message.
            exif: focal length of EXIF, px.

        Returns:
            The camera, and "given" by the user, "camera_info", "exif" or "guessed".
        """
        if self.given_camera is not None:
            return resize_camera(self.given_camera, width, height), "given"
        if self.config.focal is not None:
            return centered_camera(self.config.focal, width, height), "given"
        if info is not None:
            return info, "camera_info"
        if exif is not None:
            return centered_camera(exif, width, height), "exif"
        return assumed_camera(width, height), "guessed"

    def add(
        self,
        name: str,
        image: np.ndarray,
        camera: Camera,
        original: bytes | None = None,
        cam_from_obj: Tensor | None = None,
        mask: np.ndarray | None = None,
        stamp: float | None = None,
    ) -> None:
        """Write one frame.

        Args:
            name: file name of the image.
            image: (H, W, 3) uint8 RGB.
            camera: of the image.
            original: the encoded image, which is written where the image need not be shrunk,
                without the metadata that are not needed.
            cam_from_obj: (4, 4).
            mask: (H, W) uint8.
            stamp: s.
        """
        height, width = image.shape[:2]
        scale = min(1.0, self.config.longest / max(height, width))
        if scale < 1:
            width, height = max(1, round(scale * width)), max(1, round(scale * height))
            image, original = (
                cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA),
                None,
            )
            mask = (
                None
                if mask is None
                else cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA)
            )
        if mask is not None and fills_border(mask):
            self.notes.add("masks that are dark inside a bright border: inverted?", name)
        path = self.folder / "images" / name
        if original is not None:
            # other formats are encoded anew, without loss
            original = remove_private_metadata(original) or _encoded(
                image, path.suffix if path.suffix.lower() in _LOSSLESS else ".png", 0
            )
        _write(path, original or _encoded(image, path.suffix, self.config.quality))
        if mask is not None:
            _write(self.folder / "masks" / f"{name}.png", _encoded(mask, ".png", 0))
        self.names.append(name)
        self._index.append(self._camera_index(resize_camera(camera, width, height)))
        if cam_from_obj is not None:
            self._poses.append(cam_from_obj)
        if stamp is not None:
            self._stamps[name] = stamp

    def add_depth(self, name: str, depth: Depth) -> None:
        """Write the depth of a frame that was added, in the size of its written image."""
        camera = self._cameras[self._index[self.names.index(name)]]
        size = (camera.width, camera.height)
        scaled = cv2.resize(depth, size, interpolation=cv2.INTER_NEAREST)
        _write(
            depth_path(self.folder, name),
            encode_depth(scaled.astype(np.uint16, copy=False)),
        )

    def _camera_index(self, camera: Camera) -> int:
        for index, other in enumerate(self._cameras):
            same = (other.width, other.height) == (camera.width, camera.height)
            if (
                same
                and torch.equal(other.matrix, camera.matrix)
                and torch.equal(other.distortion, camera.distortion)
            ):
                return index
        self._cameras.append(camera)
        return len(self._cameras) - 1

    def finish(
        self,
        source: str,
        camera_from: str,
        record: Mapping[str, Any],
        points: Tensor | None = None,
    ) -> None:
        """Write video.json, and sparse/ if the frames have poses.

        Args:
            source: for messages.
            camera_from: source of the camera, for video.json.
            record: more entries of video.json.
            points: (N, 3), for sparse/.

        Raises:
            InvalidInput: the video has too few frames.
        """
        if len(self.names) < MIN_FRAMES:
            raise InvalidInput(
                f"{source}: {len(self.names)} usable images, at least {MIN_FRAMES} are needed"
            )
        if self._poses:
            if len(self._poses) != len(self.names):
                raise ValueError(f"{len(self._poses)} poses for {len(self.names)} frames")
            rows = zip(self.names, self._index, self._poses, strict=True)
            images = [SparseImage(name, index + 1, pose) for name, index, pose in rows]
            cameras = dict(enumerate(self._cameras, 1))
            write_sparse(
                self.folder / "sparse",
                cameras,
                images,
                torch.zeros(0, 3).double() if points is None else points,
            )
        common: dict[str, Any] = {"metric": False, "frames": len(self.names)}
        for name, losses in (("left_out", self.left_out), ("notes", self.notes)):
            if losses:
                common[name] = losses.counts
            for line in losses.lines():
                _log.warning("%s: %s%s", source, "left out: " * (name == "left_out"), line)
        if len(self._cameras) == 1:
            common["camera"] = {**camera_record(self._cameras[0]), "from": camera_from}
        if self._stamps:
            common["stamps"] = self._stamps
        write_json(self.folder / RECORD, {**common, **record})
        if camera_from == "guessed":
            _log.warning(
                "%s: no focal length known, a view of 60° is assumed; --camera K.json or "
                "--focal PX says better",
                source,
            )


def select_sharpest(scores: Sequence[float], count: int) -> list[int]:
    """Indices, ascending, of the highest score in each of `count` windows of equal length.

    All indices where the scores are fewer.
    """
    windows = (
        np.array_split(np.arange(len(scores)), min(count, len(scores))) if scores else []
    )
    return [int(max(window, key=lambda k: scores[k])) for window in windows]


def number_frames(chosen: Iterable[int]) -> dict[int, str]:
    """Names 000001.jpg, … of the chosen images, by index."""
    return {index: f"{number:06d}.jpg" for number, index in enumerate(chosen, 1)}


def _write(path: Path, data: bytes) -> None:
    """Write a file of a folder that is not at its place yet.

    An error of the disk must not be taken for one of the source that is read meanwhile.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _encoded(image: np.ndarray, suffix: str, quality: int) -> bytes:
    """The file of an image, RGB or gray."""
    pixels = image[..., ::-1] if image.ndim == 3 else image
    options = (
        [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix.lower() in (".jpg", ".jpeg") else []
    )
    return bytes(cv2.imencode(suffix, np.ascontiguousarray(pixels), options)[1].tobytes())
