"""Errors of reconstructed camera poses."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from uns_pose_ros.core.geometry import angle_between, fit_similarity
from uns_pose_ros.io.colmap import SparseImage


def errors(
    found: tuple[SparseImage, ...], truth: Mapping[str, np.ndarray]
) -> tuple[float, float]:
    """Median rotation error in degrees and median error of the camera's place, relative to the
    orbit's radius.
    """
    ours = torch.stack([image.cam_from_obj for image in found])
    true = torch.stack([torch.from_numpy(truth[image.name]) for image in found])
    places = [
        -(pose[:, :3, :3].transpose(1, 2) @ pose[:, :3, 3:])[..., 0]
        for pose in (ours, true)
    ]
    true_from_ours = fit_similarity(places[0], places[1])
    rotation = true_from_ours[:3, :3] / true_from_ours[:3, :3].det() ** (1 / 3)
    turned = ours[:, :3, :3] @ rotation.T
    moved = places[0] @ true_from_ours[:3, :3].T + true_from_ours[:3, 3]
    return float(angle_between(turned, true[:, :3, :3]).median()), float(
        (moved - places[1]).norm(dim=1).median() / 1.9
    )
