"""Imports of rosbag2 recordings, without ROS.

Images, cameras, poses from transforms, and bags that are broken.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("rosbags")

from rosbags.rosbag2 import StoragePlugin

from bag_writer import (
    CAMERA,
    DEPTHS,
    KINDS,
    camera_info,
    compressed,
    depth_of,
    header,
    make,
    raw,
    raw_depth,
    transform,
    write_bag,
)
from synthetic import render, truck
from uns_pose_ros.capture.import_source import import_video
from uns_pose_ros.capture.video_writer import ImportConfig
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io.depth_images import depth_path, read_depth
from uns_pose_ros.io.images import read_image
from uns_pose_ros.io.ros.ros_messages import decode_image, jpeg_file, read_camera_info
from uns_pose_ros.io.video_folder import load_video

ALL = set(KINDS)
RAW = ALL - {"/cam/image_raw/compressed"}
SMALL = ALL - {"/cam/image_raw"}
PLUGINS = [StoragePlugin.SQLITE3, StoragePlugin.MCAP]


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda plugin: plugin.name.lower())
@pytest.mark.parametrize("topics", [RAW, SMALL], ids=["raw", "compressed"])
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
    write_bag(tmp_path / "bag", StoragePlugin.MCAP, RAW)
    [path] = (tmp_path / "bag").glob("*.mcap")
    path.rename(tmp_path / "alone.mcap")
    import_video(tmp_path / "alone.mcap", tmp_path / "clip")
    video = load_video(tmp_path / "clip", need_masks=False, need_poses=False)
    assert (
        len(video.frames) == 8 and not video.metric and video.frames[0].cam_from_obj is None
    )
    assert torch.allclose(video.frames[0].camera.matrix, CAMERA.matrix)


Sent = list[tuple[str, float, Any]]


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
        RAW,
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
    write_bag(tmp_path / "bag", StoragePlugin.MCAP, RAW, messages=sent)
    import_video(tmp_path / "bag", tmp_path / "clip")
    frames = load_video(tmp_path / "clip", need_masks=False, need_poses=False).frames
    assert [(frame.camera.width, frame.camera.height) for frame in frames] == [(64, 48)] * 7
    assert torch.allclose(frames[0].camera.matrix, CAMERA.matrix)
    assert "left out: images: an image has … x … px, most have … x …: 3" in caplog.text


def test_an_uncalibrated_camera_is_known_before_a_long_bag_is_read(tmp_path: Path) -> None:
    sent: Sent = [("/cam/camera_info", 100.0, camera_info(100.0, focal=0.0))]
    image = np.zeros((4, 4, 3), np.uint8)
    sent += [("/cam/image_raw", 100 + k / 10, raw(100 + k / 10, image)) for k in range(99)]
    write_bag(tmp_path / "bag", StoragePlugin.MCAP, RAW, messages=sent)
    seen: list[int] = []
    with pytest.raises(InvalidInput, match="bag: the camera is uncalibrated"):
        import_video(
            tmp_path / "bag",
            tmp_path / "clip",
            progress=lambda step, done, total: seen.append(done),
        )
    assert max(seen) < 60


def test_images_without_a_frame_have_no_pose_and_the_line_says_so(tmp_path: Path) -> None:
    sent = walk() + mount(99.0)
    for topic, _, message in sent:
        if topic == "/cam/image_raw":
            message.header.frame_id = ""
    write_bag(tmp_path / "bag", StoragePlugin.MCAP, RAW, messages=sent)
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
    write_bag(tmp_path / "bag", StoragePlugin.MCAP, RAW, messages=messages)
    with caplog.at_level(logging.WARNING):
        import_video(tmp_path / "bag", tmp_path / "clip", ImportConfig(fixed_frame="odom"))
    assert len(load_video(tmp_path / "clip", need_masks=False).frames) == 7
    assert (
        "left out: images: 'cam_optical' is known in 'odom' from … to … s about the image only: 3 "
        "('cam_optical' is known in 'odom' from +0.200 to +0.800 s" in caplog.text
    )


@pytest.mark.parametrize(
    ("topics", "config", "reason"),
    [
        (
            RAW,
            {"image_topic": "/other"},
            r"no images on '/other'; its topics: .*/cam/image_raw \(sensor_msgs/msg/Image\)",
        ),
        (
            {"/tf", "/cam/camera_info"},
            {},
            r"no topic with sensor_msgs/Image or CompressedImage; its topics: /cam/camera_info",
        ),
        (
            RAW - {"/cam/camera_info"},
            {},
            r"no camera_info on '/cam/camera_info'; .*: none. Name one by --camera-info-topic",
        ),
        (
            RAW,
            {"camera_info_topic": "/x"},
            r"no camera_info on '/x'; topics with sensor_msgs/CameraInfo: /cam/camera_info",
        ),
        (RAW - {"/tf", "/tf_static"}, {"fixed_frame": "odom"}, "no transforms"),
        (
            RAW,
            {"fixed_frame": "map"},
            "/tf has no frame 'map'; its frames: body, cam_optical, odom",
        ),
        (
            RAW - {"/tf_static"},
            {"fixed_frame": "odom"},
            "'cam_optical' and 'odom' are not connected by transforms; there are body, odom",
        ),
        (RAW, {"most": 5}, "more than 5 messages on /cam/image_raw"),
    ],
)
def test_what_a_bag_lacks_is_one_line_that_lists_what_it_has(
    tmp_path: Path, topics: set[str], config: dict[str, Any], reason: str
) -> None:
    write_bag(tmp_path / "bag", StoragePlugin.MCAP, topics)
    with pytest.raises(InvalidInput, match=reason) as caught:
        import_video(tmp_path / "bag", tmp_path / "mug" / "clip", ImportConfig(**config))
    assert len(str(caught.value).splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["bag"]


@pytest.mark.parametrize("kind", sorted(DEPTHS))
def test_depth_is_kept_beside_its_images_and_shrunk_with_them(
    tmp_path: Path, kind: str
) -> None:
    write_bag(tmp_path / "bag", StoragePlugin.MCAP, RAW | {kind})
    config = ImportConfig(frames=4, depth_topic="/cam/depth/image_raw")
    import_video(tmp_path / "bag", tmp_path / "clip", config)
    stamps = json.loads((tmp_path / "clip" / "video.json").read_text())["stamps"]
    assert json.loads((tmp_path / "clip" / "video.json").read_text())["topics"] == {
        "image": "/cam/image_raw",
        "depth": kind,
    }
    assert len(stamps) == len(list((tmp_path / "clip" / "depth").iterdir())) == 4
    for name, stamp in stamps.items():
        expected = depth_of(round((stamp - 100) * 10))
        assert (
            read_depth(depth_path(tmp_path / "clip", name), (64, 48)).tolist()
            == expected.tolist()
        )
    import_video(
        tmp_path / "bag", tmp_path / "small", ImportConfig(longest=32, depth_topic=kind)
    )
    small = read_depth(depth_path(tmp_path / "small", "000001.jpg"), (32, 24))
    assert small.tolist() == depth_of(0)[::2, ::2].tolist(), (
        "no depth between two depths is invented"
    )


def test_images_without_depth_of_their_stamp_are_left_out_and_no_depth_at_all_is_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    messages = [("/cam/camera_info", 100.0, camera_info(100.0))]
    for k in range(10):
        messages.append(
            (
                "/cam/image_raw",
                100 + k / 10,
                raw(100 + k / 10, np.full((48, 64, 3), 20 * k, np.uint8)),
            )
        )
        if k % 3:
            messages.append(
                ("/cam/depth/image_raw", 100 + k / 10, raw_depth(100 + k / 10, depth_of(k)))
            )
    topics = RAW | {"/cam/depth/image_raw"}
    write_bag(tmp_path / "bag", StoragePlugin.MCAP, topics, messages=messages)
    with caplog.at_level(logging.WARNING):
        import_video(
            tmp_path / "bag",
            tmp_path / "clip",
            ImportConfig(depth_topic="/cam/depth/image_raw"),
        )
    assert (
        len(load_video(tmp_path / "clip", need_masks=False, need_poses=False).frames) == 6
    )
    assert "left out: images: no depth of its stamp: 4" in caplog.text
    for topic, reason in (
        ("/deep", "no depth images on '/deep'; its topics: "),
        ("/cam/image_raw", "encoding is 'rgb8'"),
    ):
        config = ImportConfig(depth_topic=topic, image_topic="/cam/image_raw")
        with pytest.raises(InvalidInput, match=reason):
            import_video(tmp_path / "bag", tmp_path / "other", config)
    pictures = [message for message in messages if message[0] != "/cam/depth/image_raw"]
    halves = [
        ("/cam/depth/image_raw", time, raw_depth(time, depth_of(0)[:24]))
        for _, time, _ in pictures
    ]
    write_bag(tmp_path / "odd", StoragePlugin.MCAP, topics, messages=[*pictures, *halves])
    with pytest.raises(
        InvalidInput, match="no usable image on .* 64 x 24 px, the image 64 x 48 px"
    ):
        import_video(
            tmp_path / "odd",
            tmp_path / "other",
            ImportConfig(depth_topic="/cam/depth/image_raw"),
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
    write_bag(tmp_path / "bag", StoragePlugin.MCAP, RAW, messages=messages)
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
    write_bag(tmp_path / "bag", StoragePlugin.SQLITE3, RAW - {"/cam/camera_info"})
    import_video(
        tmp_path / "bag", tmp_path / "clip", ImportConfig(focal=70.0, fixed_frame="odom")
    )
    assert (
        float(load_video(tmp_path / "clip", need_masks=False).frames[0].camera.matrix[0, 0])
        == 70
    )


def test_an_uncalibrated_camera_is_one_line(tmp_path: Path) -> None:
    messages = [("/cam/camera_info", 100.0, camera_info(100.0, focal=0.0))]
    messages += [("/cam/image_raw", 100.0, raw(100.0, np.zeros((48, 64, 3), np.uint8)))]
    write_bag(tmp_path / "bag", StoragePlugin.MCAP, RAW, messages=messages)
    with pytest.raises(InvalidInput, match="bag: the camera is uncalibrated"):
        import_video(tmp_path / "bag", tmp_path / "clip")


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda plugin: plugin.name.lower())
@pytest.mark.parametrize("part", [0.0, 0.3, 0.7, 0.98])
def test_of_a_bag_cut_off_anywhere_what_is_there_is_read_or_it_is_refused_in_one_line(
    tmp_path: Path, plugin: StoragePlugin, part: float
) -> None:
    write_bag(tmp_path / "bag", plugin, RAW)
    [path] = [p for p in (tmp_path / "bag").iterdir() if p.suffix in (".mcap", ".db3")]
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    clip = tmp_path / "mug" / "clip"
    if part >= 0.7:  # up to the cut
        assert import_video(tmp_path / "bag", clip)
        assert list((clip / "images").iterdir())
        return
    with pytest.raises(InvalidInput, match="bag") as caught:
        import_video(tmp_path / "bag", clip)
    assert len(str(caught.value).splitlines()) == 1
    assert not clip.exists()


def test_encodings_become_rgb_and_lies_about_sizes_are_noticed() -> None:
    red = np.zeros((4, 6, 3), np.uint8)
    red[..., 0] = 200
    assert decode_image(raw(0, red)).tolist() == red.tolist()
    assert decode_image(raw(0, red[..., ::-1], "bgr8")).tolist() == red.tolist()
    bayer = make(
        "sensor_msgs/msg/Image",
        header=header(0, "c"),
        height=4,
        width=4,
        encoding="bayer_rggb8",
        is_bigendian=0,
        step=4,
        data=np.tile(np.array([[200, 0], [0, 0]], np.uint8), (2, 2)).ravel(),
    )
    assert decode_image(bayer)[1, 1].tolist() == [200, 0, 0]
    image, file = decode_image(compressed(0, red)), jpeg_file(compressed(0, red))
    assert file is not None and np.abs(image.astype(int) - red).max() < 5
    lie = raw(0, red)
    lie.height = 10_000
    broken = compressed(0, red)
    broken.data = broken.data[:20]
    depth = raw(0, red, "32FC1")
    for message, reason in (
        (lie, "10000 px rgb8 with step"),
        (broken, "of 20 bytes"),
        (depth, "'32FC1' is depth, no color"),
    ):
        with pytest.raises(InvalidInput, match=reason):
            decode_image(message)


def test_rectified_images_have_the_camera_p_and_binned_ones_half_of_k() -> None:
    info = camera_info(0)
    assert read_camera_info(info, 64, 48, rectified=True).matrix[0, 0] == 90
    info.binning_x = info.binning_y = 2
    info.d = np.array([0.1, 0, 0, 0, 0])
    binned = read_camera_info(info, 32, 24, rectified=False)
    assert binned.matrix[0, 0] == 50 and binned.distortion.tolist() == [0.1, 0, 0, 0, 0]
    info.distortion_model = "equidistant"
    with pytest.raises(
        InvalidInput,
        match="distortion model 'equidistant' with 5 coefficients is not supported",
    ):
        read_camera_info(info, 64, 48, rectified=False)
