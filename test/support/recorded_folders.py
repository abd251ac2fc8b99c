"""A recording of small images with poses, and the check that nothing of it is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from camera_ring import view
from recordings import INFO, camera
from uns_pose_ros.capture.recording import FrameRecord, Recording
from uns_pose_ros.io.artifacts import read_json
from uns_pose_ros.io.video_folder import load_video

SOURCE = {"image": "/camera/image_raw"}


def picture(number: int) -> bytes:
    """A PNG file of 64 x 48 px, different for every number."""
    pixels = np.random.default_rng(number).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    return bytes(cv2.imencode(".png", pixels)[1].tobytes())


def frame_record(number: int, posed: bool = True, focal: float = 60.0) -> FrameRecord:
    pose = torch.from_numpy(view(10.0 * number)) if posed else None
    return FrameRecord(1_700_000_000_123_456_789 + number, camera(focal), INFO, pose)


def record(folder: Path, numbers: range, frame: str = "odom", **options: Any) -> Recording:
    """An open recording with so many images added to it."""
    opened = Recording.open_or_recover(folder, SOURCE, frame, **options)
    for number in numbers:
        opened.add(picture(number), ".png", frame_record(number, posed=bool(frame)))
    return opened


def check(folder: Path, numbers: range) -> None:
    """The folder is a whole video of these images, each with its own pixels, pose and stamp."""
    video = load_video(folder, need_masks=False)
    assert [frame.name for frame in video.frames] == [
        f"{k:06d}.png" for k in range(1, len(numbers) + 1)
    ]
    assert video.metric
    stamps = read_json(folder / "video.json")["stamps_ns"]
    for frame, number in zip(video.frames, numbers, strict=True):
        assert frame.image.read_bytes() == picture(number)
        assert frame.cam_from_obj is not None
        assert np.allclose(frame.cam_from_obj.numpy(), view(10.0 * number), atol=1e-9)
        assert torch.allclose(frame.camera.matrix, camera().matrix)
        assert torch.allclose(frame.camera.distortion, camera().distortion)
        assert stamps[frame.name] == 1_700_000_000_123_456_789 + number
    assert sorted(path.name for path in folder.iterdir()) == [
        "images",
        "sparse",
        "video.json",
    ]
