"""Votes of several views on the occupancy of space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample

from uns_pose_ros.core.geometry import project, transform
from uns_pose_ros.core.view_coverage import ViewCoverage

MAX_LOG_ODDS = 3.0  # limit of the log-odds of one image


@dataclass(frozen=True)
class MaskConfig:
    """How the masks of single images are fused."""

    resolution: int = 64  # cells along each side of the cube in which the images vote
    needed: float = (
        -1.0
    )  # mean log-odds over the images below which a place is not part of the object
    size: int = 640  # px, longer side at which images are segmented
    side: int = 192  # px, longer side at which silhouettes are drawn
    margin: float = 0.08  # of the object's box, left around it for the refinement
    # weight of all images' log-odds against those of the image itself
    vote: float = 0.5
    # a mask is reported if its intersection over union with the hull of all other masks is below
    # this,
    bad: float = 0.6
    unsupported: float = 0.05  # or if that hull does not support more than this part of it,
    missing: float = 0.4  # or if it lacks more than this part of that hull
    doubtful: float = 0.01  # unsupported part above which a mask is mended
    lost: float = 0.1  # missing part above which a mask is mended
    # median overlap (IoU) of the masks with the hulls of the others, below which none is mended:
    # the camera poses are doubtful, and with them what a hull supports
    agreed: float = 0.8
    rounds: int = 4  # in which masks are mended, until none changes any more


@dataclass(frozen=True, eq=False)
class OccupancyField:
    """Mean log-odds of the images for each cell of a cube."""

    values: Tensor  # (R, R, R) float32
    center: Tensor  # (3,) float64, obj frame
    half: float  # side / 2, obj units


def vote_occupancy(
    probabilities: Sequence[NDArray[np.float32]],
    matrices: Tensor,
    poses: Tensor,
    config: MaskConfig,
) -> OccupancyField | None:
    """Average the log-odds of all images in the cells around the center of the orbit.

    The first cube is as large as the images; the second surrounds the occupied cells of the first.

    Args:
        probabilities: F maps (H, W) of the object.
        matrices: (F, 3, 3) px.
        poses: cam_from_obj (F, 4, 4).
        config: resolution and thresholds.

    Returns:
        The field, or None where no cell is occupied.
    """
    orbit = ViewCoverage(pose.numpy() for pose in poses)
    if orbit.center is None:
        return None
    center = torch.from_numpy(orbit.center)
    depth = transform(poses, center[None])[:, 0, 2]
    views = [
        min(p.shape) / 2 / float(k[0, 0]) * float(z)
        for p, k, z in zip(probabilities, matrices, depth, strict=True)
    ]
    half = 1.1 * float(np.median(views))
    for _ in range(2):
        values = _keep_central(
            _mean_odds(probabilities, matrices, poses, center, half, config), config.needed
        )
        inside = (values > config.needed).nonzero().double()
        if not len(inside):
            return None
        field = OccupancyField(values, center, half)
        step = 2 * half / (config.resolution - 1)
        low, high = inside.amin(0), inside.amax(0)
        center = center + ((low + high) / 2 - (config.resolution - 1) / 2) * step
        half = float((high - low).max() / 2 + 3) * step
    return field


def fuse_mask(
    own: NDArray[np.float32], seen: NDArray[np.float32], config: MaskConfig
) -> NDArray[np.bool_]:
    """A mask (H, W) from the image's own probability and the log-odds of all images."""
    odds = np.log(np.clip(own, 1e-4, 1) / np.clip(1 - own, 1e-4, 1)).clip(
        -MAX_LOG_ODDS, MAX_LOG_ODDS
    )
    mask = central_component((odds + config.vote * seen > 0) & (seen > config.needed))
    return mask if mask.any() else np.asarray(seen > 0)


def central_component(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The connected component of a mask (H, W) that is largest near the image's center."""
    count, parts = cv2.connectedComponents(mask.astype(np.uint8))
    if count <= 2:
        return mask
    v, u = np.meshgrid(
        np.linspace(-1, 1, mask.shape[0]), np.linspace(-1, 1, mask.shape[1]), indexing="ij"
    )
    weight = np.bincount(parts.ravel(), weights=np.exp(-2 * (u * u + v * v)).ravel())
    weight[0] = 0
    return np.asarray(parts == weight.argmax())


def mask_iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Intersection over union of two masks (H, W), 1 where both are empty."""
    union = int((a | b).sum())
    return 1.0 if union == 0 else float((a & b).sum()) / union


def _mean_odds(
    probabilities: Sequence[NDArray[np.float32]],
    matrices: Tensor,
    poses: Tensor,
    center: Tensor,
    half: float,
    config: MaskConfig,
) -> Tensor:
    """Mean log-odds (R, R, R) float32 of a cube.

    An image does not count for a cell outside it; a cell outside most images is empty.
    """
    axis = torch.linspace(-half, half, config.resolution, dtype=torch.float64)
    grid = (
        torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
        + center
    )
    total, seen = torch.zeros(len(grid)), torch.zeros(len(grid))
    for probability, matrix, pose in zip(probabilities, matrices, poses, strict=True):
        height, width = probability.shape
        points = transform(pose, grid)
        where = (
            project(matrix, points) / torch.tensor([width - 1, height - 1]) * 2 - 1
        ).float()
        odds = torch.from_numpy(probability).logit(1e-4).clamp(-MAX_LOG_ODDS, MAX_LOG_ODDS)
        sampled = grid_sample(odds[None, None], where[None, None], align_corners=True)[
            0, 0, 0
        ]
        visible = ((where.abs() <= 1).all(-1) & (points[:, 2] > 0)).float()
        total += sampled * visible
        seen += visible
    mean = torch.where(
        seen * 2 > len(poses),
        total / seen.clamp(min=1),
        torch.full_like(total, -MAX_LOG_ODDS),
    )
    return mean.reshape(config.resolution, config.resolution, config.resolution)


def _keep_central(values: Tensor, needed: float) -> Tensor:
    """Empty all cells except one connected component.

    It is the component above `needed` that is largest near the center of the cube.
    """
    from scipy.ndimage import label

    parts, count = label((values > needed).numpy())
    if count <= 1:
        return values
    axis = torch.linspace(-1, 1, len(values))
    near = torch.exp(-2 * (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)).numpy()
    weight = np.bincount(parts.ravel(), weights=near.ravel())
    weight[0] = 0
    return torch.where(
        torch.from_numpy((parts == 0) | (parts == weight.argmax())),
        values,
        torch.full_like(values, -MAX_LOG_ODDS),
    )
