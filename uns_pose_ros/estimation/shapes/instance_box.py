"""The box of an instance: its six sides along the canonical axes, given the pose.

The sides are Gaussian over the training instances (`ShapePrior`). The image shows how far the
object reaches in each of some directions, by where the presence map ends. What an instance with
given sides would reach is the mean over the outlines of the training instances, stretched to these
sides. A Kalman update, linearized twice, brings both together. The rotation's error is part of the
noise. A direction in which the image shows much less or more than expected counts little, as
something hides the object there or touches it, and one at the border of the image not at all.

The pose stays as it is. One image does not tell size from distance, so the sides fit the image at
the distance of the pose: an error of the distance is one of all sides together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uns_pose_ros.core.types import Camera, PoseEstimate
from uns_pose_ros.estimation.shapes.shape_prior import Floats, ShapePrior

_DIRECTIONS = 16
_FINER = 4  # pixels along a cell of the presence map
_SHOWN = 0.5  # presence at the outline
_NOISE = 0.5  # cells, standard deviation of an end of the presence map
# cells by which all ends reach too far, and the standard deviation of that: a patch of the backbone
# is two cells wide and sees the object as soon as a part of it does. On the demo's training videos
# the maps reach 0.4 cells beyond the masks.
_BLUR, _BLUR_SPREAD = 0.5, 0.5
_SURPRISE = 2.0  # standard deviations at which a direction counts half
_GROWN = 1.25  # size of the expected outline in which regions belong to the object
_INSIDE = 0.5  # share of such a region within it
_BORDER = 1.5  # cells from the border of image or crop, within which an end is not known
_ROUNDS = 2
_LEAST = 0.2  # least extent, as a share of the mean one


@dataclass(frozen=True, eq=False)
class CropView:
    """One crop: its presence map, and how the canonical frame is seen in it.

    A place in the crop is x y, -1 to 1.
    """

    presence: Floats  # (h, w)
    grid_from_canon: Floats  # (3, 4), homogeneous
    # (3, 3), homogeneous, of a direction in the camera, in which lever arms turn
    grid_from_cam: Floats
    cam_from_canon: Floats  # (3, 3) rotation
    turn_covariance: Floats  # (3, 3) about the camera's axes, rad^2
    image: Floats  # (4,) x0 y0 x1 y1, the border of the image


def fit_boxes(
    prior: ShapePrior | None,
    presence: Tensor,
    grid_from_view: Tensor,
    cam_from_view: Tensor,
    crop_from_image: Tensor,
    size: int,
    camera: Camera,
    estimates: Sequence[PoseEstimate | None],
) -> list[PoseEstimate | None]:
    """Give the estimates of B crops the boxes of their instances.

    Args:
        prior: Of the model; None: the estimates stay as they are.
        presence: (B, h, w) probability that a cell shows the object.
        grid_from_view: (B, 3, 3), see `CropObservation`.
        cam_from_view: (B, 3, 3) float64, see `CropObservation.turn`.
        crop_from_image: (B, 3, 3) float64.
        size: Side of the crops, px.
        camera: Camera of the image, without distortion.
        estimates: One for each crop, or None.
    """
    if prior is None or all(estimate is None for estimate in estimates):
        return list(estimates)
    maps = presence.float().cpu().numpy()
    grids = grid_from_view.double().cpu() @ cam_from_view.mT
    corners = torch.tensor(
        [[-0.5, -0.5, 1.0], [camera.width - 0.5, camera.height - 0.5, 1.0]],
        dtype=torch.float64,
    )
    borders = (corners @ crop_from_image.cpu().mT)[..., :2] * 2 / size + 1 / size - 1
    fitted = list[PoseEstimate | None]()
    for k, estimate in enumerate(estimates):
        if estimate is None:
            fitted.append(None)
            continue
        pose = estimate.cam_from_canon.numpy()
        grid = grids[k].numpy()
        shown = np.concatenate([pose[:3, :3], pose[:3, 3:] / estimate.scale], 1)
        view = CropView(
            maps[k],
            grid @ shown,
            grid,
            pose[:3, :3],
            _turn_covariance(estimate),
            borders[k].flatten().numpy(),
        )
        sides, covariance = fit_sides(prior, view)
        fitted.append(_with_box(estimate, sides, covariance))
    return fitted


def _turn_covariance(estimate: PoseEstimate) -> Floats:
    """Covariance (3, 3) of the rotation if the pose is right, rad^2."""
    if estimate.covariance is None:
        return np.zeros((3, 3))
    covariance = estimate.covariance[3:, 3:]
    known = covariance if estimate.doubt is None else covariance - estimate.doubt
    return known.numpy()


def _with_box(estimate: PoseEstimate, sides: Floats, covariance: Floats) -> PoseEstimate:
    extent = np.concatenate([-np.eye(3), np.eye(3)], 1)  # of the sides
    spread = np.sqrt(np.diagonal(extent @ covariance @ extent.T))
    scale = estimate.scale
    return replace(
        estimate,
        size=torch.from_numpy(scale * (extent @ sides)),
        center=torch.from_numpy(scale * (sides[:3] + sides[3:]) / 2),
        size_sigma=torch.from_numpy(scale * spread),
    )


def fit_sides(prior: ShapePrior, view: CropView) -> tuple[Floats, Floats]:
    """Estimate the sides (6,) of the instance in a crop, and their covariance (6, 6)."""
    angle = np.arange(_DIRECTIONS) * (2 * np.pi / _DIRECTIONS)
    directions = np.stack([np.cos(angle), np.sin(angle)], 1)
    outline = _expected_outline(prior, view)
    ends = None if outline is None else _measure_ends(view, outline)
    if ends is None:
        return prior.mean, prior.covariance
    reached = (directions @ ends.T).max(1)
    at = ends[(directions @ ends.T).argmax(1)]
    cell = 2 / max(view.presence.shape)
    known = _is_inside(view, at, directions, _BORDER * cell)
    if not known.any():
        return prior.mean, prior.covariance
    directions, reached = directions[known], reached[known] - _BLUR * cell
    sides, noise = prior.mean, np.zeros(0)
    for attempt in range(_ROUNDS):
        reach, by_sides, by_turn, spread = _expected_reach(prior, view, sides, directions)
        off = reached - reach + by_sides @ (sides - prior.mean)
        turned = by_turn @ view.turn_covariance @ by_turn.T
        expected = by_sides @ prior.covariance @ by_sides.T + turned
        expected = expected + (_BLUR_SPREAD * cell) ** 2
        if attempt == 0:
            noise = spread**2 + (_NOISE * cell) ** 2
            surprise = off**2 / (np.diagonal(expected) + noise) / _SURPRISE**2
            noise = noise + (np.diagonal(expected) + noise) * surprise
        gain = np.linalg.solve(expected + np.diag(noise), by_sides @ prior.covariance).T
        sides = _bound_sides(prior.mean + gain @ off, prior.mean)
    return sides, prior.covariance - gain @ by_sides @ prior.covariance


def _bound_sides(sides: Floats, mean: Floats) -> Floats:
    """Sides whose extents are not below a share of the mean ones."""
    middle, extent = (sides[:3] + sides[3:]) / 2, sides[3:] - sides[:3]
    half = np.maximum(extent, _LEAST * (mean[3:] - mean[:3])) / 2
    return np.concatenate([middle - half, middle + half])


def _expected_outline(prior: ShapePrior, view: CropView) -> Floats | None:
    """Corners (M, 2) of a convex region in which the object lies; None: behind the camera."""
    low, high = prior.mean[:3], prior.mean[3:]
    points = (low + prior.outlines * (high - low)).reshape(-1, 3)
    mapped = points @ view.grid_from_canon[:, :3].T + view.grid_from_canon[:, 3]
    if mapped[:, 2].min() <= 0:
        return None
    places = (mapped[:, :2] / mapped[:, 2:]).astype(np.float32)
    hull = cv2.convexHull(places)[:, 0].astype(np.float64)
    middle = (hull.min(0) + hull.max(0)) / 2
    return middle + _GROWN * (hull - middle)


def _measure_ends(view: CropView, outline: Floats) -> Floats | None:
    """Corners (M, 2) of the convex hull of what presence shows of the object; None: of nothing.

    Regions that lie mostly beside the expected outline belong to something else.
    """
    rows, columns = view.presence.shape
    fine = (columns * _FINER, rows * _FINER)
    shown = cv2.resize(view.presence, fine, interpolation=cv2.INTER_LINEAR) > _SHOWN
    count, label, parts, _ = cv2.connectedComponentsWithStats(shown.astype(np.uint8))
    if count < 2:
        return None
    corners = (outline + 1) / 2 * fine - 0.5
    expected = np.zeros(shown.shape, np.uint8)
    cv2.fillConvexPoly(expected, np.round(np.clip(corners, -1e4, 1e4)).astype(np.int32), 1)
    inside = np.bincount(label[expected > 0], minlength=count)
    kept = inside >= _INSIDE * parts[:, cv2.CC_STAT_AREA]
    kept[0] = False
    if not kept.any():
        return None
    hull = cv2.convexHull(_ends_of_rows(kept[label]))[:, 0].astype(np.float64)
    # the corners of the pixels
    half = np.array([[-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5], [0.5, 0.5]])
    spread = (hull[:, None] + half).reshape(-1, 2)
    return (spread + 0.5) / fine * 2 - 1


def _ends_of_rows(shown: NDArray[np.bool_]) -> NDArray[np.int32]:
    """The first and the last pixel x y (N, 2) of each row of an image (H, W) that has one."""
    rows = np.flatnonzero(shown.any(1))
    first = shown[rows].argmax(1)
    last = shown.shape[1] - 1 - shown[rows, ::-1].argmax(1)
    ends = np.stack([np.concatenate([first, last]), np.concatenate([rows, rows])], 1)
    return ends.astype(np.int32)


def _is_inside(
    view: CropView, at: Floats, directions: Floats, border: float
) -> NDArray[np.bool_]:
    """Whether ends (D, 2) are not at a border of the image or the crop that they point to."""
    low = np.maximum(view.image[:2], -1) + border
    high = np.minimum(view.image[2:], 1) - border
    beyond = ((at < low) & (directions < 0)) | ((at > high) & (directions > 0))
    inside: NDArray[np.bool_] = np.logical_not(beyond.any(axis=1))
    return inside


def _expected_reach(
    prior: ShapePrior, view: CropView, sides: Floats, directions: Floats
) -> tuple[Floats, Floats, Floats, Floats]:
    """How far instances with given sides reach in directions (D, 2) of the crop.

    Returns:
        Mean over the outlines (D,), its derivatives by the sides (D, 6) and by a rotation about
        the camera's axes (D, 3), and the standard deviation over the outlines (D,).
    """
    low, high = sides[:3], sides[3:]
    points = low + prior.outlines * (high - low)  # (N, K, 3)
    grid, shift = view.grid_from_canon[:, :3], view.grid_from_canon[:, 3]
    mapped = points @ grid.T + shift
    depth = np.maximum(mapped[..., 2:], 1e-3)
    places = mapped[..., :2] / depth
    reaches = places @ directions.T  # (N, K, D)
    first = reaches.argmax(1)  # (N, D)
    row = np.arange(len(points))[:, None]
    reach = np.take_along_axis(reaches, first[:, None], 1)[:, 0]
    # derivative of the reach by the homogeneous place: (d - (d . place) e_z) / depth
    by_place = np.concatenate(
        [np.broadcast_to(directions, (*first.shape, 2)), -reach[..., None]], 2
    )
    by_place = by_place / depth[row, first]
    by_point = by_place @ grid  # (N, D, 3)
    share = prior.outlines[row, first]
    by_sides = np.concatenate([by_point * (1 - share), by_point * share], 2)
    lever = points[row, first] @ view.cam_from_canon.T
    by_turn = np.cross(lever, by_place @ view.grid_from_cam)
    return reach.mean(0), by_sides.mean(0), by_turn.mean(0), reach.std(0)
