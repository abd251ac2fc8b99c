"""Options of `align` that exclude each other, and the published method on a category."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from uns_pose_ros.cli import main
from uns_pose_ros.io import artifacts
from uns_pose_ros.pipeline import stages

PUBLISHED = ("--method", "published")
TO_FIRST = (*PUBLISHED, "--reference", "clip_01")


def align(category: Path, *words: str) -> int:
    return main.main(["align", str(category), "--device", "cpu", *words])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            PUBLISHED,
            "--method published needs --reference VIDEO: clip_01, clip_02, clip_03",
        ),
        (
            (*PUBLISHED, "--reference", "clip_9"),
            "--reference clip_9: no such video; clip_01",
        ),
        (("--reference", "clip_01"), "--reference clip_01 belongs to --method published"),
        (("--published.steps", "20"), "--published.… belongs to --method published"),
        ((*TO_FIRST, "--add"), "--add belongs to --method consensus"),
        ((*TO_FIRST, "--cluster", "local"), "--cluster belongs to --method consensus"),
        ((*TO_FIRST, "--align.references", "3"), "--align.… belongs to --method consensus"),
        ((*TO_FIRST, "--published.alpha", "2"), "alpha 2.0: 0 to 1 is valid"),
        ((*TO_FIRST, "--videos", "clip_02,clip_03"), "no such video; clip_02, clip_03 are"),
    ],
)
def test_options_that_do_not_go_together_are_refused_in_one_line(
    trucks: Path, words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (trucks / "alignment.json").read_bytes()
    assert align(trucks, *words) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert said in lines[0]
    assert (trucks / "alignment.json").read_bytes() == before


def test_the_published_method_aligns_to_its_reference_and_claims_no_confidence(
    trucks: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    titles: list[str] = []

    def render(alignment: Any, skins: Any, title: str) -> np.ndarray:
        titles.append(title)
        return np.zeros((8, 8, 3), np.uint8)

    monkeypatch.setattr(stages, "render_alignment", render)
    words = (*TO_FIRST, "--published.hypotheses", "50")
    assert align(trucks, *words, "--json", "-") == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["method"], record["reference"]) == ("published", "clip_01")
    assert record["made"]
    assert titles[0].endswith("each video alone to clip_01, which gives no confidence")
    assert {video["confidence"] for video in record["videos"].values()} == {None}
    provenance = artifacts.provenance_of(trucks / "alignment.json")
    assert provenance is not None
    assert (provenance["method"], provenance["reference"]) == ("published", "clip_01")
    assert provenance["config"]["hypotheses"] == 50
    assert align(trucks, *words) == 0  # done already
    shown = capsys.readouterr().out
    assert "published method: each video alone to clip_01, no confidence" in shown
    (trucks / "clip_03").rename(trucks / "clip_04")
    assert align(trucks, "--add") == 2
    said = capsys.readouterr().err
    assert "the published method, which places no video by others" in said
    assert said.count("\n") == 1


def test_another_reference_aligns_anew_and_the_same_one_does_not(trucks: Path) -> None:
    config = stages.PublishedConfig(hypotheses=20)
    made = [
        stages.align_by_published_method(trucks, name, config=config, device="cpu")[1]
        for name in ("clip_01", "clip_01", "clip_02")
    ]
    assert made == [True, False, True]
