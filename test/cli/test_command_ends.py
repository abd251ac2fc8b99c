"""How a command ends that is stopped, has a fault, or cannot read or write."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from command_line import run
from uns_pose_ros.cli import main
from uns_pose_ros.io import artifacts


def test_a_fault_of_ours_is_not_disguised_as_bad_input(
    trucks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: Path) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(artifacts, "load_alignment", broken)
    with pytest.raises(
        RuntimeError, match="a fault"
    ):  # Python ends with 1 and the traceback
        run("evaluate", "alignment", trucks, "--labels", trucks / "labels.json")


def test_ctrl_c_ends_with_one_line(
    trucks: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(artifacts, "load_alignment", interrupted)
    assert (
        run("evaluate", "alignment", trucks, "--labels", trucks / "labels.json")
        == main.INTERRUPTED
    )
    assert capsys.readouterr().err.splitlines() == [
        "uns-pose evaluate alignment: stopped; what was finished is kept, the same command goes on"
    ]


@pytest.mark.parametrize("words", [["--help"], ["align", "--help"], ["doctor"]])
def test_a_reader_that_has_read_enough_is_no_fault(words: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    code = "import sys; from uns_pose_ros.cli.main import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (main.DONE, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_sigterm_and_a_closed_terminal_end_a_command_as_ctrl_c_does(
    number: signal.Signals,
    trucks: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cleaned = []

    def stopped(path: Path) -> None:
        try:
            os.kill(os.getpid(), number)
            time.sleep(60)
        finally:
            os.kill(os.getpid(), number)  # whoever is impatient does not end the clean-up
            cleaned.append(path)

    monkeypatch.setattr(artifacts, "load_alignment", stopped)
    before = signal.getsignal(number)
    ended = run("evaluate", "alignment", trucks, "--labels", trucks / "labels.json")
    assert ended == 128 + number and len(cleaned) == 1
    assert signal.getsignal(number) is before
    assert capsys.readouterr().err.splitlines() == [
        "uns-pose evaluate alignment: stopped; what was finished is kept, the same command goes on"
    ]


def test_a_full_disk_behind_stdout_is_one_line() -> None:
    code = "import sys; from uns_pose_ros.cli.main import main; sys.exit(main())"
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code, "--help"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    said = "uns-pose: the output cannot be written (No space left on device)\n"
    assert (done.returncode, done.stderr) == (main.BAD_INPUT, said)


def test_a_file_that_may_not_be_read_is_one_line(
    trucks: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(artifacts, "load_alignment", refused)
    ended = run("evaluate", "alignment", trucks, "--labels", trucks / "labels.json")
    assert ended == main.BAD_INPUT
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{trucks}/alignment.json: cannot be read or written (Permission denied)" in line
