"""Launch files start, watch and end processes; the processes are scripts of the tests."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("launch_ros", reason="launch_ros has no wheel; ros2 launch is needed")

from launch_prefix import Prefix


@pytest.fixture
def prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ros_domain: int) -> Prefix:
    return Prefix(tmp_path, monkeypatch)


def parameters(prefix: Prefix, name: str) -> dict[str, Any]:
    """Return the parameters that the launch file set."""
    [(_, entry)] = yaml.safe_load(prefix.arguments(f"{name}.yaml")).items()
    return dict(entry["ros__parameters"])


@pytest.mark.parametrize(("ended", "code"), [(0, 0), (2, 1), (139, 1)])
def test_a_node_that_fails_ends_the_launch_with_an_error(
    prefix: Prefix, ended: int, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    prefix.write("estimator", f"exit {ended}", "uns_pose_ros")
    assert prefix.run("estimate", {}) == code
    assert (f" has ended with code {ended}; its messages" in caplog.text) == bool(code)


@pytest.mark.parametrize(
    ("file", "given", "said"),
    [
        (
            "estimate",
            {"params_file": "/nope.yaml"},
            "params_file:=/nope.yaml: no such file",
        ),
        ("record", {"params_file": "/nope.yaml"}, "params_file:=/nope.yaml: no such file"),
        ("estimate", {"rviz": "true", "rviz_config": "/n.rviz"}, "rviz_config:=/n.rviz"),
        ("estimate", {"rectified": "maybe"}, "true or false is valid"),
        ("estimate", {"object_diameter": "big"}, "a number is valid"),
        ("record", {"record": "often"}, "true or false is valid"),
        ("replay", {"bag": "/nope.mcap"}, "bag:=/nope.mcap: no such file"),
    ],
)
def test_a_wrong_argument_ends_the_launch_before_a_process_starts(
    prefix: Prefix,
    file: str,
    given: dict[str, str],
    said: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert prefix.run(file, given) == 1
    assert said in caplog.text
    assert list(prefix.out.iterdir()) == []


def test_a_node_respawns_on_request(
    prefix: Prefix, monkeypatch: pytest.MonkeyPatch
) -> None:
    from uns_pose_ros.nodes.bringup import launch_common

    monkeypatch.setattr(launch_common, "_RESPAWN_DELAY", 0.1)
    prefix.write("recorder", "exit 3", "uns_pose_ros")

    def end_after_three(service: Any) -> None:
        def watch() -> None:
            while prefix.arguments("recorder").count("\n") < 2:
                time.sleep(0.05)
            service.shutdown()

        threading.Thread(target=watch, daemon=True).start()

    assert prefix.run("record", {"respawn": "true"}, end_after_three) == 0


def test_arguments_reach_the_estimator_with_their_types(prefix: Prefix) -> None:
    prefix.write("estimator", "exit 0", "uns_pose_ros")
    given = {
        "models": "/a/model,7",
        "object_diameter": "1",
        "fixed_frame": "odom",
        "frame_prefix": "7",
        "transport": "compressed",
        "rectified": "true",
        "use_sim_time": "True",
        "image": "/eye/image_raw",
    }
    assert prefix.run("estimate", given) == 0
    assert parameters(prefix, "estimator") == {
        "models": ["/a/model", "7"],
        "object_diameter": 1.0,
        "tracking.fixed_frame": "odom",
        "frame_prefix": "7",
        "transport": "compressed",
        "rectified": True,
        "autostart": True,
        "use_sim_time": True,
    }
    called = prefix.arguments("estimator")
    assert "config/estimator.yaml" in called
    assert "image/compressed:=/eye/image_raw/compressed" in called


def test_arguments_reach_the_recorder_with_their_types(prefix: Prefix) -> None:
    prefix.write("recorder", "exit 0", "uns_pose_ros")
    given = {"category": "mug", "clip": "7", "depth": "/d", "name": "film"}
    assert prefix.run("record", given) == 0
    assert parameters(prefix, "recorder") == {
        "category": str(Path("mug").absolute()),
        "clip": "7",
        "depth": "raw",
        "record": False,
        "autostart": True,
        "use_sim_time": False,
    }
    assert "__node:=film" in prefix.arguments("recorder")


def test_arguments_reach_the_camera_player(prefix: Prefix, tmp_path: Path) -> None:
    prefix.write("camera_player", "exit 0", "uns_pose_ros")
    film = tmp_path / "mug.mp4"
    film.touch()
    given = {"source": str(film), "rate": "3", "loop": "false", "image": "/eye/image_raw"}
    assert prefix.run("camera", {**given, "namespace": "left"}) == 0
    called = prefix.arguments("camera_player")
    assert called.startswith(f"{film} --frame-id camera --rate 3.0 --once --ros-args")
    assert "image:=/eye/image_raw" in called and "__ns:=/left" in called


def test_windows_that_close_do_not_end_the_node(prefix: Prefix) -> None:
    prefix.write("rviz2", "exit 1", "rviz2")
    prefix.write("rqt_image_view", "exit 1", "rqt_image_view")
    prefix.write("estimator", "sleep 1; exit 0", "uns_pose_ros")
    given = {"overlay": "true", "rviz": "true", "rviz_fixed_frame": "odom"}
    assert prefix.run("estimate", {"namespace": "left", **given}) == 0
    assert prefix.arguments("rqt_image_view").startswith("/left/estimator/overlay")
    assert "-f odom" in prefix.arguments("rviz2")
    assert "/estimator/markers:=/left/estimator/markers" in prefix.arguments("rviz2")
