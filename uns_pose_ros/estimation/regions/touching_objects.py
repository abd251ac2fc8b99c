"""Objects that touch in an image: one region of presence, divided where a pose does not explain it.

The pose of a region with two objects is that of one of them, and the cells of the other lie beside
its projected template. Each object is then cut out by itself, without the cells of the other. So no
cell speaks for two poses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from uns_pose_ros.core.geometry import project
from uns_pose_ros.core.types import Camera, CategoryModel, PoseEstimate
from uns_pose_ros.estimation.config import EstimatorConfig
from uns_pose_ros.estimation.solver.pose_evidence import EVIDENCE
from uns_pose_ros.networks.correspondence_head import STRIDE

_OUTSIDE = list(EVIDENCE).index("outside")
_LEAST_PART = 0.2  # cells of a part, as a share of those of the largest part
_MOST_PARTS = 4
_GOOD = 0.25  # least score of a part
_GROWTH = (1.5, 1 / 12)  # of a template: cells, and share of its length

Cells = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class HiddenCells:
    """Cells of one crop that other objects explain: a crop of the same image does not show them."""

    cells: Cells  # (h, w)
    crop_from_image: Tensor  # (3, 3) float64


@dataclass(frozen=True, eq=False)
class SolvedCrop:
    """The best pose of a crop, and what the crop shows."""

    estimate: PoseEstimate | None
    presence: Tensor  # (h, w), 0 in hidden cells
    crop_from_image: Tensor  # (3, 3) float64


@dataclass(frozen=True, eq=False)
class RegionPart:
    """One of the objects of a region."""

    box: Tensor  # (4,) float64, px of the image
    others: HiddenCells  # cells of the other parts


def divide_region(
    solved: SolvedCrop, model: CategoryModel, camera: Camera, config: EstimatorConfig
) -> list[RegionPart]:
    """Divide the cells of a region into those of its best pose and connected regions beside it.

    Args:
        solved: The crop of the region.
        model: The category model.
        camera: Camera of the image, without distortion.
        config: Settings of the search.

    Returns:
        The part that the pose explains and those beside it; an empty list if nothing is left.
    """
    estimate = solved.estimate
    if estimate is None or estimate.evidence is None:
        return []
    if not float(estimate.evidence[_OUTSIDE]) > config.touching_share:
        return []
    shown = solved.presence.float().cpu().numpy() > config.objectness_threshold
    points = project_to_cells(estimate, model, camera, solved.crop_from_image)
    parts = divide_cells(shown, points, config.min_region_cells)
    return [
        RegionPart(
            _box_of_cells(part, solved.crop_from_image),
            HiddenCells(_union(parts, part), solved.crop_from_image),
        )
        for part in parts
    ]


def project_to_cells(
    estimate: PoseEstimate, model: CategoryModel, camera: Camera, crop_from_image: Tensor
) -> NDArray[np.float64]:
    """Project the template's vertices at a pose to columns and rows (V, 2) of a crop's cells.

    The center of the first cell is at 0, 0.
    """
    pose = estimate.cam_from_canon
    points = model.vertices.double() @ pose[:3, :3].T + pose[:3, 3] / estimate.scale
    pixels = project(camera.matrix, points)
    inside = pixels @ crop_from_image[:2, :2].T + crop_from_image[:2, 2]
    return ((inside - (STRIDE - 1) / 2) / STRIDE).numpy()


def divide_cells(
    shown: Cells, points: NDArray[np.float64], least_cells: int
) -> list[Cells]:
    """Divide cells into those under a projected template and connected regions beside it.

    A cell between both belongs to the nearer one.

    Args:
        shown: (h, w), the cells that show an object.
        points: (V, 2) columns and rows of the projected vertices.
        least_cells: Smallest number of cells of a part.

    Returns:
        Disjoint parts (h, w), that of the template first; an empty list if there are less than two.
    """
    size = np.array(shown.shape[::-1])
    cell = np.rint(points).astype(int)
    cell = cell[((cell >= 0) & (cell < size)).all(1)]
    if not len(cell):
        return []
    under = np.zeros_like(shown)
    under[cell[:, 1], cell[:, 0]] = True
    gap = ndimage.distance_transform_edt(~under)
    limit = _GROWTH[0] + _GROWTH[1] * float(np.ptp(points, axis=0).max())
    label, count = ndimage.label(shown & (gap > limit))
    sizes = np.bincount(label.ravel(), minlength=count + 1)
    largest = max(int((shown & (gap <= limit)).sum()), *sizes[1:], 0)
    least = max(least_cells, _LEAST_PART * largest)
    order = np.argsort(-sizes[1:], kind="stable") + 1
    chosen = [k for k in order if sizes[k] >= least][: _MOST_PARTS - 1]
    distances = np.stack(
        [gap, *(ndimage.distance_transform_edt(label != k) for k in chosen)]
    )
    nearest = distances.argmin(0)
    parts = [shown & (nearest == k) for k in range(len(distances))]
    if len(parts) < 2 or parts[0].sum() < least:
        return []
    return parts


def hide_cells(
    presence: Tensor, crop_from_image: Tensor, hidden: Sequence[HiddenCells]
) -> Tensor:
    """Set the presence (B, h, w) of crops to 0 where other objects are.

    Args:
        presence: (B, h, w) probability that a cell shows the object.
        crop_from_image: (B, 3, 3) float64.
        hidden: What each crop does not show; empty: the crops show all.
    """
    if not hidden:
        return presence
    rows, columns = presence.shape[1:]
    center = (STRIDE - 1) / 2
    y, x = np.mgrid[:rows, :columns] * STRIDE + center
    places = torch.from_numpy(np.stack([x, y, np.ones_like(x)], -1))  # (h, w, 3)
    seen = np.ones(presence.shape, bool)
    for k, other in enumerate(hidden):
        turn = other.crop_from_image @ torch.linalg.inv(crop_from_image[k].cpu())
        cell = ((places @ turn.T)[..., :2] - center) / STRIDE
        column, row = cell.round().long().numpy().transpose(2, 0, 1)
        height, width = other.cells.shape
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        taken = other.cells[row.clip(0, height - 1), column.clip(0, width - 1)]
        seen[k] = ~(inside & taken)
    return presence * torch.from_numpy(seen).to(presence.device)


def choose_division(
    whole: list[PoseEstimate], parts: list[PoseEstimate]
) -> list[PoseEstimate]:
    """Choose between the pose of a region and those of its parts.

    The parts are chosen if two of them have a good pose, and the mean of their scores is at least
    the score of the whole. Half of an object that something covers looks like the category too, but
    its pose is in doubt.
    """
    good = [one for one in parts if one.score >= _GOOD]
    if len(good) < 2 or mean_score(good) < mean_score(whole):
        return whole
    return good


def mean_score(estimates: Sequence[PoseEstimate]) -> float:
    """Return the mean score of estimates; 0 if there is none."""
    return sum(one.score for one in estimates) / max(len(estimates), 1)


def _union(parts: Sequence[Cells], own: Cells) -> Cells:
    """Return the cells (h, w) of all parts but one."""
    return np.any([part for part in parts if part is not own], axis=0)


def _box_of_cells(cells: Cells, crop_from_image: Tensor) -> Tensor:
    """Return the box (4,) float64, px of the image, around cells (h, w) of a crop."""
    columns, rows = (np.flatnonzero(cells.any(axis)) for axis in (0, 1))
    corners = torch.tensor(
        [[columns[0], rows[0]], [columns[-1] + 1, rows[-1] + 1]], dtype=torch.float64
    )
    inside = corners * STRIDE - 0.5
    matrix = crop_from_image.cpu()
    return ((inside - matrix[:2, 2]) / matrix[[0, 1], [0, 1]]).flatten()
