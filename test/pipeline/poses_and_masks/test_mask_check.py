"""Masks that do not fit the others are named."""

from __future__ import annotations

import dataclasses
import logging
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from synthetic import write_video
from uns_pose_ros.core.geometry import rotation_from_vector
from uns_pose_ros.io.images import read_mask
from uns_pose_ros.io.video_folder import load_video
from uns_pose_ros.pipeline.poses_and_masks.mask_check import check_masks


def test_a_wrong_given_mask_is_named_in_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_video(tmp_path / "clip", seed=1, views=12, size=96)
    path = tmp_path / "clip" / "masks" / "000004.jpg.png"
    wrong = torch.roll(read_mask(path), 30, 1).numpy()
    import cv2

    cv2.imwrite(str(path), wrong.astype(np.uint8) * 255)
    with caplog.at_level(logging.WARNING):
        assert check_masks(load_video(tmp_path / "clip")) == ["000004.jpg"]
    assert (
        len(caplog.messages) == 1 and "1 of 12 masks do not fit the others" in caplog.text
    )


def test_poses_that_are_wrong_by_23_degrees_are_called_doubtful(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_video(tmp_path / "clip", seed=1, views=12, size=96)
    video = load_video(tmp_path / "clip")
    check_masks(video)
    assert "poses" not in caplog.text
    axes = torch.nn.functional.normalize(
        torch.randn(12, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64),
        dim=1,
    )
    frames = []
    for axis, frame in zip(axes, video.frames, strict=True):
        assert frame.cam_from_obj is not None
        wrong = torch.eye(4, dtype=torch.float64)
        wrong[:3, :3] = rotation_from_vector(axis * math.radians(23))
        frames.append(dataclasses.replace(frame, cam_from_obj=frame.cam_from_obj @ wrong))
    check_masks(dataclasses.replace(video, frames=tuple(frames)))
    assert "clip: the camera poses are doubtful: most masks overlap" in caplog.text
