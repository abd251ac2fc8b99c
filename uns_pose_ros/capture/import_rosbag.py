"""Frames of a rosbag2 recording (sqlite3 or mcap), read through `rosbags`.

No ROS installation is needed.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from uns_pose_ros.capture.video_writer import (
    ImportConfig,
    VideoWriter,
    number_frames,
    select_sharpest,
)
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Camera, Progress
from uns_pose_ros.io import depth_images
from uns_pose_ros.io.image_metadata import FAINT
from uns_pose_ros.io.images import sharpness
from uns_pose_ros.io.ros import rosbag
from uns_pose_ros.io.ros.image_stamps import ImageStamps, StampFault, why_no_time
from uns_pose_ros.io.ros.recorded_transforms import read_transforms
from uns_pose_ros.io.ros.ros_messages import (
    decode_image,
    jpeg_file,
    nanoseconds,
    read_camera_info,
    uses_few_bits,
)
from uns_pose_ros.io.ros.transform_buffer import TransformTree

_PATIENCE = 50  # images, of which one at least must have a camera that can be used

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _Source:
    """The topics of a bag that an import reads."""

    path: Path
    reader: Any
    kinds: dict[str, str]  # message types by topic
    topic: str  # of the images
    depth_topic: str | None
    depth_sizes: dict[int, tuple[int, int]]  # width and height by stamp (ns)
    camera_info: Any | None  # None: the user gives a camera
    transforms: TransformTree
    config: ImportConfig

    def image_messages(self) -> Iterator[tuple[int, int, Any]]:
        """Number, arrival (ns) and message of every image."""
        messages = rosbag.timed_messages(
            self.path, self.reader, [self.topic], self.config.most
        )
        for number, (_, arrival, message) in enumerate(messages):
            yield number, arrival, message


@dataclass(frozen=True, eq=False)
class _Candidate:
    """An image that can become a frame."""

    number: int  # of its message on the image topic
    score: float
    stamp: int  # ns
    size: tuple[int, int]  # width and height, px
    cam_from_obj: Tensor | None


@dataclass(eq=False)
class _Candidates:
    """All usable images of a bag, and why the others are unusable."""

    usable: list[_Candidate] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    camera: Camera | None = None
    camera_from: str = ""
    stamps: ImageStamps = field(default_factory=ImageStamps)


def import_bag(path: Path, writer: VideoWriter, progress: Progress) -> None:
    """Import the sharpest images of one image topic.

    With --fixed-frame only images with a transform count, and their poses in meters are kept.
    With --depth-topic only images with depth of the same stamp count, and the depth is kept.
    """
    config = writer.config
    with rosbag.open_bag(path) as reader:
        source = _open_source(path, reader, writer, progress)
        candidates = _read_candidates(source, writer, progress)
        _require_image(path, source.topic, candidates.usable, candidates.reasons)
        for reason in candidates.reasons:
            writer.left_out.add_error("images", reason)
        if faults := candidates.stamps.summary():
            _log.warning("%s: %s: %s", path, source.topic, faults)
        scores = [candidate.score for candidate in candidates.usable]
        names = number_frames(select_sharpest(scores, config.frames))
        chosen = {name: candidates.usable[index] for index, name in names.items()}
        _write_frames(source, chosen, candidates.camera, writer, progress)
    topics = {"image": source.topic}
    if source.depth_topic is not None:
        topics["depth"] = source.depth_topic
    record = {
        "pictures_read": len(candidates.usable) + len(candidates.reasons),
        "topics": topics,
        "fixed_frame": config.fixed_frame,
        "metric": config.fixed_frame is not None,
    }
    writer.finish(str(path), candidates.camera_from, record)


def _open_source(
    path: Path, reader: Any, writer: VideoWriter, progress: Progress
) -> _Source:
    """Choose the topics of an open bag, and read its depth sizes and transforms."""
    config = writer.config
    kinds = rosbag.kinds_of(reader)
    depth_topic = None
    if config.depth_topic is not None:
        depth_topic = rosbag.depth_topic(path, kinds, config.depth_topic)
    topic = rosbag.image_topic(path, kinds, config.image_topic, depth_topic)
    depth_sizes: dict[int, tuple[int, int]] = {}
    if depth_topic is not None:
        depth_sizes = _depth_sizes(path, reader, depth_topic, config.most, progress)
    info = _camera_info(path, reader, kinds, topic, writer)
    transforms = TransformTree()
    if config.fixed_frame is not None:
        transforms = read_transforms(
            path, reader, kinds, topic, [config.fixed_frame], config.tf_topic
        )
    return _Source(
        path=path,
        reader=reader,
        kinds=kinds,
        topic=topic,
        depth_topic=depth_topic,
        depth_sizes=depth_sizes,
        camera_info=info,
        transforms=transforms,
        config=config,
    )


def _read_candidates(
    source: _Source, writer: VideoWriter, progress: Progress
) -> _Candidates:
    """Read all images once, to know their sharpness and which are usable.

    Only images of the most frequent size are.

    Raises:
        InvalidInput: the camera of the images cannot be used.
    """
    candidates = _Candidates()
    cameras: dict[tuple[int, int], tuple[Camera, str] | InvalidInput] = {}
    total = int(source.reader.topics[source.topic].msgcount)
    for number, arrival, message in source.image_messages():
        progress(f"reading {source.path.name}", number + 1, total)
        fault = candidates.stamps.take(nanoseconds(message.header.stamp), arrival)
        candidates.stamps.compare_with_clock(nanoseconds(message.header.stamp), arrival)
        if fault == StampFault.NEGATIVE:
            candidates.reasons.append(fault.value)
            continue
        try:
            image = decode_image(message)
            size = (image.shape[1], image.shape[0])
            if size not in cameras:
                cameras[size] = _camera_or_error(source, size, writer)
            _require_camera(cameras, number)
            candidate = _check_image(source, number, arrival, message, image, fault)
        except _NoCamera as error:
            raise InvalidInput(str(error)) from None
        except InvalidInput as error:
            candidates.reasons.append(str(error))
            continue
        if uses_few_bits(message, image):
            writer.notes.add(FAINT)
        candidates.usable.append(candidate)
    return _of_one_size(candidates, cameras)


class _NoCamera(InvalidInput):
    """No image so far has a camera that can be used."""


def _camera_or_error(
    source: _Source, size: tuple[int, int], writer: VideoWriter
) -> tuple[Camera, str] | InvalidInput:
    try:
        return _choose_camera(source, size, writer)
    except InvalidInput as error:
        return error


def _require_camera(
    cameras: dict[tuple[int, int], tuple[Camera, str] | InvalidInput], number: int
) -> None:
    """Raise _NoCamera where none of the first images has a camera, instead of reading on."""
    errors = [known for known in cameras.values() if isinstance(known, InvalidInput)]
    if number >= _PATIENCE and len(errors) == len(cameras):
        raise _NoCamera(str(errors[0]))


def _of_one_size(
    candidates: _Candidates,
    cameras: dict[tuple[int, int], tuple[Camera, str] | InvalidInput],
) -> _Candidates:
    """Leave out the images of other sizes than the most frequent one, and take its camera.

    Raises:
        InvalidInput: that size has no camera.
    """
    counts = Counter(candidate.size for candidate in candidates.usable)
    if not counts:
        return candidates
    size = max(
        counts, key=lambda size: (not isinstance(cameras[size], InvalidInput), counts[size])
    )
    camera = cameras[size]
    if isinstance(camera, InvalidInput):
        raise camera
    candidates.camera, candidates.camera_from = camera
    for candidate in candidates.usable:
        if candidate.size != size:
            candidates.reasons.append(
                f"an image has {candidate.size[0]} x {candidate.size[1]} px, most have {size[0]} x "
                f"{size[1]}"
            )
    candidates.usable = [item for item in candidates.usable if item.size == size]
    return candidates


def _check_image(
    source: _Source,
    number: int,
    arrival: int,
    message: Any,
    image: np.ndarray,
    fault: StampFault | None,
) -> _Candidate:
    """The candidate of an image (H, W, 3); InvalidInput where it is unusable.

    It needs a depth and a transform where the import wants them,
    which need a stamp of its own.
    """
    size = (image.shape[1], image.shape[0])
    stamp = nanoseconds(message.header.stamp)
    timeless = why_no_time(fault)
    if source.depth_topic is not None:
        if timeless:
            raise InvalidInput(f"{timeless}: no depth can belong to it")
        if stamp not in source.depth_sizes:
            raise InvalidInput("no depth of its stamp")
        depth_images.check_aligned(source.depth_sizes[stamp], *size)
    pose = None
    if source.config.fixed_frame is not None:
        frame = message.header.frame_id.lstrip("/")
        if not frame:
            raise InvalidInput("no frame_id, so no transform says where its camera is")
        fixed_frame = source.config.fixed_frame.lstrip("/")
        transform = source.transforms.lookup(
            frame, fixed_frame, None if timeless else stamp, arrival
        )
        if isinstance(transform, str):
            raise InvalidInput(transform)
        pose = torch.from_numpy(transform)
    score = sharpness(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
    return _Candidate(number, score, stamp, size, pose)


def _write_frames(
    source: _Source,
    chosen: dict[str, _Candidate],
    camera: Camera | None,
    writer: VideoWriter,
    progress: Progress,
) -> None:
    """Read the chosen images once more and write them, with their depth."""
    by_number = {candidate.number: name for name, candidate in chosen.items()}
    for number, _, message in source.image_messages():
        if number in by_number and camera is not None:
            name = by_number[number]
            image, original = decode_image(message), jpeg_file(message)
            pose, stamp = chosen[name].cam_from_obj, chosen[name].stamp / 1e9
            writer.add(name, image, camera, original, pose, stamp=stamp)
            progress(f"writing {source.path.name}", len(writer.names), len(chosen))
    if source.depth_topic is None:
        return
    by_stamp = {candidate.stamp: name for name, candidate in chosen.items()}
    most = source.config.most
    for message in rosbag.messages(source.path, source.reader, source.depth_topic, most):
        depth_name = by_stamp.get(nanoseconds(message.header.stamp))
        if depth_name is not None:
            writer.add_depth(depth_name, depth_images.decode_depth(message))


def _depth_sizes(
    path: Path, reader: Any, topic: str, most: int, progress: Progress
) -> dict[int, tuple[int, int]]:
    """Width and height (px) of every readable depth image, by its stamp (ns).

    Raises:
        InvalidInput: no depth image is readable.
    """
    sizes: dict[int, tuple[int, int]] = {}
    reason = "it is empty"
    total = int(reader.topics[topic].msgcount)
    for number, message in enumerate(rosbag.messages(path, reader, topic, most), 1):
        progress(f"reading depth of {path.name}", number, total)
        try:
            depth = depth_images.decode_depth(message)
        except InvalidInput as error:
            reason = str(error)
            continue
        sizes[nanoseconds(message.header.stamp)] = depth.shape[::-1]
    if not sizes:
        raise InvalidInput(f"{path}: no usable depth on {topic}: {reason}")
    return sizes


def _choose_camera(
    source: _Source, size: tuple[int, int], writer: VideoWriter
) -> tuple[Camera, str]:
    """The camera of images of a size, and its source; InvalidInput names the bag."""
    try:
        known = None
        if source.camera_info is not None:
            rectified = rosbag.is_rectified(source.topic)
            known = read_camera_info(source.camera_info, *size, rectified)
        return writer.choose_camera(*size, known)
    except InvalidInput as error:
        raise InvalidInput(f"{source.path}: {error}") from None


def _require_image(
    path: Path, topic: str, candidates: list[_Candidate], reasons: list[str]
) -> None:
    """Raise InvalidInput where no image is usable."""
    if not candidates:
        raise InvalidInput(
            f"{path}: no usable image on {topic}"
            + (f"; the first: {reasons[0]}" if reasons else ", it is empty")
        )


def _camera_info(
    path: Path, reader: Any, kinds: dict[str, str], image_topic: str, writer: VideoWriter
) -> Any | None:
    """The first CameraInfo that belongs to the image topic; None where the user gives a camera."""
    if writer.config.camera_info_topic is None and (
        writer.given_camera is not None or writer.config.focal is not None
    ):
        return None
    otherwise = ", or give --camera K.json or --focal PX"
    return rosbag.camera_info(
        path, reader, kinds, image_topic, writer.config.camera_info_topic, otherwise
    )
