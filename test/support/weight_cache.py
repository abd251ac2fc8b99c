"""The weights cache of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from uns_pose_ros.networks import pretrained_weights

CACHE = pretrained_weights.cache_folder()  # of this machine, before a test names another


def cached(filename: str) -> Path:
    path = CACHE / filename
    if not path.is_file():
        pytest.skip(f"{path} is not here: `uns-pose weights` fetches it")
    return path
