"""The command `frames` lists, adds and removes named frames."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from small_model import one_triangle
from uns_pose_ros.cli import main, model_commands
from uns_pose_ros.core.types import Camera, CategoryModel, PoseEstimate, Symmetry
from uns_pose_ros.estimation.frame_placement import carry_frames
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.schema.frames_record import FRAMES


def run(*words: object) -> int:
    return main.main(["frames", *(str(word) for word in words)])


@pytest.fixture
def mug(tmp_path: Path) -> Path:
    artifacts.save_model(one_triangle("mug"), tmp_path / "model")
    return tmp_path


def test_a_frame_is_added_listed_replaced_and_removed(
    mug: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at = ("--position", 0.4, -0.1, 0.2, "--x-axis", -1, 0, 0)
    assert run(mug, "add", "handle", *at, "--width", 0.08) == 0
    assert run(mug / "model", "add", "rim", "--toward", 0, 0, 1, "--follow", "rigid") == 0
    assert run(mug, "add", "handle", *at, "--prefer", 0, 0, -1) == 0
    capsys.readouterr()
    assert run(mug, "--json", "-") == 0
    handle, rim = sorted(
        json.loads(capsys.readouterr().out)["frames"], key=lambda frame: frame["name"]
    )
    assert handle["position"] == [0.4, -0.1, 0.2] and handle["width"] is None
    assert handle["prefer"] == [0, 0, -1] and handle["follow"] == "surface"
    assert [row[0] for row in handle["rotation"]] == [-1, 0, 0]
    assert rim["position"] == [0, 0, 1] and rim["follow"] == "rigid"
    assert run(mug, "list") == 0
    text = capsys.readouterr().out
    assert "0.400 -0.100 0.200" in text and "the template: x 0.000 to 1.000" in text
    assert run(mug, "remove", "handle") == 0
    assert run(mug, "remove", "rim") == 0
    assert artifacts.load_model(mug).frames == ()


def test_a_frame_edited_by_hand_stays(mug: Path) -> None:
    (mug / "model" / FRAMES).write_text("frames: [{name: a, position: [0, 0, 1]}]")
    assert run(mug, "add", "b", "--position", 1, 0, 0) == 0
    assert [frame.name for frame in artifacts.load_model(mug).frames] == ["a", "b"]


def test_a_frame_far_from_the_template_is_a_warning(
    mug: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(mug, "add", "dock", "--position", 2, 0, 0) == 0
    assert "dock is 1.00 object diameters from the template" in capsys.readouterr().err
    assert run(mug, "add", "dock", "--position", 2, 0, 0, "--follow", "rigid") == 0
    assert capsys.readouterr().err == ""


class OneMug:
    """An estimator that finds one mug with the model's frames."""

    best_rejected: float | None = None

    def __init__(self, model: CategoryModel, device: str, config: object) -> None:
        self.models = (model,)

    def __call__(self, image: Tensor, camera: Camera) -> list[PoseEstimate]:
        pose = torch.eye(4, dtype=torch.float64)
        pose[2, 3] = 3
        size, box = torch.ones(3, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
        one = PoseEstimate(
            "mug", pose, 1.0, False, size, 0.75, None, Symmetry(), 12, 1.5, box
        )
        return [replace(one, frames=tuple(carry_frames(one, self.models[0].frames)))]


def test_estimate_gives_the_frames_in_the_camera(
    mug: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_commands, "Estimator", OneMug)
    run(mug, "add", "handle", "--position", 0.4, -0.1, 0.2, "--width", 0.08)
    cv2.imwrite(str(mug / "a.png"), np.full((48, 64, 3), 90, np.uint8))
    capsys.readouterr()
    words = ["estimate", str(mug), str(mug / "a.png"), "--overlay", str(mug)]
    assert main.main(words) == 0
    assert "\n  handle at 0.400 -0.100 3.200 diameters, carried by the pose\n" in (
        capsys.readouterr().out
    )
    assert main.main([*words, "--json", "-"]) == 0
    record = json.loads(capsys.readouterr().out)
    [frame] = record["images"][0]["estimates"][0]["frames"]
    assert frame["name"] == "handle" and frame["width"] == 0.08
    assert [row[3] for row in frame["cam_from_frame"]] == [0.4, -0.1, 3.2, 1.0]
    assert frame["position_from"] == "carried" and frame["position_covariance"] is None


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("remove", "handle"), "no frame 'handle'; there is none"),
        (("add",), "the name of a frame is needed"),
        (("list", "handle"), "'handle' is too much"),
        (("edit", "handle"), "'handle' is too much"),
        (("remove", "a", "--width", "1"), "options of a frame are valid with add only"),
        (("add", "a"), "--position or --toward is needed, not both"),
        (
            ("add", "a", "--position", "0", "0", "0", "--toward", "0", "0", "1"),
            "--position or --toward is needed, not both",
        ),
        (("add", "a/b", "--position", "0", "0", "0"), "name 'a/b'"),
        (("add", "a", "--position", "0", "0", "nan"), "a: position [0.0, 0.0, nan]"),
        (("add", "a", "--toward", "0", "0", "0"), "toward is no direction"),
        (("add", "a", "--toward", "nan", "0", "0"), "toward is no direction"),
        (("add", "a", "--position", "0", "0", "0", "--width", "-1"), "a: width -1"),
    ],
)
def test_bad_usage_is_one_line_and_changes_nothing(
    mug: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], fault: str
) -> None:
    assert run(mug, *words) == 2
    error = capsys.readouterr().err
    assert fault in error and error.count("\n") == 1
    assert not (mug / "model" / FRAMES).exists()
