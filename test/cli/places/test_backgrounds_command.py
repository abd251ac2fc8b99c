"""The command that takes images of a robot's places."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from small_model import one_triangle
from source_files import checks, write_film
from streams import estimate, pose
from uns_pose_ros.cli import main
from uns_pose_ros.cli.places import backgrounds_command
from uns_pose_ros.core.types import Camera, CategoryModel, PoseEstimate
from uns_pose_ros.io import artifacts
from uns_pose_ros.pipeline.training_stage import _background_paths


class SeesRed:
    """An estimator that sees its object, at half of its threshold, in images with much red."""

    threshold = 0.4

    def __init__(self, model: CategoryModel, device: str) -> None: ...

    def without_threshold(
        self, image: np.ndarray | Tensor, camera: Camera
    ) -> list[PoseEstimate]:
        red = float(np.asarray(image)[..., 0].mean()) > 100
        found = estimate(pose((0.0, 0.0, 0.0), (0.0, 0.0, 1.0)), score=0.21 if red else 0.1)
        return [found]


def test_the_command_says_what_it_left_out_and_the_training_takes_its_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backgrounds_command, "Estimator", SeesRed)
    film = write_film(tmp_path / "rooms.mp4", [checks(0)] * 3 + [checks(35)] * 3)
    artifacts.save_model(one_triangle("mug"), tmp_path / "model")
    words = ["backgrounds", str(film), "--into", str(tmp_path / "rooms"), "--model"]
    words += [str(tmp_path / "model"), "--seen", str(tmp_path / "seen")]
    assert main.main([*words, "--json", str(tmp_path / "out.json")]) == 0
    text = capsys.readouterr().out
    record = json.loads((tmp_path / "out.json").read_text())
    assert len(record["files"]) == 1 and len(record["seen"]) == 3
    assert record["images"] == 6 and sum(record["left_out"].values()) == 5
    assert "1 of 6 images" in text and "the model sees the object: 3" in text
    assert "no --model" not in text
    assert [path.name for path in _background_paths(tmp_path / "rooms")] == record["files"]


def test_without_a_model_the_command_says_that_nothing_looked_for_the_object(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    film = write_film(tmp_path / "rooms.mp4", [checks(0)] * 3)
    words = ["backgrounds", str(film), "--into", str(tmp_path / "rooms")]
    assert main.main([*words, "--seen", str(tmp_path / "seen")]) == 2
    assert "--seen goes with --model" in capsys.readouterr().err
    assert main.main(words) == 0
    assert "delete the images that show it" in capsys.readouterr().out
