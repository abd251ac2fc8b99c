"""A doubtful focal length of EXIF is compared with a result without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from uns_pose_ros.core.camera import assumed_camera
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Camera, Frame, Video
from uns_pose_ros.io.colmap import SparseImage
from uns_pose_ros.reconstruction import structure_from_motion
from uns_pose_ros.reconstruction.colmap.sfm_attempt import Poses
from uns_pose_ros.reconstruction.colmap_mapper import Attempt, SfmConfig
from uns_pose_ros.reconstruction.structure_from_motion import find_poses

CONFIG = SfmConfig(threads=2)


class Attempts:
    """Stands in for the mapper: results by the calibration that an attempt starts from."""

    def __init__(self, **results: tuple[float, int, int, float]) -> None:
        self.results = results  # focal length px, images, points, error px
        self.calls: list[tuple[str, float]] = []

    def __call__(self, task: Any, attempt: Attempt, work: Path) -> tuple[Poses | None, Any]:
        self.calls.append((task.calibration, float(task.camera.matrix[0, 0])))
        facts = {"features": 500.0, "pairs": 20, "models": 1}
        if task.calibration not in self.results:
            return None, facts
        focal, images, points, error = self.results[task.calibration]
        eye = torch.eye(4, dtype=torch.float64)
        registered = tuple(SparseImage(f"{k}.jpg", 1, eye) for k in range(images))
        camera = with_focal(task.camera, focal)
        report = {"registered": images, "focal_px": focal, "points": points}
        xyz = torch.zeros(points, 3, dtype=torch.float64)
        return Poses(camera, registered, xyz, report, error), facts


def with_focal(camera: Camera, focal: float) -> Camera:
    matrix = camera.matrix.clone()
    matrix[0, 0] = matrix[1, 1] = focal
    return Camera(matrix, camera.width, camera.height)


EXIF = 1207.0  # px, of an image four times as large; 302 is right


def find_with(
    monkeypatch: pytest.MonkeyPatch, calibration: str = "exif", **results: Any
) -> tuple[Poses, Attempts]:
    attempts = Attempts(**results)
    monkeypatch.setattr(structure_from_motion, "run_attempt", attempts)
    camera = with_focal(assumed_camera(320, 240), EXIF)
    files = [Frame(f"{k}.jpg", Path(f"images/{k}.jpg"), camera) for k in range(24)]
    return find_poses(
        Video(Path("clip"), tuple(files)), calibration, config=CONFIG
    ), attempts


@pytest.mark.parametrize(
    ("exif", "without", "focal"),
    [
        ((1207.0, 24, 300, 0.9), (301.0, 24, 900, 0.3), 301.0),  # doubtful
        ((420.0, 24, 300, 0.5), (301.0, 24, 900, 0.3), 301.0),  # left the start far behind
        ((302.0, 24, 900, 0.3), (340.0, 24, 800, 0.4), 302.0),  # recovered by itself
        ((1210.0, 15, 900, 0.3), (301.0, 24, 700, 0.6), 301.0),  # more images
        ((1900.0, 24, 900, 0.3), (301.0, 22, 900, 0.3), 1900.0),
        ((1207.0, 5, 900, 0.3), (301.0, 24, 900, 0.3), 301.0),  # too few images
        (None, (301.0, 24, 900, 0.3), 301.0),  # none
    ],
)
def test_a_doubtful_result_of_exifs_focal_length_is_compared_with_one_without_it(
    exif: Any,
    without: Any,
    focal: float,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    results = {"guessed": without} | ({} if exif is None else {"exif": exif})
    found, attempts = find_with(monkeypatch, **results)
    assert float(found.camera.matrix[0, 0]) == focal
    kept = "without" if focal == 301.0 else "with"
    assert found.report["restart"]["kept"] == f"{kept} exif"
    assert found.report["calibration"] == ("guessed" if kept == "without" else "exif")
    assert attempts.calls[0] == ("exif", EXIF)
    calibration, start = attempts.calls[-1]
    assert calibration == "guessed" and start == pytest.approx(320 * 0.866, abs=0.1)
    assert "EXIF's focal length, 1207 px, is doubtful: " in caplog.text
    assert f"the result {kept} it is kept: {focal:.0f} px" in caplog.text


@pytest.mark.parametrize(
    ("calibration", "result"),
    [
        ("exif", (1100.0, 24, 900, 0.3)),
        ("exif", (1400.0, 22, 900, 0.6)),
        ("guessed", (302.0, 24, 900, 0.9)),
        ("given", (1207.0, 24, 900, 0.9)),
        ("camera_info", (1207.0, 24, 900, 0.9)),
    ],
)
def test_only_a_doubtful_focal_length_of_exif_is_computed_again(
    calibration: str, result: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, attempts = find_with(monkeypatch, calibration, **{calibration: result})
    assert {name for name, _ in attempts.calls} == {calibration}
    assert "restart" not in found.report and float(found.camera.matrix[0, 0]) == result[0]


def test_a_video_that_fails_with_and_without_exif_says_so_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(InvalidInput, match="clip: 4 of 24 frames got a pose; "):
        find_with(monkeypatch, exif=(1207.0, 3, 9, 0.3), guessed=(301.0, 4, 9, 0.3))
    with pytest.raises(InvalidInput, match="clip: 0 of 24 frames got a pose; "):
        find_with(monkeypatch)
