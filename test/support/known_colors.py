"""Images of one color, their number in the red channel, and an estimator that knows each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from torch import Tensor

from uns_pose_ros.core.geometry import from_parts
from uns_pose_ros.core.types import Camera, CategoryModel, PoseEstimate, Symmetry

WIDTH, HEIGHT = 96, 64  # px
CORNERS = (20.0, 12.0, 64.0, 50.0)  # px, counted from 0


class KnowsColors:
    """An estimator that knows the poses of the objects in the image of each color."""

    # by color: cam_from_canon in the true camera, of each object, and its box
    known: ClassVar[Mapping[int, Sequence[PoseEstimate]]] = {}

    def __init__(self, model: CategoryModel, device: str, config: object) -> None:
        self.models = (model,)

    def __call__(
        self, image: Tensor, camera: Camera, regions: Tensor | None = None
    ) -> list[PoseEstimate]:
        known = list(self.known[int(image[0, 0, 0])])
        if regions is None:
            return known
        middle = (regions[0, :2] + regions[0, 2:]) / 2
        return sorted(
            known, key=lambda one: float((one.box.view(2, 2).mean(0) - middle).norm())
        )[:1]

    def without_threshold(
        self, image: Tensor, camera: Camera, regions: Tensor | None = None
    ) -> list[PoseEstimate]:
        return self(image, camera, regions)


def estimate_of(
    category: str,
    rotation: Any,
    translation: Any = (0, 0, 3.0),
    box: Sequence[float] = CORNERS,
    size: Any = (1.0, 1.0, 1.0),
    metric: bool = False,
    score: float = 0.7,
) -> PoseEstimate:
    """An estimate with a given pose; its canonical frame is forward, left, up."""
    rotation, translation, box_px, sides = (
        _double(value) for value in (rotation, translation, box, size)
    )
    pose = from_parts(rotation, translation)
    return PoseEstimate(
        *(category, pose, 1.0, metric, sides, score, None, Symmetry(), 12, 1.5, box_px)
    )


def centered_model(category: str, **details: Any) -> CategoryModel:
    """A model whose box is centered on the origin; nothing is estimated with it."""
    corners = torch.tensor(
        [[-0.5, -0.5, -0.5], [0.5, 0.5, -0.5], [0.5, -0.5, 0.5], [-0.5, 0.5, 0.5]]
    )
    triangles = torch.tensor([[0, 1, 2], [0, 2, 3]])
    return CategoryModel(
        category, corners, triangles, torch.eye(4), torch.eye(4), {}, **details
    )


def write_colored(path: Path, color: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
    """An image of one color; PNG whatever its ending, so that the color is exact."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((size[1], size[0], 3), (0, 0, color), np.uint8)
    path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())


def _double(value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        value = torch.from_numpy(np.asarray(value, float).copy())
    return value.double()
