"""The weights cache of this machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from uns_pose_ros.io.artifacts import file_hash
from uns_pose_ros.networks import pretrained_weights, weight_catalog

CACHE = pretrained_weights.cache_folder()  # of this machine, before a test names another


def cached(filename: str) -> Path:
    path = CACHE / filename
    if not path.is_file():
        pytest.skip(f"{path} is not here: `uns-pose weights` fetches it")
    return path


def take_for_u2netp(path: Path, patch: pytest.MonkeyPatch) -> None:
    """Let a file count as the network U2Net-P, and let no other weights be needed."""
    weight = replace(weight_catalog._BY_NAME["u2netp"], content_sha256=file_hash(path))
    patch.setitem(weight_catalog._BY_NAME, "u2netp", weight)
    patch.setattr(pretrained_weights, "STANDARD", (weight,))
