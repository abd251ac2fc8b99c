"""The report builder chooses what the page shows, and leaves out what does not exist."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from streams import pose
from synthetic import write_video
from uns_pose_ros.alignment.canonical_axes import AxisNames
from uns_pose_ros.core.types import CategoryModel, PoseEstimate, Symmetry
from uns_pose_ros.evaluation.metrics import MISSING
from uns_pose_ros.evaluation.poses.pose_evaluation import ImageResult
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.video_folder import load_video
from uns_pose_ros.pipeline import frame_axes
from uns_pose_ros.reporting.report_builder import (
    draw_report_images,
    make_report,
    measure_agreement,
    thin_video,
    up_directions,
)


def model() -> CategoryModel:
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    triangles = torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    return CategoryModel("mug", vertices, triangles, torch.eye(4), torch.eye(4), {})


def result(frame: str, error: float, score: float | None) -> ImageResult:
    estimate = None
    if score is not None:
        cam_from_canon = torch.eye(4, dtype=torch.float64)
        cam_from_canon[2, 3] = 3
        one, box = torch.ones(3, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
        estimate = PoseEstimate(
            "mug", cam_from_canon, 1.0, False, one, score, None, Symmetry(), 9, 1.0, box
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


def test_poses_agree_where_they_follow_the_cameras_motion(tmp_path: Path) -> None:
    write_video(tmp_path / "clip_01", seed=1, views=6, size=32)
    video = load_video(tmp_path / "clip_01", need_masks=False, need_poses=False)
    obj_from_canon = pose((20.0, 50.0, -10.0), (0.0, 0.0, 0.0))

    def results(turns: Sequence[float | None]) -> list[ImageResult]:
        found = []
        for frame, turn in zip(video.frames, turns, strict=True):
            one = result(frame.name, 0.0, None if turn is None else 0.5)
            if (
                one.estimate is not None
                and frame.cam_from_obj is not None
                and turn is not None
            ):
                off = pose((turn, 0.0, 0.0), (0.0, 0.0, 0.0))
                moved = frame.cam_from_obj @ obj_from_canon @ off
                one = replace(one, estimate=replace(one.estimate, cam_from_canon=moved))
            found.append(one)
        return found

    right = measure_agreement([video], results([0.0] * 6), model())
    assert right is not None and right["acc10"] == 100
    assert (right["images"], right["estimated"]) == (6, 6)
    mixed = measure_agreement([video], results([0.0, 3.0, 180.0, None, 1.0, 20.0]), model())
    assert mixed is not None and mixed["acc10"] == pytest.approx(50)
    assert mixed["acc30"] == pytest.approx(100 * 4 / 6) and mixed["estimated"] == 5
    assert measure_agreement([video], results([0.0, 0.0, *[None] * 4]), model()) is None
    bare = replace(
        video, frames=tuple(replace(frame, cam_from_obj=None) for frame in video.frames)
    )
    assert measure_agreement([bare], results([0.0] * 6), model()) is None


def test_up_is_the_z_axis_of_the_kept_videos_if_the_axes_are_known(trucks: Path) -> None:
    alignment = artifacts.load_alignment(trucks / "alignment.json")
    directions = up_directions(trucks, alignment)
    if frame_axes.axes_record(trucks) is None:
        assert directions == {}
        frame_axes.name_axes(trucks, AxisNames("z", "x"))
        alignment = artifacts.load_alignment(trucks / "alignment.json")
        directions = up_directions(trucks, alignment)
    kept = [n for n, k in zip(alignment.videos, alignment.kept, strict=True) if k]
    assert list(directions) == kept
    for name, up in directions.items():
        turn = alignment.canon_from_obj[alignment.videos.index(name), :3, :3]
        canonical = turn @ up / (turn @ up).norm()
        assert canonical.tolist() == pytest.approx([0, 0, 1], abs=1e-6)


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
    assert steps == {"report: videos", "report: labels"}
    text = page.read_text(encoding="utf-8")
    assert "Not trained yet." in text
    assert "<td>alignment</td><td>3 pairs</td>" in text
