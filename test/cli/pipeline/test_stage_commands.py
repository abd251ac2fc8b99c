"""`reconstruct`, `align` and `report` do what is left to do and say what they have done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from command_line import run
from small_category import ALIGN_WORDS, RECONSTRUCT_WORDS
from uns_pose_ros.cli import main


def test_reconstruct_and_align_skip_what_is_done_and_say_so_as_json(
    trucks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (trucks / "clip_02" / "mesh.ply").unlink()
    assert run("reconstruct", trucks, *RECONSTRUCT_WORDS, "--json", "-") == main.DONE
    made = {
        name: video["made"]
        for name, video in json.loads(capsys.readouterr().out)["videos"].items()
    }
    assert made == {"clip_01": False, "clip_02": True, "clip_03": False}
    assert (
        run("align", trucks, *ALIGN_WORDS, "--videos", "clip_01,clip_03", "--json", "-")
        == main.DONE
    )
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert result["made"] and list(result["videos"]) == ["clip_01", "clip_03"]
    assert set(result["videos"]["clip_01"]) == {"confidence", "residual_deg", "kept"}
    assert not err  # progress is for terminals


def test_align_prints_a_table(trucks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("align", trucks, *ALIGN_WORDS) == main.DONE
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["video", "confidence", "residual", "°", "kept"]
    assert [line.split()[0] for line in lines[1:4]] == ["clip_01", "clip_02", "clip_03"]


def test_report_writes_one_page_even_before_training(
    trucks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("report", trucks, "--json", "-") == main.DONE
    result = json.loads(capsys.readouterr().out)
    page = Path(result["report"]).read_text()
    assert result["accuracies"]["alignment"]["pairs"] == 3
    # meshes, viewpoints and frames of the videos, correspondences, frames with their labels
    images = 3 + 3 * (1 + 3) + 2 + 3 * 6
    assert "Not trained yet." in page
    assert page.count("data:image/") == images
