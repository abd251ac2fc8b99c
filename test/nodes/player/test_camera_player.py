"""The node that plays a film as a camera, over DDS, and its command."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy")
import cv2
import torch
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image

from ros_robot import PATIENCE
from source_files import checks, save_photograph, write_film
from uns_pose_ros.core.types import Camera
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.camera_json import camera_record
from uns_pose_ros.io.ros.ros_messages import decode_image, nanoseconds, read_camera_info
from uns_pose_ros.nodes import entry_points
from uns_pose_ros.nodes.player import camera_player
from uns_pose_ros.nodes.player.camera_player import CameraPlayer, play
from uns_pose_ros.nodes.player.image_source import ImageSource, PlayedImage

LENS = torch.tensor([0.1, -0.02, 0.001, 0.002, 0.03, 0.01, 0.02, 0.003]).double()
MATRIX = torch.tensor([[80.0, 0, 30], [0, 81, 20], [0, 0, 1]]).double()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(2):
        save_photograph(tmp_path / f"{number}.jpg", checks(20 + 20 * number))
    return tmp_path


@pytest.mark.parametrize("lens", [LENS[:0], LENS[:4], LENS])
def test_a_folder_is_a_camera_that_repeats_with_stamps_of_now(
    ros_context: Context, folder: Path, lens: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    camera = Camera(MATRIX, 64, 48, lens)
    player = CameraPlayer("eye", context=ros_context)
    robot = Node("robot", context=ros_context)
    images: list[Image] = []
    infos: list[CameraInfo] = []
    robot.create_subscription(Image, "image", images.append, qos_profile_sensor_data)
    robot.create_subscription(CameraInfo, "camera_info", infos.append, 10)
    executor = SingleThreadedExecutor(context=ros_context)
    executor.add_node(robot)
    ended = threading.Event()
    listening = threading.Thread(target=_spin, args=(executor, ended))
    listening.start()
    _wait(
        lambda: all(player.count_subscribers(topic) for topic in ("image", "camera_info"))
    )

    sent: list[PlayedImage] = []
    show = player.show

    def count(image: PlayedImage) -> None:
        sent.append(image)
        show(image)

    monkeypatch.setattr(player, "show", count)

    def have_come() -> bool:
        """Play some rounds; images may be lost, as those of a sensor may."""
        sent.clear()
        play(player, ImageSource(folder, camera, rate=20.0), rounds=4)
        assert len(sent) == 4 * 2
        return len(images) >= 6 and len(infos) >= 6

    _wait(have_come)
    ended.set()
    listening.join()
    for node in (player, robot):
        node.destroy_node()
    stamps = [nanoseconds(image.header.stamp) for image in images]
    assert len(stamps) >= 6 and sorted(set(stamps)) == stamps
    assert {image.header.frame_id for image in images} == {"eye"}
    means = {round(float(decode_image(image)[..., 0].mean()) / 100) for image in images}
    assert means == {1, 2}
    assert set(stamps) & {nanoseconds(info.header.stamp) for info in infos}
    read = read_camera_info(infos[0], 64, 48, rectified=False)
    assert torch.equal(read.matrix, MATRIX)
    assert torch.allclose(read.distortion[: len(lens)], lens)
    assert not bool(read.distortion[len(lens) :].any())


def _spin(executor: SingleThreadedExecutor, ended: threading.Event) -> None:
    while not ended.is_set():
        executor.spin_once(timeout_sec=0.05)


def _wait(ready: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_the_command_plays_once_on_the_topics_that_are_named(
    ros_domain: int, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    artifacts.write_json(folder / "K.json", camera_record(Camera(MATRIX, 64, 48)))
    given = [str(folder), "--once", "--rate", "50", "--camera", str(folder / "K.json")]
    given += ["--image", "/eye/image_raw", "--namespace", "left"]
    assert (
        camera_player.run_camera_player([*given, "--ros-args", "--log-level", "info"]) == 0
    )
    said = capfd.readouterr().err
    assert (
        "64 x 48 px on /eye/image_raw, focal length 80 px (given) on /left/camera_info, "
        "frame camera"
    ) in said
    assert "no --camera" not in said


def test_a_camera_that_nobody_knows_is_warned_of_with_what_it_may_cost(
    ros_domain: int, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert camera_player.run_camera_player([str(folder), "--once", "--rate", "50"]) == 0
    said = capfd.readouterr().err
    assert said.count("no --camera: a view of 60° is assumed. Lenses of 40° to 90°") == 1


def test_what_cannot_be_played_ends_the_command_with_code_2_and_one_line(
    ros_domain: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for given, reason in (
        ([str(tmp_path / "nothing.mp4")], "not there; a film"),
        ([str(tmp_path)], "no image can be read"),
        ([str(tmp_path), "--camera", str(tmp_path / "K.json")], "K.json"),
    ):
        assert camera_player.run_camera_player(given) == 2
        (line,) = capfd.readouterr().err.splitlines()
        assert line.startswith("camera_player: ") and reason in line


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (["--rate", "0"], "a number from 0 to 1000 is valid"),
        (["--rate", "fast"], "invalid"),
        (["--longest", "3"], "16 to 8192 px are valid"),
        ([], "source"),
    ],
)
def test_arguments_that_are_not_valid_are_refused(
    given: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        camera_player.run_camera_player([*(["film.mp4"] if given else []), *given])
    assert reason in capsys.readouterr().err


@pytest.fixture
def own_handlers() -> Iterator[None]:
    """Puts the handlers of signals back that a test sets."""
    before = {
        number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)
    }
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_further_interrupts_do_not_disturb_the_clean_up_after_the_first(
    tmp_path: Path, own_handlers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_film(tmp_path / "film.mp4", [checks(number) for number in range(4)])
    capture = cv2.VideoCapture
    steps: list[str] = []
    lost: list[object] = []

    def interrupt(step: str) -> None:
        steps.append(step)
        signal.raise_signal(signal.SIGINT)

    class Film:
        def __init__(self, *given: Any) -> None:
            self._film = capture(*given)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._film, name)

        def release(self) -> None:
            self._film.release()
            if steps:
                interrupt("film is closed")

    def play_film(given: list[str]) -> int:
        try:
            for _ in ImageSource(Path(given[0])).images():
                interrupt("image")
        except KeyboardInterrupt:
            return 0
        finally:
            interrupt("node is destroyed")
        return 1

    monkeypatch.setattr(cv2, "VideoCapture", Film)
    monkeypatch.setattr(camera_player, "run_camera_player", play_film)
    monkeypatch.setattr(sys, "unraisablehook", lost.append)
    assert entry_points.camera_player([str(path)]) == 0
    assert steps[0] == "image"
    assert sorted(steps[1:]) == ["film is closed", "node is destroyed"]
    assert lost == []


def test_bringup_starts_the_player(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[list[str]] = []

    def play_nothing(given: list[str]) -> int:
        called.append(given)
        return 0

    monkeypatch.setattr(entry_points, "camera_player", play_nothing)
    monkeypatch.setattr(sys, "argv", ["uns-pose-bringup", "camera", "mug.mp4", "--once"])
    assert entry_points.bringup() == 0
    assert called == [["mug.mp4", "--once"]]
