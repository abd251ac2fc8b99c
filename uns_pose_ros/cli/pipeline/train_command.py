"""The command `uns-pose train`, and what it prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from uns_pose_ros.cli.arguments import Backgrounds, Category, Device, Json, Seed, Videos
from uns_pose_ros.cli.console import emit, progress_bar
from uns_pose_ros.core.types import CategoryModel
from uns_pose_ros.pipeline import training_stage
from uns_pose_ros.reporting.expectation import describe_expectation
from uns_pose_ros.training.training_views import TrainConfig


def train_command(
    category: Category,
    videos: Videos = None,
    device: Device = "auto",
    seed: Seed = 0,
    backgrounds: Backgrounds = None,
    json: Json = None,
    train: TrainConfig = TrainConfig(),
) -> None:
    """Train the category's model on its aligned videos: model/."""
    with progress_bar() as progress:
        model, made = training_stage.train(
            category, videos, train, seed, device, progress, backgrounds
        )
    emit(model_record(category, model, made), model_text(category, model), json)


def model_record(category: Path, model: CategoryModel, made: bool) -> dict[str, Any]:
    """A trained model as JSON types, and whether it was made now."""
    return {
        "made": made,
        "model": str(category / training_stage.MODEL),
        "category": model.category,
        "vertices": len(model.vertices),
        "videos": list(model.training_poses),
        "diameter_m": model.diameter,
        "left_out": dict(model.left_out) or None,
    }


def model_text(category: Path, model: CategoryModel) -> str:
    """A trained model in a few lines, with what to expect of it."""
    size = "size unknown" if model.diameter is None else f"diameter {model.diameter:.3f} m"
    path = category / training_stage.MODEL
    lines = [
        f"{path}: {model.category}, {len(model.vertices)} vertices, {size}",
        *describe_expectation(model),
        f"next: uns-pose estimate {path} IMAGE… --camera K.json",
    ]
    return "\n".join(lines)
