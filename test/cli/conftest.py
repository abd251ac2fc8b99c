"""A model whose network is empty, and an estimator that stands for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from uns_pose_ros.cli import model_commands
from uns_pose_ros.core.types import Camera, CategoryModel, PoseEstimate, Symmetry
from uns_pose_ros.io import artifacts


@pytest.fixture
def model(trucks: Path) -> Path:
    """A model folder in `trucks`, trained on clip_01 and clip_02 in the labels' frame.

    Its network is empty.
    """
    labels = json.loads((trucks / "labels.json").read_text())
    poses = {
        name: [[*row, 0.0] for row in labels[name]["canon_from_obj"]] + [[0.0, 0, 0, 1]]
        for name in ("clip_01", "clip_02")
    }
    triangle = torch.tensor([[0, 1, 2]])
    artifacts.save_model(
        CategoryModel(
            "truck",
            torch.eye(3),
            triangle,
            torch.eye(3),
            torch.eye(3),
            {},
            provenance={"canon_from_obj": poses},
        ),
        trucks / "model",
    )
    return trucks / "model"


class OneInTheMiddle:
    """An estimator that finds one object, always in the same pose, and nothing in images without
    any color.
    """

    best_rejected: float | None = None

    def describe_nothing(self) -> str:
        return "nothing found"

    def without_threshold(self, image: Tensor, camera: Camera) -> list[PoseEstimate]:
        return self(image, camera)

    def __init__(self, model: CategoryModel, device: str, config: object) -> None:
        self.models = (model,)
        self.cameras: list[Camera] = []

    def __call__(self, image: Tensor, camera: Camera) -> list[PoseEstimate]:
        if not bool(image.any()):
            return []
        pose = torch.eye(4, dtype=torch.float64)
        pose[2, 3] = 3
        size, box = torch.ones(3, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
        return [
            PoseEstimate(
                "truck", pose, 1.0, False, size, 0.75, None, Symmetry(), 12, 1.5, box
            )
        ]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_commands, "Estimator", OneInTheMiddle)
