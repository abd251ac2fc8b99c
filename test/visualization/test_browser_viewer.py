"""Pictures with their poses in a browser.

The server, the scene that it holds, and a screenshot where there is a browser.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from browsing import browser, shows_blue_and_red, wait
from small_model import CLIP
from source_files import checks, save_photograph
from streams import estimate, pose
from uns_pose_ros.cli import main, view_commands
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import quaternion_to_matrix
from uns_pose_ros.core.named_frames import NamedFrame
from uns_pose_ros.core.types import Camera, CategoryModel
from uns_pose_ros.estimation.frame_placement import carry_frames
from uns_pose_ros.evaluation.bag_config import BagConfig
from uns_pose_ros.io.video_folder import load_video
from uns_pose_ros.visualization import browser_viewer
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
    with urllib.request.urlopen(viewer.address, timeout=60) as answer:
        assert answer.status == 200
        assert b"<html" in answer.read()
    objects = {
        f"/object_{track}{part}" for track in (0, 4) for part in ("", "/template", "/label")
    }
    assert viewer.nodes.keys() == {"/camera"} | objects
    assert viewer.nodes["/camera"].aspect == pytest.approx(16 / 9)
    assert viewer.nodes["/camera"].fov == pytest.approx(2 * np.arctan(0.36))
    frame = viewer.nodes["/object_0"]
    assert np.allclose(frame.position, TURNED[:3, 3])
    assert torch.allclose(
        quaternion_to_matrix(torch.tensor(frame.wxyz)), TURNED[:3, :3], atol=1e-6
    )
    assert np.allclose(viewer.nodes["/object_0/template"].vertices, car().vertices)
    viewer.show(1)
    assert viewer.nodes.keys() == {"/camera"}
    viewer.show(0)
    assert viewer.nodes.keys() == {"/camera"} | objects


def test_named_frames_stand_below_their_object(viewer: Viewer) -> None:
    place = torch.tensor([0.4, 0.0, 0.1], dtype=torch.float64)
    handle = NamedFrame("handle", place, torch.eye(3, dtype=torch.float64))
    found = estimate(TURNED, size=1.0)
    found = replace(found, frames=tuple(carry_frames(found, [handle])))
    image = np.full((72, 128, 3), BLUE, np.uint8)
    viewer.put(make_scene("framed", image, CAMERA, [found], [7]))
    axes = viewer.nodes["/object_7/frame_0"]
    assert np.allclose(axes.position, found.scale * place.numpy())
    assert np.allclose(np.abs(axes.wxyz[0]), 1.0)
    assert viewer.nodes["/object_7/frame_0/label"].text == "handle (carried)"
    viewer.show(1)
    assert viewer.nodes.keys() == {"/camera"}


def test_the_panel_shows_the_image_with_the_template_drawn_in(viewer: Viewer) -> None:
    panel = viewer._panel.image
    assert panel.shape == (360, 640, 3)
    assert tuple(panel[0, 0]) == BLUE
    middle = panel[120:240, 280:420].astype(int)  # the first car is there
    assert np.abs(middle - BLUE).max() > 100
    viewer.show(1)
    assert np.all(viewer._panel.image == BLUE)  # nothing was found there


def test_an_image_that_has_the_poses_drawn_in_is_shown_as_it_is() -> None:
    pytest.importorskip("viser")
    first = scenes()[0]
    made = Viewer([replace(first, drawn=True)], template_meshes([car()]), port=18080)
    try:
        assert np.all(made._panel.image == BLUE)
    finally:
        made.close()


def test_a_model_without_a_size_has_lengths_in_diameters() -> None:
    found = estimate(TURNED, size=1.0)
    assert browser_viewer._describe(found, 1).endswith(" at 0.10 0.00 2.00 m")
    unknown = replace(found, metric=False)
    assert browser_viewer._describe(unknown, 1).endswith(" at 0.10 0.00 2.00 diameters")


def test_images_and_bags_number_their_objects_from_1_and_say_that_a_camera_is_assumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_photograph(tmp_path / "image.jpg", checks(1))
    cars = [estimate(TURNED, size=1.0)] * 2
    found = view_commands._image_scenes((tmp_path,), lambda *_: cars, None)  # type: ignore[arg-type]
    assert [scene.tracks for scene in found] == [(1, 2)]
    assert found[0].note.startswith("no --camera: a view of 60° is assumed. Lenses of 40°")

    def bag_frames(*given: Any) -> None:
        result = SimpleNamespace(stamp=10**9, estimates=tuple(cars), tracks=(0, 4))
        given[-1](result, np.zeros((48, 64, 3), np.uint8), CAMERA)

    monkeypatch.setattr(view_commands.rosbag_evaluation, "estimate_bag_frames", bag_frames)
    (scene,) = view_commands._bag_scenes(tmp_path, None, BagConfig())  # type: ignore[arg-type]
    assert scene.tracks == (1, 5)


def test_a_connection_that_is_not_used_is_no_error(
    viewer: Viewer, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_connection(("127.0.0.1", viewer.port), timeout=60):
        pass
    with urllib.request.urlopen(
        viewer.address, timeout=60
    ) as answer:  # after the other one has ended
        assert answer.status == 200
    assert [record.getMessage() for record in caplog.records] == []


def test_a_viewer_without_scenes_is_an_error() -> None:
    pytest.importorskip("viser")
    with pytest.raises(InvalidInput, match="no image to show"):
        Viewer([], {})


def _status(address: str, **headers: str) -> int:
    request = urllib.request.Request(address, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_page_is_shown_only_at_the_address_with_its_token(viewer: Viewer) -> None:
    bare = f"http://127.0.0.1:{viewer.port}/"
    assert (
        _status(bare) == _status(f"{bare}?token=x") == _status(f"{bare}?token=%FF") == 403
    )
    assert _status(viewer.address) == 200
    with urllib.request.urlopen(viewer.address, timeout=60) as answer:
        cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
    assert _status(bare, Cookie=cookie.split(";")[0]) == 200
    assert _status(bare, Cookie=cookie.split("=")[0] + "=other") == 403
    assert _status(bare, Cookie='a="; b=') == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1"])
def test_a_websocket_of_another_page_is_refused_even_with_the_token(
    viewer: Viewer, origin: str
) -> None:
    import viser
    from websockets.exceptions import InvalidStatus
    from websockets.sync.client import connect
    from websockets.typing import Origin, Subprotocol

    address = viewer.address.replace("http://", "ws://")
    protocols = [Subprotocol(f"viser-v{viser.__version__}")]
    own = Origin(f"http://127.0.0.1:{viewer.port}")
    with connect(address, origin=own, subprotocols=protocols) as channel:
        assert channel.recv(timeout=60)
    with pytest.raises(InvalidStatus, match="403"):
        connect(address, origin=Origin(origin), subprotocols=protocols)
    with pytest.raises(InvalidStatus, match="403"):
        connect(address.partition("?")[0], origin=own, subprotocols=protocols)


HOSTILE = (
    "<img src=x onerror=\"document.title='owned'\">",
    "<script>document.title='owned'</script>",
    "[x](javascript:document.title='owned')",
    "{document.title='owned'}",
)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no chromium")
def test_names_of_files_and_categories_are_shown_as_text_by_a_browser(
    tmp_path: Path,
) -> None:
    pytest.importorskip("viser")
    category = "".join(HOSTILE)
    model = replace(car(), category=category)
    found = replace(estimate(TURNED, size=1.0), category=category)
    image = np.full((72, 128, 3), BLUE, np.uint8)
    scene = make_scene("".join(HOSTILE), image, CAMERA, [found], [1])
    viewer = Viewer([scene], template_meshes([model]), port=18080)
    try:
        with browser(viewer.address, tmp_path / "profile") as page:
            wait(lambda: HOSTILE[0] in str(page.evaluate("document.body.innerText")))
            wait(lambda: shows_blue_and_red(page()))
            assert page.evaluate("document.title") != "owned"
            assert page.evaluate("document.querySelectorAll('img[src=x]').length") == 0
            links = "document.querySelectorAll('a[href^=javascript]').length"
            assert page.evaluate(links) == 0
    finally:
        viewer.close()


@pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no chromium")
def test_a_browser_shows_the_image_and_the_template(viewer: Viewer, tmp_path: Path) -> None:
    with browser(viewer.address, tmp_path / "profile") as screenshot:
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
