"""Start values of the recorder that are not valid: one line and an error exit."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from uns_pose_ros.nodes.recorder.recorder_node import run_recorder


@pytest.fixture(autouse=True)
def interrupts() -> Iterator[None]:
    """The handler of Ctrl-C stays."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    "line",
    [
        "view_angle: .nan",
        "clipped: .inf",
        "clipped: 0.0",
        "darkest: 255",
        "darkest: 40.5",
        "view_angle: eight",
        "category: 3",
        "record: 1",
        "keep_free: [1.0]",
    ],
)
def test_a_bad_start_value_of_a_file_ends_the_start_with_code_2_and_one_line(
    ros_domain: int, tmp_path: Path, capfd: pytest.CaptureFixture[str], line: str
) -> None:
    file = tmp_path / "recorder.yaml"
    file.write_text(f"/**:\n  ros__parameters:\n    autostart: false\n    {line}\n")
    code = run_recorder(["recorder", "--ros-args", "--params-file", str(file)])
    log = capfd.readouterr().err
    assert code == 2, log
    # another test of this process may have made a node of the same name
    ours = [line for line in log.splitlines() if "[rcl.logging_rosout]" not in line]
    assert len(ours) == 1, log
    assert line.split(":")[0] in log
