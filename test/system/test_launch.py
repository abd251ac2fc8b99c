"""Launch files started for real, wherever `ros2 launch` is installed."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("rclpy")
from small_model import CLIP
from uns_pose_ros.io.video_folder import load_video

if TYPE_CHECKING:
    from ros_robot import Robot

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def installed() -> None:
    """Skip where the launch files cannot be started.

    No launch, or a package that colcon has not built.
    """
    pytest.importorskip("launch_ros")
    from ament_index_python.packages import (
        PackageNotFoundError,
        get_package_share_directory,
    )

    try:
        get_package_share_directory("uns_pose_ros")
    except PackageNotFoundError:
        pytest.skip("uns_pose_ros is not in an ament prefix (colcon build)")


# before the fixtures, which would train a model first
needs_launch = pytest.mark.skipif(
    importlib.util.find_spec("launch_ros") is None, reason="there is no launch_ros"
)


def ros2_has(verb: str) -> bool:
    """Whether this machine's `ros2` knows a command."""
    return (
        shutil.which("ros2") is not None
        and not subprocess.run(["ros2", verb, "--help"], capture_output=True).returncode
    )


def interrupted(process: subprocess.Popen[bytes]) -> int:
    """The exit code after SIGINT."""
    process.send_signal(signal.SIGINT)
    return process.wait(90)


@needs_launch
def test_estimate_starts_the_node_in_its_namespace_and_ends_clean(
    installed: None, robot: Robot
) -> None:
    if not ros2_has("launch"):
        pytest.skip("there is no ros2 launch")
    command = [
        "ros2",
        "launch",
        "uns_pose_ros",
        "estimate.launch.py",
        "autostart:=false",
        "namespace:=left",
    ]
    process = subprocess.Popen(command)
    try:
        robot.wait(
            "the node",
            lambda: ("estimator", "/left") in robot.node.get_node_names_and_namespaces(),
        )
    finally:
        code = interrupted(process)
    assert code == 0


@needs_launch
def test_what_is_recorded_and_played_is_found_by_the_estimator(
    installed: None, ros_domain: int, chair_model: Path, tmp_path: Path
) -> None:
    pytest.importorskip("launch_testing")
    given = {
        "UNS_POSE_TEST_MODEL": str(chair_model),
        "UNS_POSE_TEST_FOLDER": str(tmp_path / "chair"),
    }
    paths = os.pathsep.join(
        [str(ROOT / "test" / "support"), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    command = [
        sys.executable,
        "-c",
        "from launch_testing.launch_test import main; main()",
        str(ROOT / "test/support/chain_launch.py"),
    ]
    done = subprocess.run(
        command,
        env={**os.environ, **given, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@needs_launch
def test_replay_plays_a_bag_to_the_node_and_ends_after_it(
    installed: None, robot: Robot, chair_model: Path, tmp_path: Path
) -> None:
    if not ros2_has("bag"):
        pytest.skip("there is no ros2 bag")
    pytest.importorskip("rosbags")
    from bag_writer import write_photographs

    write_photographs(tmp_path / "bag", load_video(CLIP).frames[:6:2])
    arguments = {
        "bag": tmp_path / "bag",
        "models": chair_model,
        "device": "cpu",
        "image": "/eye/image_raw",
        "camera_info": "/eye/camera_info",
        "rviz": "false",
        "rate": 0.2,
    }
    given = [f"{name}:={value}" for name, value in arguments.items()]
    process = subprocess.Popen(
        ["ros2", "launch", "uns_pose_ros", "replay.launch.py", *given]
    )
    try:
        robot.wait(
            "an object", lambda: [m for m in robot.received["detections"] if m.detections]
        )
        assert process.wait(90) == 0
    finally:
        process.kill()
