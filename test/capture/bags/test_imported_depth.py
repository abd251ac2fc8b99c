"""Depth of a bag is kept beside the images of its stamps."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rosbags")
from rosbags.rosbag2 import StoragePlugin

from bag_writer import DEPTHS, RAW_TOPICS, camera_info, depth_of, raw, raw_depth, write_bag
from uns_pose_ros.capture.import_source import import_video
from uns_pose_ros.capture.video_writer import ImportConfig
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io.depth_images import depth_path, read_depth
from uns_pose_ros.io.video_folder import load_video


@pytest.mark.parametrize("kind", sorted(DEPTHS))
def test_depth_is_kept_beside_its_images_and_shrunk_with_them(
    tmp_path: Path, kind: str
) -> None:
    write_bag(tmp_path / "bag", StoragePlugin.MCAP, RAW_TOPICS | {kind})
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
    topics = RAW_TOPICS | {"/cam/depth/image_raw"}
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
