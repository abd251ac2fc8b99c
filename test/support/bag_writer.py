"""Bags written with `rosbags`.

A camera that goes around a truck, with camera_info and transforms.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from synthetic import look_at, render, truck
from uns_pose_ros.core.geometry import matrix_to_quaternion
from uns_pose_ros.core.types import Camera, Frame
from uns_pose_ros.io.images import read_image

STORE = get_typestore(Stores.ROS2_JAZZY)
KINDS = {
    "/cam/image_raw": "sensor_msgs/msg/Image",
    "/cam/image_raw/compressed": "sensor_msgs/msg/CompressedImage",
    "/cam/camera_info": "sensor_msgs/msg/CameraInfo",
    "/tf": "tf2_msgs/msg/TFMessage",
    "/tf_static": "tf2_msgs/msg/TFMessage",
}
DEPTHS = {
    "/cam/depth/image_raw": "sensor_msgs/msg/Image",
    "/cam/depth/image_raw/compressedDepth": "sensor_msgs/msg/CompressedImage",
}
RAW_TOPICS = set(KINDS) - {"/cam/image_raw/compressed"}
COMPRESSED_TOPICS = set(KINDS) - {"/cam/image_raw"}
PLUGINS = [StoragePlugin.SQLITE3, StoragePlugin.MCAP]
Sent = list[tuple[str, float, Any]]  # topic, time of arrival (s), message
CAMERA = Camera(
    torch.tensor([[100.0, 0, 31.5], [0, 100.0, 23.5], [0, 0, 1]]).double(), 64, 48
)
# the optical frame on the robot's body
BODY_FROM_CAM = np.array([[0.0, 0, 1, 0.2], [-1, 0, 0, 0], [0, -1, 0, 0.5], [0, 0, 0, 1]])


def make(name: str, **fields: Any) -> Any:
    return STORE.types[name](**fields)


def header(time: float, frame: str) -> Any:
    nanoseconds = round(time * 1e9)
    stamp = make(
        "builtin_interfaces/msg/Time", sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9
    )
    return make("std_msgs/msg/Header", stamp=stamp, frame_id=frame)


def transform(time: float, parent: str, child: str, parent_from_child: np.ndarray) -> Any:
    w, x, y, z = matrix_to_quaternion(torch.from_numpy(parent_from_child[:3, :3])).tolist()
    translation = make(
        "geometry_msgs/msg/Vector3",
        **dict(zip("xyz", parent_from_child[:3, 3].tolist(), strict=True)),
    )
    rotation = make("geometry_msgs/msg/Quaternion", x=x, y=y, z=z, w=w)
    pose = make("geometry_msgs/msg/Transform", translation=translation, rotation=rotation)
    return make(
        "geometry_msgs/msg/TransformStamped",
        header=header(time, parent),
        child_frame_id=child,
        transform=pose,
    )


def camera_info(time: float, focal: float = 100.0) -> Any:
    k = np.array([focal, 0, 31.5, 0, focal, 23.5, 0, 0, 1])
    p = np.array([90.0, 0, 31.5, 0, 0, 90.0, 23.5, 0, 0, 0, 1, 0])
    roi = make(
        "sensor_msgs/msg/RegionOfInterest",
        x_offset=0,
        y_offset=0,
        height=0,
        width=0,
        do_rectify=False,
    )
    return make(
        "sensor_msgs/msg/CameraInfo",
        header=header(time, "cam_optical"),
        height=48,
        width=64,
        distortion_model="plumb_bob",
        d=np.zeros(5),
        k=k,
        r=np.eye(3).ravel(),
        p=p,
        binning_x=0,
        binning_y=0,
        roi=roi,
    )


def raw(time: float, image: np.ndarray, encoding: str = "rgb8") -> Any:
    height, width = image.shape[:2]
    padded = np.zeros(
        (height, width * 3 + 5), np.uint8
    )  # rows may be longer than their pixels
    padded[:, : width * 3] = image.reshape(height, -1)
    return make(
        "sensor_msgs/msg/Image",
        header=header(time, "cam_optical"),
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=width * 3 + 5,
        data=padded.ravel(),
    )


def compressed(time: float, image: np.ndarray) -> Any:
    data = cv2.imencode(
        ".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 98]
    )[1].ravel()
    return make(
        "sensor_msgs/msg/CompressedImage",
        header=header(time, "cam_optical"),
        format="rgb8; jpeg",
        data=data,
    )


def depth_of(number: int) -> np.ndarray:
    """(48, 64) uint16 mm: a slope, nothing in its corner, different for every picture."""
    depth = np.full((48, 64), 900 + 10 * number, np.uint16) + np.arange(64, dtype=np.uint16)
    depth[:8, :8] = 0
    return depth


def raw_depth(time: float, depth: np.ndarray) -> Any:
    height, width = depth.shape
    return make(
        "sensor_msgs/msg/Image",
        header=header(time, "cam_optical"),
        height=height,
        width=width,
        encoding="16UC1",
        is_bigendian=0,
        step=2 * width,
        data=depth.astype("<u2").view(np.uint8).ravel(),
    )


def compressed_depth(time: float, depth: np.ndarray) -> Any:
    data = np.concatenate([np.zeros(12, np.uint8), cv2.imencode(".png", depth)[1].ravel()])
    name = "sensor_msgs/msg/CompressedImage"
    return make(
        name,
        header=header(time, "cam_optical"),
        format="16UC1; compressedDepth png",
        data=data,
    )


def write_bag(
    path: Path,
    plugin: StoragePlugin,
    topics: set[str],
    views: int = 8,
    messages: list[tuple[str, float, Any]] | None = None,
) -> dict[float, np.ndarray]:
    """A bag with some of the topics of KINDS and DEPTHS.

    Returns cam_from_odom (4, 4) by the pictures' stamps in s.

    Transforms come between the pictures, so that they must be interpolated. `messages`: these
    (topic, time, message) instead.
    """
    boxes = truck(np.random.default_rng(0))
    poses, wanted = {}, list[tuple[str, float, Any]]()
    for k in range(-1, 2 * views + 1):
        odom_from_cam = np.linalg.inv(look_at(10.0 * k, 30, 2.3))
        if k % 2:
            odom_from_body = odom_from_cam @ np.linalg.inv(BODY_FROM_CAM)
            tf = make(
                "tf2_msgs/msg/TFMessage",
                transforms=[transform(100 + k / 20, "odom", "body", odom_from_body)],
            )
            wanted.append(("/tf", 100 + k / 20, tf))
        elif k < 2 * views:
            time = 100 + k / 20
            poses[time] = np.linalg.inv(odom_from_cam)
            image, _ = render(boxes, odom_from_cam, CAMERA)
            wanted.append(("/cam/image_raw", time, raw(time, image)))
            wanted.append(("/cam/image_raw/compressed", time, compressed(time, image)))
            wanted.append(("/cam/camera_info", time, camera_info(time)))
            wanted.append(("/cam/depth/image_raw", time, raw_depth(time, depth_of(k // 2))))
            wanted.append(
                (
                    "/cam/depth/image_raw/compressedDepth",
                    time,
                    compressed_depth(time, depth_of(k // 2)),
                )
            )
    static = make(
        "tf2_msgs/msg/TFMessage",
        transforms=[transform(0, "body", "cam_optical", BODY_FROM_CAM)],
    )
    wanted.append(("/tf_static", 99.0, static))
    with Writer(path, version=9, storage_plugin=plugin) as writer:
        kinds = KINDS | DEPTHS
        connections = {
            name: writer.add_connection(name, kinds[name], typestore=STORE)
            for name in sorted(topics)
        }
        for topic, time, message in wanted if messages is None else messages:
            if topic in connections:
                data = STORE.serialize_cdr(message, kinds[topic])
                writer.write(connections[topic], round(time * 1e9), data)
    return poses


def write_photographs(
    path: Path, frames: Sequence[Frame], plugin: StoragePlugin = StoragePlugin.SQLITE3
) -> None:
    """A bag with pictures of a video as /eye/image_raw, one a second from 1 s on, and with their
    /eye/camera_info at 0 s.
    """
    camera = frames[0].camera
    known = {"k": camera.matrix.flatten().numpy(), "d": camera.distortion.numpy()}
    info = camera_info(0.0)
    info = make(
        info.__msgtype__,
        **{**vars(info), "height": camera.height, "width": camera.width, **known},
    )
    with Writer(path, version=9, storage_plugin=plugin) as writer:
        kinds = {name: KINDS[f"/cam/{name}"] for name in ("image_raw", "camera_info")}
        connections = {
            name: writer.add_connection(f"/eye/{name}", kind, typestore=STORE)
            for name, kind in kinds.items()
        }
        writer.write(
            connections["camera_info"], 0, STORE.serialize_cdr(info, kinds["camera_info"])
        )
        for number, frame in enumerate(frames, 1):
            message = raw(float(number), read_image(frame.image).numpy())
            writer.write(
                connections["image_raw"],
                number * 10**9,
                STORE.serialize_cdr(message, kinds["image_raw"]),
            )
