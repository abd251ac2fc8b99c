"""The results of a bag as other files.

A bag has the topics of the node, for RViz or Foxglove. A CSV has the format of the BOP benchmark.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import matrix_to_quaternion
from uns_pose_ros.core.types import CategoryModel, PoseEstimate
from uns_pose_ros.estimation.fusion.pose_modes import ranked_modes
from uns_pose_ros.evaluation.bag_figures import FrameResult, PoseError
from uns_pose_ros.evaluation.bag_transforms import DETECTIONS
from uns_pose_ros.evaluation.rosbag_markers import (
    MARKERS,
    POSES,
    box_markers,
    pose_list_message,
)
from uns_pose_ros.io.ros.ros_messages import TF
from uns_pose_ros.io.writing.replacement import atomic_write, staged_folder
from uns_pose_ros.io.writing.target_lock import lock_target

TOPIC = "/estimator/detections"
MARKERS_TOPIC = "/estimator/markers"
POSES_TOPIC = "/estimator/poses"
_VISION = {  # the public definitions of vision_msgs, which rosbags does not bring
    "vision_msgs/msg/ObjectHypothesis": "string class_id\nfloat64 score\n",
    "vision_msgs/msg/ObjectHypothesisWithPose": (
        "vision_msgs/ObjectHypothesis hypothesis\ngeometry_msgs/PoseWithCovariance pose\n"
    ),
    "vision_msgs/msg/BoundingBox3D": "geometry_msgs/Pose center\ngeometry_msgs/Vector3 size\n",
    "vision_msgs/msg/Detection3D": (
        "std_msgs/Header header\nvision_msgs/ObjectHypothesisWithPose[] "
        "results\nvision_msgs/BoundingBox3D bbox\nstring id\n"
    ),
    DETECTIONS: "std_msgs/Header header\nvision_msgs/Detection3D[] detections\n",
}


@cache
def message_types() -> Any:
    """The types of the messages in the written bag."""
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    for name, text in _VISION.items():
        store.register(get_types_from_msg(text, name))
    return store


def write_bag(path: Path, results: Sequence[FrameResult], model: CategoryModel) -> None:
    """Write a bag with /tf, detections, poses and markers, stamps and frames as in the images.

    Lengths are m, or diameters if the model does not know its size.

    Args:
        path: a new .mcap file, or a new folder with sqlite3.
        results: the results of the images.
        model: the category's model.

    Raises:
        InvalidInput: the path exists, or another process writes it.
        DiskError: the disk refuses it.
    """
    with lock_target(path):
        if path.exists():
            raise InvalidInput(f"{path}: is there already; another name, or delete it")
        with staged_folder(path) as staged:
            bag = staged / path.stem
            _write_messages(bag, path.suffix == ".mcap", results, model)
            made = next(bag.glob("*.mcap")) if path.suffix == ".mcap" else bag
            os.rename(made, path)


def _write_messages(
    folder: Path, single: bool, results: Sequence[FrameResult], model: CategoryModel
) -> None:
    """Write a bag into a new folder, as mcap if it becomes a single file, else as sqlite3."""
    from rosbags.rosbag2 import StoragePlugin, Writer

    store = message_types()
    plugin = StoragePlugin.MCAP if single else StoragePlugin.SQLITE3
    with Writer(folder, version=9, storage_plugin=plugin) as writer:
        tf = writer.add_connection("/tf", TF, typestore=store)
        detections = writer.add_connection(TOPIC, DETECTIONS, typestore=store)
        markers = writer.add_connection(MARKERS_TOPIC, MARKERS, typestore=store)
        poses = writer.add_connection(POSES_TOPIC, POSES, typestore=store)
        center = model.center
        for result in results:
            if result.estimates and result.frame:
                transforms = store.serialize_cdr(_transforms(store, result), TF)
                writer.write(tf, result.stamp, transforms)
            message = _detections(store, result, center)
            writer.write(detections, result.stamp, store.serialize_cdr(message, DETECTIONS))
            header = _header(store, result)
            boxes = [detection.bbox.center for detection in message.detections]
            shown = box_markers(store, header, result.estimates, result.tracks, boxes)
            writer.write(markers, result.stamp, store.serialize_cdr(shown, MARKERS))
            placed = [_pose(store, one.cam_from_canon) for one in result.estimates]
            listed = pose_list_message(store, header, placed)
            writer.write(poses, result.stamp, store.serialize_cdr(listed, POSES))


def _header(store: Any, result: FrameResult) -> Any:
    stamp = store.types["builtin_interfaces/msg/Time"](
        sec=result.stamp // 10**9, nanosec=result.stamp % 10**9
    )
    return store.types["std_msgs/msg/Header"](stamp=stamp, frame_id=result.frame)


def _parts(pose: Tensor) -> tuple[dict[str, float], dict[str, float]]:
    """Position and quaternion of a rigid pose (4, 4), by their names in messages."""
    quaternion = dict(zip("wxyz", matrix_to_quaternion(pose[:3, :3]).tolist(), strict=True))
    return dict(zip("xyz", pose[:3, 3].tolist(), strict=True)), quaternion


def _transforms(store: Any, result: FrameResult) -> Any:
    types, transforms = store.types, []
    for estimate, track in zip(result.estimates, result.tracks, strict=True):
        position, quaternion = _parts(estimate.cam_from_canon)
        pose = types["geometry_msgs/msg/Transform"](
            translation=types["geometry_msgs/msg/Vector3"](**position),
            rotation=types["geometry_msgs/msg/Quaternion"](**quaternion),
        )
        child = f"{estimate.category}_{track}"
        stamped = types["geometry_msgs/msg/TransformStamped"]
        transforms.append(
            stamped(header=_header(store, result), child_frame_id=child, transform=pose)
        )
    return types[TF](transforms=transforms)


def _pose(store: Any, pose: Tensor) -> Any:
    types, (position, quaternion) = store.types, _parts(pose)
    return types["geometry_msgs/msg/Pose"](
        position=types["geometry_msgs/msg/Point"](**position),
        orientation=types["geometry_msgs/msg/Quaternion"](**quaternion),
    )


def _detections(store: Any, result: FrameResult, center: Tensor) -> Any:
    header = _header(store, result)
    detections = [
        _detection(store, header, estimate, track, center)
        for estimate, track in zip(result.estimates, result.tracks, strict=True)
    ]
    return store.types[DETECTIONS](header=header, detections=detections)


def _detection(
    store: Any, header: Any, estimate: PoseEstimate, track: int, center: Tensor
) -> Any:
    """The detection as the node sends it; center (3,) of the model's box, canonical units."""
    types = store.types
    results = [
        types["vision_msgs/msg/ObjectHypothesisWithPose"](
            hypothesis=types["vision_msgs/msg/ObjectHypothesis"](
                class_id=estimate.category, score=score
            ),
            pose=types["geometry_msgs/msg/PoseWithCovariance"](
                pose=_pose(store, pose),
                covariance=np.full(36, -1.0)
                if covariance is None
                else covariance.flatten().numpy(),
            ),
        )
        for pose, score, covariance in ranked_modes(estimate)
    ]
    middle = estimate.box_pose(center)
    size = types["geometry_msgs/msg/Vector3"](
        **dict(zip("xyz", estimate.size.tolist(), strict=True))
    )
    box = types["vision_msgs/msg/BoundingBox3D"](center=_pose(store, middle), size=size)
    return types["vision_msgs/msg/Detection3D"](
        header=header, results=results, bbox=box, id=str(track)
    )


def write_bop(path: Path, results: Sequence[FrameResult]) -> None:
    """Write all estimates as the CSV of the BOP challenge.

    The scene is 1, images are numbered from 0, the object is 1, translations are in mm, times in s.
    If the model does not know its size, translations are thousandths of a diameter.
    """
    with atomic_write(path) as temporary, temporary.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["scene_id", "im_id", "obj_id", "score", "R", "t", "time"])
        for number, result in enumerate(results):
            for estimate in result.estimates:
                pose = estimate.cam_from_canon
                rotation = " ".join(
                    f"{value:.9f}" for value in pose[:3, :3].flatten().tolist()
                )
                translation = " ".join(
                    f"{1000 * value:.6f}" for value in pose[:3, 3].tolist()
                )
                rows.writerow(
                    [
                        1,
                        number,
                        1,
                        f"{estimate.score:.6f}",
                        rotation,
                        translation,
                        f"{result.seconds:.4f}",
                    ]
                )


def frame_records(
    results: Sequence[FrameResult],
    errors: Sequence[PoseError | None],
    truth_from_canon: Tensor,
) -> list[dict[str, Any]]:
    """The estimates of every image, and the error of the best one, as JSON types."""
    listed = []
    for result, error in zip(results, errors, strict=True):
        truth = (
            None
            if result.truth is None
            else torch.as_tensor(result.truth @ truth_from_canon).tolist()
        )
        record: dict[str, Any] = {
            "stamp_ns": result.stamp,
            "frame": result.frame,
            "seconds": result.seconds,
            "truth": truth,
            "estimates": [
                _estimate_record(estimate, track)
                for estimate, track in zip(result.estimates, result.tracks, strict=True)
            ],
        }
        best = result.best
        if best is not None:
            record |= {
                "track": result.tracks[0],
                "score": best.score,
                "cam_from_canon": best.cam_from_canon.tolist(),
            }
            record |= (
                {}
                if error is None
                else {
                    "error_deg": error.degrees,
                    "error_m": error.meters,
                    "error_percent": error.percent,
                }
            )
        listed.append(record)
    return listed


def _estimate_record(estimate: PoseEstimate, track: int) -> dict[str, Any]:
    return {
        "track": track,
        "score": estimate.score,
        "cam_from_canon": estimate.cam_from_canon.tolist(),
        "scale": estimate.scale,
        "metric": estimate.metric,
    }
