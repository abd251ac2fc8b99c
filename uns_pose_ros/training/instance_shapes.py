"""What a model keeps of the shapes that it was trained on: their outermost points."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from uns_pose_ros.core.geometry import sphere, transform
from uns_pose_ros.core.types import FeatureMesh

_DIRECTIONS = 96  # in which a shape is measured, beside the axes
_DIGITS = 4  # of canonical units, whose diameter is 1


def outermost_points(vertices: Tensor, canon_from_obj: Tensor) -> Tensor:
    """The vertices (K, 3) that reach farthest in any of many directions, canonical frame.

    Their bounds are those of the shape, and nearly so after any turn.

    Args:
        vertices: (V, 3), obj frame.
        canon_from_obj: (4, 4) similarity.
    """
    points = transform(canon_from_obj, vertices.double())
    axes = torch.eye(3, dtype=torch.float64)
    directions = torch.cat([axes, -axes, sphere(_DIRECTIONS).double()])
    return points[(directions @ points.T).argmax(1).unique()]


def record_instances(
    meshes: Mapping[str, FeatureMesh], poses: Mapping[str, Tensor]
) -> dict[str, list[list[float]]]:
    """The outermost points of each posed mesh by name, as JSON types."""
    return {
        name: [
            [round(value, _DIGITS) for value in point]
            for point in outermost_points(meshes[name].vertices, pose).tolist()
        ]
        for name, pose in poses.items()
    }
