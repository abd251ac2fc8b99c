"""Cameras as JSON with the fields of sensor_msgs/CameraInfo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Camera
from uns_pose_ros.io.artifacts import read_json


def read_camera(path: Path) -> Camera:
    """Read a camera from a JSON file with the fields of sensor_msgs/CameraInfo.

    K (9 numbers or 3x3), D, width, height (px).

    Raises InvalidInput if a field is missing or the camera is not calibrated.
    """
    return parse_camera(read_json(path), path)


def parse_camera(record: Any, path: Path) -> Camera:
    """Parse a camera from a JSON value; error messages name `path`."""
    try:
        fields = {str(key).lower(): value for key, value in record.items()}
        matrix = torch.tensor(fields["k"], dtype=torch.float64).reshape(3, 3)
        distortion = torch.tensor(fields.get("d") or [], dtype=torch.float64)
        return Camera(matrix, int(fields["width"]), int(fields["height"]), distortion)
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error}") from None
    except (
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
        ArithmeticError,
        RuntimeError,
    ) as error:
        reason = (
            f"{error} is missing"
            if isinstance(error, KeyError)
            else str(error).splitlines()[0]
        )
        example = (
            '{"K": [fx, 0, cx, 0, fy, cy, 0, 0, 1], "D": [], "width": 640, "height": 480}'
        )
        raise InvalidInput(f"{path}: not a camera ({reason}); valid is {example}") from None


def camera_record(camera: Camera) -> dict[str, Any]:
    """A camera as JSON, as `parse_camera` reads it."""
    return {
        "K": camera.matrix.flatten().tolist(),
        "D": camera.distortion.tolist(),
        "width": camera.width,
        "height": camera.height,
    }
