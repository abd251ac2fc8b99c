"""What a recorded video folder holds, how one goes on, and which folders are refused."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from recorded_folders import SOURCE, check, frame_record, picture, record
from recordings import INFO, camera
from uns_pose_ros.capture.recording import FrameRecord, Recording, next_clip, recover
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io.artifacts import read_json
from uns_pose_ros.io.images import read_image
from uns_pose_ros.io.video_folder import load_video


def test_a_recorded_folder_is_a_video_with_poses_stamps_and_cameras(tmp_path: Path) -> None:
    record(tmp_path / "clip", range(4)).close()
    check(tmp_path / "clip", range(4))
    said = read_json(tmp_path / "clip" / "video.json")
    assert (said["metric"], said["fixed_frame"], said["topics"], said["frames"]) == (
        True,
        "odom",
        SOURCE,
        4,
    )
    assert said["stamps"]["000001.png"] == pytest.approx(1_700_000_000.123456789, abs=1e-6)
    assert [entry["camera_info"] for entry in said["cameras"]] == [INFO]
    assert said["camera"]["K"] == camera().matrix.flatten().tolist()


def test_without_poses_there_is_no_sparse_model_and_no_metre(tmp_path: Path) -> None:
    record(tmp_path / "clip", range(4), frame="").close()
    video = load_video(tmp_path / "clip", need_masks=False, need_poses=False)
    assert (len(video.frames), video.metric) == (4, False)
    assert not (tmp_path / "clip" / "sparse").exists()
    assert torch.equal(read_image(video.frames[2].image), torch.from_numpy(_pixels(2)))


def _pixels(number: int) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(picture(number))))


def test_going_on_with_a_recording_numbers_on_and_keeps_what_was_there(
    tmp_path: Path,
) -> None:
    record(tmp_path / "clip", range(3)).close()
    record(tmp_path / "clip", range(3, 5)).close()
    record(tmp_path / "clip", range(5, 5)).close()
    check(tmp_path / "clip", range(5))


def test_a_camera_that_changes_while_recording_is_kept_for_its_images(
    tmp_path: Path,
) -> None:
    opened = record(tmp_path / "clip", range(2))
    opened.add(picture(2), ".png", frame_record(2, focal=80.0))
    opened.add(picture(3), ".png", frame_record(3, focal=80.0))
    opened.close()
    record(tmp_path / "clip", range(4, 5)).close()
    video = load_video(tmp_path / "clip", need_masks=False)
    assert [float(frame.camera.matrix[0, 0]) for frame in video.frames] == [
        60,
        60,
        80,
        80,
        60,
    ]
    said = read_json(tmp_path / "clip" / "video.json")
    assert [entry["first"] for entry in said["cameras"]] == [
        "000001.png",
        "000003.png",
        "000005.png",
    ]
    assert "camera" not in said


def test_an_uncalibrated_camera_is_recorded_with_what_it_said(tmp_path: Path) -> None:
    opened = Recording.open_or_recover(tmp_path / "clip", SOURCE)
    for number in range(3):
        opened.add(picture(number), ".png", FrameRecord(number, None, INFO))
    opened.close()
    assert (
        len(load_video(tmp_path / "clip", need_masks=False, need_poses=False).frames) == 3
    )
    said = read_json(tmp_path / "clip" / "video.json")
    assert (said["cameras"][0]["K"], said["cameras"][0]["camera_info"]) == (None, INFO)
    assert [
        again.camera
        for again in Recording.open_or_recover(tmp_path / "clip", SOURCE).frames.values()
    ] == [None] * 3


def test_the_last_images_are_listed_also_when_no_more_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = record(tmp_path / "clip", range(3))
    assert read_json(tmp_path / "clip" / "video.json")["frames"] == 0
    opened.settle()  # too soon
    assert read_json(tmp_path / "clip" / "video.json")["frames"] == 0
    monkeypatch.setattr(opened, "_pause", 0.0)
    opened.settle()
    assert read_json(tmp_path / "clip" / "video.json")["frames"] == 3
    assert len(load_video(tmp_path / "clip", need_masks=False).frames) == 3
    before = (tmp_path / "clip" / "video.json").stat().st_mtime_ns
    opened.settle()  # nothing new
    assert (tmp_path / "clip" / "video.json").stat().st_mtime_ns == before
    opened.close()


def test_a_recording_without_an_image_leaves_nothing(tmp_path: Path) -> None:
    Recording.open_or_recover(tmp_path / "mug" / "clip", SOURCE).close()
    assert not (tmp_path / "mug" / "clip").exists()


def test_a_folder_that_no_recorder_made_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "000001.jpg").write_bytes(b"an image")
    with pytest.raises(InvalidInput, match="no recorder made"):
        Recording.open_or_recover(tmp_path, SOURCE)
    (tmp_path / "video.json").write_text('{"metric": true}')
    with pytest.raises(InvalidInput, match="no recorder made"):
        Recording.open_or_recover(tmp_path, SOURCE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "video.json"]


@pytest.mark.parametrize(("before", "after"), [("odom", "map"), ("odom", ""), ("", "odom")])
def test_poses_of_another_frame_are_not_mixed_in(
    tmp_path: Path, before: str, after: str
) -> None:
    record(tmp_path / "clip", range(3), frame=before).close()
    with pytest.raises(InvalidInput, match="choose another folder"):
        Recording.open_or_recover(tmp_path / "clip", SOURCE, after)


def test_a_second_recorder_of_the_same_folder_is_refused(tmp_path: Path) -> None:
    first = record(tmp_path / "clip", range(3))
    with pytest.raises(InvalidInput, match=r"clip: `\S+` \(process \d+\) is at work here"):
        Recording.open_or_recover(tmp_path / "clip", SOURCE, "odom")
    assert recover(tmp_path) == []
    first.close()
    check(tmp_path / "clip", range(3))


def test_a_record_that_somebody_broke_is_refused_in_one_line(tmp_path: Path) -> None:
    record(tmp_path / "clip", range(3)).close()
    path = tmp_path / "clip" / "video.json"
    said = read_json(path)
    broken: dict[str, Any]
    for broken in (
        {"cameras": None},
        {"cameras": []},
        {"stamps_ns": 3},
        {"stamps_ns": {"000001.png": "now"}},
    ):
        path.write_text(json.dumps({**said, **broken}))
        with pytest.raises(InvalidInput, match="not a valid recording"):
            Recording.open_or_recover(tmp_path / "clip", SOURCE, "odom")


def test_clips_are_numbered_on(tmp_path: Path) -> None:
    assert next_clip(tmp_path / "mug").name == "clip_01"
    (tmp_path / "mug" / "clip_01").mkdir(parents=True)
    (tmp_path / "mug" / "clip_03").mkdir()
    assert next_clip(tmp_path / "mug").name == "clip_02"


def test_a_camera_info_whose_numbers_are_not_finite_is_recorded_with_null(
    tmp_path: Path,
) -> None:
    opened = record(tmp_path / "clip", range(2))
    info = {**INFO, "p": [float("nan")] * 12}
    opened.add(picture(2), ".png", FrameRecord(9**19, camera(60.0), info, None))
    opened.close()
    cameras = read_json(tmp_path / "clip" / "video.json")["cameras"]
    assert cameras[-1]["camera_info"]["p"] == [None] * 12
