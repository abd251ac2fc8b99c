"""A bag that is cut off or lacks what is needed is refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rosbags")
from rosbags.rosbag2 import StoragePlugin

from bag_writer import PLUGINS, RAW_TOPICS, Sent, camera_info, raw, write_bag
from uns_pose_ros.capture.import_source import import_video
from uns_pose_ros.capture.video_writer import ImportConfig
from uns_pose_ros.core.errors import InvalidInput


def test_an_uncalibrated_camera_is_known_before_a_long_bag_is_read(tmp_path: Path) -> None:
    sent: Sent = [("/cam/camera_info", 100.0, camera_info(100.0, focal=0.0))]
    image = np.zeros((4, 4, 3), np.uint8)
    sent += [("/cam/image_raw", 100 + k / 10, raw(100 + k / 10, image)) for k in range(99)]
    write_bag(tmp_path / "bag", StoragePlugin.MCAP, RAW_TOPICS, messages=sent)
    seen: list[int] = []
    with pytest.raises(InvalidInput, match="bag: the camera is uncalibrated"):
        import_video(
            tmp_path / "bag",
            tmp_path / "clip",
            progress=lambda step, done, total: seen.append(done),
        )
    assert max(seen) < 60


@pytest.mark.parametrize(
    ("topics", "config", "reason"),
    [
        (
            RAW_TOPICS,
            {"image_topic": "/other"},
            r"no images on '/other'; its topics: .*/cam/image_raw \(sensor_msgs/msg/Image\)",
        ),
        (
            {"/tf", "/cam/camera_info"},
            {},
            r"no topic with sensor_msgs/Image or CompressedImage; its topics: /cam/camera_info",
        ),
        (
            RAW_TOPICS - {"/cam/camera_info"},
            {},
            r"no camera_info on '/cam/camera_info'; .*: none. Name one by --camera-info-topic",
        ),
        (
            RAW_TOPICS,
            {"camera_info_topic": "/x"},
            r"no camera_info on '/x'; topics with sensor_msgs/CameraInfo: /cam/camera_info",
        ),
        (RAW_TOPICS - {"/tf", "/tf_static"}, {"fixed_frame": "odom"}, "no transforms"),
        (
            RAW_TOPICS,
            {"fixed_frame": "map"},
            "/tf has no frame 'map'; its frames: body, cam_optical, odom",
        ),
        (
            RAW_TOPICS - {"/tf_static"},
            {"fixed_frame": "odom"},
            "'cam_optical' and 'odom' are not connected by transforms; there are body, odom",
        ),
        (RAW_TOPICS, {"most": 5}, "more than 5 messages on /cam/image_raw"),
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


def test_an_uncalibrated_camera_is_one_line(tmp_path: Path) -> None:
    messages = [("/cam/camera_info", 100.0, camera_info(100.0, focal=0.0))]
    messages += [("/cam/image_raw", 100.0, raw(100.0, np.zeros((48, 64, 3), np.uint8)))]
    write_bag(tmp_path / "bag", StoragePlugin.MCAP, RAW_TOPICS, messages=messages)
    with pytest.raises(InvalidInput, match="bag: the camera is uncalibrated"):
        import_video(tmp_path / "bag", tmp_path / "clip")


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda plugin: plugin.name.lower())
@pytest.mark.parametrize("part", [0.0, 0.3, 0.7, 0.98])
def test_of_a_bag_cut_off_anywhere_what_is_there_is_read_or_it_is_refused_in_one_line(
    tmp_path: Path, plugin: StoragePlugin, part: float
) -> None:
    write_bag(tmp_path / "bag", plugin, RAW_TOPICS)
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
