"""Errors of the disk at every write of every command.

One line, exit code 2, nothing half made, and what was there before is whole.
"""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import Any

import pytest

import quick_work
from disk_faults import CODES, DELETING, Failing, watched_disk
from file_groups import contents, hidden_files, torn_artifacts
from uns_pose_ros.cli import main, rosbag_command
from uns_pose_ros.evaluation import bag_cameras
from uns_pose_ros.evaluation.bag_figures import FrameResult
from weight_cache import take_for_u2netp

ANOTHER = ("--mask.bad=0.2", "--sfm.wanted=0.5", "--reconstruct.margin=0.3")
# a command, and what lies there before it
CASES = {
    "import": ("photos", "import HERE/photos --into HERE/mug/clip_01"),
    "reconstruct": ("one clip", " ".join(("reconstruct HERE/mug", *ANOTHER))),
    "align": ("model", "align HERE/mug --seed 1"),
    "train": ("model", "train HERE/mug --seed 1"),
    "report": ("model", "report HERE/mug --json HERE/report.json"),
    "estimate": (
        "model",
        "estimate HERE/mug/model HERE/mug/clip_01/images/000000.png --overlay HERE/drawn/poses "
        "--json HERE/out.json",
    ),
    "export": ("model", "export HERE/mug/model HERE/net.onnx"),
    "results as mcap": (
        "model",
        "evaluate bag HERE/mug/model HERE/bag --results HERE/r.mcap",
    ),
    "results as sqlite3": (
        "model",
        "evaluate bag HERE/mug/model HERE/bag --results HERE/new/r --bop HERE/bop.csv",
    ),
    "weights": ("weights", "weights u2netp --source HERE/u2netp.onnx"),
}


def run(folder: Path, line: str) -> int:
    return main.main([word.replace("HERE", str(folder)) for word in line.split()])


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By name, a folder as it is before a command."""
    folders = {
        name: tmp_path_factory.mktemp("before") / "here"
        for name in ("photos", "one clip", "model", "weights")
    }
    with pytest.MonkeyPatch.context() as patch:
        quick_work.stand_in(patch.setattr, tmp_path_factory.mktemp("standing_in"))
        quick_work.write_quick_images(folders["photos"] / "photos")
        quick_work.write_quick_category(folders["one clip"] / "mug", clips=1)
        assert run(folders["one clip"], "reconstruct HERE/mug") == main.DONE
        quick_work.write_quick_category(folders["model"] / "mug")
        assert run(folders["model"], "run HERE/mug") == main.DONE
    folders["weights"].mkdir()
    (folders["weights"] / "u2netp.onnx").write_bytes(b"the network")
    return folders


@pytest.fixture
def standing_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing heavy is computed, and a bag has one image with one estimate."""

    def frames(*_: Any) -> list[FrameResult]:
        (estimate,) = quick_work.OneInTheMiddle(Any, "", None)(None, None)
        return [FrameResult(10**9, "camera", (estimate,), (1,), 0.1, None, None)]

    quick_work.stand_in(monkeypatch.setattr, tmp_path)
    monkeypatch.setattr(rosbag_command, "Estimator", quick_work.OneInTheMiddle)
    monkeypatch.setattr(bag_cameras, "estimate_bag_frames", frames)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "here" / "cache"))


@pytest.mark.parametrize("name", CASES)
def test_one_line_and_nothing_half_made_wherever_the_disk_fails(
    name: str,
    before: dict[str, Path],
    standing_in: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    start, line = CASES[name]
    here = tmp_path / "here"
    if name == "weights":
        take_for_u2netp(before[start] / "u2netp.onnx", monkeypatch)

    def begin() -> None:
        shutil.rmtree(here, ignore_errors=True)
        shutil.copytree(before[start], here, copy_function=shutil.copy2)

    begin()
    old = contents(here)
    with watched_disk(here, lambda *_: None) as disk:
        assert run(here, line) == main.DONE
    new, changes = contents(here), disk.count
    assert hidden_files(here) == []
    assert changes > 4
    for number in range(1, changes + 1):
        begin()
        capsys.readouterr()
        code = CODES[number % len(CODES)]
        fault = Failing(number, code)
        with watched_disk(here, fault):
            ended = run(here, line)
        said = [
            text
            for text in capsys.readouterr().err.splitlines()
            if not text.startswith("uns-pose: WARNING")
        ]
        where = f"change {number} of {changes}: {fault.failed}"
        if ended == main.DONE:  # what failed was of no importance
            assert (said, contents(here)) == ([], new), where
            continue
        assert ended == main.BAD_INPUT, where
        assert len(said) == 1 and said[0].startswith("uns-pose "), (where, said)
        assert f"({errno.errorcode[code]}" in said[0] or "cannot be" in said[0], where
        assert torn_artifacts(contents(here), old, new) == [], where
        if fault.failed[0] in DELETING:
            continue
        left = [path for path in hidden_files(here) if "/.model-0" not in f"/{path}"]
        assert left == [], where
        if number % 4 == 0:
            assert run(here, line) == main.DONE, where
            assert (contents(here), hidden_files(here)) == (new, []), where
