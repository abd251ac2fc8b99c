"""The parts of `make demo` around its stages, with known answers.

The demo itself is run by `make demo`.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

pytest.importorskip("rclpy")
import run_demo
from live import Answer
from uns_pose_ros.core.geometry import rotation_from_vector
from uns_pose_ros.core.types import CategoryModel
from uns_pose_ros.evaluation import metrics
from uns_pose_ros.io.video_folder import list_videos, load_video

DATA = run_demo.DEMO / "data"


@pytest.fixture
def model() -> CategoryModel:
    """A model whose canonical frame is the labels', turned a quarter about z."""
    quarter = rotation_from_vector(
        torch.tensor([0.0, 0.0, math.pi / 2], dtype=torch.float64)
    )
    frames = {}
    for name, label in labels().items():
        canon_from_obj = torch.eye(4, dtype=torch.float64)
        canon_from_obj[:3, :3] = 0.5 * quarter @ label
        frames[name] = canon_from_obj.tolist()
    unit = torch.nn.functional.normalize(torch.ones(3, 4), dim=1)
    triangle = torch.tensor([[0, 1, 2]])
    return CategoryModel(
        "chair",
        torch.eye(3),
        triangle,
        unit,
        unit[:1],
        {},
        provenance={"canon_from_obj": frames},
    )


def labels() -> dict[str, torch.Tensor]:
    names = [f"clip_{k:02d}" for k in range(1, 11)]
    return metrics.load_labels(DATA / "chair" / "labels.json", names)


def test_the_training_videos_are_copied_once_and_the_unseen_chairs_are_not_among_them(
    tmp_path: Path,
) -> None:
    run_demo.copy_videos(DATA / "chair", tmp_path)
    assert [folder.name for folder in list_videos(tmp_path)] == [
        f"clip_0{k}" for k in range(1, 9)
    ]
    (tmp_path / "clip_01" / "mesh.ply").write_text("made by a stage")
    run_demo.copy_videos(DATA / "chair", tmp_path)
    assert (tmp_path / "clip_01" / "mesh.ply").read_text() == "made by a stage"


def test_answers_are_compared_with_the_truth_in_the_frame_of_the_model(
    model: CategoryModel,
) -> None:
    walks = [load_video(folder) for folder in list_videos(DATA / "live")]
    walk = walks[0]
    live = metrics.load_labels(DATA / "live" / "labels.json", ["live_01", "live_02"])[
        "live_01"
    ]
    quarter = rotation_from_vector(
        torch.tensor([0.0, 0.0, math.pi / 2], dtype=torch.float64)
    )
    tenth = rotation_from_vector(
        torch.tensor([math.radians(10), 0.0, 0.0], dtype=torch.float64)
    )
    answers: list[Answer | None] = []
    for k, frame in enumerate(walk.frames):
        assert frame.cam_from_obj is not None
        pose = torch.eye(4, dtype=torch.float64)
        pose[:3, :3] = (
            frame.cam_from_obj[:3, :3]
            @ live.T
            @ quarter.T
            @ (tenth if k == 1 else torch.eye(3).double())
        )
        answers.append(
            Answer("chair_0", pose, 0.5, torch.ones(3, dtype=torch.float64), 0.25, None)
        )
    answers[2] = None
    results = run_demo.compare(
        model,
        walks,
        {"live_01": answers, "live_02": [None] * len(walks[1].frames)},
        labels(),
    )
    errors = [result.error for result in results]
    assert errors[0] == pytest.approx(0, abs=1e-4)
    assert errors[1] == pytest.approx(10, abs=1e-4)
    assert errors[2] == metrics.MISSING
    assert results[2].estimate is None
    assert results[0].seconds == 0.25
    assert len(results) == 32
