"""Named frames of a category, such as a handle or a grasp, and their places on an instance.

A named frame is defined once, in the canonical frame. All its lengths are in canonical units, which
are object diameters.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from uns_pose_ros.core.geometry import from_parts, rotation_from_vector, split_similarity

SURFACE, RIGID = "surface", "rigid"
FOLLOWS = (SURFACE, RIGID)
# a name is one part of the name of a TF frame
NAME_PATTERN = "[A-Za-z][A-Za-z0-9_]{0,63}"
MAX_POSITION = 10.0  # diameters from the origin, along each axis
MAX_WIDTH = 10.0  # diameters
# diameters from the template up to which a frame follows the surface
MAX_GAP = 0.3
# frames that a symmetry makes equal are at most so many: of more, and of a continuous symmetry,
# every so-manieth turn is taken
MAX_EQUIVALENTS = 12
_ORTHONORMAL = 1e-6


@dataclass(frozen=True, eq=False)
class NamedFrame:
    """A frame that belongs to every instance of a category."""

    name: str
    position: Tensor  # (3,) float64, canonical units
    rotation: Tensor  # (3, 3) float64, canon_from_frame
    width: float | None = None  # canonical units, opening of a gripper; None: no grasp
    # surface: it moves with the surface of an instance; rigid: only with the pose
    follow: str = SURFACE
    # (3,) float64, cam frame: of the frames that a symmetry makes equal only the one that lies
    # farthest in this direction counts; None: all of them count
    prefer: Tensor | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(NAME_PATTERN, self.name):
            raise ValueError(
                f"name {self.name[:80]!r}: a letter, then letters, digits and _ are valid, at most "
                "64"
            )
        if self.position.shape != (3,) or not bool(
            self.position.abs().max() <= MAX_POSITION
        ):
            raise ValueError(
                f"{self.name}: position {self.position.tolist()}: three numbers from "
                f"-{MAX_POSITION:g} to {MAX_POSITION:g} object diameters are valid"
            )
        off = self.rotation @ self.rotation.T - torch.eye(3, dtype=torch.float64)
        right_handed = bool(torch.linalg.det(self.rotation) > 0)
        if not (float(off.abs().max()) <= _ORTHONORMAL and right_handed):
            raise ValueError(f"{self.name}: its axes are no rotation")
        if self.width is not None and not 0 < self.width <= MAX_WIDTH:
            raise ValueError(
                f"{self.name}: width {self.width:g}: above 0 to {MAX_WIDTH:g} object diameters is "
                "valid"
            )
        if self.follow not in FOLLOWS:
            raise ValueError(
                f"{self.name}: follow {self.follow!r}: {' or '.join(FOLLOWS)} is valid"
            )
        if self.prefer is not None and not 0 < float(self.prefer.norm()) < 1e6:
            raise ValueError(f"{self.name}: prefer is zero: a direction is valid")

    @property
    def canon_from_frame(self) -> Tensor:
        """(4, 4) float64, rigid."""
        return from_parts(self.rotation, self.position)

    def moved(self, new_from_old: Tensor) -> NamedFrame:
        """The same frame in another canonical frame, by a similarity (4, 4)."""
        rotation, shift, scale = split_similarity(new_from_old)
        return replace(
            self,
            position=scale * (rotation @ self.position) + shift,
            rotation=rotation @ self.rotation,
            width=None if self.width is None else float(scale) * self.width,
        )


@dataclass(frozen=True, eq=False)
class PlacedFrame:
    """A named frame on one instance. Units as in its PoseEstimate: m, or diameters."""

    frame: NamedFrame
    # that of the frame; with /0, /1 … for frames that a symmetry makes equal
    name: str
    canon_from_frame: Tensor  # (4, 4) float64, rigid, canonical units: on the template
    cam_from_frame: Tensor  # (4, 4) float64, rigid
    # (3, 3) float64, of the position in the camera; None: that of the pose is not known
    covariance: Tensor | None
    # True: the position is that of the instance's own surface in the image; False: the pose alone
    # carried it there
    seen: bool
    width: float | None = None

    def scaled(self, factor: float) -> PlacedFrame:
        """The same in another unit of length."""
        pose = self.cam_from_frame.clone()
        pose[:3, 3] *= factor
        return replace(
            self,
            cam_from_frame=pose,
            covariance=None if self.covariance is None else self.covariance * factor**2,
            width=None if self.width is None else self.width * factor,
        )


def axes_from(
    x_axis: Tensor | None, z_axis: Tensor | None, most_deg: float = 5.0
) -> Tensor:
    """The rotation (3, 3) whose columns are x, y and z of a frame.

    Args:
        x_axis: (3,) direction of x, of any length; None: as near as possible to the canonical x.
        z_axis: (3,) direction of z, of any length; None: as near as possible to the canonical z.
        most_deg: Angle by which two given axes may differ from a right angle; x stays then.

    Raises:
        ValueError: An axis is zero, or the axes are not at right angles.
    """
    if (x_axis is not None and not float(x_axis.norm()) > 1e-9) or (
        z_axis is not None and not float(z_axis.norm()) > 1e-9
    ):
        raise ValueError("an axis is zero: a direction is valid")
    unit = torch.eye(3, dtype=torch.float64)
    if x_axis is None and z_axis is None:
        return unit
    if x_axis is not None and z_axis is not None:
        cosine = float(x_axis @ z_axis / (x_axis.norm() * z_axis.norm()))
        if abs(cosine) > torch.tensor(most_deg).deg2rad().sin():
            raise ValueError("x_axis and z_axis are not at right angles")
    if x_axis is not None:
        x = x_axis / x_axis.norm()
        z = _across(x, [unit[2], unit[1]] if z_axis is None else [z_axis])
    else:
        assert z_axis is not None
        z = z_axis / z_axis.norm()
        x = _across(z, [unit[0], unit[1]])
    return torch.stack([x, torch.linalg.cross(z, x), z], 1)


def _across(axis: Tensor, candidates: list[Tensor]) -> Tensor:
    """The first candidate that is not nearly along an axis, made perpendicular to it."""
    for candidate in candidates:
        unit = candidate / candidate.norm()
        across = unit - (unit @ axis) * axis
        if float(across.norm()) > 0.1:
            break
    return across / across.norm()


def equivalent_turns(order: int, axis: Tensor) -> Tensor:
    """Rotations (G, 3, 3) float64 of a symmetry, at most MAX_EQUIVALENTS of them.

    Those of a continuous symmetry (order 0) are MAX_EQUIVALENTS equal turns.
    """
    count = MAX_EQUIVALENTS if order == 0 else min(order, MAX_EQUIVALENTS)
    turns = torch.arange(count, dtype=torch.float64)
    if order > MAX_EQUIVALENTS:
        turns = (turns * (order / count)).round()
    angles = turns * (2 * torch.pi / (order or count))
    return rotation_from_vector(angles[:, None] * (axis.double() / axis.double().norm()))
