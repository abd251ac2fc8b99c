"""`evaluate alignment` and `evaluate pose` write the figures that they promise."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest

from command_line import run
from uns_pose_ros.cli import main

ACCURACIES = {"acc30", "acc15", "acc10", "median_deg"}


def test_evaluate_alignment_writes_exactly_the_promised_keys(
    trucks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = trucks / "out.json"
    assert (
        run(
            "evaluate",
            "alignment",
            trucks,
            "--labels",
            trucks / "labels.json",
            "--json",
            out,
        )
        == main.DONE
    )
    result = json.loads(out.read_text())
    assert set(result) == ACCURACIES | {"videos", "pairs", "symmetry_aware", "seconds"}
    assert set(result["symmetry_aware"]) == ACCURACIES
    assert (result["videos"], result["pairs"], result["acc30"]) == (3, 3, 100)
    assert result["seconds"] > 0
    assert "3 videos, 3 pairs" in capsys.readouterr().out


def test_evaluate_pose_writes_exactly_the_promised_keys_for_the_videos_not_trained_on(
    model: Path, scripted: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "evaluate",
        "pose",
        model,
        model.parent,
        "--labels",
        model.parent / "labels.json",
        "--json",
        "-",
    ]
    assert run(*words) == main.DONE
    result = json.loads(capsys.readouterr().out)
    assert set(result) == ACCURACIES | {
        "images",
        "estimated",
        "answered",
        "symmetry_aware",
        "auroc",
        "wrong",
        "coverage95",
        "seconds_per_image",
        "shift_diameters",
        "aside_diameters",
        "score",
        "by",
        "iou3d",
    }
    assert (result["images"], result["estimated"]) == (8, 8)  # clip_03
    assert result["iou3d"]["images"] == 8 and 0 < result["iou3d"]["mean"] <= 1
    assert sum(row["images"] for row in result["by"]["elevation"]) == 8
    assert sum(row["count"] for row in result["score"]) == 8
    assert run(*words, "--plot", tmp_path / "poses.png") == main.DONE
    assert cv2.imread(str(tmp_path / "poses.png")) is not None
    capsys.readouterr()
    assert run(*words, "--plot", tmp_path / "poses.txt") == main.BAD_INPUT
    assert "a name that ends with .png" in capsys.readouterr().err
    assert run(*words, "--videos", "clip_0[13]") == main.DONE
    assert json.loads(capsys.readouterr().out)["images"] == 16
