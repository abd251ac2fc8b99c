"""Coarse closed meshes from poses and masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import project, transform
from uns_pose_ros.core.isosurface import extract_surface


@dataclass(frozen=True)
class HullConfig:
    """How a visual hull is carved."""

    resolution: int = 64  # voxels along each side of the object's cube
    vertices: int = 500  # at most, after decimation
    # fraction of the views that may call a voxel empty before it is carved away
    outvoted: float = 0.1


def locate_object(
    masks: Sequence[Tensor], matrices: Tensor, cam_from_obj: Tensor
) -> tuple[Tensor, float]:
    """Locate the object where the central rays of the masks meet, by least squares.

    Args:
        masks: F masks (H, W) bool.
        matrices: (F, 3, 3) float64, px.
        cam_from_obj: (F, 4, 4) float64.

    Returns:
        Center (3,) and half of the side of a cube around the object, obj frame.

    Raises:
        InvalidInput: the rays do not meet in front of the cameras.
    """
    rays, origins, extents = [], [], []
    for mask, matrix, pose in zip(masks, matrices, cam_from_obj, strict=True):
        pixels = mask.nonzero().flip(1).double()
        low, high = pixels.amin(0), pixels.amax(0)
        center = torch.cat([(low + high) / 2, torch.ones(1, dtype=torch.float64)])
        direction = pose[:3, :3].T @ torch.linalg.solve(matrix, center)
        rays.append(direction / direction.norm())
        origins.append(-pose[:3, :3].T @ pose[:3, 3])
        extents.append((high - low).max() / 2 / matrix[0, 0])
    ray, origin = torch.stack(rays), torch.stack(origins)
    across = torch.eye(3, dtype=torch.float64) - ray[:, :, None] * ray[:, None, :]
    center = torch.linalg.lstsq(
        across.sum(0), (across @ origin[..., None]).sum(0)
    ).solution[:, 0]
    depth = transform(cam_from_obj, center[None])[:, 0, 2]
    if not bool((depth > 0).all()):
        raise InvalidInput(
            "the masks' rays do not meet in front of the cameras: do the poses belong to these "
            "masks?"
        )
    return center, float((torch.stack(extents) * depth).max())


def carve_visual_hull(
    masks: Sequence[Tensor],
    matrices: Tensor,
    cam_from_obj: Tensor,
    config: HullConfig = HullConfig(),
) -> tuple[Tensor, Tensor]:
    """Carve the closed surface that the masks bound.

    The value of a voxel is its signed distance from the silhouettes in pixels, taken at the view
    of rank `outvoted`, so that few wrong masks carve nothing away.

    Args:
        masks: F masks (H, W) bool, of any sizes.
        matrices: (F, 3, 3) px.
        cam_from_obj: (F, 4, 4) rigid.
        config: resolution and thresholds.

    Returns:
        Vertices (V, 3) float32 in the obj frame, and triangles (T, 3) int64.

    Raises:
        InvalidInput: no voxel is inside the masks.
    """
    matrices, cam_from_obj = matrices.double(), cam_from_obj.double()
    center, half = locate_object(masks, matrices, cam_from_obj)
    distances = [signed_distance(mask) for mask in masks]
    low, high = center - 1.4 * half, center + 1.4 * half
    for resolution in (config.resolution // 2, config.resolution):
        field, step = _carve(
            distances, matrices, cam_from_obj, low, high, resolution, config.outvoted
        )
        inside = (field > 0).nonzero()
        if not len(inside):
            raise InvalidInput(
                "no point in space lies inside all the masks: are masks and poses of the same "
                "object?"
            )
        start = low
        low, high = start + (inside.amin(0) - 2) * step, start + (inside.amax(0) + 2) * step
    return extract_surface(field.numpy(), start.numpy(), step.numpy(), config.vertices)


def signed_distance(mask: Tensor) -> Tensor:
    """Distance (H, W) float32 in px from the mask's border, positive inside."""
    array = mask.numpy().astype(np.uint8)
    inside = cv2.distanceTransform(array, cv2.DIST_L2, 5)
    return torch.from_numpy(inside - cv2.distanceTransform(1 - array, cv2.DIST_L2, 5))


def sample_distances(
    distances: Sequence[Tensor],
    matrices: Tensor,
    poses: Tensor,
    low: Tensor,
    high: Tensor,
    resolution: int,
) -> Tensor:
    """Sample signed distances of F silhouettes at the voxels of a grid.

    Args:
        distances: F maps (H, W), px, see `signed_distance`.
        matrices: (F, 3, 3) float64, px.
        poses: cam_from_obj (F, 4, 4) float64.
        low: (3,) float64, first corner of the grid.
        high: (3,) float64, last corner of the grid.
        resolution: Number R of voxels along each axis.

    Returns:
        (F, R^3) float32, px; inf where a voxel lies outside an image, which is no evidence.
    """
    axes = [
        torch.linspace(float(a), float(b), resolution, dtype=torch.float64)
        for a, b in zip(low, high, strict=True)
    ]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    values = torch.empty(len(distances), len(grid))
    for k, (distance, matrix, pose) in enumerate(
        zip(distances, matrices, poses, strict=True)
    ):
        size = torch.tensor(
            [distance.shape[1] - 1, distance.shape[0] - 1], dtype=torch.float64
        )
        where = (project(matrix, transform(pose, grid)) / size * 2 - 1).float()
        sampled = grid_sample(
            distance[None, None],
            where[None, None],
            align_corners=True,
            padding_mode="border",
        )[0, 0, 0]
        unseen = (where.abs() > 1).any(-1)
        values[k] = torch.where(unseen, torch.full_like(sampled, torch.inf), sampled)
    return values


def _carve(
    distances: list[Tensor],
    matrices: Tensor,
    poses: Tensor,
    low: Tensor,
    high: Tensor,
    resolution: int,
    outvoted: float,
) -> tuple[Tensor, Tensor]:
    """Values (R, R, R) of the voxels between two corners (3,), and the step (3,) between them."""
    values = sample_distances(distances, matrices, poses, low, high, resolution)
    rank = 1 + int(outvoted * len(distances))
    field = values.kthvalue(min(rank, len(values)), dim=0).values.clamp(-1e3, 1e3)
    outside_most_images = values.isinf().sum(0) * 2 > len(values)
    field[outside_most_images] = -1.0
    step = (high - low) / (resolution - 1)
    return field.reshape(resolution, resolution, resolution), step
