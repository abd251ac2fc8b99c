"""The transforms of a bag at the times of its images, with the object as one more frame.

The true pose of the object comes from a frame of TF, a topic, or a file with the pose of an object
at rest. A board of markers gives it image by image, in `boards/truth_board`.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from uns_pose_ros.core.errors import InvalidInput, shorten
from uns_pose_ros.core.geometry import matrix_to_quaternion, project
from uns_pose_ros.core.types import Camera
from uns_pose_ros.evaluation.bag_config import MAX_MESSAGES, BagConfig
from uns_pose_ros.io.ros import rosbag
from uns_pose_ros.io.ros.recorded_transforms import read_transforms
from uns_pose_ros.io.ros.ros_messages import TF, nanoseconds
from uns_pose_ros.io.ros.transform_buffer import TransformTree
from uns_pose_ros.io.schema.decoding import read_record
from uns_pose_ros.io.schema.person_records import RestingRecord

POSE, DETECTIONS = "geometry_msgs/msg/PoseStamped", "vision_msgs/msg/Detection3DArray"
TRUTH_FRAME = "the truth"  # the frame of the object in the tree of transforms


def truth_source(config: BagConfig) -> str:
    """What gives the true pose of the object; "": nothing does."""
    return str(
        config.truth_frame
        or config.truth_topic
        or config.truth_pose
        or config.truth_board
        or ""
    )


def read_bag_transforms(
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
    on_tf = truth_source(config) and config.truth_board is None
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
    for _, arrival, message in rosbag.timed_messages(path, reader, [topic], MAX_MESSAGES):
        pose = message.pose if kind == POSE else _first(message, category)
        if pose is None:
            continue
        x = pose.position
        q = pose.orientation
        tree.add(
            message.header.frame_id.lstrip("/"),
            TRUTH_FRAME,
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
        parent.lstrip("/"), TRUTH_FRAME, 0, pose[:3, 3], np.array([x, y, z, w]), static=True
    )


class Moment(NamedTuple):
    """The frame and the time of an image."""

    frame: str
    stamp: int | None  # ns; None: not known
    arrival: int  # ns


def lookup_pose(
    tree: TransformTree, target: str, source: str, moment: Moment
) -> Tensor | None:
    """target_from_source (4, 4) at the time of an image, or None if it is not known."""
    pose = tree.lookup(target.lstrip("/"), source.lstrip("/"), moment.stamp, moment.arrival)
    return None if isinstance(pose, str) else torch.from_numpy(pose)


def camera_motion(
    tree: TransformTree, fixed: str | None, before: Moment | None, now: Moment
) -> Tensor | None:
    """cam_now_from_cam_before (4, 4) of two images."""
    if fixed is None or before is None or before.frame != now.frame:
        return None
    fixed_from_before = lookup_pose(tree, fixed, before.frame, before)
    now_from_fixed = lookup_pose(tree, now.frame, fixed, now)
    if fixed_from_before is None or now_from_fixed is None:
        return None
    return now_from_fixed @ fixed_from_before


def visible_truth(truth: Tensor | None, camera: Camera) -> Tensor | None:
    """The truth if its origin is in the image, else None."""
    if truth is None or float(truth[2, 3]) <= 0:
        return None
    u, v = project(camera.matrix, truth[:3, 3][None])[0].tolist()
    return truth if 0 <= u < camera.width and 0 <= v < camera.height else None
