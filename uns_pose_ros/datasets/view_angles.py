"""Azimuth, elevation and in-plane rotation, as PASCAL3D+ and its successors give a pose.

Their axes: x is the object's left, y its back, z up. At azimuth 0 the camera stands at -y and sees
the front. The camera looks at the object's origin, so the translation is (0, 0, distance), and the
"principal point" px, py is the pixel where the origin is seen.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from uns_pose_ros.core.geometry import from_parts
from uns_pose_ros.core.types import Camera

# from their axes (left, back, up) to ours (forward, left, up)
OURS_FROM_PASCAL = torch.tensor(
    [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64
)
# from axes with y up and z to the front (x is the left), as in Objectron and NOCS
OURS_FROM_Y_UP = torch.tensor(
    [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], dtype=torch.float64
)


def pose_from_angles(
    azimuth: float, elevation: float, theta: float, distance: float
) -> Tensor:
    """cam_from_object (4, 4) in the axes of PASCAL3D+; the camera is OpenCV's.

    Args:
        azimuth: Of the camera around the object, degrees.
        elevation: Of the camera above the object, degrees.
        theta: Rotation in the image plane, degrees.
        distance: From the camera to the object's origin, in the data set's units.
    """
    a, e, t = (math.radians(angle) for angle in (azimuth, elevation, theta))
    flip = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))
    rotation = flip @ _about_z(t) @ _about_x(e - math.pi / 2) @ _about_z(-a)
    return from_parts(rotation, torch.tensor([0.0, 0.0, distance], dtype=torch.float64))


def with_our_axes(cam_from_object: Tensor, ours_from_theirs: Tensor) -> Tensor:
    """The pose (4, 4) of the same object with our axes.

    Args:
        cam_from_object: (4, 4) pose with the axes of a data set.
        ours_from_theirs: (3, 3) rotation from those axes to ours.
    """
    pose = cam_from_object.clone()
    pose[:3, :3] = cam_from_object[:3, :3] @ ours_from_theirs.T
    return pose


def camera_towards(
    focal: float, at: tuple[float, float], width: int, height: int
) -> Camera:
    """The camera of PASCAL3D+: its principal point is where the object's origin is seen.

    Args:
        focal: Focal length, px.
        at: Pixel of the object's origin.
        width: Of the image, px.
        height: Of the image, px.
    """
    matrix = [[focal, 0.0, at[0]], [0.0, focal, at[1]], [0.0, 0.0, 1.0]]
    return Camera(torch.tensor(matrix, dtype=torch.float64), width, height)


def _about_z(angle: float) -> Tensor:
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)


def _about_x(angle: float) -> Tensor:
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]], dtype=torch.float64)
