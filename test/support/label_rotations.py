"""Rotations of videos, and a model that was trained on them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from uns_pose_ros.core.geometry import from_parts, random_rotations, rotation_from_vector
from uns_pose_ros.core.types import CategoryModel, Symmetry

Z = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
X = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)


def turn(axis: Tensor, degrees: float) -> Tensor:
    return rotation_from_vector(axis * math.radians(degrees))


def rotations(count: int, seed: int = 0) -> Tensor:
    return random_rotations(count, torch.Generator().manual_seed(seed))


def model_of(
    canon_from_obj: dict[str, Tensor], symmetry: Symmetry | None = None
) -> CategoryModel:
    trained = {
        name: from_parts(r, torch.ones(3, dtype=torch.float64), 2.0).tolist()
        for name, r in canon_from_obj.items()
    }
    return CategoryModel(
        category="mug",
        vertices=torch.eye(3),
        triangles=torch.tensor([[0, 1, 2]]),
        vertex_features=torch.eye(3),
        background_features=torch.eye(3),
        head={},
        symmetry=symmetry or Symmetry(),
        provenance={"canon_from_obj": trained},
    )
