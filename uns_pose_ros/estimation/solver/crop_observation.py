"""What crops show: their cells with the most probable vertices, in cameras that look at them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uns_pose_ros.core.geometry import look_at_rotation
from uns_pose_ros.core.types import Camera
from uns_pose_ros.estimation.config import EstimatorConfig
from uns_pose_ros.estimation.solver.pose_hypotheses import Correspondences
from uns_pose_ros.networks.correspondence_head import STRIDE


@dataclass(frozen=True, eq=False)
class CropObservation:
    """What B square crops show, in cameras that look at the centers of the crops."""

    correspondences: Correspondences
    presence: Tensor  # (B, h, w)
    likeness: Tensor  # (B, P) log odds that the cells show the category
    # (B, 3, 3) float32, from homogeneous tangents of these cameras to -1..1 across the crop
    grid_from_view: Tensor
    turn: Tensor  # (B, 3, 3) float64, cam_from_view, on the CPU
    # longer side of the region in which the object is expected, as a share of the crop's side
    region: float | Tensor  # or (B,) float64, on the CPU


def observe_crops(
    probability: Tensor,
    presence: Tensor,
    size: int,
    crop_from_image: Tensor,
    camera: Camera,
    config: EstimatorConfig,
    likeness: Tensor | None = None,
) -> CropObservation:
    """Choose the cells of the crops that show the object, with their most probable vertices.

    Args:
        probability: (B, h, w, V) of the template vertices.
        presence: (B, h, w) probability that a cell shows the object.
        size: Side of the crops, px.
        crop_from_image: (B, 3, 3) float64.
        camera: Camera of the image, without distortion.
        config: Settings of the solver.
        likeness: (B, h / 2, w / 2) log odds that a token shows the category; None: not known.
    """
    device, (batch, rows, columns) = presence.device, presence.shape
    view_from_cam, maps = _view_cameras(
        crop_from_image.cpu().numpy() @ camera.matrix.numpy(), size
    )
    view_from_cell, grid_from_view, cells = (
        torch.from_numpy(maps).to(device).split([9, 9, 1], 1)
    )  # sent at once
    view_from_cell, grid_from_view = (
        view_from_cell.view(-1, 3, 3),
        grid_from_view.view(-1, 3, 3),
    )

    strongest = presence.flatten(1).topk(min(config.max_correspondences, rows * columns))
    shows = strongest.values > min(config.objectness_threshold, 0.5)
    index = torch.where(shows, strongest.indices, rows * columns).sort(1).values
    if device.type == "cpu":  # the CPU needs no waiting: leave the padding out
        index = index[:, : int(shows.sum(1).max())]
    chosen = index < rows * columns
    index = index.clamp_max(rows * columns - 1)
    pixel = torch.stack(
        [index % columns, index // columns, torch.ones_like(index)], -1
    ).float()
    ray = pixel @ view_from_cell.mT
    row = index + rows * columns * torch.arange(batch, device=device)[:, None]
    cell_probability = (
        probability.flatten(0, 2)
        .index_select(0, row.flatten())
        .view(*row.shape, probability.shape[-1])
    )
    most_probable = cell_probability.topk(min(config.top_k_vertices, probability.shape[-1]))
    correspondences = Correspondences(
        ray[..., :2] / ray[..., 2:],
        most_probable.values * chosen[..., None],
        most_probable.indices,
        cells[:, 0],
    )
    if likeness is None:
        alike = torch.zeros_like(index, dtype=torch.float32)
    else:
        token = index // columns // 2 * (columns // 2) + index % columns // 2
        alike = likeness.flatten(1).gather(1, token)
    return CropObservation(
        correspondences,
        presence,
        alike,
        grid_from_view,
        torch.from_numpy(view_from_cam).mT,
        1 / (1 + 2 * config.crop_margin),
    )


def _view_cameras(
    crop_from_cam: NDArray[np.float64], size: int
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Compute cameras that look at the centers of crops.

    Args:
        crop_from_cam: (B, 3, 3) homogeneous.
        size: Side of the crops, px.

    Returns:
        Rotations view_from_cam (B, 3, 3), and (B, 19): the map from the column and row of a cell to
        tangents, `CropObservation.grid_from_view`, and `Correspondences.cell`.
    """
    side, corner = (size - 1) / 2, (STRIDE - 1) / 2
    cam_from_crop = np.linalg.inv(crop_from_cam)
    view_from_cam = look_at_rotation(cam_from_crop @ [side, side, 1.0])
    view_from_crop = view_from_cam @ cam_from_crop
    middle = view_from_crop @ np.array([[side, side + STRIDE], [side, side], [1.0, 1.0]])
    tangents = middle[:, :2] / middle[:, 2:]
    cell = np.hypot(*(tangents[..., 1] - tangents[..., 0]).T)
    view_from_cell = view_from_crop @ np.array(
        [[STRIDE, 0.0, corner], [0.0, STRIDE, corner], [0.0, 0.0, 1.0]]
    )
    grid_from_crop = np.array(
        [[2 / size, 0.0, 1 / size - 1], [0.0, 2 / size, 1 / size - 1], [0.0, 0.0, 1.0]]
    )
    grid_from_view = grid_from_crop @ crop_from_cam @ view_from_cam.transpose(0, 2, 1)
    maps = [view_from_cell.reshape(-1, 9), grid_from_view.reshape(-1, 9), cell[:, None]]
    return view_from_cam, np.concatenate(maps, 1).astype(np.float32)
