"""A video of images without camera poses."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from textured import camera_of, write_textured
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.camera_json import camera_record
from uns_pose_ros.reconstruction.colmap_mapper import SfmConfig

CONFIG = SfmConfig(threads=2)


def write_walk(folder: Path, views: int = 14, table: bool = False) -> dict[str, np.ndarray]:
    """A video of pictures and a calibrated camera."""
    truth = write_textured(folder, views, table=table)
    artifacts.write_json(
        folder / "video.json",
        {"metric": False, "camera": {**camera_record(camera_of(256)), "from": "given"}},
    )
    return truth
