"""The page: whole in itself, failures first, and honest about what is missing."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from synthetic import write_video
from uns_pose_ros.datatypes import Alignment, CategoryModel, PoseEstimate, Symmetry
from uns_pose_ros.evaluation import MISSING, ImageResult
from uns_pose_ros.report import Contents, Shot, shots_of, thinned, write_report
from uns_pose_ros.video import load_video

TETRAHEDRON = (
    torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]),
    torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]),
)
FIGURES = {"acc30": 90.0, "acc15": 50.0, "acc10": None, "median_deg": 12.34, "symmetry_aware": {"acc30": 95.0}}


def contents(names: tuple[str, ...] = ("clip_01", "clip_02")) -> Contents:
    ones = torch.ones(len(names), dtype=torch.float64)
    pose = torch.eye(4, dtype=torch.float64).repeat(len(names), 1, 1)
    kept = torch.tensor([k == 0 for k in range(len(names))])
    alignment = Alignment(names, pose, ones * 0.87, kept, ones * 3.2)
    return Contents("mug", alignment, dict.fromkeys(names, TETRAHEDRON))


def model_of(curve: object = None) -> CategoryModel:
    provenance = {"canon_from_obj": {"clip_01": torch.eye(4).tolist()}, "training": curve}
    return CategoryModel("mug", *TETRAHEDRON, torch.eye(4), torch.eye(4), {}, diameter=0.125, provenance=provenance)


def page(folder: Path, shown: Contents) -> str:
    write_report(folder / "report.html", shown)
    return (folder / "report.html").read_text(encoding="utf-8")


def result(frame: str, error: float, score: float | None) -> ImageResult:
    estimate = None
    if score is not None:
        pose = torch.eye(4, dtype=torch.float64)
        pose[2, 3] = 3
        one, box = torch.ones(3, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
        estimate = PoseEstimate("mug", pose, 1.0, False, one, score, None, Symmetry(), 9, 1.0, box)
    return ImageResult("clip_01", frame, estimate, error, error, 0.1)


def test_the_page_needs_no_other_file(tmp_path: Path) -> None:
    grey = np.full((30, 40, 3), 127, np.uint8)
    curve = {"step": [0, 20], "object": [5.0, 1.0], "background": [2.0, 0.5]}
    whole = contents()
    shots, accuracies = [Shot(grey, "a", 0.5, 3.0)], {"poses": {**FIGURES, "images": 4, "estimated": 3}}
    shown = Contents(whole.category, whole.alignment, whole.meshes, model_of(curve), shots, [3.0], accuracies)
    text = page(tmp_path, shown)
    sources = re.findall(r"(?:src|href)='([^']{0,22})", text)
    assert len(sources) == 6  # two meshes, template, training loss, errors, one estimate
    assert all(source.startswith("data:image/") for source in sources)
    assert "<script" not in text and "http" not in text
    for said in ("0.87", "3.2", "12.3", "3 of 4 images", "0.125 m", "training loss", "<tr class='out'><td>clip_02"):
        assert said in text


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    text = page(tmp_path, contents())
    assert "No labels were given" in text and "Not trained yet." in text and "No model" in text


def test_names_cannot_become_markup(tmp_path: Path) -> None:
    text = page(tmp_path, contents(("<b>x", "it's")))
    assert "<b>x" not in text and "&lt;b&gt;x" in text
    assert "alt='it's" not in text


def test_failures_come_first(tmp_path: Path) -> None:
    write_video(tmp_path / "clip_01", seed=1, views=4, size=48)
    video = load_video(tmp_path / "clip_01")
    found = ((4, 0.9), (170, 0.8), (MISSING, None), (9, 0.2))
    results = [result(f"00000{k}.jpg", *errors_and_scores) for k, errors_and_scores in enumerate(found)]
    shots = shots_of(results, [video], model_of(), labelled=True)
    assert [shot.error for shot in shots] == [MISSING, 170, 9, 4]
    assert [shot.caption for shot in shots][:2] == [
        "clip_01/000002.jpg, nothing found",
        "clip_01/000001.jpg, score 0.80, 170.0° off",
    ]
    unsure = shots_of(results, [video], model_of(), labelled=False)
    assert [shot.score for shot in unsure] == [0, 0.2, 0.8, 0.9]
    assert all(shot.error is None for shot in unsure)
    assert [shot.error for shot in shots_of(results, [video], model_of(), labelled=True, most=2)] == [MISSING, 4]


@pytest.mark.parametrize(("most", "kept"), [(2, [0, 4]), (3, [0, 2, 4]), (9, [0, 1, 2, 3, 4])])
def test_a_long_video_is_thinned_evenly(tmp_path: Path, most: int, kept: list[int]) -> None:
    write_video(tmp_path / "clip_01", seed=1, views=5, size=32)
    frames = thinned(load_video(tmp_path / "clip_01"), most).frames
    assert [frame.name for frame in frames] == [f"{k:06d}.jpg" for k in kept]
