"""Boxes around the connected cells of a presence map, and groups of neighboring boxes."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from uns_pose_ros.estimation.config import EstimatorConfig
from uns_pose_ros.estimation.score_calibration import ScoreCalibration
from uns_pose_ros.estimation.solver.pose_evidence import EVIDENCE, mean_of_better_half


def connected_boxes(presence: NDArray[np.float32], config: EstimatorConfig) -> Tensor:
    """Return the boxes (N, 4) float64, cells, of connected regions in a presence map (h, w).

    The boxes with the most cells are first.
    """
    smooth = ndimage.uniform_filter(presence, 3, mode="nearest")
    label, count = ndimage.label(smooth > config.objectness_threshold)
    if not count:
        return torch.zeros(0, 4, dtype=torch.float64)
    mass = ndimage.sum_labels(presence, label, range(1, count + 1))
    order = [k for k in np.argsort(-mass) if mass[k] >= config.min_region_cells][
        : config.max_instances
    ]
    slices = ndimage.find_objects(label)
    boxes = [
        (slices[k][1].start, slices[k][0].start, slices[k][1].stop, slices[k][0].stop)
        for k in order
    ]
    return torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4)


def object_odds(
    likeness: Tensor,
    presence: NDArray[np.float32],
    boxes: Tensor,
    calibration: ScoreCalibration | None,
) -> Tensor:
    """Compute the log odds (N,) that regions of a whole image show an object at all.

    A region of another thing has no pose that could make it one, and needs no look from near.

    Args:
        likeness: (h / 2, w / 2) log odds that a token shows the category.
        presence: (h, w) probability that a cell shows the object.
        boxes: (N, 4) cells.
        calibration: Of the score; inf without it, or if it knows objects by more than likeness.
    """
    place = list(EVIDENCE).index("likeness")
    chance = None if calibration is None else calibration.there
    if chance is None or chance.weight.nonzero().flatten().tolist() != [place]:
        return torch.full((len(boxes),), torch.inf)
    if not len(boxes):
        return torch.zeros(0)
    cells = likeness.float().cpu().numpy().repeat(2, 0).repeat(2, 1)
    values = []
    for left, top, right, bottom in boxes.long().tolist():
        part = slice(top, bottom), slice(left, right)
        shown = presence[part] >= presence[part].mean()
        values.append(torch.from_numpy(cells[part][shown]))
    count = torch.tensor([len(row) for row in values])
    padded = pad_sequence(values, batch_first=True)  # (N, P)
    alike = mean_of_better_half(padded, torch.arange(padded.shape[1]) < count[:, None])
    return float(chance.weight[place]) * alike + chance.bias


def group_neighbors(boxes: Tensor, max_gap: float) -> list[list[int]]:
    """Group neighboring boxes.

    Args:
        boxes: (N, 4) x0 y0 x1 y1.
        max_gap: Largest gap between two neighbors, in longer sides of the larger box.

    Returns:
        Indices of the boxes of each group; a group has at least two boxes.
    """
    gap = (
        torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
        - torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    ).amax(-1)
    side = (boxes[:, 2:] - boxes[:, :2]).amax(-1)
    near = (gap <= max_gap * torch.maximum(side[:, None], side[None])).numpy()
    count, label = connected_components(near, directed=False)
    groups = [[int(k) for k in np.flatnonzero(label == number)] for number in range(count)]
    return [group for group in groups if len(group) > 1]
