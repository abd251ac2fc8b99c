"""Poses in every image of a recorded bag, and their quality.

The quality is accuracy, time, jitter and lost objects. The bag is not played.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.left_out import LeftOut
from uns_pose_ros.core.types import Camera, Progress
from uns_pose_ros.estimation.estimator import Estimator
from uns_pose_ros.estimation.stream.stream_estimator import StreamConfig, StreamEstimator
from uns_pose_ros.estimation.tracker import Tracker, TrackerConfig
from uns_pose_ros.evaluation.bag_config import MAX_MESSAGES, BagConfig
from uns_pose_ros.evaluation.bag_figures import FrameResult
from uns_pose_ros.evaluation.bag_transforms import (
    TRUTH_FRAME,
    Moment,
    camera_motion,
    lookup_pose,
    read_bag_transforms,
    truth_source,
    visible_truth,
)
from uns_pose_ros.evaluation.boards.truth_board import TruthBoard, read_truth_board
from uns_pose_ros.io import depth_images
from uns_pose_ros.io.image_metadata import FAINT
from uns_pose_ros.io.ros import rosbag
from uns_pose_ros.io.ros.image_stamps import ImageStamps, StampFault, why_no_time
from uns_pose_ros.io.ros.ros_messages import (
    decode_image,
    nanoseconds,
    read_camera_info,
    uses_few_bits,
)
from uns_pose_ros.io.ros.transform_buffer import TransformTree

_log = logging.getLogger(__name__)

# is called with a result, its image (H, W, 3) uint8 RGB and its camera
FrameCallback: TypeAlias = Callable[[FrameResult, np.ndarray, Camera], None]


@dataclass(frozen=True, eq=False)
class _BagFrame:
    """An image of a bag with its camera."""

    stamp: int  # ns
    arrival: int  # ns
    frame: str  # TF frame of the image
    image: np.ndarray  # (H, W, 3) uint8 RGB
    camera: Camera
    depth: np.ndarray | None  # (H, W), m; None without a depth topic


def estimate_bag_frames(
    path: Path,
    estimator: Estimator,
    config: BagConfig,
    progress: Progress,
    keep: FrameCallback = lambda result, image, camera: None,
) -> list[FrameResult]:
    """Estimate every image of the bag, in the order of recording.

    Args:
        path: a rosbag2 recording.
        estimator: the estimator.
        config: which messages are read.
        progress: is called with the step, the images done and all images.
        keep: is called with each result, its image and its camera.

    Raises:
        InvalidInput: the bag cannot be used.
    """
    (model,) = estimator.models
    board = None if config.truth_board is None else read_truth_board(config.truth_board)
    results = list[FrameResult]()
    faults, first_fault, faint = LeftOut(), "", 0
    with rosbag.open_bag(path) as reader:
        kinds = rosbag.kinds_of(reader)
        depth_topic = None
        if config.depth_topic is not None:
            depth_topic = rosbag.depth_topic(path, kinds, config.depth_topic)
        topic = rosbag.image_topic(path, kinds, config.image_topic, depth_topic)
        info = rosbag.camera_info(path, reader, kinds, topic, config.camera_info_topic)
        tree = read_bag_transforms(path, reader, kinds, config, topic, model.category)
        stream = _BagStream(estimator, config, tree, board)
        total = int(reader.topics[topic].msgcount)
        messages = _image_messages(path, reader, topic, depth_topic)
        for number, (arrival, message, depth) in enumerate(messages):
            progress(f"estimating {path.name}", number + 1, total)
            if number % config.every:
                continue
            try:
                fault = stream.check_stamp(nanoseconds(message.header.stamp), arrival)
                if fault and depth_topic is not None:
                    raise InvalidInput(f"{fault}: no depth can belong to it")
                frame = _decode_frame(
                    message, arrival, info, topic, depth, depth_topic is not None
                )
            except InvalidInput as error:
                faults.add_error("images", str(error))
                first_fault = first_fault or str(error)
                continue
            faint += uses_few_bits(message, frame.image)
            results.append(stream.estimate(frame, timeless=bool(fault)))
            keep(results[-1], frame.image, frame.camera)
    if not results:
        raise InvalidInput(
            f"{path}: no usable image on {topic}; {first_fault or 'it is empty'}"
        )
    _warn(path, config, results, faults)
    if faint:
        _log.warning("%s: %s: %d", path, FAINT, faint)
    for line in stream.boardless.lines():
        _log.warning("%s: without truth: images: %s", path, line)
    if text := stream.stamps.summary():
        _log.warning("%s: %s: %s", path, topic, text)
    return results


def _warn(
    path: Path, config: BagConfig, results: Sequence[FrameResult], faults: LeftOut
) -> None:
    """Log which images were left out, and whether the truth is never known."""
    for line in faults.lines():
        _log.warning("%s: left out: %s", path, line)
    source = truth_source(config)
    if source and all(result.truth is None for result in results):
        _log.warning("%s: %s is never known with the object in the image", path, source)


def _decode_frame(
    message: Any,
    arrival: int,
    info: Any,
    topic: str,
    depth: Any | None,
    need_depth: bool,
) -> _BagFrame:
    """Decode an image with its camera and depth.

    Args:
        message: of the image.
        arrival: when it was recorded, ns.
        info: camera_info of the topic.
        topic: of the image.
        depth: the depth message with the stamp of the image.
        need_depth: whether an image without depth is an error.

    Raises:
        InvalidInput: one of the messages cannot be used.
    """
    image = decode_image(message)
    height, width = image.shape[:2]
    camera = read_camera_info(info, width, height, rosbag.is_rectified(topic))
    if need_depth and depth is None:
        raise InvalidInput("no depth of its stamp")
    meters = None
    if depth is not None:
        meters = depth_images.depth_in_metres(depth, camera.width, camera.height)
    stamp = nanoseconds(message.header.stamp)
    frame = message.header.frame_id.lstrip("/")
    return _BagFrame(stamp, arrival, frame, image, camera, meters)


class _BagStream:
    """Estimates and tracks objects in the images of a bag, in the order of their stamps."""

    def __init__(
        self,
        estimator: Estimator,
        config: BagConfig,
        tree: TransformTree,
        board: TruthBoard | None = None,
    ) -> None:
        self._board = board
        self.boardless = LeftOut()  # images in which the board gives no truth
        self._estimator = estimator
        self._fixed_frame = config.fixed_frame
        self._tree = tree
        self._stream = StreamEstimator(
            Tracker(TrackerConfig(fuse=config.fuse)), StreamConfig(config.search_every)
        )
        self.stamps = ImageStamps()
        self._last: Moment | None = None  # of the last image

    def check_stamp(self, stamp: int, arrival: int) -> str:
        """Take the stamp of the next image, ns.

        Returns:
            Why it is no time; empty: it is one.

        Raises:
            InvalidInput: the stamp is negative.
        """
        fault = self.stamps.take(stamp, arrival)
        self.stamps.compare_with_clock(stamp, arrival)
        if fault == StampFault.NEGATIVE:
            raise InvalidInput(fault.value)
        return why_no_time(fault)

    def estimate(self, frame: _BagFrame, timeless: bool = False) -> FrameResult:
        """The result of the next image.

        Args:
            frame: the image.
            timeless: whether its stamp says nothing of time: then only static transforms count.
        """
        now = Moment(frame.frame, None if timeless else frame.stamp, frame.arrival)
        motion = camera_motion(self._tree, self._fixed_frame, self._last, now)
        self._last = now
        start = time.perf_counter()
        expected = self._stream.expect(self.stamps.time, motion)
        estimates = self._estimator(
            frame.image, frame.camera, depth=frame.depth, expected=expected
        )
        seconds = time.perf_counter() - start
        tracks = sorted(
            self._stream.update(estimates, expected, self.stamps.time, motion),
            key=lambda track: -track.estimate.score,
        )
        truth = self._truth(frame, now)
        return FrameResult(
            stamp=frame.stamp,
            frame=frame.frame,
            estimates=tuple(track.estimate for track in tracks),
            tracks=tuple(track.number for track in tracks),
            seconds=seconds,
            truth=truth,
            motion=motion,
            fixed_from_cam=None
            if self._fixed_frame is None
            else lookup_pose(self._tree, self._fixed_frame, frame.frame, now),
        )

    def _truth(self, frame: _BagFrame, now: Moment) -> Tensor | None:
        """cam_from_truth (4, 4) if it is known and in the image."""
        if self._board is None:
            return visible_truth(
                lookup_pose(self._tree, frame.frame, TRUTH_FRAME, now), frame.camera
            )
        pose = self._board.find(frame.image, frame.camera)
        if isinstance(pose, str):
            self.boardless.add(pose)
            return None
        # where the object stands on the board is not known yet
        if self._board.record.board_from_object is None:
            return pose
        return visible_truth(pose, frame.camera)


def _image_messages(
    path: Path, reader: Any, topic: str, depth_topic: str | None
) -> Iterator[tuple[int, Any, Any | None]]:
    """Yield arrival and message of the images, with the depth of its stamp if a topic has it."""
    if depth_topic is None:
        messages = rosbag.timed_messages(path, reader, [topic], MAX_MESSAGES)
        return ((arrival, message, None) for _, arrival, message in messages)
    return rosbag.pairs(path, reader, topic, depth_topic, MAX_MESSAGES)
