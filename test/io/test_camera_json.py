"""Cameras that a person gives as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io.camera_json import read_camera

GOOD: dict[str, Any] = {
    "K": [50, 0, 32, 0, 50, 24, 0, 0, 1],
    "D": [0.1, 0.1, 0.1, 0.1],
    "width": 64,
    "height": 48,
}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"distortion_model": "equidistant"}, "lens model 'equidistant' is not supported"),
        ({"model": "OPENCV_FISHEYE"}, "lens model 'OPENCV_FISHEYE' is not supported"),
        ({"K": [0.8, 0, 0.5, 0, 1.1, 0.5, 0, 0, 1]}, "no px of an image of 64 x 48 px"),
        ({"K": [50, 0, 1e8, 0, 50, 24, 0, 0, 1]}, r"matrix with 1e\+08: at most 1e\+07"),
        ({"K": [50, 0, 0, 0, 50, 0, 32, 24, 1]}, "the last row of K is not 0 0 1"),
    ],
)
def test_a_camera_that_would_be_read_wrongly_is_refused(
    tmp_path: Path, fields: dict[str, Any], reason: str
) -> None:
    path = tmp_path / "K.json"
    path.write_text(json.dumps(GOOD | fields))
    with pytest.raises(InvalidInput, match=reason):
        read_camera(path)


@pytest.mark.parametrize(
    "fields",
    [
        {"distortion_model": "plumb_bob"},
        {"model": "RealSense D435"},
        {"K": [[50, 0, 32], [0, 50, 24], [0, 0, 1]]},
    ],
)
def test_other_fields_of_a_camera_do_not_matter(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    path = tmp_path / "K.json"
    path.write_text(json.dumps(GOOD | fields))
    assert read_camera(path).matrix.tolist() == [[50, 0, 32], [0, 50, 24], [0, 0, 1]]
