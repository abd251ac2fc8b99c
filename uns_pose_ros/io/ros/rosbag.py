"""Reading rosbag2 recordings (sqlite3 or mcap) through `rosbags`: no ROS installation is needed."""

from __future__ import annotations

import errno
import logging
import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from uns_pose_ros.core.errors import DiskError, InvalidInput, shorten
from uns_pose_ros.io import bounded_decompression
from uns_pose_ros.io.depth_images import COMPRESSED_TOPIC
from uns_pose_ros.io.ros.bag_files import readable_files, salvaged_files
from uns_pose_ros.io.ros.message_definitions import check_connections, check_definition
from uns_pose_ros.io.ros.ros_messages import (
    CAMERA_INFO,
    COMPRESSED,
    IMAGE,
    calibration_values,
    nanoseconds,
)

ENDINGS = (".mcap", ".db3", ".bag")
_MOST = 10_000_000  # messages of a topic
_DRIFT = 0.02  # of the focal length, by which a calibration may change in a recording
# errors of a disk or a network, which say nothing of the bag
_OF_DISK = (
    *(errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ENODEV, errno.ENXIO),
)
_RECTIFIED = re.compile("(^|_)rect")  # not image_direct, image_corrected
_WAITING = 16  # messages that wait for those of their stamp

_log = logging.getLogger(__name__)


def is_bag(path: Path) -> bool:
    """Whether a path is a bag: the folder of one, or one of its files."""
    if path.is_dir():
        return (
            (path / "metadata.yaml").is_file()
            or any(path.glob("*.mcap"))
            or any(path.glob("*.db3"))
        )
    return path.suffix.lower() in ENDINGS


def kinds_of(reader: Any) -> dict[str, str]:
    """Type of the messages of every topic.

    A topic of images or camera_info that was recorded empty does not count where another has
    messages of its type.
    """
    topics = reader.topics
    full = {info.msgtype for info in topics.values() if info.msgcount}
    full &= {IMAGE, COMPRESSED, CAMERA_INFO}
    return {
        name: info.msgtype or ""
        for name, info in topics.items()
        if info.msgcount or info.msgtype not in full
    }


def is_rectified(topic: str) -> bool:
    """By the names that ROS gives.

    image_rect, image_rect_color, each with or without /compressed.
    """
    name = topic.removesuffix("/compressed").rpartition("/")[2]
    return _RECTIFIED.search(name) is not None


def image_topic(
    path: Path, kinds: dict[str, str], wanted: str | None, other: str | None = None
) -> str:
    """The topic asked for, or the only one with images.

    Raw before compressed where both carry the same images.

    other: a topic with images that is not meant, since it is the depth.
    """
    images = sorted(topic for topic, kind in kinds.items() if kind in (IMAGE, COMPRESSED))
    there = (
        shorten((f"{topic} ({kind})" for topic, kind in sorted(kinds.items())), 20)
        or "none"
    )
    if wanted is not None:
        for topic in (wanted, f"{wanted}/compressed"):
            if topic in images:
                return topic
        raise InvalidInput(f"{path}: no images on {wanted!r}; its topics: {there}")
    if not {*images} - {other}:
        raise InvalidInput(
            f"{path}: no topic with sensor_msgs/Image or CompressedImage; its topics: {there}"
        )
    raw = [
        t
        for t in images
        if t != other
        and not (t.endswith("/compressed") and t.removesuffix("/compressed") in images)
    ]
    if len(raw) > 1:
        raise InvalidInput(
            f"{path}: several topics with images, name one by --image-topic: {shorten(raw, 20)}"
        )
    return raw[0]


def depth_topic(path: Path, kinds: dict[str, str], wanted: str) -> str:
    """The topic with depth that is asked for, or the one that compressedDepth puts beside it."""
    for topic in (wanted, f"{wanted}/{COMPRESSED_TOPIC}"):
        if kinds.get(topic) in (IMAGE, COMPRESSED):
            return topic
    there = (
        shorten((f"{topic} ({kind})" for topic, kind in sorted(kinds.items())), 20)
        or "none"
    )
    raise InvalidInput(f"{path}: no depth images on {wanted!r}; its topics: {there}")


def camera_info(
    path: Path,
    reader: Any,
    kinds: dict[str, str],
    image_topic: str,
    wanted: str | None,
    otherwise: str = "",
) -> Any:
    """The first calibrated CameraInfo of the topic `wanted`, or of the one beside the images.

    The first of all where none is calibrated. InvalidInput ends with `otherwise`; it is raised too
    where the calibration changes by more than _DRIFT, as that of a zoom lens does.
    """
    topic = (
        wanted
        or image_topic.removesuffix("/compressed").rpartition("/")[0] + "/camera_info"
    )
    found = sorted(t for t, kind in kinds.items() if kind == CAMERA_INFO)
    if topic not in found:
        there = shorten(found, 20) or "none"
        raise InvalidInput(
            f"{path}: no camera_info on {topic!r}; topics with sensor_msgs/CameraInfo: {there}. "
            f"Name one by --camera-info-topic{otherwise}"
        )
    by_frame: dict[str, _Calibrations] = {}
    for message in messages(path, reader, topic, _MOST):
        frame = str(message.header.frame_id).lstrip("/")
        by_frame.setdefault(frame, _Calibrations(message)).take(message)
    if not by_frame:
        raise InvalidInput(
            f"{path}: {topic} is empty; name another by --camera-info-topic{otherwise}"
        )
    calibration = _calibrations_of(path, reader, image_topic, topic, by_frame, otherwise)
    if calibration.change:
        raise InvalidInput(
            f"{path}: the calibration on {topic} changes during the recording "
            f"({calibration.change}): record without zoom, or cut the bag{otherwise}"
        )
    if calibration.chosen is not None and calibration.skipped:
        _log.warning(
            "%s: %d uncalibrated messages on %s left out", path, calibration.skipped, topic
        )
    return calibration.chosen or calibration.first


@dataclass
class _Calibrations:
    """The camera_info of one frame."""

    first: Any
    chosen: Any | None = None  # the first calibrated message
    skipped: int = 0  # uncalibrated messages
    change: str = ""  # what changes; empty: nothing

    def take(self, message: Any) -> None:
        """Take the next message."""
        focals = [calibration_values(message, name)[0] for name in ("k", "p")]
        if not (focals[0] > 0 or focals[1] > 0):
            self.skipped += 1
        elif self.chosen is None:
            self.chosen = message
        elif not self.change and _has_drifted(self.chosen, message):
            before = calibration_values(self.chosen, "k")[0]
            self.change = f"focal length {before:g} px, then {focals[0]:g} px"


def _calibrations_of(
    path: Path,
    reader: Any,
    image_topic: str,
    topic: str,
    by_frame: dict[str, _Calibrations],
    otherwise: str,
) -> _Calibrations:
    """The calibrations that belong to the images, where several cameras have one topic.

    Raises:
        InvalidInput: The cameras differ, and the frame of the images is that of none of them.
    """
    calibrated = [item for item in by_frame.values() if item.chosen] or [*by_frame.values()]
    if len(by_frame) == 1:
        return calibrated[0]
    first = calibrated[0]
    differ = len(calibrated) < len(by_frame) or any(
        _are_different(first.chosen or first.first, item.chosen or item.first)
        for item in calibrated
    )
    frame = next(
        (
            str(message.header.frame_id).lstrip("/")
            for message in messages(path, reader, image_topic, 1, cut=True)
        ),
        "",
    )
    names = shorten((repr(name) for name in by_frame), 20)
    if frame not in by_frame:
        if not differ:
            return first
        raise InvalidInput(
            f"{path}: {topic} holds several cameras, of the frames {names}; the images are in "
            f"{frame!r}. Name another topic by --camera-info-topic{otherwise}"
        )
    if differ:
        _log.warning(
            "%s: %s holds several cameras, of the frames %s; that of the images, %r, is taken",
            path,
            topic,
            names,
            frame,
        )
    return by_frame[frame]


def _are_different(first: Any, other: Any) -> bool:
    """Whether two messages are of different cameras."""
    sizes = [(item.width, item.height) for item in (first, other)]
    return sizes[0] != sizes[1] or _has_drifted(first, other)


def _has_drifted(first: Any, other: Any) -> bool:
    """Whether K or P of images of the same size differ by more than _DRIFT."""
    if (first.width, first.height) != (other.width, other.height):
        return False  # images of another size are left out for their size
    return any(
        not np.allclose(
            before,
            now,
            rtol=0,
            atol=_DRIFT * max(float(abs(before[0])), 1.0),
            equal_nan=True,
        )
        for before, now in (
            (calibration_values(first, n), calibration_values(other, n)) for n in ("k", "p")
        )
    )


def messages(
    path: Path, reader: Any, topic: str, most: int, cut: bool = False
) -> Iterator[Any]:
    """Messages of a topic in the order of their recording.

    More than `most` are an error, or are not read where `cut`.
    """
    connections = [
        connection for connection in reader.connections if connection.topic == topic
    ]
    with _reading(path):
        bounded_decompression.begin_bag(path)
        for count, (connection, _, data) in enumerate(reader.messages(connections)):
            if count == most:
                if cut:
                    return
                raise InvalidInput(
                    f"{path}: more than {most} messages on {topic}; record less, or raise --most"
                )
            yield _deserialized(reader, connection, data)


def pairs(
    path: Path, reader: Any, topic: str, other: str, most: int
) -> Iterator[tuple[int, Any, Any | None]]:
    """Arrival (ns) and message of a topic, in order, with the message of another of its stamp.

    None without one, and for a message whose stamp another one has that still waits.

    Either may be recorded first; one is waited for until _WAITING more of its topic have come.
    """
    firsts, others = OrderedDict[int, tuple[int, Any]](), OrderedDict[int, Any]()
    for at, arrival, message in timed_messages(path, reader, (topic, other), most):
        stamp = nanoseconds(message.header.stamp)
        if at != topic:
            others[stamp] = message
        elif stamp in firsts:
            yield arrival, message, None
        else:
            firsts[stamp] = (arrival, message)
        if len(others) > _WAITING:
            others.popitem(last=False)
        while firsts and (next(iter(firsts)) in others or len(firsts) > _WAITING):
            stamp, first = firsts.popitem(last=False)
            yield *first, others.pop(stamp, None)
    for stamp, first in firsts.items():
        yield *first, others.get(stamp)


def timed_messages(
    path: Path, reader: Any, topics: Sequence[str], most: int
) -> Iterator[tuple[str, int, Any]]:
    """Topic, arrival (ns) and message of everything on topics, in the order of recording.

    More than `most` are an error.
    """
    connections = [
        connection for connection in reader.connections if connection.topic in topics
    ]
    with _reading(path):
        bounded_decompression.begin_bag(path)
        for count, (connection, arrival, data) in enumerate(reader.messages(connections)):
            if count == most:
                raise InvalidInput(
                    f"{path}: more than {most} messages on {' and '.join(topics)}; record less, or "
                    "raise --most"
                )
            yield connection.topic, arrival, _deserialized(reader, connection, data)


def _deserialized(reader: Any, connection: Any, data: bytes) -> Any:
    check_definition(reader.typestore, connection.msgtype)
    return reader.deserialize(data, connection.msgtype)


@contextmanager
def open_bag(path: Path) -> Iterator[Any]:
    """The reader of a bag; raises InvalidInput if it is none."""
    bounded_decompression.bound_rosbags()
    with ExitStack() as stack:
        with _reading(path):
            scratch = Path(stack.enter_context(TemporaryDirectory()))
            try:
                reader = stack.enter_context(_reader_of(readable_files(path, scratch)))
            except Exception as error:
                if "malformed" not in str(error):
                    raise
                files = salvaged_files(path, scratch)
                reader = stack.enter_context(_reader_of(files))
            check_connections(reader.connections)
        yield reader


def _reader_of(files: Sequence[Path]) -> Any:
    from rosbags.highlevel import AnyReader
    from rosbags.typesys import Stores, get_typestore

    return AnyReader(files, default_typestore=get_typestore(Stores.ROS2_JAZZY))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Whatever a broken bag makes the library throw, at whatever depth, becomes one line."""
    try:
        yield
    except InvalidInput:
        raise
    except Exception as error:  # foreign bytes are parsed: anything may come
        if isinstance(error, OSError) and error.errno in _OF_DISK:
            raise DiskError.of(error, path, "read") or error from None
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise InvalidInput(
            f"{path}: broken, cut off or no rosbag2 recording in sqlite3 or mcap ({reason})"
        ) from None
