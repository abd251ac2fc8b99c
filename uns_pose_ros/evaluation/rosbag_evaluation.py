"""Poses in every image of a recorded bag, and their quality.

The quality is accuracy, time, jitter and lost objects. The bag is not played.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from uns_pose_ros.core.errors import InvalidInput, shorten
from uns_pose_ros.core.geometry import (
    matrix_to_quaternion,
    project,
)
from uns_pose_ros.core.left_out import LeftOut
from uns_pose_ros.core.types import Camera, Progress
from uns_pose_ros.estimation.cameras.camera_fusion import CameraFusionConfig
from uns_pose_ros.estimation.estimator import Estimator
from uns_pose_ros.estimation.stream.stream_estimator import StreamConfig, StreamEstimator
from uns_pose_ros.estimation.tracker import Tracker, TrackerConfig
from uns_pose_ros.evaluation.bag_figures import (
    FrameResult,
)
from uns_pose_ros.evaluation.boards.truth_board import TruthBoard, read_truth_board
from uns_pose_ros.io import depth_images
from uns_pose_ros.io.image_metadata import FAINT
from uns_pose_ros.io.ros import rosbag
from uns_pose_ros.io.ros.image_stamps import ImageStamps, StampFault, why_no_time
from uns_pose_ros.io.ros.recorded_transforms import read_transforms
from uns_pose_ros.io.ros.ros_messages import (
    TF,
    decode_image,
    nanoseconds,
    read_camera_info,
    uses_few_bits,
)
from uns_pose_ros.io.ros.transform_buffer import TransformTree
from uns_pose_ros.io.schema.decoding import read_record
from uns_pose_ros.io.schema.person_records import RestingRecord

POSE, DETECTIONS = "geometry_msgs/msg/PoseStamped", "vision_msgs/msg/Detection3DArray"
_MOST = 10_000_000  # messages of a topic
_TRUTH = "the truth"  # the frame of the object in the tree of transforms

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BagConfig:
    """Which messages of a bag are evaluated, and what is known of the pose of the object."""

    image_topic: str | None = None  # of the images; without: the only one
    camera_info_topic: str | None = None  # without: camera_info beside the images
    # aligned depth, which refines poses and gives meters; without: not used
    depth_topic: str | None = None
    truth_frame: str | None = None  # TF frame of the object
    # topic with the object's pose: PoseStamped, or Detection3DArray (first of the category)
    truth_topic: str | None = None
    # of an object at rest, {"frame": TF frame, "pose": 4x4 frame_from_object, m}
    truth_pose: Path | None = None
    # YAML of a printed board of markers below the object, see `uns-pose board`
    truth_board: Path | None = None
    # bring the model's frame to the truth's by the pose that fits this bag best, a little too well
    fit: bool = False
    # TF frame that does not move with the camera: for fusion, and jitter without truth
    fixed_frame: str | None = None
    # topic of the transforms, its static one goes with it; without: that of the camera
    tf_topic: str | None = None
    # poses fused over images, as the node gives them; without: each image's own
    fuse: bool = False
    every: int = 1  # use only one in so many images
    # the whole image is searched in each of so many images, as the node does; 1: in every one
    search_every: int = StreamConfig.every
    # of several cameras, which are fused as the fusion node does; needs fixed_frame
    image_topics: tuple[str, ...] = ()
    # s, largest difference between the stamps of images that are fused
    max_difference: float = CameraFusionConfig.max_difference

    def __post_init__(self) -> None:
        if self.every < 1:
            raise InvalidInput(f"--every {self.every}: 1 or more is valid")
        StreamConfig(self.search_every)
        given = [
            name
            for name in ("truth_frame", "truth_topic", "truth_pose", "truth_board")
            if getattr(self, name) is not None
        ]
        CameraFusionConfig(max_difference=self.max_difference)
        if self.image_topics:
            self._check_cameras()
        if len(given) > 1:
            raise InvalidInput(
                f"{' and '.join(given)} both say what is true: one of them is valid"
            )

    def _check_cameras(self) -> None:
        """Raise InvalidInput where the settings do not fit several cameras."""
        topics = self.image_topics
        if len(set(topics)) < max(2, len(topics)):
            raise InvalidInput(
                f"--image-topics {' '.join(topics)}: two or more, each once, are valid"
            )
        alone = {
            "--image-topic": self.image_topic,
            "--camera-info-topic": self.camera_info_topic,
            "--depth-topic": self.depth_topic,
        }
        if wrong := [name for name, value in alone.items() if value is not None]:
            raise InvalidInput(
                f"{', '.join(wrong)} with --image-topics: valid for one camera only"
            )
        if self.fixed_frame is None:
            raise InvalidInput(
                "--image-topics: --fixed-frame FRAME is needed too, a frame of TF in which the "
                "cameras are placed"
            )


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
        tree = _tree(path, reader, kinds, config, topic, model.category)
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
    source = _truth_of(config)
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
        self._last: _Moment | None = None  # of the last image

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
        now = _Moment(frame.frame, None if timeless else frame.stamp, frame.arrival)
        motion = _motion(self._tree, self._fixed_frame, self._last, now)
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
            else _lookup(self._tree, self._fixed_frame, frame.frame, now),
        )

    def _truth(self, frame: _BagFrame, now: _Moment) -> Tensor | None:
        """cam_from_truth (4, 4) if it is known and in the image."""
        if self._board is None:
            return _visible(_lookup(self._tree, frame.frame, _TRUTH, now), frame.camera)
        pose = self._board.find(frame.image, frame.camera)
        if isinstance(pose, str):
            self.boardless.add(pose)
            return None
        # where the object stands on the board is not known yet
        if self._board.record.board_from_object is None:
            return pose
        return _visible(pose, frame.camera)


def _image_messages(
    path: Path, reader: Any, topic: str, depth_topic: str | None
) -> Iterator[tuple[int, Any, Any | None]]:
    """Yield arrival and message of the images, with the depth of its stamp if a topic has it."""
    if depth_topic is None:
        messages = rosbag.timed_messages(path, reader, [topic], _MOST)
        return ((arrival, message, None) for _, arrival, message in messages)
    return rosbag.pairs(path, reader, topic, depth_topic, _MOST)


def _truth_of(config: BagConfig) -> str:
    return str(
        config.truth_frame
        or config.truth_topic
        or config.truth_pose
        or config.truth_board
        or ""
    )


def _tree(
    path: Path,
    reader: Any,
    kinds: dict[str, str],
    config: BagConfig,
    image_topic: str,
    category: str,
) -> TransformTree:
    """The transforms of the bag, with the true pose of the object as one more frame."""
    needed = [
        frame for frame in (config.fixed_frame, config.truth_frame) if frame is not None
    ]
    has_tf = any(kind == TF for kind in kinds.values())
    on_tf = _truth_of(config) and config.truth_board is None
    if has_tf and not needed and not on_tf and config.tf_topic is None:
        has_tf = False  # nothing is looked up
    tree = (
        read_transforms(path, reader, kinds, image_topic, needed, config.tf_topic)
        if needed or has_tf
        else TransformTree(math.inf, recording=True)
    )
    if config.truth_frame is not None:
        _add(tree, config.truth_frame, np.eye(4))
    elif config.truth_pose is not None:
        _add(tree, *_resting(config.truth_pose))
    elif config.truth_topic is not None:
        _add_truth_topic(tree, path, reader, kinds, config.truth_topic, category)
    return tree


def _add_truth_topic(
    tree: TransformTree,
    path: Path,
    reader: Any,
    kinds: dict[str, str],
    topic: str,
    category: str,
) -> None:
    """Add the poses of a topic to the tree as those of the object."""
    kind = kinds.get(topic)
    if kind not in (POSE, DETECTIONS):
        usable = sorted(name for name, k in kinds.items() if k in (POSE, DETECTIONS))
        raise InvalidInput(
            f"{path}: no {POSE} or {DETECTIONS} on {topic!r}; topics with one: "
            f"{shorten(usable) or 'none'}"
        )
    for _, arrival, message in rosbag.timed_messages(path, reader, [topic], _MOST):
        pose = message.pose if kind == POSE else _first(message, category)
        if pose is None:
            continue
        x = pose.position
        q = pose.orientation
        tree.add(
            message.header.frame_id.lstrip("/"),
            _TRUTH,
            nanoseconds(message.header.stamp),
            np.array([x.x, x.y, x.z]),
            np.array([q.x, q.y, q.z, q.w]),
            arrival=arrival,
        )


def _first(message: Any, category: str) -> Any | None:
    """The pose of the first detection of the category in a Detection3DArray."""
    for detection in message.detections:
        for result in detection.results:
            if result.hypothesis.class_id == category:
                return result.pose.pose
    return None


def _resting(path: Path) -> tuple[str, np.ndarray]:
    """Read frame and frame_from_object (4, 4) from a file."""
    try:
        record = read_record(path, RestingRecord, "resting pose")
    except InvalidInput as error:
        raise InvalidInput(
            f'{error}: {{"frame": TF frame, "pose": 4x4 rigid frame_from_object, m}} is needed'
        ) from None
    return record.frame, np.array(record.pose)


def _add(tree: TransformTree, parent: str, pose: np.ndarray) -> None:
    """Add the constant pose (4, 4) of the object in a frame."""
    w, x, y, z = matrix_to_quaternion(torch.from_numpy(pose[:3, :3])).tolist()
    tree.add(
        parent.lstrip("/"), _TRUTH, 0, pose[:3, 3], np.array([x, y, z, w]), static=True
    )


class _Moment(NamedTuple):
    """The frame and the time of an image."""

    frame: str
    stamp: int | None  # ns; None: not known
    arrival: int  # ns


def _lookup(
    tree: TransformTree, target: str, source: str, moment: _Moment
) -> Tensor | None:
    """target_from_source (4, 4) at the time of an image, or None if it is not known."""
    pose = tree.lookup(target.lstrip("/"), source.lstrip("/"), moment.stamp, moment.arrival)
    return None if isinstance(pose, str) else torch.from_numpy(pose)


def _motion(
    tree: TransformTree, fixed: str | None, before: _Moment | None, now: _Moment
) -> Tensor | None:
    """cam_now_from_cam_before (4, 4) of two images."""
    if fixed is None or before is None or before.frame != now.frame:
        return None
    fixed_from_before = _lookup(tree, fixed, before.frame, before)
    now_from_fixed = _lookup(tree, now.frame, fixed, now)
    if fixed_from_before is None or now_from_fixed is None:
        return None
    return now_from_fixed @ fixed_from_before


def _visible(truth: Tensor | None, camera: Camera) -> Tensor | None:
    """The truth if its origin is in the image, else None."""
    if truth is None or float(truth[2, 3]) <= 0:
        return None
    u, v = project(camera.matrix, truth[:3, 3][None])[0].tolist()
    return truth if 0 <= u < camera.width and 0 <= v < camera.height else None
