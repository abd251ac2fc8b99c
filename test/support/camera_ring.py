"""Camera poses on a ring around an object."""

from __future__ import annotations

import numpy as np

CENTRE = np.array([3.0, -2.0, 0.5])


def view(
    azimuth: float, elevation: float = 20.0, distance: float = 1.0, aim: np.ndarray = CENTRE
) -> np.ndarray:
    """cam_from_obj (4, 4) of an optical frame at these degrees about CENTRE that looks at `aim`."""
    a, e = np.radians([azimuth, elevation])
    eye = CENTRE + distance * np.array(
        [np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)]
    )
    forward = (aim - eye) / np.linalg.norm(aim - eye)
    right = np.cross(forward, [0, 0, 1.0])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, -rotation @ eye
    return matrix
