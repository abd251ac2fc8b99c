"""Objects at rest in a recording: one pose in the fixed frame, on which its images agree.

All images count alike, whatever their order, since the whole recording is known. Directions from
several places give the position and the size in meters (triangulation); the rotation is the one on
which most images agree, among all poses that each image holds possible.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from uns_pose_ros.core.geometry import (
    angle_between,
    from_parts,
    nearest_equivalent,
    nearest_rotation,
)
from uns_pose_ros.core.types import PoseEstimate, Symmetry
from uns_pose_ros.estimation.fusion.pose_modes import ranked_modes

# reasons why there is no pose
FEW = "objects in too few images"
STILL = "objects that the camera sees from one place only, of a model that knows no size"
MOVING = "objects that move, or whose transforms do not fit the images"
DIVIDED = "objects on whose rotation the images do not agree"

_LEAST = 6  # images of an object
_PARALLAX = math.radians(5)  # between two directions, from which on they give the position
_PLACE = 0.3  # of the apparent diameter: a direction that near agrees
_AGREEING = 0.7  # smallest share of the directions that agree
_WIDTH = 20.0  # degrees, of the kernel in which rotations agree
_NEAR, _OTHER = 30.0, 45.0  # degrees: the same rotation, another one
_TOGETHER = 0.5  # smallest share of the images whose own pose is near the rotation
_CLEARLY = 1.3  # times the support of the next rotation
_CANDIDATES = 80
_SAME_PLACE = 0.5  # diameters between two tracks that are one object
_STEPS = 10


@dataclass(frozen=True, eq=False)
class Sighting:
    """An object in one image of a recording."""

    image: int  # number of the image
    stamp: int  # ns
    track: int
    estimate: PoseEstimate  # of this image alone
    fixed_from_cam: Tensor  # (4, 4) float64, m


@dataclass(frozen=True, eq=False)
class RestingObject:
    """An object at rest, and the images that show it."""

    fixed_from_canon: Tensor  # (4, 4) float64, rigid, m
    scale: float  # m of one canonical unit
    sightings: tuple[Sighting, ...]  # in the order of time

    def cam_from_canon(self, fixed_from_cam: Tensor) -> Tensor:
        """The pose (4, 4), rigid, m, in a camera."""
        return torch.linalg.inv(fixed_from_cam) @ self.fixed_from_canon


def find_objects(
    sightings: Sequence[Sighting],
) -> tuple[list[RestingObject], dict[str, int]]:
    """The objects of a recording, and how many tracks give none, by reason.

    Tracks at the same place are one object.
    """
    tracks = defaultdict[int, list[Sighting]](list)
    for sighting in sightings:
        tracks[sighting.track].append(sighting)
    objects, reasons = list[RestingObject](), defaultdict[str, int](int)
    for track in tracks.values():
        found = fuse_sightings(track)
        if isinstance(found, str):
            reasons[found] += 1
        else:
            objects.append(found)
    merged = list[RestingObject]()
    for thing in objects:
        twin = next((one for one in merged if _same_place(one, thing)), None)
        if twin is not None:
            both = fuse_sightings([*twin.sightings, *thing.sightings])
            if isinstance(both, RestingObject):
                merged[merged.index(twin)] = both
                continue
        merged.append(thing)
    return merged, dict(reasons)


def _same_place(one: RestingObject, other: RestingObject) -> bool:
    gap = (one.fixed_from_canon - other.fixed_from_canon)[:3, 3].norm()
    return float(gap) < _SAME_PLACE * min(one.scale, other.scale)


def fuse_sightings(sightings: Sequence[Sighting]) -> RestingObject | str:
    """The pose of one object in the fixed frame, or why there is none."""
    if len(sightings) < _LEAST:
        return FEW
    placed = _locate(sightings)
    if isinstance(placed, str):
        return placed
    position, scale = placed
    rotation = agree_on_rotation(
        [(sighting.fixed_from_cam, sighting.estimate) for sighting in sightings]
    )
    if rotation is None:
        return DIVIDED
    ordered = tuple(sorted(sightings, key=lambda sighting: sighting.stamp))
    return RestingObject(from_parts(rotation, position), scale, ordered)


def _locate(sightings: Sequence[Sighting]) -> tuple[Tensor, float] | str:
    """Position (3,) m in the fixed frame, and the meters of one canonical unit."""
    poses = torch.stack([sighting.fixed_from_cam for sighting in sightings])
    seen = torch.stack([one.estimate.cam_from_canon[:3, 3] for one in sightings])
    scales = torch.tensor([one.estimate.scale for one in sightings], dtype=torch.float64)
    metric = all(one.estimate.metric for one in sightings)
    away = seen.norm(dim=1) / scales  # canonical units
    centers = poses[:, :3, 3]
    rays = torch.nn.functional.normalize(
        (poses[:, :3, :3] @ seen[..., None])[..., 0], dim=1
    )
    widest = math.acos(max(-1.0, min(1.0, float((rays @ rays.T).min()))))
    if widest < _PARALLAX:
        if not metric:
            return STILL
        places = centers + rays * seen.norm(dim=1, keepdim=True)
        position = places.median(0).values
    else:
        position = _intersect(centers, rays, away)
    between = position - centers
    distance = between.norm(dim=1)
    aside = torch.linalg.cross(between / distance[:, None], rays).norm(dim=1)
    ahead = (between * rays).sum(1) > 0
    agrees = ahead & (aside * away < _PLACE)
    if float(agrees.double().mean()) < _AGREEING:
        return MOVING
    if widest < _PARALLAX:
        return position, float(scales.median())
    return position, float((distance / away)[agrees].median())


def _intersect(centers: Tensor, rays: Tensor, away: Tensor) -> Tensor:
    """The point (3,) nearest to rays, robustly; errors count in apparent diameters."""
    eye = torch.eye(3, dtype=torch.float64)
    across = eye - rays[:, :, None] * rays[:, None, :]  # (N, 3, 3)
    weight = torch.ones(len(rays), dtype=torch.float64)
    point = centers.mean(0)
    for _ in range(_STEPS):
        total = (weight[:, None, None] * across).sum(0) + 1e-12 * eye
        point = torch.linalg.solve(
            total, (weight[:, None] * (across @ centers[..., None])[..., 0]).sum(0)
        )
        between = point - centers
        distance = between.norm(dim=1).clamp_min(1e-6)
        gap = (across @ between[..., None])[..., 0].norm(dim=1) / distance * away
        weight = (away / distance).square() / (1 + (gap / _PLACE).square()).square()
    return point


def agree_on_rotation(poses: Sequence[tuple[Tensor, PoseEstimate]]) -> Tensor | None:
    """The rotation (3, 3) fixed_from_canon on which most images agree; None: there is none.

    Args:
        poses: fixed_from_cam (4, 4) and the estimate of each image.
    """
    symmetry = poses[0][1].symmetry
    rows, shares, owner = list[Tensor](), list[float](), list[int]()
    for k, (fixed_from_cam, estimate) in enumerate(poses):
        for pose, chance, _ in ranked_modes(estimate):
            rows.append(fixed_from_cam[:3, :3] @ pose[:3, :3])
            shares.append(chance)
            owner.append(k)
    rotation, share = torch.stack(rows), torch.tensor(shares, dtype=torch.float64)
    own = torch.tensor(owner)
    first = torch.tensor([owner.index(k) for k in range(len(poses))])
    candidates = rotation[first[:: max(1, len(first) // _CANDIDATES)]]
    angle = _angle(rotation[None], candidates[:, None], symmetry)  # (C, M)
    kernel = share * (-0.5 * (angle / _WIDTH).square()).exp()
    best_of_image = torch.zeros(len(candidates), len(poses), dtype=torch.float64)
    best_of_image.scatter_reduce_(1, own.expand(len(candidates), -1), kernel, "amax")
    support = best_of_image.sum(1)
    best = int(support.argmax())
    apart = _angle(candidates, candidates[best], symmetry) > _OTHER
    if bool(apart.any()) and float(support[best]) < _CLEARLY * float(support[apart].max()):
        return None
    mean = candidates[best]
    for _ in range(_STEPS):
        turned = nearest_equivalent(rotation, mean, symmetry.order, symmetry.axis)
        angle = angle_between(turned, mean)
        weight = share * (-0.5 * (angle / _WIDTH).square()).exp() * (angle < _NEAR)
        mean = nearest_rotation((weight[:, None, None] * turned).sum(0))
    near = _angle(rotation[first], mean, symmetry) < _NEAR
    return mean if float(near.double().mean()) >= _TOGETHER else None


def _angle(rotation: Tensor, wanted: Tensor, symmetry: Symmetry) -> Tensor:
    """Degrees between rotations, up to symmetry."""
    turned = nearest_equivalent(rotation, wanted, symmetry.order, symmetry.axis)
    return angle_between(turned, wanted)
