"""Pictures with their poses in a browser.

The server, the scene that it holds, and a screenshot where there is a browser.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from browsing import browser, shows_blue_and_red, wait
from small_model import CLIP
from streams import estimate, pose
from uns_pose_ros.cli import main
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import quaternion_to_matrix
from uns_pose_ros.core.types import Camera, CategoryModel
from uns_pose_ros.io.video_folder import load_video
from uns_pose_ros.visualization.browser_viewer import (
    Scene,
    Viewer,
    make_scene,
    template_meshes,
)

CAMERA = Camera(
    torch.tensor([[1000.0, 0, 640], [0, 1000, 360], [0, 0, 1]], dtype=torch.float64),
    1280,
    720,
)
TURNED = pose((0.0, 0.0, 40.0), (0.1, 0.0, 2.0))
BLUE = (20, 60, 250)  # of the image


def car() -> CategoryModel:
    corners = torch.tensor(
        [[-0.4, -0.2, -0.1], [0.4, -0.2, -0.1], [0.0, 0.2, -0.1], [0.0, 0.0, 0.1]]
    )
    unit = torch.nn.functional.normalize(torch.ones(4, 8), dim=1)
    return CategoryModel(
        "car",
        corners,
        torch.tensor([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]]),
        unit,
        unit[:1],
        {},
    )


def scenes() -> list[Scene]:
    """Two cars, then none."""
    image = np.full((720, 1280, 3), BLUE, np.uint8)
    cars = [
        estimate(TURNED, size=1.0),
        estimate(pose((0.0, 0.0, 0.0), (-0.5, 0.0, 3.0)), size=1.0),
    ]
    return [
        make_scene("first", image, CAMERA, cars, [0, 4]),
        make_scene("second", image, CAMERA, [], []),
    ]


@pytest.fixture
def viewer() -> Iterator[Viewer]:
    pytest.importorskip("viser")
    made = Viewer(scenes(), template_meshes([car()]), port=18080)
    yield made
    made.close()


def test_images_are_held_small_with_the_camera_of_the_large_one() -> None:
    first = scenes()[0]
    assert first.image.shape == (360, 640, 3)
    assert tuple(first.image[0, 0]) == BLUE
    assert first.camera is CAMERA


def test_the_server_serves_and_the_scene_holds_camera_image_template_and_pose_of_every_object(
    viewer: Viewer,
) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{viewer.port}", timeout=60) as answer:
        assert answer.status == 200
        assert b"<html" in answer.read()
    objects = {
        f"/car_{track}{part}" for track in (0, 4) for part in ("", "/template", "/label")
    }
    assert viewer.nodes.keys() == {"/camera"} | objects
    assert viewer.nodes["/camera"].aspect == pytest.approx(16 / 9)
    assert viewer.nodes["/camera"].fov == pytest.approx(2 * np.arctan(0.36))
    frame = viewer.nodes["/car_0"]
    assert np.allclose(frame.position, TURNED[:3, 3])
    assert torch.allclose(
        quaternion_to_matrix(torch.tensor(frame.wxyz)), TURNED[:3, :3], atol=1e-6
    )
    assert np.allclose(viewer.nodes["/car_0/template"].vertices, car().vertices)
    viewer.show(1)
    assert viewer.nodes.keys() == {"/camera"}
    viewer.show(0)
    assert viewer.nodes.keys() == {"/camera"} | objects


def test_a_connection_that_is_not_used_is_no_error(
    viewer: Viewer, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_connection(("127.0.0.1", viewer.port), timeout=60):
        pass
    with urllib.request.urlopen(
        f"http://127.0.0.1:{viewer.port}", timeout=60
    ) as answer:  # after the other one has ended
        assert answer.status == 200
    assert [record.getMessage() for record in caplog.records] == []


def test_a_viewer_without_scenes_is_an_error() -> None:
    pytest.importorskip("viser")
    with pytest.raises(InvalidInput, match="no image to show"):
        Viewer([], {})


@pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no chromium")
def test_a_browser_shows_the_image_and_the_template(viewer: Viewer, tmp_path: Path) -> None:
    with browser(f"http://127.0.0.1:{viewer.port}", tmp_path / "profile") as screenshot:
        wait(lambda: shows_blue_and_red(screenshot()))


def test_the_command_serves_a_bag_until_it_is_interrupted(
    chair_model: Path, tmp_path: Path
) -> None:
    pytest.importorskip("viser")
    pytest.importorskip("rosbags")
    from bag_writer import write_photographs

    write_photographs(tmp_path / "bag", load_video(CLIP).frames[:4:2])
    code = "import sys; from uns_pose_ros.cli.main import main; sys.exit(main())"
    words = [
        "view",
        str(chair_model),
        str(tmp_path / "bag"),
        "--device",
        "cpu",
        "--port",
        "18090",
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        address = next(text for text in process.stdout if text.startswith("http://"))
        with urllib.request.urlopen(address.split()[0], timeout=60) as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.kill()


def test_without_viser_the_command_says_what_to_install_before_it_estimates(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "viser", None)
    assert main.main(["view", "mug/model", "photo.jpg"]) == 2
    assert (
        'the Python package viser is missing: python3 -m pip install "uns_pose_ros[view]"'
        in capsys.readouterr().err
    )
