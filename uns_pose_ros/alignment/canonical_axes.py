"""Axes of the canonical frame: the user names them afterward, and the cameras propose up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import from_parts, split_similarity
from uns_pose_ros.core.types import Alignment, FeatureMesh, Symmetry

AXES = ("x", "-x", "y", "-y", "z", "-z")
AUTO = "auto"  # up is proposed from the cameras
_LEAST_ACROSS = 0.05  # least share of the front direction that is perpendicular to up


@dataclass(frozen=True)
class AxisNames:
    """The axes of the computed frame that are up and front; None: not named.

    Raises:
        InvalidInput: The names are unknown, or up and front are parallel.
    """

    up: str | None = None  # of AXES, or AUTO
    front: str | None = None  # of AXES

    def __post_init__(self) -> None:
        if self.up not in (None, *AXES, AUTO):
            raise InvalidInput(f"--up {self.up!r}: {', '.join(AXES)} and {AUTO} are valid")
        if self.front not in (None, *AXES):
            raise InvalidInput(f"--front {self.front!r}: {', '.join(AXES)} are valid")
        if self.front is not None and self.up in AXES and self.up[-1] == self.front[-1]:
            raise InvalidInput(
                f"--up {self.up} --front {self.front}: they must be two directions across each "
                "other"
            )

    def rotation(self, meshes: Mapping[str, FeatureMesh], computed: Alignment) -> Tensor:
        """Rotation (3, 3) from the computed frame to the named frame, whose z is up and x is front.

        If only one axis is named, the other is z or x if that is possible. `meshes` of the kept
        videos are needed for AUTO only.
        """
        lying = self.front is not None and self.front[-1] == "z"
        up = (
            propose_up(meshes, computed)
            if self.up == AUTO
            else named_axis(self.up or ("x" if lying else "z"))
        )
        front = named_axis(self.front or ("x" if abs(float(up[0])) < 0.7 else "y"))
        return frame_of(up, front)


def named_axis(name: str) -> Tensor:
    """Unit vector (3,) float64 of one of the `AXES` of the present canonical frame."""
    if name not in AXES:
        raise InvalidInput(f"axis {name!r}: {', '.join(AXES)} are valid")
    return torch.eye(3, dtype=torch.float64)["xyz".index(name[-1])] * (
        -1.0 if name[0] == "-" else 1.0
    )


def nearest_axis(direction: Tensor) -> str:
    """The name of the canonical axis nearest to a direction (3,)."""
    return max(AXES, key=lambda name: float(named_axis(name) @ direction.double()))


def propose_up(meshes: Mapping[str, FeatureMesh], alignment: Alignment) -> Tensor:
    """Unit vector (3,) of the present canonical frame that was up for the person with the camera.

    A camera is held level: its x axis is perpendicular to up, and its y axis points down rather
    than up. Every kept video counts by its confidence; only kept videos need a mesh.
    """
    across = torch.zeros(3, 3, dtype=torch.float64)
    down = torch.zeros(3, dtype=torch.float64)
    rotations = split_similarity(alignment.canon_from_obj)[0]
    for name, canon_from_obj, confidence, kept in zip(
        alignment.videos, rotations, alignment.confidence, alignment.kept, strict=True
    ):
        if not kept:
            continue
        canon_from_cam = canon_from_obj @ meshes[name].cameras_in_obj[:, :3, :3].double().mT
        right, below = canon_from_cam[..., 0], canon_from_cam[..., 1]
        # if all cameras stand on one side, `right` does not determine how far they look down; then
        # `below` decides
        across += confidence * (right.T @ right - 0.1 * below.T @ below) / len(right)
        down += confidence * below.mean(0)
    up = torch.linalg.eigh(across).eigenvectors[:, 0]
    return up * (-1.0 if float(up @ down) > 0 else 1.0)


def frame_of(up: Tensor, front: Tensor) -> Tensor:
    """Rotation (3, 3) to the frame whose z is `up` and whose x is as near to `front` as possible.

    The directions (3,) may have any length.

    Raises:
        InvalidInput: The directions are parallel or zero.
    """
    up, front = (direction.double() for direction in (up, front))
    z = normalize(up, dim=0)
    across = front - (front @ z) * z
    if float(up.norm()) == 0 or float(across.norm()) <= _LEAST_ACROSS * float(front.norm()):
        raise InvalidInput(
            f"up {up.tolist()} and front {front.tolist()} must be two directions across each other"
        )
    x = normalize(across, dim=0)
    return torch.stack([x, torch.linalg.cross(z, x), z])


def reorient(alignment: Alignment, new_from_old: Tensor) -> Alignment:
    """Turn the canonical frame of an alignment by a rotation (3, 3)."""
    return Alignment(
        videos=alignment.videos,
        canon_from_obj=from_parts(new_from_old, torch.zeros(3, dtype=torch.float64))
        @ alignment.canon_from_obj,
        confidence=alignment.confidence,
        kept=alignment.kept,
        residual=alignment.residual,
        symmetry=Symmetry(alignment.symmetry.order, new_from_old @ alignment.symmetry.axis),
    )
