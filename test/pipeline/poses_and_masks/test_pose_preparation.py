"""Camera poses of videos that have none."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from synthetic import write_video
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Video
from uns_pose_ros.io.colmap import SparseImage
from uns_pose_ros.io.schema.video_record import read_video_record
from uns_pose_ros.pipeline.poses_and_masks.pose_preparation import ensure_poses
from uns_pose_ros.reconstruction import structure_from_motion
from uns_pose_ros.reconstruction.colmap.sfm_attempt import Poses
from walks import CONFIG, write_walk


def test_computed_poses_in_doubt_are_named_at_once_and_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "clip"
    write_walk(folder, views=4)
    report = {
        "registered": 4,
        "doubt": "two ways to compute them agree on 1 of 4 images",
    }

    def find(video: Video, *_: object) -> Poses:
        eye = torch.eye(4, dtype=torch.float64)
        images = tuple(SparseImage(frame.name, 1, eye) for frame in video.frames)
        return Poses(video.frames[0].camera, images, torch.zeros(1, 3).double(), report)

    monkeypatch.setattr(structure_from_motion, "find_poses", find)
    assert ensure_poses(folder, CONFIG)
    assert caplog.messages == [
        f"{folder}: the camera poses are doubtful: two ways to compute them agree on 1 of 4 images"
    ]
    poses = read_video_record(folder).poses
    assert poses is not None and poses.doubt == report["doubt"]


def test_an_empty_sparse_folder_is_filled_and_a_wrong_one_is_named(tmp_path: Path) -> None:
    write_video(tmp_path / "clip", seed=1, views=5, size=48)
    shutil.rmtree(tmp_path / "clip" / "sparse")
    (tmp_path / "clip" / "sparse").mkdir()
    (tmp_path / "clip" / "sparse" / "project.ini").write_text("")
    with pytest.raises(InvalidInput, match="sparse: no COLMAP model in it"):
        ensure_poses(tmp_path / "clip")
