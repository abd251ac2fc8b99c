"""What the README says is what there is."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest

from uns_pose_ros.cli import main

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "README.md").read_text()


def test_every_topic_of_the_recorder_is_listed() -> None:
    folder = ROOT / "uns_pose_ros" / "nodes"
    source = "".join(
        (folder / name).read_text()
        for name in (
            "estimator/image_subscriber.py",
            "recorder/recorder_node.py",
            "managed_node.py",
            "tf_listener.py",
        )
    )
    used = set(
        re.findall(
            r'"(~/\w+|/tf|/tf_static|/diagnostics|image/compressed|camera_info)"', source
        )
    )
    page = (ROOT / "docs" / "recorder.md").read_text()
    assert used >= {
        "~/start",
        "~/stop",
        "~/status",
        "~/overlay",
        "/tf",
        "/tf_static",
        "camera_info",
    }
    assert not [topic for topic in used if f"`{topic}`" not in page]


def test_every_topic_of_the_node_is_listed() -> None:
    folder = ROOT / "uns_pose_ros" / "nodes"
    files = (
        "estimator/result_publishers.py",
        "estimator/image_subscriber.py",
        "estimator/region_inputs.py",
        "estimator/estimator_node.py",
        "ros_compat.py",
        "managed_node.py",
    )
    source = "".join((folder / name).read_text() for name in files)
    used = set(
        re.findall(
            r'"(~/\w+|/tf|/diagnostics|image/compressed|camera_info|detections_2d|mask|depth)"',
            source,
        )
    )
    listed = " ".join(
        line
        for line in TEXT.splitlines()
        if line.startswith("|") or line.startswith("Services")
    )
    assert used >= {
        "~/detections",
        "~/poses",
        "~/markers",
        "~/overlay",
        "~/reset",
        "/diagnostics",
        "camera_info",
        "mask",
    }
    assert not [topic for topic in used if f"`{topic}`" not in listed]


def test_every_command_of_the_readme_exists(capsys: pytest.CaptureFixture[str]) -> None:
    commands = re.findall(
        r"uns-pose ((?:evaluate |export (?=labels)|view (?=live))?[a-z]+)([^`\n]*)", TEXT
    )
    assert {name for name, _ in commands} >= {
        "run",
        "report",
        "estimate",
        "align",
        "weights",
        "evaluate alignment",
        "evaluate pose",
        "export labels",
    }
    for name, rest in set(commands):
        with contextlib.suppress(SystemExit):
            main.main([*name.split(), "--help"])
        text = capsys.readouterr().out
        for option in re.findall(r"--[\w.-]+", rest):
            assert option in text, f"uns-pose {name} {option}"


def test_every_make_target_and_every_file_of_the_readme_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make (\w+)  ", TEXT):
        assert f"\n{target}:" in makefile
    for path in re.findall(r"\]\(([\w/.]+)\)", TEXT):
        assert (ROOT / path).exists(), path


def test_the_virtual_environment_is_made_before_its_programs_are_used() -> None:
    assert TEXT.index("`make setup`") < TEXT.index(".venv/bin/")


def test_a_film_is_played_as_a_camera_before_a_robot_is_needed() -> None:
    before, robot = TEXT.split("## On a robot")
    assert ".venv/bin/uns-pose-bringup camera " in before
    assert robot


def test_every_launch_argument_of_the_readme_is_declared() -> None:
    lines = re.findall(
        r"ros2 launch uns_pose_ros (\w+\.launch\.py)([^`\n]*(?:\n   [^`\n]*)*)", TEXT
    )
    assert {name for name, _ in lines} == {"estimate.launch.py", "record.launch.py"}
    for name, rest in lines:
        source = (ROOT / "launch" / name).read_text() + (
            ROOT / "uns_pose_ros" / "nodes" / "bringup" / "launch_common.py"
        ).read_text()
        used = set(re.findall(r"(\w+):=", rest))
        assert used >= {"image", "camera_info"}
        assert not [argument for argument in used if f'"{argument}"' not in source], name
