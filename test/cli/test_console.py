"""What the commands write, and where."""

from __future__ import annotations

import json
import logging
import os
import pty
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from uns_pose_ros.cli import console
from uns_pose_ros.cli.console import (
    StageTimes,
    _bar,
    emit,
    figure,
    progress_bar,
    table,
    warn_on_stderr,
)
from uns_pose_ros.cli.pipeline.run_command import _part_of_reconstruct

SHOW = """
import logging
from uns_pose_ros.cli.console import progress_bar, warn_on_stderr
warn_on_stderr()
with progress_bar() as show:
    for k in range(3):
        show("reconstruct clip_01", k + 1, 3)
    logging.getLogger("uns_pose_ros.io.video_folder").warning("frame left out")
    show("train", 1, 9)
"""


def test_a_bar_tells_what_is_done_and_the_time_that_is_left() -> None:
    assert (
        _bar("train", 50, 200, 30.4)
        == f"train {'━' * 8}{'─' * 22} 50/200 0:00:30, 0:01:31 left"
    )
    assert _bar("train", 200, 200, 3723.0) == f"train {'━' * 30} 200/200 1:02:03"
    assert _bar("waiting", 0, 0, 0.0) == f"waiting {'─' * 30} 0/0 0:00:00"


def test_words_stand_left_and_figures_right() -> None:
    lines = table(
        ["video", "residual"], [["clip_01", "3.2"], ["b", "12.0"], ["c", figure(None)]]
    ).splitlines()
    assert lines == [
        "video    residual",
        "clip_01       3.2",
        "b            12.0",
        "c               –",
    ]


def test_json_to_stdout_leaves_nothing_else_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    emit({"file": Path("a"), "both": (1, 2)}, "words", "-")
    assert json.loads(capsys.readouterr().out) == {"file": "a", "both": [1, 2]}
    emit({"a": 1}, "words", str(tmp_path / "out.json"))
    assert capsys.readouterr().out == "words\n"
    assert json.loads((tmp_path / "out.json").read_text()) == {"a": 1}


def test_warnings_are_single_lines_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    warn_on_stderr()
    warn_on_stderr()  # a second command of the same process does not say everything twice
    logging.getLogger("uns_pose_ros.io.video_folder").warning("frame left out: %s", "a.jpg")
    assert capsys.readouterr().err == "uns-pose: WARNING: frame left out: a.jpg\n"


def test_short_steps_are_not_mentioned_where_stderr_is_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with progress_bar() as show:
        show("train", 1, 2)
    assert capsys.readouterr() == ("", "")


def test_in_a_log_a_long_step_has_a_line_with_the_time_left_and_one_at_its_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(console.time, "monotonic", lambda: clock.now)
    with progress_bar() as show:
        for step in range(61):  # of 10 s each
            show("clip_01: features (relaxed)", step, 60)
            clock.now += 10.0
        show("clip_01: masks", 1, 1)
        clock.now += 1.0
    features = "uns-pose: clip_01: features (relaxed): "
    assert capsys.readouterr().err.splitlines() == [
        features + "2 of 60 after 0:00:20, about 0:09:40 left",
        features + "32 of 60 after 0:05:20, about 0:04:40 left",
        features + "60 of 60 done in 0:10:10",
    ]


def test_progress_is_shown_on_a_terminal_and_never_on_stdout() -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    done = subprocess.run(
        [sys.executable, "-c", SHOW], stdout=subprocess.PIPE, stderr=theirs, env=environment
    )
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert (done.returncode, done.stdout) == (0, b"")
    text = shown.decode()
    assert "reconstruct clip_01" in text and " 3/3 " in text
    assert "\r\x1b[Kuns-pose: WARNING: frame left out\r\n" in text  # in place of the bar
    assert text.endswith(" 1/9 0:00:00\x1b[K\r\x1b[K")  # which is gone in the end


def test_where_the_time_went_is_one_line_for_each_stage_with_its_share() -> None:
    times, shown = StageTimes(iter([0.0, 60.0, 75.0, 85.0, 100.0]).__next__), list[str]()
    times.end_stage("reconstruct")
    times.skip()  # a question waited for its answer
    follow = times.follow(lambda what, done, total: shown.append(what))
    follow("train", 1, 2)
    follow("train", 2, 2)
    assert times.seconds == {"reconstruct": 60.0, "train": 25.0} and shown == ["train"] * 2
    assert times.text().splitlines() == [
        "reconstruct     60.0 s   71 %",
        "train           25.0 s   29 %",
    ]
    assert StageTimes(lambda: 0.0).text() == ""


def test_run_says_which_part_of_the_reconstruction_took_its_time() -> None:
    times = StageTimes(iter([0.0, 5.0, 9.0, 29.0, 37.0, 38.0]).__next__)
    follow = times.follow(lambda what, done, total: None, _part_of_reconstruct)
    for step in (
        "clip_01: features (plain)",
        "clip_01: masks",
        "clip_01: masks, second look",
    ):
        follow(step, 1, 2)
    follow("reconstruct clip_01", 1, 2)
    times.end_stage("reconstruct")
    assert times.seconds == {
        "reconstruct: poses": 5.0,
        "reconstruct: masks": 24.0,
        "reconstruct: meshes": 8.0,
        "reconstruct": 1.0,
    }
