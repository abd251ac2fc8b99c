"""Axes of the canonical frame: named by the user afterwards, proposed from the cameras."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import normalize

from uns_pose_ros.datatypes import Alignment, FeatureMesh, InvalidInput, Symmetry
from uns_pose_ros.geometry import from_parts, split_similarity

AXES = ("x", "-x", "y", "-y", "z", "-z")
_LEAST_ACROSS = 0.05  # part of the front direction that must lie across up


def named_axis(name: str) -> Tensor:
    """The unit vector (3,) float64 of an axis of the present canonical frame: x, -x, y, -y, z or -z."""
    if name not in AXES:
        raise InvalidInput(f"axis {name!r}: {', '.join(AXES)} are valid")
    return torch.eye(3, dtype=torch.float64)["xyz".index(name[-1])] * (-1.0 if name[0] == "-" else 1.0)


def nearest_axis(direction: Tensor) -> str:
    """The name of the canonical axis nearest to a direction (3,)."""
    return max(AXES, key=lambda name: float(named_axis(name) @ direction.double()))


def propose_up(meshes: Mapping[str, FeatureMesh], alignment: Alignment) -> Tensor:
    """The direction (3,) of the present canonical frame that was up for whoever held the cameras, unit length.

    A camera is held level: its x axis lies across up, and its y axis points down more than up. Every kept video has one say,
    by its confidence; only kept videos need a mesh.
    """
    across, down = torch.zeros(3, 3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    rotations = split_similarity(alignment.canon_from_obj)[0]
    for name, canon_from_obj, confidence, kept in zip(
        alignment.videos, rotations, alignment.confidence, alignment.kept, strict=True
    ):
        if not kept:
            continue
        canon_from_cam = canon_from_obj @ meshes[name].cameras_in_obj[:, :3, :3].double().mT
        right, below = canon_from_cam[..., 0], canon_from_cam[..., 1]
        # where all cameras stand on one side, `right` leaves open how far they look down; `below` then decides
        across += confidence * (right.T @ right - 0.1 * below.T @ below) / len(right)
        down += confidence * below.mean(0)
    up = torch.linalg.eigh(across).eigenvectors[:, 0]
    return up * (-1.0 if float(up @ down) > 0 else 1.0)


def reorient(alignment: Alignment, up: Tensor, front: Tensor) -> Alignment:
    """The same alignment in a canonical frame whose z is `up` and whose x is as near to `front` as that allows.

    Directions (3,) in the present canonical frame, of any length. Nothing is computed again. Raises InvalidInput where they are
    parallel or zero.
    """
    up, front = (direction.double() for direction in (up, front))
    z = normalize(up, dim=0)
    across = front - (front @ z) * z
    if float(up.norm()) == 0 or float(across.norm()) <= _LEAST_ACROSS * float(front.norm()):
        raise InvalidInput(f"up {up.tolist()} and front {front.tolist()} must be two directions across each other")
    x = normalize(across, dim=0)
    new_from_old = torch.stack([x, torch.linalg.cross(z, x), z])
    return Alignment(
        videos=alignment.videos,
        canon_from_obj=from_parts(new_from_old, torch.zeros(3, dtype=torch.float64)) @ alignment.canon_from_obj,
        confidence=alignment.confidence,
        kept=alignment.kept,
        residual=alignment.residual,
        symmetry=Symmetry(alignment.symmetry.order, new_from_old @ alignment.symmetry.axis),
    )
