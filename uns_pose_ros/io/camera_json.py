"""Cameras as JSON with the fields of sensor_msgs/CameraInfo."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from msgspec import Meta, Struct, convert

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Camera
from uns_pose_ros.io.artifacts import read_json
from uns_pose_ros.io.schema.constraints import Bounded, Rows3
from uns_pose_ros.io.schema.decoding import describe

_MAX_SIDE = 100_000  # px
_LENS_FIELDS = ("distortion_model", "camera_model", "model")
_NO_PINHOLE = re.compile("fish.?eye|equidistant|kannala|omni|unified", re.IGNORECASE)
_LEAST_PX = 8.0  # of a focal length or a principal point: less are shares of the image


def read_camera(path: Path) -> Camera:
    """Read a camera from a JSON file with the fields of sensor_msgs/CameraInfo.

    K (9 numbers or 3x3), D, width, height (px).

    Raises InvalidInput if a field is missing, the camera is not calibrated, its lens is a fisheye,
    or its numbers are not px.
    """
    record = read_json(path)
    camera = parse_camera(record, path)
    for lens in (str(record[key]) for key in _LENS_FIELDS if key in record):
        if _NO_PINHOLE.search(lens):
            raise InvalidInput(
                f"{path}: the lens model {lens!r} is not supported; a pinhole camera with OpenCV's "
                "distortion (plumb_bob, rational_polynomial) is valid"
            )
    (fx, _, cx), (_, fy, cy), _ = camera.matrix.tolist()
    if max(fx, fy, cx, cy) < _LEAST_PX <= min(camera.width, camera.height):
        raise InvalidInput(
            f"{path}: K holds {fx:g}, {fy:g}, {cx:g}, {cy:g}, which are no px of an image of "
            f"{camera.width} x {camera.height} px; px are valid"
        )
    return camera


class _CameraFields(Struct, frozen=True):
    k: Annotated[list[Bounded], Meta(min_length=9, max_length=9)]
    width: float
    height: float
    d: Annotated[list[Bounded], Meta(max_length=14)] | None = None

    def __post_init__(self) -> None:
        for side in (self.width, self.height):
            if not (1 <= side <= _MAX_SIDE and side == int(side)):
                raise ValueError(f"a side of {side:g} px; 1 to {_MAX_SIDE} is valid")


def parse_camera(record: Any, path: Path) -> Camera:
    """Parse a camera from a JSON value; error messages name `path`."""
    try:
        if not isinstance(record, Mapping):
            raise ValueError(f"an object is needed, not {type(record).__name__}")
        lowered = {str(key).lower(): value for key, value in record.items()}
        rows = lowered.get("k")
        if isinstance(rows, list) and all(isinstance(row, list) for row in rows):
            lowered["k"] = [value for row in convert(rows, Rows3) for value in row]
        fields = convert(lowered, _CameraFields)
        matrix = torch.tensor(fields.k, dtype=torch.float64).reshape(3, 3)
        # drivers without a calibration write zeros: Camera says so
        if matrix[2].tolist() != [0, 0, 1] and bool(matrix.any()):
            raise ValueError("the last row of K is not 0 0 1")
        distortion = torch.tensor(fields.d or [], dtype=torch.float64)
        return Camera(matrix, int(fields.width), int(fields.height), distortion)
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error}") from None
    except (ValueError, RecursionError, OverflowError) as error:
        example = (
            '{"K": [fx, 0, cx, 0, fy, cy, 0, 0, 1], "D": [], "width": 640, "height": 480}'
        )
        reason = describe(error)
        raise InvalidInput(f"{path}: not a camera ({reason}); valid is {example}") from None


def camera_record(camera: Camera) -> dict[str, Any]:
    """A camera as JSON, as `parse_camera` reads it."""
    return {
        "K": camera.matrix.flatten().tolist(),
        "D": camera.distortion.tolist(),
        "width": camera.width,
        "height": camera.height,
    }
