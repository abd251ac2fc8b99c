#!/usr/bin/env python3
"""What `uns-pose adapt` does: a bag of labeled videos, their camera poses as transforms.

    python benchmarks/adapt.py mug/model mug --labels mug/labels.json --videos mug_01 --work out

Writes WORK/bag, in which each video stands at its own place, and WORK/model, a copy that is
adapted, with links to the videos that the model was trained on, which lie beside it. Both
models then estimate the last third of each video, which taught nothing, and the --others, which
are not in the bag. Labels are read for these figures only.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from common import machine, politely, write
from uns_pose_ros.core.device import choose_device, choose_precision
from uns_pose_ros.core.geometry import invert, matrix_to_quaternion
from uns_pose_ros.core.types import Video
from uns_pose_ros.estimation.estimator import Estimator
from uns_pose_ros.evaluation import rotation_labels
from uns_pose_ros.evaluation.poses import pose_evaluation, pose_figures
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.images import read_image
from uns_pose_ros.io.video_folder import list_videos, load_video
from uns_pose_ros.networks.dinov2 import load_backbone
from uns_pose_ros.pipeline.adaptation import AdaptConfig, adapt_model

_STORE = get_typestore(Stores.ROS2_JAZZY)
_PERIOD = 0.2  # s between two images
_PAUSE = 10.0  # s between two videos
_KINDS = {
    "/camera/image_raw": "sensor_msgs/msg/Image",
    "/camera/camera_info": "sensor_msgs/msg/CameraInfo",
    "/tf": "tf2_msgs/msg/TFMessage",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("category", type=Path)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--videos", required=True, help="patterns of those in the bag")
    parser.add_argument("--others", help="patterns of videos that are not in the bag")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=AdaptConfig.steps)
    parser.add_argument("--learning-rate", type=float, default=AdaptConfig.learning_rate)
    parser.add_argument("--json")
    args = parser.parse_args()
    videos = [load_video(folder) for folder in list_videos(args.category, args.videos)]
    if not (args.work / "bag").exists():
        write_videos(args.work / "bag", videos)
    shutil.rmtree(args.work / "model", ignore_errors=True)
    source = artifacts.model_folder(args.model)
    shutil.copytree(source, args.work / "model")
    for name in artifacts.load_model(source).training_poses:
        video, link = source.parent / name, args.work / name
        if video.is_dir() and not link.exists():
            link.symlink_to(video.resolve())
    kind = choose_precision(choose_device(args.device))
    backbone = load_backbone(device=args.device, precision=kind)
    config = AdaptConfig("odom", steps=args.steps, learning_rate=args.learning_rate)
    answer = adapt_model(
        args.work / "model", args.work / "bag", config, backbone, args.seed, args.device
    )
    choice = answer.choice
    figures: dict[str, Any] = {
        "machine": machine(),
        "kept": answer.kept,
        "reason": choice.reason,
        "taught": answer.taught,
        "judgment": None if choice.judgment is None else asdict(choice.judgment),
        "of_nothing": choice.false,
    }
    print(json.dumps(artifacts.plain(figures), indent=1), flush=True)
    names = [folder.name for folder in list_videos(args.category)]
    model = artifacts.load_model(args.model)
    labels = rotation_labels.load_labels(args.labels, [*names, *model.training_poses])
    last = [cut(video) for video in videos]
    sets = {"held out": last}
    if args.others:
        folders = list_videos(args.category, args.others)
        sets["others"] = [load_video(folder) for folder in folders]
    for name, folder in (("before", args.model), ("adapted", args.work / "model")):
        model = artifacts.load_model(folder)
        find = Estimator(model, device=args.device)
        for kind_of, chosen in sets.items():
            results = pose_evaluation.evaluate_poses(find, model, chosen, labels)
            figures[f"{name}, {kind_of}"] = summary = pose_figures.summarize_poses(results)
            keys = ("images", "estimated", "acc30", "acc15", "acc10", "median_deg", "auroc")
            line = ", ".join(f"{key} {summary[key]}" for key in keys)
            print(f"{name}, {kind_of}: {line}", flush=True)
    write(figures, args.json)


def cut(video: Video) -> Video:
    """The last third of a video."""
    count = round(len(video.frames) / 3)
    return Video(
        video.folder, video.frames[len(video.frames) - count :], metric=video.metric
    )


def write_videos(path: Path, videos: Sequence[Video]) -> None:
    """Write videos into one bag, one after the other, each around a place of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections = {
            topic: writer.add_connection(topic, kind, typestore=_STORE)
            for topic, kind in _KINDS.items()
        }

        def send(topic: str, time: float, message: Any) -> None:
            data = _STORE.serialize_cdr(message, _KINDS[topic])
            writer.write(connections[topic], round(time * 1e9), data)

        time = 1000.0
        for number, video in enumerate(videos):
            for frame in video.frames:
                if frame.cam_from_obj is None:
                    continue
                time += _PERIOD
                pose = invert(frame.cam_from_obj)
                pose[0, 3] += 20.0 * number
                image = read_image(frame.image).numpy()
                send("/tf", time, transforms(time, pose))
                if time < 1000.1 + _PERIOD:
                    send("/camera/camera_info", time, camera_info(time, frame.camera))
                send("/camera/image_raw", time, image_message(time, image))
            time += _PAUSE


def make(name: str, **values: Any) -> Any:
    return _STORE.types[name](**values)


def header(time: float, frame: str) -> Any:
    nanoseconds = round(time * 1e9)
    stamp = make(
        "builtin_interfaces/msg/Time", sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9
    )
    return make("std_msgs/msg/Header", stamp=stamp, frame_id=frame)


def transforms(time: float, pose: torch.Tensor) -> Any:
    w, x, y, z = matrix_to_quaternion(pose[:3, :3]).tolist()
    place = dict(zip("xyz", pose[:3, 3].tolist(), strict=True))
    moved = make(
        "geometry_msgs/msg/Transform",
        translation=make("geometry_msgs/msg/Vector3", **place),
        rotation=make("geometry_msgs/msg/Quaternion", x=x, y=y, z=z, w=w),
    )
    stamped = make(
        "geometry_msgs/msg/TransformStamped",
        header=header(time, "odom"),
        child_frame_id="camera",
        transform=moved,
    )
    return make("tf2_msgs/msg/TFMessage", transforms=[stamped])


def camera_info(time: float, camera: Any) -> Any:
    matrix = camera.matrix.numpy()
    zero = dict.fromkeys(("x_offset", "y_offset", "height", "width"), 0)
    return make(
        "sensor_msgs/msg/CameraInfo",
        header=header(time, "camera"),
        height=camera.height,
        width=camera.width,
        distortion_model="plumb_bob",
        d=np.zeros(5),
        k=matrix.ravel(),
        r=np.eye(3).ravel(),
        p=np.concatenate([matrix, np.zeros((3, 1))], 1).ravel(),
        binning_x=0,
        binning_y=0,
        roi=make("sensor_msgs/msg/RegionOfInterest", **zero, do_rectify=False),
    )


def image_message(time: float, image: np.ndarray) -> Any:
    height, width = image.shape[:2]
    return make(
        "sensor_msgs/msg/Image",
        header=header(time, "camera"),
        height=height,
        width=width,
        encoding="rgb8",
        is_bigendian=0,
        step=3 * width,
        data=np.ascontiguousarray(image).ravel(),
    )


if __name__ == "__main__":
    politely(main)
