"""Images, video folders, recordings and the sources of videos, to be spoiled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

import fuzz_checks
from source_files import checks, save_photograph
from uns_pose_ros.capture.import_source import import_video
from uns_pose_ros.capture.recording import FrameRecord, Recording, recover
from uns_pose_ros.capture.video_writer import ImportConfig
from uns_pose_ros.io import depth_images
from uns_pose_ros.io.camera_json import parse_camera
from uns_pose_ros.io.given_files import stays_inside
from uns_pose_ros.io.video_folder import load_video
from uns_pose_ros.reconstruction import prompted_segmentation


def write_images(folder: Path) -> None:
    colour = Image.fromarray(checks(1))
    for ending in ("jpg", "png", "bmp", "webp", "tif"):
        colour.save(folder / f"colour.{ending}")
    colour.convert("P").save(folder / "palette.png")
    colour.convert("CMYK").save(folder / "print.jpg", progressive=True)
    colour.convert("L").save(folder / "grey.tiff", compression="tiff_lzw")
    colour.save(folder / "small.tif", compression="tiff_adobe_deflate")


def write_recordings(folder: Path) -> None:
    """A recording that was closed, one that was killed."""
    picture = cv2.imencode(".jpg", checks(1))[1].tobytes()
    camera = {
        "K": [500.0, 0, 31.5, 0, 500.0, 23.5, 0, 0, 1],
        "D": [],
        "width": 64,
        "height": 48,
    }
    pose = torch.eye(4, dtype=torch.float64)
    for name in ("clip_01", "clip_02"):
        recording = Recording.open_or_recover(folder / name, {"image": "/image"}, "odom")
        for stamp in range(4):
            recording.add(
                picture,
                ".jpg",
                FrameRecord(stamp, parse_camera(camera, folder), cam_from_obj=pose),
            )
        if name == "clip_01":
            recording.close()


def read_recordings(folder: Path, spoiled: Path) -> None:
    """Recover both, and go on with the one that was spoiled."""
    recover(folder)
    clip = folder / spoiled.relative_to(folder).parts[0]
    Recording.open_or_recover(clip, {"image": "/image"}, "odom").close()
    fuzz_checks.check_imported(clip)


def read_source(folder: Path, _: Path, source: str, **settings: Any) -> None:
    into = folder.parent / "into"
    import_video(folder / source, into, ImportConfig(**{"frames": 3, **settings}))
    fuzz_checks.check_imported(into)


def write_small_bag(folder: Path, plugin: str) -> None:
    from rosbags.rosbag2 import StoragePlugin

    from bag_writer import DEPTHS, KINDS, write_bag

    topics = set(KINDS) - ({"/cam/image_raw"} if plugin == "MCAP" else set())
    topics |= {sorted(DEPTHS)[plugin == "MCAP"]}
    write_bag(folder / "bag", StoragePlugin[plugin], topics, views=4)


def write_photographs(folder: Path) -> None:
    (folder / "photos").mkdir()
    for k in range(4):
        save_photograph(
            folder / "photos" / f"{k}.jpg", checks(k), orientation=6, focal_35=28
        )


def write_dataset(folder: Path) -> None:
    from synthetic import write_video

    write_video(folder / "clip", seed=1, views=4, size=32)
    (folder / "clip" / "video.json").write_text(
        json.dumps(
            {
                "metric": True,
                "camera": {
                    "K": [50, 0, 16, 0, 50, 16, 0, 0, 1],
                    "D": [],
                    "width": 32,
                    "height": 32,
                },
            }
        )
    )


def read_video(folder: Path, _: Path) -> None:
    fuzz_checks.check_video(load_video(folder / "clip"))
    fuzz_checks.check_video(load_video(folder / "clip", need_masks=False, need_poses=False))
    fuzz_checks.check_record(folder / "clip")


def write_depth(folder: Path) -> None:
    (folder / "a.png").write_bytes(
        depth_images.encode_depth(np.arange(48 * 64, dtype=np.uint16).reshape(48, 64))
    )


def write_prompts(folder: Path) -> None:
    prompted_segmentation.write_prompts(
        folder, prompted_segmentation.Prompts(((3.0, 4.5),), ((5.0, 6.0),), "000001.jpg")
    )


def read_depth(_: Path, spoiled: Path) -> None:
    depth = depth_images.read_depth(spoiled, (64, 48))
    assert depth.shape == (48, 64) and depth.dtype == np.uint16


def read_prompts(folder: Path, _: Path) -> None:
    prompts = prompted_segmentation.read_prompts(folder)
    if prompts is not None:
        assert prompts.points and len(prompts.points) <= 10_000
        points = [*prompts.points, *prompts.background]
        assert all(abs(at) <= 1e6 for point in points for at in point)
        assert not prompts.frame or stays_inside(prompts.frame)
