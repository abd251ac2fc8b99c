"""One registered image as a file of a COLMAP model gives it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TypeAlias

import torch
from torch import Tensor

from uns_pose_ros.core.geometry import from_parts, quaternion_to_matrix
from uns_pose_ros.io.given_files import stays_inside

_FAR = 1e9  # obj units, of a camera's place
_MIN_QUATERNION = 1e-6  # length below which a quaternion has no direction


MOST_OBSERVED = 200  # 2D points of an image that are looked at
Observed: TypeAlias = tuple[tuple[float, float, int], ...]  # u v in px, id of the point


@dataclass(frozen=True)
class ImageRow:
    """One registered image."""

    name: str
    camera_id: int
    pose: Sequence[float]  # qw qx qy qz tx ty tz, cam from obj
    observed: Observed = ()  # some of the points that it sees

    def clean_name(self) -> str:
        """The name as a path below images/, with slashes. ValueError where it leads elsewhere."""
        name = self.name.replace("\\", "/")
        if not stays_inside(name) or name[1:2] == ":":
            raise ValueError(f"image name {self.name!r}: a path below images/ is valid")
        return PurePosixPath(name).as_posix()

    def cam_from_obj(self) -> Tensor:
        """The pose (4, 4) float64, rigid, of a quaternion of any length. ValueError: none."""
        values = torch.tensor(self.pose, dtype=torch.float64)
        near = bool((values.abs() < _FAR).all())  # also false where one is not finite
        if not near or float(values[:4].norm()) < _MIN_QUATERNION:
            raise ValueError(f"image {self.name} has no valid pose")
        return from_parts(quaternion_to_matrix(values[:4]), values[4:])
