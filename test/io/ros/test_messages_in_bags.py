"""A bag gives the same images and cameras to the import and the evaluation as to the nodes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip("rosbags")
from rosbags.rosbag2 import StoragePlugin

import bag_writer
from camera_messages import compressed_message, image_message, info_message
from uns_pose_ros.capture.import_source import import_video
from uns_pose_ros.capture.video_writer import ImportConfig
from uns_pose_ros.core.types import Camera
from uns_pose_ros.evaluation.bag_config import BagConfig
from uns_pose_ros.evaluation.rosbag_evaluation import estimate_bag_frames
from uns_pose_ros.io.images import read_image
from uns_pose_ros.io.ros.ros_messages import read_camera_info
from uns_pose_ros.io.video_folder import load_video


class Listener:
    """Keeps the images and cameras that an evaluation gives to its estimator."""

    def __init__(self) -> None:
        self.models = (SimpleNamespace(category="truck"),)
        self.seen: list[tuple[np.ndarray, Camera]] = []

    def __call__(self, image: np.ndarray, camera: Camera, **stream: Any) -> list[Any]:
        self.seen.append((image, camera))
        return []


def bag_message(name: str, rgb: np.ndarray, time: float) -> Any:
    """The image as a message for the bag, in the encoding `name`."""
    if name == "bgr16":
        message = image_message("rosbags", name, rgb[..., ::-1].astype("u2") * 257, 2, True)
    elif name == "8UC3":
        message = image_message("rosbags", name, rgb[..., ::-1], 3)
    else:
        values = rgb[..., ::-1].astype("u2") * 257 if name == "png16" else rgb[..., ::-1]
        data = cv2.imencode(".png", values)[1].tobytes()
        message = compressed_message("rosbags", data)
    message.header = bag_writer.header(time, "cam_optical")
    return message


@pytest.mark.parametrize("name", ["bgr16", "8UC3", "png", "png16"])
def test_a_bag_gives_the_same_images_and_cameras_to_import_evaluation_and_nodes(
    tmp_path: Path, name: str
) -> None:
    topic = "/cam/image_raw/compressed" if name.startswith("png") else "/cam/image_raw"
    info = info_message("rosbags", d=[0.1] * 5 + [0.0] * 7)
    stored = [np.full((24, 32, 3), (30 * k, 9, 200), np.uint8) for k in range(4)]
    messages = [("/cam/camera_info", 100.0, info)]
    for k, rgb in enumerate(stored):
        messages.append((topic, 100 + k / 10, bag_message(name, rgb, 100 + k / 10)))
    topics = {"/cam/camera_info", topic}
    bag_writer.write_bag(tmp_path / "bag", StoragePlugin.MCAP, topics, messages=messages)

    listener = Listener()
    find: Any = listener
    estimate_bag_frames(tmp_path / "bag", find, BagConfig(), lambda step, done, total: None)
    import_video(tmp_path / "bag", tmp_path / "clip", ImportConfig(quality=100))
    video = load_video(tmp_path / "clip", need_masks=False, need_poses=False)

    expected = read_camera_info(info, 32, 24, rectified=False)
    assert len(listener.seen) == len(video.frames) == 4
    for rgb, (image, camera), frame in zip(
        stored, listener.seen, video.frames, strict=True
    ):
        assert np.array_equal(image, rgb)
        # the video folder holds JPEG files
        assert np.abs(read_image(frame.image).numpy().astype(int) - rgb).max() <= 3
        for other in (camera, frame.camera):
            assert torch.equal(other.matrix, expected.matrix)
            assert torch.equal(other.distortion, expected.distortion)
            assert (other.width, other.height) == (32, 24)
