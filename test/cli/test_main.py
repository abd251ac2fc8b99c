"""Help, unknown commands and wrong options of the command line."""

from __future__ import annotations

import subprocess
import sys

import pytest

from command_line import run
from uns_pose_ros.cli import main


def test_help_lists_every_command_without_importing_torch() -> None:
    code = (
        "import sys; from uns_pose_ros.cli.main import main; main(['--help']); "
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(f"  {command}" in done.stdout for command in main.COMMANDS)


@pytest.mark.parametrize("name", main.COMMANDS)
def test_every_command_has_a_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run(*name.split(), "--help")
    assert end.value.code == main.DONE
    assert f"usage: uns-pose {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "a command is needed"),
        (["algin", "mug"], "'algin' is no command"),
        (
            ["evaluate", "poses"],
            "'evaluate poses' is no command; evaluate alignment, evaluate pose, evaluate bag, "
            "evaluate dataset are valid",
        ),
        (["align"], "no category named: uns-pose align CATEGORY"),
    ],
)
def test_an_unknown_command_gives_the_valid_ones(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words) == main.BAD_INPUT
    out, err = capsys.readouterr()
    assert said in err and "valid" in err
    assert not out


@pytest.mark.parametrize(
    "words",
    [["train"], ["align", "mug", "--sed", "3"], ["align", "mug", "--seed", "three"]],
)
def test_bad_usage_ends_with_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run(*words)
    assert end.value.code == main.BAD_INPUT


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["train", "mug", "--views", "5"], "--train.views"),
        (["train", "mug", "--views=5"], "--train.views"),
        (
            ["estimate", "m", "i.jpg", "--score-threshold=0.1"],
            "--estimator.score-threshold",
        ),
        (["align", "mug", "--vidoes=clip_*"], "--videos"),
    ],
)
def test_an_option_without_its_group_or_with_a_typing_error_gives_the_one_that_is_meant(
    words: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main.main(words)
    assert f"{meant} " in capsys.readouterr().err


def test_a_value_may_stand_behind_a_sign_of_equality() -> None:
    given = [
        "align",
        "mug",
        "--front=-x",
        "--up",
        "-y",
        "--json=-",
        "--seed=3",
        "--videos=",
    ]
    assert main._joined(given) == [
        *["align", "mug", "--front=-x", "--up=-y", "--json=-", "--seed", "3", "--videos="]
    ]


def test_a_missing_extra_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in (
        "reporting.category_report",
        "reporting.report_builder",
        "cli.report_command",
    ):
        monkeypatch.delitem(sys.modules, f"uns_pose_ros.{module}", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert run("report", "mug") == main.BAD_INPUT
    assert (
        "matplotlib" in (err := capsys.readouterr().err) and "uns_pose_ros[pipeline]" in err
    )
