"""Silhouettes that the masks of other images draw."""

from __future__ import annotations

import warnings

import torch

from uns_pose_ros.core.geometry import from_parts
from uns_pose_ros.reconstruction.hull_of_others import draw_field


def test_of_a_hull_around_the_camera_only_what_is_before_it_is_drawn() -> None:
    low, high = torch.tensor([-1.0, -1, -1]).double(), torch.tensor([1.0, 1, 1]).double()
    side = torch.linspace(-1, 1, 21).double()
    field = 0.8 - side[None, None, :].abs().expand(
        21, 21, 21
    )  # a slab along z, whole in x, y
    matrix = torch.tensor([[50.0, 0, 20], [0, 50, 20], [0, 0, 1]]).double()
    eye = torch.eye(3).double()
    for depth, seen in ((5.0, True), (-5.0, False), (1.0, None)):
        pose = from_parts(eye, torch.tensor([0.0, 0, depth]).double())
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # numbers that overflow
            silhouette = draw_field(field, low, high, matrix, pose, (40, 40))
        if seen is not None:
            assert bool(silhouette[20, 20]) == seen
            assert silhouette.any() == seen
