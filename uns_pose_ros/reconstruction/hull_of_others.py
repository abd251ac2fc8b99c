"""Each image judged by the others: the silhouette of the hull that the other masks carve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from skimage.measure import marching_cubes
from torch import Tensor

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import project, transform
from uns_pose_ros.reconstruction.mask_voting import MaskConfig, mask_iou
from uns_pose_ros.reconstruction.visual_hull import (
    HullConfig,
    locate_object,
    sample_distances,
    signed_distance,
)

_LEAST = 3  # masks that judge each other
_FAR = 1e3  # px, for a place that no image sees
_MOST_PX = 2.0**30  # in 16ths of a px, off the image, that are drawn
# share of the object's size in an image by which a mask may differ from the silhouette: the hull
# and the poses are not exact
_TOLERANCE = 0.02
# the part of a video's masks that tells how exact its poses are, and whether the hull lacks a part:
# what most masks show beyond the hull is a part of the object that the others have lost
_CALM = 0.4


@dataclass(frozen=True, eq=False)
class CarvedCube:
    """For each voxel of a box, how far it is inside the silhouettes of the images.

    Signed distance in px from the silhouette, positive inside, at the view of rank `outvoted`.
    """

    values: Tensor  # (F, R^3) float32, of each image; inf where the image does not see it
    least: Tensor  # (R^3,) float32, the value of that rank
    next: Tensor  # (R^3,) float32, the value of the next rank
    low: Tensor  # (3,) float64, a corner, obj frame
    high: Tensor  # (3,) float64, the other corner
    resolution: int

    def without(self, number: int) -> Tensor:
        """The field (R, R, R) float32 of all images except one."""
        return self._shaped(
            torch.where(self.values[number] <= self.least, self.next, self.least)
        )

    def of_all(self) -> Tensor:
        """The field (R, R, R) float32 of all images."""
        return self._shaped(self.least)

    def _shaped(self, field: Tensor) -> Tensor:
        return field.reshape(self.resolution, self.resolution, self.resolution)


def carve_cube(
    masks: Sequence[NDArray[np.bool_]],
    matrices: Tensor,
    poses: Tensor,
    config: HullConfig = HullConfig(),
) -> CarvedCube | None:
    """Carve the box around the object by all masks.

    Args:
        masks: F masks (H, W), none of them empty.
        matrices: (F, 3, 3) float64, px.
        poses: cam_from_obj (F, 4, 4) float64.
        config: resolution and `outvoted`.

    Returns:
        The cube, or None where the masks have no hull.
    """
    try:
        center, half = locate_object(
            [torch.from_numpy(mask) for mask in masks], matrices, poses
        )
    except InvalidInput:
        return None
    distances = [signed_distance(torch.from_numpy(mask)) for mask in masks]
    low, high = center - 1.4 * half, center + 1.4 * half
    for resolution in (config.resolution // 2, config.resolution):
        cube = _carve(distances, matrices, poses, low, high, resolution, config.outvoted)
        side = (resolution, resolution, resolution)
        inside = (cube.next.reshape(side) > 0).nonzero()
        if not len(inside):
            return None
        step, start = (high - low) / (resolution - 1), low
        low, high = start + (inside.amin(0) - 2) * step, start + (inside.amax(0) + 2) * step
    return cube


def _carve(
    distances: Sequence[Tensor],
    matrices: Tensor,
    poses: Tensor,
    low: Tensor,
    high: Tensor,
    resolution: int,
    outvoted: float,
) -> CarvedCube:
    values = sample_distances(distances, matrices, poses, low, high, resolution)
    rank = min(1 + int(outvoted * (len(values) - 1)), len(values) - 1)
    smallest = values.topk(rank + 1, dim=0, largest=False).values
    rarely_seen = values.isinf().sum(0) * 2 > len(values)
    least, following = smallest[-2].clamp(-_FAR, _FAR), smallest[-1].clamp(-_FAR, _FAR)
    least[rarely_seen], following[rarely_seen] = -1.0, -1.0
    return CarvedCube(values, least, following, low, high, resolution)


def draw_field(
    field: Tensor,
    low: Tensor,
    high: Tensor,
    matrix: Tensor,
    pose: Tensor,
    shape: tuple[int, int],
) -> NDArray[np.bool_]:
    """Draw the silhouette of where a field is positive.

    Args:
        field: (R, R, R) values of a box.
        low: (3,) corner of the box, obj frame.
        high: (3,) the other corner.
        matrix: (3, 3) float64, px.
        pose: cam_from_obj (4, 4) float64.
        shape: height and width of the image, px.

    Returns:
        The silhouette (H, W).
    """
    silhouette = np.zeros(shape, np.uint8)
    volume = np.pad(field.numpy(), 1, constant_values=-1.0)
    if not (volume > 0).any():
        return silhouette > 0
    corners, triangles, _, _ = marching_cubes(volume, 0.0)
    step = ((high - low) / (len(field) - 1)).numpy()
    vertices = torch.from_numpy(low.numpy() + (corners - 1) * step)
    points = transform(pose, vertices)
    pixels = np.rint(16 * project(matrix, points).numpy())
    # behind the camera, or too far off the image for OpenCV's numbers, nothing is drawn
    drawn = (points[:, 2].numpy() > 0) & (np.abs(pixels) < _MOST_PX).all(1)
    pixels = np.where(drawn[:, None], pixels, 0).astype(np.int32)
    for triangle in pixels[triangles[drawn[triangles].all(1)]]:
        cv2.fillConvexPoly(silhouette, triangle, 1, shift=4)
    return silhouette > 0


def silhouettes_of_others(
    masks: Sequence[NDArray[np.bool_]],
    matrices: Tensor,
    poses: Tensor,
    resolution: int = 64,
) -> list[NDArray[np.bool_]]:
    """Draw into each image the hull that the masks of all other images carve.

    Args:
        masks: F masks (H, W).
        matrices: (F, 3, 3) float64, px.
        poses: cam_from_obj (F, 4, 4) float64.
        resolution: voxels along each side of the hull's box.

    Returns:
        F silhouettes (H, W); empty where the masks have no hull.
    """
    shown = [k for k, mask in enumerate(masks) if mask.any()]
    if len(shown) < _LEAST:
        return []
    config = HullConfig(resolution=resolution)
    cube = carve_cube([masks[k] for k in shown], matrices[shown], poses[shown], config)
    if cube is None:
        return []
    place = {number: row for row, number in enumerate(shown)}
    drawn = []
    for k, mask in enumerate(masks):
        field = cube.without(place[k]) if k in place else cube.of_all()
        drawn.append(
            draw_field(field, cube.low, cube.high, matrices[k], poses[k], mask.shape)
        )
    return drawn


@dataclass(frozen=True)
class MaskFit:
    """How a mask fits the silhouette that the other masks give."""

    overlap: float  # intersection over union of both
    # parts beyond the tolerance, as shares of the mask's area
    unsupported: float  # of the mask, outside the silhouette
    missing: float  # of the silhouette, outside the mask

    @property
    def doubt(self) -> float:
        """By what part of its area the mask is in doubt; 0: none."""
        return self.unsupported + self.missing


def judge_masks(
    masks: Mapping[str, NDArray[np.bool_]],
    matrices: Tensor,
    poses: Tensor,
    resolution: int = 64,
) -> dict[str, MaskFit]:
    """Judge each mask by the hull that the masks of all other images carve.

    Args:
        masks: F masks (H, W) by image name.
        matrices: (F, 3, 3) float64, px.
        poses: cam_from_obj (F, 4, 4) float64.
        resolution: voxels along each side of the hull's box.

    Returns:
        The fit of each; empty where the masks have no hull.
    """
    listed = list(masks.values())
    drawn = silhouettes_of_others(listed, matrices, poses, resolution)
    return {
        name: fit_mask(mask, silhouette)
        for name, mask, silhouette in zip(masks, listed, drawn, strict=bool(drawn))
    }


def fit_mask(mask: NDArray[np.bool_], silhouette: NDArray[np.bool_]) -> MaskFit:
    """Compare a mask (H, W) with a silhouette (H, W)."""
    area = max(1, int(mask.sum()))
    return MaskFit(
        mask_iou(mask, silhouette),
        float(beyond(mask, silhouette).sum()) / area,
        float(beyond(silhouette, mask).sum()) / area,
    )


def beyond(mask: NDArray[np.bool_], other: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The parts (H, W) of a mask that lie outside another one by more than the tolerance."""
    return mask & ~grow(other, tolerance(mask))


def tolerance(mask: NDArray[np.bool_]) -> int:
    """The tolerance at the edge of a mask, px."""
    return max(1, round(_TOLERANCE * float(mask.sum()) ** 0.5))


def grow(mask: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """A mask (H, W) enlarged by some px on all sides."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    return np.asarray(cv2.dilate(mask.astype(np.uint8), kernel) > 0)


def misfits(
    fits: Mapping[str, MaskFit], overlap: float, unsupported: float, missing: float
) -> list[str]:
    """Names of the masks that do not fit.

    The poses of a video may be so inexact that no mask fits well. Therefore, what even the better
    masks of the video miss or have too much counts for none of them.

    Args:
        fits: of each mask.
        overlap: below which a mask does not fit.
        unsupported: share of a mask above which it does not fit.
        missing: share of a mask above which it does not fit.
    """
    if not fits:
        return []
    values = np.array([[fit.unsupported, fit.missing] for fit in fits.values()])
    usual = 2 * np.quantile(values, _CALM, axis=0)
    limits = usual + (unsupported, missing)
    return [
        name
        for name, fit in fits.items()
        if fit.overlap < overlap or fit.unsupported > limits[0] or fit.missing > limits[1]
    ]


def bad_masks(fits: Mapping[str, MaskFit], config: MaskConfig) -> list[str]:
    """Names of the masks that are reported as bad."""
    return misfits(fits, config.bad, config.unsupported, config.missing)
