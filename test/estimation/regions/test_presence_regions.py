"""Regions that something parts are neighbors."""

from __future__ import annotations

import torch

from uns_pose_ros.estimation.regions.presence_regions import group_neighbors


def test_boxes_are_neighbours_through_others() -> None:
    boxes = torch.tensor(
        [
            [0.0, 0, 10, 10],
            [15, 0, 25, 10],
            [30, 0, 40, 10],
            [100, 0, 110, 10],
            [100, 13, 105, 14],
        ]
    )
    assert group_neighbors(boxes, 0.6) == [[0, 1, 2], [3, 4]]
    assert group_neighbors(boxes, 0.4) == [[3, 4]]
    assert group_neighbors(boxes[:1], 0.6) == []
