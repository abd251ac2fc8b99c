"""Frames of a rosbag2 recording (sqlite3 or mcap), read through `rosbags`: no ROS installation is needed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
from torch import Tensor

from uns_pose_ros.bag_messages import CAMERA_INFO, COMPRESSED, IMAGE, TF, Transforms, camera_of, picture, seconds
from uns_pose_ros.datatypes import Camera, InvalidInput, Progress
from uns_pose_ros.draft import Draft, ImportConfig, numbered, sharpest, sharpness
from uns_pose_ros.geometry import invert
from uns_pose_ros.video import shorten

ENDINGS = (".mcap", ".db3", ".bag")

_log = logging.getLogger(__name__)


def is_bag(path: Path) -> bool:
    """Whether a path is a bag: the folder of one, or one of its files."""
    if path.is_dir():
        return (path / "metadata.yaml").is_file() or any(path.glob("*.mcap")) or any(path.glob("*.db3"))
    return path.suffix.lower() in ENDINGS


@dataclass
class _Candidate:
    """A picture that can become a frame."""

    number: int  # of its message on the image topic
    score: float
    stamp: float  # s
    cam_from_obj: Tensor | None


class _Unusable(InvalidInput):
    """Says of the whole bag that it cannot be used, not of one picture."""


def import_bag(path: Path, draft: Draft, progress: Progress) -> None:
    """The sharpest pictures of one image topic; with --fixed-frame those with a transform, and their poses in metres."""
    config = draft.config
    with _bag(path) as reader:
        kinds = {topic: info.msgtype or "" for topic, info in reader.topics.items()}
        topic = _image_topic(path, kinds, config)
        info = _camera_info(path, reader, kinds, topic, draft)
        transforms = _transforms(path, reader, config.fixed_frame, kinds)
        candidates, reasons, camera = list[_Candidate](), list[str](), None
        camera_from, size, total = "", (0, 0), int(reader.topics[topic].msgcount)
        for number, message in enumerate(_messages(path, reader, topic, config.most)):
            progress(f"reading {path.name}", number + 1, total)
            try:
                image, _ = picture(message, kinds[topic])
                height, width = image.shape[:2]
                if camera is None:
                    (camera, camera_from), size = _camera(path, draft, info, topic, width, height), (width, height)
                if (width, height) != size:
                    raise InvalidInput(f"a picture has {width} x {height} px, the first {size[0]} x {size[1]}")
                stamp, pose = seconds(message.header.stamp), None
                if config.fixed_frame is not None:
                    pose = invert(transforms.lookup(config.fixed_frame, message.header.frame_id, stamp))
            except _Unusable:
                raise
            except InvalidInput as error:
                reasons.append(str(error))
                continue
            candidates.append(_Candidate(number, sharpness(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)), stamp, pose))
        _report_losses(path, topic, candidates, reasons)
        names = numbered(sharpest([one.score for one in candidates], config.frames))
        wanted = {candidates[index].number: (name, candidates[index]) for index, name in names.items()}
        for number, message in enumerate(_messages(path, reader, topic, config.most)):
            if number in wanted and camera is not None:
                name, one = wanted[number]
                image, original = picture(message, kinds[topic])
                draft.add(name, image, camera, original, one.cam_from_obj, stamp=one.stamp)
                progress(f"writing {path.name}", len(draft.names), len(wanted))
    record = {"pictures_read": len(candidates) + len(reasons), "topics": {"image": topic}, "fixed_frame": config.fixed_frame}
    draft.finish(str(path), camera_from, {**record, "metric": config.fixed_frame is not None})


def _camera(path: Path, draft: Draft, info: Any | None, topic: str, width: int, height: int) -> tuple[Camera, str]:
    try:
        known = None if info is None else camera_of(info, width, height, _is_rectified(topic))
        return draft.camera(width, height, known)
    except InvalidInput as error:
        raise _Unusable(f"{path}: {error}") from None


def _is_rectified(topic: str) -> bool:
    """By the names that ROS gives: image_rect, image_rect_color, each with or without /compressed."""
    return "rect" in topic.removesuffix("/compressed").rpartition("/")[2]


def _report_losses(path: Path, topic: str, candidates: list[_Candidate], reasons: list[str]) -> None:
    if not candidates:
        raise InvalidInput(
            f"{path}: no usable picture on {topic}" + (f"; the first: {reasons[0]}" if reasons else ", it is empty")
        )
    if reasons:
        _log.warning(
            "%s: %d of %d pictures left out; the first: %s", path, len(reasons), len(reasons) + len(candidates), reasons[0]
        )


def _image_topic(path: Path, kinds: dict[str, str], config: ImportConfig) -> str:
    """The topic asked for, or the only one with images; raw before compressed where both carry the same pictures."""
    images = sorted(topic for topic, kind in kinds.items() if kind in (IMAGE, COMPRESSED))
    there = shorten((f"{topic} ({kind})" for topic, kind in sorted(kinds.items())), 20) or "none"
    if config.image_topic is not None:
        for topic in (config.image_topic, f"{config.image_topic}/compressed"):
            if topic in images:
                return topic
        raise InvalidInput(f"{path}: no images on {config.image_topic!r}; its topics: {there}")
    if not images:
        raise InvalidInput(f"{path}: no topic with sensor_msgs/Image or CompressedImage; its topics: {there}")
    raw = [t for t in images if not (t.endswith("/compressed") and t.removesuffix("/compressed") in images)]
    if len(raw) > 1:
        raise InvalidInput(f"{path}: several topics with images, name one by --image-topic: {shorten(raw, 20)}")
    return raw[0]


def _camera_info(path: Path, reader: Any, kinds: dict[str, str], image_topic: str, draft: Draft) -> Any | None:
    """The first CameraInfo that belongs to the image topic; None where the user says what the camera is."""
    topic = draft.config.camera_info_topic
    if topic is None:
        if draft.given is not None or draft.config.focal is not None:
            return None
        topic = image_topic.removesuffix("/compressed").rpartition("/")[0] + "/camera_info"
    found = sorted(t for t, kind in kinds.items() if kind == CAMERA_INFO)
    if topic not in found:
        there = shorten(found, 20) or "none"
        raise InvalidInput(
            f"{path}: no camera_info on {topic!r}; topics with sensor_msgs/CameraInfo: {there}. "
            "Name one by --camera-info-topic, or give --camera K.json or --focal PX"
        )
    for message in _messages(path, reader, topic, 1, cut=True):
        return message
    raise InvalidInput(f"{path}: {topic} is empty; give --camera K.json or --focal PX")


def _transforms(path: Path, reader: Any, fixed_frame: str | None, kinds: dict[str, str]) -> Transforms:
    transforms = Transforms()
    if fixed_frame is None:
        return transforms
    topics = [topic for topic, kind in kinds.items() if kind == TF]
    if not topics:
        raise InvalidInput(f"{path}: no transforms (tf2_msgs/TFMessage on /tf), so --fixed-frame {fixed_frame} gives no poses")
    for topic in topics:
        for message in _messages(path, reader, topic, 10_000_000):
            transforms.add(message, static=topic.rpartition("/")[2] == "tf_static")
    transforms.sort()
    if fixed_frame.lstrip("/") not in transforms.frames:
        raise InvalidInput(f"{path}: /tf has no frame {fixed_frame!r}; its frames: {shorten(transforms.frames, 20)}")
    return transforms


def _messages(path: Path, reader: Any, topic: str, most: int, cut: bool = False) -> Iterator[Any]:
    """Messages of a topic in the order of their recording; more than `most` are an error, or are not read where `cut`."""
    connections = [connection for connection in reader.connections if connection.topic == topic]
    with _reading(path):
        for count, (connection, _, data) in enumerate(reader.messages(connections)):
            if count == most:
                if cut:
                    return
                raise InvalidInput(f"{path}: more than {most} messages on {topic}; record less, or raise --most")
            yield reader.deserialize(data, connection.msgtype)


@contextmanager
def _bag(path: Path) -> Iterator[Any]:
    """An open bag."""
    from rosbags.highlevel import AnyReader
    from rosbags.typesys import Stores, get_typestore

    with ExitStack() as stack:
        with _reading(path):
            reader = AnyReader([_with_metadata(path)], default_typestore=get_typestore(Stores.ROS2_JAZZY))
            stack.enter_context(reader)
        yield reader


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Whatever a broken bag makes the library throw, at whatever depth, becomes one line."""
    try:
        yield
    except InvalidInput:
        raise
    except Exception as error:  # foreign bytes are parsed: anything may come
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise InvalidInput(f"{path}: broken, cut off or no rosbag2 recording in sqlite3 or mcap ({reason})") from None


def _with_metadata(path: Path) -> Path:
    """The folder of a bag where it has its metadata; else its one file, which mcap can be read from alone."""
    if path.is_file() and path.suffix == ".db3" and (path.parent / "metadata.yaml").is_file():
        return path.parent
    if path.is_dir() and not (path / "metadata.yaml").is_file():
        files = sorted([*path.glob("*.mcap"), *path.glob("*.db3")])
        if len(files) == 1:
            return files[0]
    return path
