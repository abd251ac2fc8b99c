"""Frames of a rosbag2 recording (sqlite3 or mcap), read through `rosbags`.

No ROS installation is needed.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import torch
from torch import Tensor

from uns_pose_ros.capture.video_writer import VideoWriter, number_frames, select_sharpest
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Camera, Progress
from uns_pose_ros.io import depth_images, rosbag
from uns_pose_ros.io.images import sharpness
from uns_pose_ros.io.ros_messages import camera_of, nanoseconds, picture
from uns_pose_ros.io.transform_buffer import TransformTree

_log = logging.getLogger(__name__)


@dataclass
class _Candidate:
    """An image that can become a frame."""

    number: int  # of its message on the image topic
    score: float
    stamp: int  # ns
    cam_from_obj: Tensor | None


class _Unusable(InvalidInput):
    """Says of the whole bag that it cannot be used, not of one image."""


def import_bag(path: Path, writer: VideoWriter, progress: Progress) -> None:
    """The sharpest images of one image topic.

    With --fixed-frame those with a transform, and their poses in metres.

    With --depth-topic those with depth of their stamp, which is kept too.
    """
    config = writer.config
    with rosbag.open_bag(path) as reader:
        kinds = rosbag.kinds_of(reader)
        deep = (
            None
            if config.depth_topic is None
            else rosbag.depth_topic(path, kinds, config.depth_topic)
        )
        topic = rosbag.image_topic(path, kinds, config.image_topic, deep)
        measured = (
            None if deep is None else _depth_sizes(path, reader, deep, writer, progress)
        )
        info = _camera_info(path, reader, kinds, topic, writer)
        transforms = (
            TransformTree()
            if config.fixed_frame is None
            else rosbag.transforms(path, reader, kinds, config.fixed_frame)
        )
        candidates, reasons, camera = list[_Candidate](), list[str](), None
        camera_from, size, total = "", (0, 0), int(reader.topics[topic].msgcount)
        for number, message in enumerate(rosbag.messages(path, reader, topic, config.most)):
            progress(f"reading {path.name}", number + 1, total)
            try:
                image, _ = picture(message, kinds[topic])
                height, width = image.shape[:2]
                if camera is None:
                    (camera, camera_from), size = (
                        _camera(path, writer, info, topic, width, height),
                        (width, height),
                    )
                if (width, height) != size:
                    raise InvalidInput(
                        f"an image has {width} x {height} px, the first {size[0]} x {size[1]}"
                    )
                stamp, pose = nanoseconds(message.header.stamp), None
                if measured is not None:
                    if stamp not in measured:
                        raise InvalidInput("no depth of its stamp")
                    depth_images.check_aligned(measured[stamp], *size)
                if config.fixed_frame is not None:
                    found = transforms.lookup(
                        message.header.frame_id.lstrip("/"),
                        config.fixed_frame.lstrip("/"),
                        stamp,
                    )
                    if isinstance(found, str):
                        raise InvalidInput(found)
                    pose = torch.from_numpy(found)
            except _Unusable:
                raise
            except InvalidInput as error:
                reasons.append(str(error))
                continue
            candidates.append(
                _Candidate(
                    number, sharpness(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)), stamp, pose
                )
            )
        _report_losses(path, topic, candidates, reasons)
        names = number_frames(
            select_sharpest([one.score for one in candidates], config.frames)
        )
        wanted = {
            candidates[index].number: (name, candidates[index])
            for index, name in names.items()
        }
        for number, message in enumerate(rosbag.messages(path, reader, topic, config.most)):
            if number in wanted and camera is not None:
                name, one = wanted[number]
                image, original = picture(message, kinds[topic])
                writer.add(
                    name, image, camera, original, one.cam_from_obj, stamp=one.stamp / 1e9
                )
                progress(f"writing {path.name}", len(writer.names), len(wanted))
        if deep is not None:
            named = {one.stamp: name for name, one in wanted.values()}
            for message in rosbag.messages(path, reader, deep, config.most):
                if (of := named.get(nanoseconds(message.header.stamp))) is not None:
                    writer.add_depth(of, depth_images.of_message(message))
    topics = {"image": topic} if deep is None else {"image": topic, "depth": deep}
    record = {
        "pictures_read": len(candidates) + len(reasons),
        "topics": topics,
        "fixed_frame": config.fixed_frame,
    }
    writer.finish(
        str(path), camera_from, {**record, "metric": config.fixed_frame is not None}
    )


def _depth_sizes(
    path: Path, reader: Any, topic: str, writer: VideoWriter, progress: Progress
) -> dict[int, tuple[int, int]]:
    """Width and height (px) of every depth that can be read, by its stamp (ns).

    InvalidInput where there is none.
    """
    found, reason, total = (
        dict[int, tuple[int, int]](),
        "it is empty",
        int(reader.topics[topic].msgcount),
    )
    for number, message in enumerate(
        rosbag.messages(path, reader, topic, writer.config.most), 1
    ):
        progress(f"reading depth of {path.name}", number, total)
        try:
            found[nanoseconds(message.header.stamp)] = depth_images.of_message(
                message
            ).shape[::-1]
        except InvalidInput as error:
            reason = str(error)
    if not found:
        raise InvalidInput(f"{path}: no usable depth on {topic}: {reason}")
    return found


def _camera(
    path: Path, writer: VideoWriter, info: Any | None, topic: str, width: int, height: int
) -> tuple[Camera, str]:
    try:
        known = (
            None
            if info is None
            else camera_of(info, width, height, rosbag.is_rectified(topic))
        )
        return writer.camera(width, height, known)
    except InvalidInput as error:
        raise _Unusable(f"{path}: {error}") from None


def _report_losses(
    path: Path, topic: str, candidates: list[_Candidate], reasons: list[str]
) -> None:
    if not candidates:
        raise InvalidInput(
            f"{path}: no usable image on {topic}"
            + (f"; the first: {reasons[0]}" if reasons else ", it is empty")
        )
    if reasons:
        _log.warning(
            "%s: %d of %d images left out; the first: %s",
            path,
            len(reasons),
            len(reasons) + len(candidates),
            reasons[0],
        )


def _camera_info(
    path: Path, reader: Any, kinds: dict[str, str], image_topic: str, writer: VideoWriter
) -> Any | None:
    """The first CameraInfo that belongs to the image topic.

    None where the user says what the camera is.
    """
    if writer.config.camera_info_topic is None and (
        writer.given_camera is not None or writer.config.focal is not None
    ):
        return None
    otherwise = ", or give --camera K.json or --focal PX"
    return rosbag.camera_info(
        path, reader, kinds, image_topic, writer.config.camera_info_topic, otherwise
    )
