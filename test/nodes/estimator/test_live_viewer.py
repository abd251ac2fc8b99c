"""The results of a running node as a scene in a browser, over DDS, with the scripted node."""

from __future__ import annotations

import itertools
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("viser")
import numpy as np
import torch
from rclpy.parameter import Parameter
from std_msgs.msg import Header

from browsing import browser, shows_blue_and_red, wait
from ros_robot import PATIENCE, Robot
from scripted_node import TRIANGLES, VERTICES
from uns_pose_ros.cli import main
from uns_pose_ros.nodes import estimator
from uns_pose_ros.nodes.estimator.live_viewer import LiveScene
from uns_pose_ros.nodes.ros_compat import array_to_image

COMMAND = "import sys; from uns_pose_ros.cli.main import main; sys.exit(main())"


def test_the_scene_is_made_of_the_results_of_one_image(plain: Robot) -> None:
    robot, seconds = plain, itertools.count(1)
    # a busy node leaves out images of seconds: the cars keep their numbers
    robot.renew(models=["size"], **{"tracking.max_age": 3600.0})
    scene = LiveScene(robot.node, robot.target, "/camera_info")
    assert scene.missing == "the overlay on /estimator/overlay, the camera on /camera_info"

    def complete() -> Any:
        robot.calibrate()
        robot.show(2, next(seconds))
        return (
            scene.newest is not None and len(scene.newest.estimates) == 2 and scene.newest
        )

    shot = robot.wait("a scene with both cars", complete)
    assert scene.missing == ""
    corners, triangles = scene.shapes["car"]
    assert torch.allclose(corners[triangles], VERTICES[TRIANGLES])
    assert shot.tracks == (0, 1)
    assert shot.image.shape == (480, 640, 3)
    assert (shot.camera.width, float(shot.camera.matrix[0, 0])) == (640, 600.0)
    second = shot.estimates[1]
    assert second.cam_from_canon[:3, 3].tolist() == pytest.approx([0.25, 0.0, 0.75])
    assert second.scale == pytest.approx(0.25, abs=1e-6)
    assert second.score == pytest.approx(0.9)


def test_lengths_are_no_meters_where_the_node_does_not_know_the_size(plain: Robot) -> None:
    robot, seconds = plain, itertools.count(1)
    scene = LiveScene(robot.node, robot.target, "/camera_info")

    def shown(metric: bool) -> Any:
        robot.calibrate()
        robot.show(1, next(seconds))
        found = scene.newest.estimates if scene.newest is not None else ()
        return bool(found) and all(one.metric is metric for one in found)

    robot.wait("a scene without meters", lambda: shown(False))
    assert robot.set(Parameter("object_diameter", value=0.3)).successful
    robot.wait("a scene with meters", lambda: shown(True))


@pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no chromium")
def test_the_command_shows_a_running_node_in_a_browser_until_it_is_interrupted(
    robot: Robot, tmp_path: Path
) -> None:
    robot.start("-p", "models:=[size]")
    robot.wait_until_listening()
    words = [sys.executable, "-c", COMMAND, "view", "live", "--port", "18110"]
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    lines = list[str]()
    assert process.stdout is not None
    threading.Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
    film = threading.Thread(target=_film, args=(robot, process), daemon=True)
    film.start()
    try:
        address = wait(lambda: [line for line in lines if line.startswith("http://")])[
            0
        ].split()[0]
        with browser(address, tmp_path / "profile") as screenshot:
            wait(lambda: shows_blue_and_red(screenshot()))
        process.send_signal(signal.SIGINT)
        _, log = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, log
        assert "Traceback" not in log
    finally:
        process.kill()
        film.join(PATIENCE)


def _read(stream: IO[str], lines: list[str]) -> None:
    lines.extend(iter(stream.readline, ""))


def _film(robot: Robot, process: subprocess.Popen[str]) -> None:
    """Send images of one car on a blue background while the process runs."""
    image = np.full((480, 640, 3), (1, 0, 250), np.uint8)
    for seconds in itertools.count(1):
        if process.poll() is not None:
            return
        header = Header(frame_id="camera")
        header.stamp.sec = seconds
        robot.calibrate()
        robot.images.publish(array_to_image(image, "rgb8", header))
        threading.Event().wait(0.2)


def test_without_ros_the_command_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "uns_pose_ros.nodes.estimator.live_viewer")
    monkeypatch.delattr(estimator, "live_viewer")
    monkeypatch.setitem(sys.modules, "rclpy", None)
    assert main.main(["view", "live"]) == 2
    assert "ROS 2 is not there (rclpy): source its setup.bash" in capsys.readouterr().err
