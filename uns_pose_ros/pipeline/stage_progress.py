"""What a person is told of the stages: their progress, and the time that they took."""

from __future__ import annotations

from pathlib import Path

from uns_pose_ros.core.types import CategoryModel, Progress
from uns_pose_ros.pipeline.frame_axes import ALIGNMENT
from uns_pose_ros.pipeline.provenance import FileCache


def prefix_progress(progress: Progress | None, prefix: str) -> Progress | None:
    """Report progress with the name of the stage before each step."""
    if progress is None:
        return None
    return lambda what, done, total: progress(prefix + what, done, total)


def stage_seconds(
    category: Path, model: CategoryModel | None, files: FileCache | None = None
) -> dict[str, float]:
    """The time of alignment and training, by stage, if it is known."""
    files = files or FileCache()
    noted = {
        "align": (files.alignment_provenance(category / ALIGNMENT) or {}).get("seconds"),
        "train": None if model is None else model.provenance.get("seconds"),
    }
    return {
        stage: float(value)
        for stage, value in noted.items()
        if isinstance(value, int | float)
    }
