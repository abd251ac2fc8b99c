"""Two commands on one category at once: each is right, or refused with one line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pairs_of_commands
import quick_work
from uns_pose_ros.cli import main
from uns_pose_ros.io.writing.target_lock import lock_target

CLI = "import sys; from uns_pose_ros.cli.main import main; sys.exit(main())"


def test_every_command_beside_every_other_is_right_or_refused(tmp_path: Path) -> None:
    script = pairs_of_commands.__file__
    done = subprocess.run(
        [sys.executable, script, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(done.stdout.splitlines()[-1])
    assert {name: outcome["wrong"] for name, outcome in outcomes.items()} == {
        name: [] for name in pairs_of_commands.HELD
    }
    for name, outcome in outcomes.items():
        ended = outcome["ended"]
        assert ended.keys() == pairs_of_commands.OTHERS.keys()
        if name in pairs_of_commands.READERS:
            assert main.BAD_INPUT not in ended.values(), (name, ended)
        else:
            assert ended[name] == main.BAD_INPUT  # the same command is at work there
        assert {ended[other] for other in ("estimate", "export", "evaluate")} == {main.DONE}


@pytest.mark.parametrize("command", ["import", "mask", "mask --points 3 4", "reconstruct"])
def test_the_refusal_names_the_command_at_work_and_its_process(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = tmp_path / "mug" / "clip_01"
    quick_work.write_quick_images(clip / "images")
    words = [str(tmp_path / "mug")]
    if command == "import":
        words = [str(clip / "images"), "--into", str(clip)]
    command, *options = command.split()
    with lock_target(clip):
        assert main.main([command, *words, *options]) == main.BAD_INPUT
    assert [path.name for path in clip.iterdir()] == ["images"]
    (line,) = capsys.readouterr().err.splitlines()
    start = re.escape(f"uns-pose {command}: {clip}: ")
    assert re.match(start + r"`\S+` \(process \d+\) is at work here", line)
    assert line.endswith(") is at work here; wait for it, or end it")


def test_of_two_imports_at_once_one_folder_comes_out_whole(tmp_path: Path) -> None:
    for name in ("first", "second"):
        quick_work.write_quick_images(tmp_path / name)
    into = tmp_path / "mug" / "clip_01"
    running = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                CLI,
                "import",
                str(tmp_path / name),
                "--into",
                str(into),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("first", "second")
    ]
    ended = [(process.communicate()[1], process.returncode) for process in running]
    assert sorted(code for _, code in ended) == [main.DONE, main.BAD_INPUT], ended
    (said,) = (text for text, code in ended if code == main.BAD_INPUT)
    assert "is at work here" in said or "exists already and was not made from" in said
    record = json.loads((into / "video.json").read_text())
    assert record["frames"] == len(list((into / "images").iterdir())) == 3
    assert [path.name for path in into.parent.iterdir()] == ["clip_01"]
