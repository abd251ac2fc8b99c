"""Options of `align` that exclude each other, and the published method on a category."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import quick_work
from quick_work import CLIPS
from uns_pose_ros.alignment import published_alignment
from uns_pose_ros.cli import main
from uns_pose_ros.io import artifacts
from uns_pose_ros.pipeline import alignment_stage
from uns_pose_ros.pipeline.earlier_choices import mesh_surface
from uns_pose_ros.pipeline.provenance import FileCache

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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("align", "mug", "--published.alpha", "2"), "alpha 2.0: 0 to 1 is valid"),
        (
            ("estimate", "m", "i.png", "--estimator.outlier-likelihood", "7"),
            "outlier_likelihood 7.0: 1e-06 to 0.5 is valid",
        ),
    ],
)
def test_a_setting_outside_of_its_range_is_refused_as_the_words_are_read(
    words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main.main(words)
    assert said in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_the_published_method_aligns_to_its_reference_and_claims_no_confidence(
    trucks: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    titles: list[str] = []

    def render(alignment: Any, skins: Any, title: str) -> np.ndarray:
        titles.append(title)
        return np.zeros((8, 8, 3), np.uint8)

    monkeypatch.setattr(alignment_stage, "render_alignment", render)
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
    config = published_alignment.PublishedConfig(hypotheses=20)
    made = [
        alignment_stage.align_by_published_method(
            trucks, name, config=config, device="cpu"
        )[1]
        for name in ("clip_01", "clip_01", "clip_02")
    ]
    assert made == [True, False, True]


@pytest.fixture
def mug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two videos; what computes takes no time, and `surfaces` of a mesh are noted."""
    quick_work.stand_in(monkeypatch.setattr, tmp_path)
    monkeypatch.setattr(
        published_alignment,
        "align_to_reference",
        lambda meshes, *_: quick_work._align(meshes),
    )
    quick_work.write_quick_category(tmp_path / "mug")
    return tmp_path / "mug"


def surfaces(category: Path) -> dict[str, str | None]:
    return {name: mesh_surface(category / name) for name in CLIPS}


def test_run_keeps_an_alignment_by_the_published_method(
    mug: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (*TO_FIRST, "--published.hypotheses", "50", "--seed", "3")
    assert main.main(["reconstruct", str(mug)]) == 0
    assert align(mug, *words) == 0
    before = (mug / "alignment.json").read_bytes()
    capsys.readouterr()
    assert main.main(["run", str(mug), "--yes", "--json", "-"]) == 0
    shown = capsys.readouterr()
    assert "by the published method to clip_01, which stays" in shown.err
    assert (mug / "alignment.json").read_bytes() == before
    record = json.loads(shown.out)["align"]
    assert (record["made"], record["reference"]) == (False, "clip_01")
    assert record["videos"]["clip_02"]["confidence"] is None
    for page in ("report.html", "masks.html"):
        text = (mug / page).read_text()
        assert "1.00</td>" not in text and "confidence 1.00" not in text, page
    assert "not measured" in (mug / "report.html").read_text()

    shutil.copytree(mug / "clip_02", mug / "clip_03")
    assert (
        main.main(["run", str(mug), "--yes"]) == 0
    )  # another video: the same method again
    provenance = artifacts.provenance_of(mug / "alignment.json")
    assert provenance is not None
    assert (provenance["reference"], provenance["seed"]) == ("clip_01", 3)
    assert provenance["config"]["hypotheses"] == 50
    assert len(provenance["inputs"]) == 3

    capsys.readouterr()
    assert main.main(["run", str(mug), "--align.references", "3"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--align.… belongs to --method consensus" in line and "which `run` keeps" in line


def test_align_says_that_a_consensus_replaces_the_published_method(
    mug: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["reconstruct", str(mug)]) == 0
    assert align(mug, *TO_FIRST) == 0
    assert "by consensus now" not in capsys.readouterr().err
    assert align(mug) == 0
    said = "by consensus now; before, each video was aligned to clip_01"
    assert said in capsys.readouterr().err
    assert alignment_stage.alignment_reference(mug, FileCache()) is None


def test_settings_of_a_published_alignment_that_this_version_does_not_know_are_refused(
    mug: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["reconstruct", str(mug)]) == 0
    assert align(mug, *TO_FIRST) == 0
    record = json.loads((mug / "alignment.json").read_text())
    spoiled: list[Any] = [{"alpha": 7.0}, {"beta": 1}, [], {"alpha": "x"}]
    for settings in spoiled:
        record["provenance"]["config"] = settings
        (mug / "alignment.json").write_text(json.dumps(record))
        capsys.readouterr()
        assert main.main(["run", str(mug)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "alignment.json: settings of the published method: " in line


def test_run_keeps_alpha_shapes_and_gives_a_new_video_one_too(mug: Path) -> None:
    assert main.main(["reconstruct", str(mug), "--surface", "alpha"]) == 0
    before = {name: (mug / name / artifacts.FEATURES).read_bytes() for name in CLIPS}
    assert main.main(["run", str(mug), "--yes"]) == 0
    assert surfaces(mug) == {"clip_01": "alpha", "clip_02": "alpha"}
    assert {
        name: (mug / name / artifacts.FEATURES).read_bytes() for name in CLIPS
    } == before
    (mug / "clip_02" / artifacts.FEATURES).unlink()  # as if it were new
    assert main.main(["run", str(mug), "--yes"]) == 0
    assert surfaces(mug)["clip_02"] == "alpha"
    assert main.main(["reconstruct", str(mug), "--surface", "hull"]) == 0
    assert surfaces(mug) == {"clip_01": "hull", "clip_02": "hull"}


def test_each_mesh_keeps_its_surface_and_a_new_one_among_both_is_a_hull(mug: Path) -> None:
    words = ["reconstruct", str(mug)]
    assert main.main([*words, "--videos", "clip_01", "--surface", "alpha"]) == 0
    assert main.main([*words, "--videos", "clip_02", "--surface", "hull"]) == 0
    shutil.copytree(mug / "clip_02", mug / "clip_03")
    (mug / "clip_03" / artifacts.FEATURES).unlink()
    assert main.main(words) == 0
    assert surfaces(mug) == {"clip_01": "alpha", "clip_02": "hull"}
    assert mesh_surface(mug / "clip_03") == "hull"
