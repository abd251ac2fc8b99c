"""A bag gives images, cameras and poses, however it was recorded."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("rosbags")
from rosbags.rosbag2 import StoragePlugin

from bag_writer import (
    CAMERA,
    COMPRESSED_TOPICS,
    PLUGINS,
    RAW_TOPICS,
    Sent,
    camera_info,
    make,
    raw,
    transform,
    write_bag,
)
from synthetic import render, truck
from uns_pose_ros.capture.import_source import import_video
from uns_pose_ros.capture.video_writer import ImportConfig
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io.images import read_image
from uns_pose_ros.io.video_folder import load_video


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda plugin: plugin.name.lower())
@pytest.mark.parametrize(
    "topics", [RAW_TOPICS, COMPRESSED_TOPICS], ids=["raw", "compressed"]
)
def test_a_bag_gives_images_cameras_and_interpolated_poses_in_metres(
    tmp_path: Path, plugin: StoragePlugin, topics: set[str]
) -> None:
    poses = write_bag(tmp_path / "bag", plugin, topics)
    assert import_video(
        tmp_path / "bag", tmp_path / "clip", ImportConfig(fixed_frame="odom")
    )
    video = load_video(tmp_path / "clip", need_masks=False)
    record = json.loads((tmp_path / "clip" / "video.json").read_text())
    assert (
        video.metric
        and record["camera"]["from"] == "camera_info"
        and len(video.frames) == len(poses) == 8
    )
    assert list(record["stamps"].values()) == pytest.approx(list(poses), abs=1e-6)
    for frame, (time, pose) in zip(video.frames, poses.items(), strict=True):
        assert frame.cam_from_obj is not None
        turn = frame.cam_from_obj[:3, :3].numpy() @ pose[:3, :3].T
        # a chord stands for an arc of 20 degrees
        assert np.degrees(np.arccos(min(1, (np.trace(turn) - 1) / 2))) < 0.6, time
        np.testing.assert_allclose(
            frame.cam_from_obj[:3, 3].numpy(), pose[:3, 3], atol=0.06
        )
        np.testing.assert_allclose(
            frame.camera.matrix.numpy(), CAMERA.matrix.numpy(), atol=1e-9
        )
        image, _ = render(truck(np.random.default_rng(0)), np.linalg.inv(pose), CAMERA)
        assert (
            float(
                (read_image(frame.image).double() - torch.from_numpy(image).double())
                .abs()
                .mean()
            )
            < 4
        )


def test_one_file_of_a_bag_is_enough(tmp_path: Path) -> None:
    write_bag(tmp_path / "bag", StoragePlugin.MCAP, RAW_TOPICS)
    [path] = (tmp_path / "bag").glob("*.mcap")
    path.rename(tmp_path / "alone.mcap")
    import_video(tmp_path / "alone.mcap", tmp_path / "clip")
    video = load_video(tmp_path / "clip", need_masks=False, need_poses=False)
    assert (
        len(video.frames) == 8 and not video.metric and video.frames[0].cam_from_obj is None
    )
    assert torch.allclose(video.frames[0].camera.matrix, CAMERA.matrix)


def walk(start: float = 100.0, arrival: float = 100.0, slash: str = "") -> Sent:
    """Ten images of a body that moves along x by 1 m each; its camera is 2 m beside it, later."""
    sent: Sent = []
    for k in range(10):
        stamp, at = start + k / 10, arrival + k / 10
        pose = np.eye(4)
        pose[0, 3] = k
        moving = transform(stamp, f"{slash}odom", f"{slash}body", pose)
        image = raw(stamp, np.full((48, 64, 3), 20 * k, np.uint8))
        image.header.frame_id = f"{slash}cam_optical"
        sent += [
            ("/cam/image_raw", at, image),
            ("/cam/camera_info", at, camera_info(stamp)),
            ("/tf", at, make("tf2_msgs/msg/TFMessage", transforms=[moving])),
        ]
    return sent


def mount(arrival: float, y: float = 2.0) -> Sent:
    pose = np.eye(4)
    pose[1, 3] = y
    static = transform(0, "body", "cam_optical", pose)
    return [("/tf_static", arrival, make("tf2_msgs/msg/TFMessage", transforms=[static]))]


def other_info_stamps(sent: Sent) -> Sent:
    for topic, _, message in sent:
        if topic == "/cam/camera_info":
            message.header.stamp.sec = 7
    return sent


def info_of_twice_the_size(sent: Sent) -> Sent:
    for topic, _, message in sent:
        if topic == "/cam/camera_info":
            message.height, message.width = 96, 128
            message.k = np.array([200.0, 0, 63.5, 0, 200.0, 47.5, 0, 0, 1])
    return sent


@pytest.mark.parametrize(
    ("sent", "y"),
    [
        (walk() + mount(200.0), [-2.0] * 10),
        (walk() + mount(99.0) + mount(100.5), [-2.0] * 10),
        (walk() + mount(99.0) + mount(100.45, 5.0), [-2.0] * 5 + [-5.0] * 5),
        (walk(slash="/") + mount(99.0), [-2.0] * 10),
        (walk(start=1.0) + mount(99.0), [-2.0] * 10),
        (other_info_stamps(walk()) + mount(99.0), [-2.0] * 10),
        (info_of_twice_the_size(walk()) + mount(99.0), [-2.0] * 10),
        (walk() + walk(arrival=102.0) + mount(99.0), [-2.0] * 20),
    ],
    ids=[
        "a static pose recorded late",
        "a static pose sent twice",
        "a static pose that changes",
        "frames with slashes",
        "simulated time",
        "camera_info with other stamps",
        "images half the size of camera_info",
        "a loop",
    ],
)
def test_poses_and_camera_are_right_however_the_recording_was_made(
    tmp_path: Path, sent: Sent, y: list[float]
) -> None:
    write_bag(
        tmp_path / "bag",
        StoragePlugin.MCAP,
        RAW_TOPICS,
        messages=sorted(sent, key=lambda item: item[1]),
    )
    import_video(
        tmp_path / "bag", tmp_path / "clip", ImportConfig(frames=99, fixed_frame="/odom")
    )
    frames = load_video(tmp_path / "clip", need_masks=False).frames
    places = [frame.cam_from_obj[:3, 3].tolist() for frame in frames]  # type: ignore[index]
    passes = len(y) // 10
    assert np.allclose([x for x, _, _ in places], [-float(k) for k in range(10)] * passes)
    assert np.allclose([b for _, b, _ in places], y)
    assert float(frames[0].camera.matrix[0, 0]) == pytest.approx(100)


@pytest.mark.parametrize("small", [(24, 32), (30, 30)])
def test_first_images_of_another_size_do_not_decide(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, small: tuple[int, int]
) -> None:
    sent: Sent = [("/cam/camera_info", 100.0, camera_info(100.0))]
    for k in range(10):
        image = np.full((*(small if k < 3 else (48, 64)), 3), 20 * k, np.uint8)
        sent.append(("/cam/image_raw", 100 + k / 10, raw(100 + k / 10, image)))
    write_bag(tmp_path / "bag", StoragePlugin.MCAP, RAW_TOPICS, messages=sent)
    import_video(tmp_path / "bag", tmp_path / "clip")
    frames = load_video(tmp_path / "clip", need_masks=False, need_poses=False).frames
    assert [(frame.camera.width, frame.camera.height) for frame in frames] == [(64, 48)] * 7
    assert torch.allclose(frames[0].camera.matrix, CAMERA.matrix)
    assert "left out: images: an image has … x … px, most have … x …: 3" in caplog.text


def test_images_without_a_frame_have_no_pose_and_the_line_says_so(tmp_path: Path) -> None:
    sent = walk() + mount(99.0)
    for topic, _, message in sent:
        if topic == "/cam/image_raw":
            message.header.frame_id = ""
    write_bag(tmp_path / "bag", StoragePlugin.MCAP, RAW_TOPICS, messages=sent)
    with pytest.raises(InvalidInput, match="no frame_id, so no transform says where"):
        import_video(tmp_path / "bag", tmp_path / "clip", ImportConfig(fixed_frame="odom"))


def test_images_without_a_transform_are_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    messages = [("/cam/camera_info", 100.0, camera_info(100.0))]
    for k in range(10):
        image = np.full((48, 64, 3), 20 * k, np.uint8)
        messages.append(("/cam/image_raw", 100 + k / 10, raw(100 + k / 10, image)))
        if 2 <= k <= 8:
            tf = transform(100 + k / 10, "odom", "cam_optical", np.eye(4))
            messages.append(
                ("/tf", 100 + k / 10, make("tf2_msgs/msg/TFMessage", transforms=[tf]))
            )
    write_bag(tmp_path / "bag", StoragePlugin.MCAP, RAW_TOPICS, messages=messages)
    with caplog.at_level(logging.WARNING):
        import_video(tmp_path / "bag", tmp_path / "clip", ImportConfig(fixed_frame="odom"))
    assert len(load_video(tmp_path / "clip", need_masks=False).frames) == 7
    assert (
        "left out: images: 'cam_optical' is known in 'odom' from … to … s about the image only: 3 "
        "('cam_optical' is known in 'odom' from +0.200 to +0.800 s" in caplog.text
    )


def test_images_whose_stamps_are_no_times_count_with_a_warning_where_no_time_is_needed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Stamps 0, one that stands still, one from the future, one that goes back, negative ones."""
    stamps = [0.0] * 3 + [100.4] * 3 + [900.0, 100.7, -5.0, -1e9]
    messages = [("/cam/camera_info", 100.0, camera_info(100.0))]
    for k, stamp in enumerate(stamps):
        at = 100 + k / 10
        image = np.full((48, 64, 3), 20 * k, np.uint8)
        messages.append(("/cam/image_raw", at, raw(stamp, image)))
        tf = transform(at, "odom", "cam_optical", np.eye(4))
        messages.append(("/tf", at, make("tf2_msgs/msg/TFMessage", transforms=[tf])))
    write_bag(tmp_path / "bag", StoragePlugin.MCAP, RAW_TOPICS, messages=messages)
    with caplog.at_level(logging.WARNING):
        import_video(tmp_path / "bag", tmp_path / "clip")
    frames = load_video(tmp_path / "clip", need_masks=False, need_poses=False).frames
    assert len(frames) == 8
    assert "left out: images: negative stamp: 2" in caplog.text
    for text in (
        "3 of 10 images have a stamp 0",
        "2 of 10 images have a stamp seen before",
        "1 of 10 images have a stamp earlier than that of the image before",
        "1 of 10 images have a stamp later than its arrival",
    ):
        assert text in caplog.text
    with pytest.raises(InvalidInput):  # 2 images with a pose are too few
        import_video(tmp_path / "bag", tmp_path / "posed", ImportConfig(fixed_frame="odom"))


def test_without_camera_info_a_focal_length_will_do(tmp_path: Path) -> None:
    write_bag(tmp_path / "bag", StoragePlugin.SQLITE3, RAW_TOPICS - {"/cam/camera_info"})
    import_video(
        tmp_path / "bag", tmp_path / "clip", ImportConfig(focal=70.0, fixed_frame="odom")
    )
    assert (
        float(load_video(tmp_path / "clip", need_masks=False).frames[0].camera.matrix[0, 0])
        == 70
    )
