"""The report builder chooses what the page shows, and leaves out what does not exist."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from synthetic import write_video
from uns_pose_ros.core.types import CategoryModel, PoseEstimate, Symmetry
from uns_pose_ros.evaluation.metrics import MISSING, ImageResult
from uns_pose_ros.io.video_folder import load_video
from uns_pose_ros.reporting.report_builder import (
    draw_report_images,
    make_report,
    thin_video,
)


def model() -> CategoryModel:
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    triangles = torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    return CategoryModel("mug", vertices, triangles, torch.eye(4), torch.eye(4), {})


def result(frame: str, error: float, score: float | None) -> ImageResult:
    estimate = None
    if score is not None:
        pose = torch.eye(4, dtype=torch.float64)
        pose[2, 3] = 3
        one, box = torch.ones(3, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
        estimate = PoseEstimate(
            "mug", pose, 1.0, False, one, score, None, Symmetry(), 9, 1.0, box
        )
    return ImageResult("clip_01", frame, estimate, error, error, 0.1)


def test_failures_come_first(tmp_path: Path) -> None:
    write_video(tmp_path / "clip_01", seed=1, views=4, size=48)
    video = load_video(tmp_path / "clip_01")
    found = ((4, 0.9), (170, 0.8), (MISSING, None), (9, 0.2))
    results = [
        result(f"00000{k}.jpg", *errors_and_scores)
        for k, errors_and_scores in enumerate(found)
    ]
    images = draw_report_images(results, [video], model(), labeled=True)
    assert [image.error for image in images] == [MISSING, 170, 9, 4]
    assert [image.caption for image in images][:2] == [
        "clip_01/000002.jpg, nothing found",
        "clip_01/000001.jpg, score 0.80, 170.0° off",
    ]
    unsure = draw_report_images(results, [video], model(), labeled=False)
    assert [image.score for image in unsure] == [0, 0.2, 0.8, 0.9]
    assert all(image.error is None for image in unsure)
    assert [
        image.error
        for image in draw_report_images(results, [video], model(), labeled=True, most=2)
    ] == [MISSING, 4]


@pytest.mark.parametrize(
    ("most", "kept"), [(2, [0, 4]), (3, [0, 2, 4]), (9, [0, 1, 2, 3, 4])]
)
def test_a_long_video_is_thinned_evenly(tmp_path: Path, most: int, kept: list[int]) -> None:
    write_video(tmp_path / "clip_01", seed=1, views=5, size=32)
    frames = thin_video(load_video(tmp_path / "clip_01"), most).frames
    assert [frame.name for frame in frames] == [f"{k:06d}.jpg" for k in kept]


def test_the_report_of_a_category_without_a_model_shows_its_videos_and_their_accuracy(
    trucks: Path, tmp_path: Path
) -> None:
    steps = set()
    page = tmp_path / "page.html"
    record = make_report(
        trucks, None, None, page, 4, "cpu", lambda step, done, total: steps.add(step)
    )
    assert (record["report"], record["images"]) == (str(page), 0)
    assert list(record["accuracies"]) == ["alignment"]
    assert steps == {"report: videos"}
    text = page.read_text(encoding="utf-8")
    assert "Not trained yet." in text
    assert "<td>alignment</td><td>3 pairs</td>" in text
