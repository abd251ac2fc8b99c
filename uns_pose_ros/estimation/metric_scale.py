"""The metric scale of an object whose model knows only its proportions.

The scale comes from a given length, or from the depth at the object.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.ray_casting import cast_rays
from uns_pose_ros.core.types import Camera, CategoryModel, PoseEstimate, PoseMode

_GRID = 24  # rays along the longer side of the object's box
_LEAST = 12  # smallest number of rays whose depth agrees
_SHARE = 0.3  # smallest share of agreeing rays, of the rays with depth
# largest relative difference of two ratios that agree: instances differ from the template
_AGREE = 0.1


def to_metres(estimate: PoseEstimate, diameter: float) -> PoseEstimate:
    """Convert an estimate to meters: its unit is `diameter` m. A metric estimate stays as it is."""
    if estimate.metric:
        return estimate
    others = [
        PoseMode(
            _scale_translation(mode.cam_from_canon, diameter),
            mode.log_weight,
            _scale_covariance(mode.covariance, diameter),
        )
        for mode in estimate.alternatives
    ]
    return dataclasses.replace(
        estimate,
        cam_from_canon=_scale_translation(estimate.cam_from_canon, diameter),
        scale=estimate.scale * diameter,
        size=estimate.size * diameter,
        center=None if estimate.center is None else estimate.center * diameter,
        size_sigma=None if estimate.size_sigma is None else estimate.size_sigma * diameter,
        covariance=_scale_covariance(estimate.covariance, diameter),
        metric=True,
        alternatives=tuple(others),
        frames=tuple(frame.scaled(diameter) for frame in estimate.frames),
    )


def to_known_diameter(
    estimates: Sequence[PoseEstimate], models: Sequence[CategoryModel], diameter: float
) -> list[PoseEstimate]:
    """Convert estimates to meters by the diagonal of the box of an average object.

    Args:
        estimates: The estimates; metric ones stay as they are.
        models: The models of their categories.
        diameter: Length of the diagonal, m.
    """
    units = {
        model.category: diameter / float(model.extents.norm())
        if model.instances
        else diameter
        for model in models
    }
    return [to_metres(one, units.get(one.category, diameter)) for one in estimates]


def _scale_translation(pose: Tensor, factor: float) -> Tensor:
    stretched = pose.clone()
    stretched[:3, 3] *= factor
    return stretched


def _scale_covariance(covariance: Tensor | None, diameter: float) -> Tensor | None:
    if covariance is None:
        return None
    unit = torch.tensor([diameter] * 3 + [1.0] * 3, dtype=covariance.dtype)
    return covariance * unit[:, None] * unit[None, :]


def check_depth(depth: Sequence[int], image: Sequence[int]) -> None:
    """Check that depth has the height and width of its image.

    Args:
        depth: Shape of the depth.
        image: Shape of the image, (height, width, ...).

    Raises:
        InvalidInput: The shapes differ.
    """
    if tuple(depth) != tuple(image[:2]):
        raise InvalidInput(
            f"depth of shape {tuple(depth)}: that of the image, {tuple(image[:2])}, is valid"
        )


def scale_from_depth(
    estimate: PoseEstimate, model: CategoryModel, camera: Camera, depth: NDArray[np.float32]
) -> PoseEstimate:
    """Convert an estimate to meters with the depth at the object.

    Scaling pose and size about the camera does not change the image. So each ray through the
    template's silhouette gives one scale: measured depth over rendered depth. The scale on which
    most rays agree is used; it outvotes depth in front of the object, behind it or seen through
    it. An error of the estimated distance cancels, but the covariance still contains it.

    Args:
        estimate: The estimate; a metric estimate stays as it is.
        model: Its category model.
        camera: Camera of the depth.
        depth: (H, W) m, NaN for unknown.

    Returns:
        The estimate in meters, or the given estimate if too few rays agree.
    """
    if estimate.metric:
        return estimate
    rendered, pixels = _render_depth(estimate, model, camera)
    columns, rows = pixels.round().astype(np.int64).T
    inside = (
        (columns >= 0) & (columns < depth.shape[1]) & (rows >= 0) & (rows < depth.shape[0])
    )
    ratio = depth[rows[inside], columns[inside]] / rendered[inside]
    ratio = np.sort(ratio[np.isfinite(ratio) & (ratio > 0)])
    if not len(ratio):
        return estimate
    first = np.arange(len(ratio))
    agreeing = np.searchsorted(ratio, ratio * (1 + _AGREE), side="right") - first
    best = int(agreeing.argmax())
    if agreeing[best] < max(_LEAST, _SHARE * len(ratio)):
        return estimate
    return to_metres(estimate, float(np.median(ratio[best : best + agreeing[best]])))


def _render_depth(
    estimate: PoseEstimate, model: CategoryModel, camera: Camera
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Render the depth of the template on a grid within its silhouette.

    Rays at the outline are left out if enough rays remain: an instance may have another outline.

    Returns:
        Depth (N,) in the estimate's unit, and the pixels (N, 2) x y of the rays.
    """
    corner, other = estimate.box.clamp_min(-1.0).split(2)
    size = (
        torch.minimum(
            other, torch.tensor([camera.width, camera.height], dtype=torch.float64)
        )
        - corner
    )
    if not bool((size > 1).all()):
        return np.zeros(0), np.zeros((0, 2))
    columns, rows = (
        max(3, round(float(side) / float(size.max()) * _GRID)) for side in size
    )
    grid = torch.cartesian_prod(
        (torch.arange(rows) + 0.5) / rows, (torch.arange(columns) + 0.5) / columns
    ).flip(1)
    pixel = torch.cat(
        [corner + grid.double() * size, torch.ones(len(grid), 1, dtype=torch.float64)], 1
    )
    rays = pixel @ torch.linalg.inv(camera.matrix).T  # z is 1
    canon_from_cam = estimate.cam_from_canon[:3, :3].T / estimate.scale
    origin = -canon_from_cam @ estimate.cam_from_canon[:3, 3]
    depth, _, _ = cast_rays(
        origin.float(), (rays @ canon_from_cam.T).float(), model.vertices, model.triangles
    )
    hit = depth.isfinite().reshape(rows, columns).numpy()
    kept = (
        cv2.erode(
            hit.astype(np.uint8),
            np.ones((3, 3), np.uint8),
            borderType=cv2.BORDER_CONSTANT,
            borderValue=0,
        )
        > 0
    )
    kept = (kept if kept.sum() >= 2 * _LEAST else hit).ravel()
    seen = rays.numpy()[kept]
    k, zero = camera.matrix.numpy(), np.zeros(3)
    pixels = (
        np.zeros((0, 2))
        if not len(seen)
        else cv2.projectPoints(seen, zero, zero, k, camera.distortion.numpy())[0][:, 0]
    )
    return depth.double().numpy()[kept], np.asarray(pixels, dtype=np.float64)
