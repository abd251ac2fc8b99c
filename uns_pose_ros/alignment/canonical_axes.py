"""Axes of the canonical frame: cameras and shapes propose them, and the user may name others."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor
from torch.nn.functional import normalize

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import (
    from_parts,
    nearest_rotation,
    split_similarity,
    transform,
)
from uns_pose_ros.core.types import Alignment, FeatureMesh, Symmetry

AXES = ("x", "-x", "y", "-y", "z", "-z")
AUTO = "auto"  # cameras propose up, shapes propose front
CLEAR_CONTRAST = 0.25  # a mirror plane with less is no better than other planes by much
_STEP = 3.0  # degrees between the vertical planes that are tried first
_COARSE = 1000  # vertices that they reflect
_ENDS = (0.01, 0.99)  # quantiles between which a shape reaches
_SAMPLED = 3000  # vertices that the planes near the best one reflect
_LEAST_ACROSS = 0.05  # least share of the front direction that is perpendicular to up


@dataclass(frozen=True)
class AxisNames:
    """The axes of a base frame that are up and front; None: not named.

    Raises:
        InvalidInput: The names are unknown, or up and front are parallel.
    """

    up: str | None = None  # of AXES, or AUTO
    front: str | None = None  # of AXES, or AUTO

    def __post_init__(self) -> None:
        for option, name in (("--up", self.up), ("--front", self.front)):
            if name not in (None, *AXES, AUTO):
                raise InvalidInput(
                    f"{option} {name!r}: {', '.join(AXES)} and {AUTO} are valid"
                )
        if self.up in AXES and self.front in AXES and self.up[-1] == self.front[-1]:
            raise InvalidInput(
                f"--up {self.up} --front {self.front}: they must be two directions across each "
                "other"
            )

    @property
    def explicit(self) -> bool:
        """Whether a person named an axis."""
        return self.up in AXES or self.front in AXES

    def rotation(self) -> Tensor:
        """Rotation (3, 3) from the base frame to the named frame, whose z is up and x is front.

        If only one axis is named, the other is z or x if that is possible.
        """
        up, front = (name if name in AXES else None for name in (self.up, self.front))
        lying = front is not None and front[-1] == "z"
        z = named_axis(up or ("x" if lying else "z"))
        return frame_of(z, named_axis(front or ("x" if abs(float(z[0])) < 0.7 else "y")))


@dataclass(frozen=True)
class ProposedFrame:
    """A frame that people would expect: z as the cameras were held, x in the mirror plane."""

    proposed_from_canon: Tensor  # (3, 3) float64
    up_spread: float  # degrees, median angle between one video's up and that of all
    # 0 to 1, how much better the mirror plane is than the usual vertical plane through the middle
    front_contrast: float

    @property
    def text(self) -> str:
        """Say in one line what the axes are, and how sure that is."""
        front = "in the mirror plane"
        if self.front_contrast < CLEAR_CONTRAST:
            front = "arbitrary, no mirror plane stands out"
        return (
            f"z up as the cameras were held (videos differ by {self.up_spread:.0f}°), "
            f"x {front}; --up and --front name others"
        )


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
    moments = [moment for _, moment in _camera_moments(meshes, alignment)]
    return up_of(
        sum((across for across, _ in moments), torch.zeros(3, 3, dtype=torch.float64)),
        sum((down for _, down in moments), torch.zeros(3, dtype=torch.float64)),
    )


def camera_moments(canon_from_obj: Tensor, mesh: FeatureMesh) -> tuple[Tensor, Tensor]:
    """Second moments (3, 3) and mean (3,) of camera axes, which tell of up; see `up_of`.

    Args:
        canon_from_obj: Rotation (3, 3) of the video.
        mesh: Its feature mesh, with the poses of the cameras.
    """
    canon_from_cam = canon_from_obj @ mesh.cameras_in_obj[:, :3, :3].double().mT
    right, below = canon_from_cam[..., 0], canon_from_cam[..., 1]
    # if all cameras stand on one side, `right` does not determine how far they look down; then
    # `below` decides
    across = (right.T @ right - 0.1 * below.T @ below) / len(right)
    return across, below.mean(0)


def _camera_moments(
    meshes: Mapping[str, FeatureMesh], alignment: Alignment
) -> list[tuple[str, tuple[Tensor, Tensor]]]:
    """What the cameras of each kept video tell of up: (3, 3) and (3,), weighted by confidence."""
    moments = []
    rotations = split_similarity(alignment.canon_from_obj)[0]
    for name, canon_from_obj, confidence, kept in zip(
        alignment.videos, rotations, alignment.confidence, alignment.kept, strict=True
    ):
        if not kept:
            continue
        across, down = camera_moments(canon_from_obj, meshes[name])
        moments.append((name, (confidence * across, confidence * down)))
    return moments


def up_of(across: Tensor, down: Tensor) -> Tensor:
    """Up (3,) of unit length from the moments of cameras.

    Args:
        across: Moments (3, 3), of one video or the weighted sum over several.
        down: Mean directions (3,), likewise.
    """
    up = torch.linalg.eigh(across).eigenvectors[:, 0]
    return up * (-1.0 if float(up @ down) > 0 else 1.0)


def propose_front(points: Tensor, up: Tensor) -> tuple[Tensor, float]:
    """Propose the front of aligned shapes: a direction in their vertical mirror plane.

    Of all planes through the middle that contain `up`, the mirror plane is that whose reflection
    leaves the points most unchanged. Front is the side on which the shape reaches farther from its
    mean: the handle of a mug, the seat of a chair before its back.

    Args:
        points: (N, 3) vertices of the aligned meshes, canon frame.
        up: (3,) of unit length.

    Returns:
        Front (3,) float64 of unit length, across `up`, and the contrast from 0 to 1: how much
        smaller the distance of the reflected points is than for the median plane.
    """
    level_from_canon = frame_of(up, named_axis("x" if abs(float(up[0])) < 0.7 else "y"))
    level = (points.double() @ level_from_canon.T).numpy()
    level = level - level.mean(0)
    chosen = np.random.default_rng(0).permutation(len(level))[:_SAMPLED]
    tree = cKDTree(level)
    few, angles = level[chosen[:_COARSE]], np.arange(0.0, 180.0, _STEP)
    gaps = np.array([_reflection_gap(few, tree, angle) for angle in angles])
    near = angles[gaps.argmin()] + np.linspace(-_STEP, _STEP, 13)
    best = np.radians(min(near, key=lambda a: _reflection_gap(level[chosen], tree, a)))
    along = level[:, 0] * np.cos(best) + level[:, 1] * np.sin(best)
    sign = 1.0 if np.quantile(along, _ENDS).sum() >= 0 else -1.0
    front = torch.tensor([sign * np.cos(best), sign * np.sin(best), 0.0]).double()
    return front @ level_from_canon, float(1 - gaps.min() / max(np.median(gaps), 1e-12))


def _reflection_gap(points: NDArray[np.float64], tree: cKDTree, angle: float) -> float:
    """Mean distance to `tree` of points (N, 3) reflected in a vertical plane, `angle` degrees."""
    angle = np.radians(angle)
    normal = np.array([-np.sin(angle), np.cos(angle), 0.0])
    reflected = points - 2 * (points @ normal)[:, None] * normal
    return float(tree.query(reflected)[0].mean())


def propose_frame(meshes: Mapping[str, FeatureMesh], alignment: Alignment) -> ProposedFrame:
    """Propose the frame that people would expect; only kept videos need a mesh."""
    up = propose_up(meshes, alignment)
    moments = _camera_moments(meshes, alignment)
    cosines = [float(up_of(*moment) @ up) for _, moment in moments]
    spread = float(np.degrees(np.median(np.arccos(np.clip(cosines, -1, 1)))))
    points = [
        transform(canon_from_obj, meshes[name].vertices.double())
        for name, canon_from_obj, kept in zip(
            alignment.videos, alignment.canon_from_obj, alignment.kept, strict=True
        )
        if kept
    ]
    front, contrast = propose_front(torch.cat(points), up)
    return ProposedFrame(frame_of(up, front), spread, contrast)


def turn_between(old: Alignment, new: Alignment, videos: Collection[str]) -> Tensor | None:
    """Rotation (3, 3) from the canonical frame of one alignment to that of another.

    Args:
        old: The one alignment.
        new: The other alignment.
        videos: Videos whose obj frames are the same in both.

    Returns:
        The mean over the given videos that both kept, weighted by the new confidence; None if there
        is no such video.
    """
    rotations = [
        dict(zip(one.videos, split_similarity(one.canon_from_obj)[0], strict=True))
        for one in (old, new)
    ]
    kept_before = {
        name for name, kept in zip(old.videos, old.kept, strict=True) if bool(kept)
    }
    total = torch.zeros(3, 3, dtype=torch.float64)
    for name, kept, confidence in zip(new.videos, new.kept, new.confidence, strict=True):
        if kept and name in kept_before and name in videos:
            total += confidence.clamp_min(0.05) * rotations[1][name] @ rotations[0][name].T
    if not bool(total.any()):
        return None
    return nearest_rotation(total)


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
        reference=alignment.reference,
    )
