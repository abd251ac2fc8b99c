"""Named frames are defined in a browser by clicks on the template."""

from __future__ import annotations

import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from browsing import browser, wait
from small_model import one_triangle
from uns_pose_ros.cli.frames_command import add_frame, remove_frame
from uns_pose_ros.core.geometry import quaternion_to_matrix
from uns_pose_ros.core.types import CategoryModel
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.schema.frames_record import FRAMES, read_frames
from uns_pose_ros.visualization.frames_editor import FramesEditor

CUBE = torch.tensor(
    [[x, y, z] for x in (-0.3, 0.3) for y in (-0.3, 0.3) for z in (-0.3, 0.3)]
)
FACES = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
SIDES = ("Width", "Height")
TRIANGLES = torch.tensor([[f[0], f[k], f[k + 1]] for f in FACES for k in (1, 2)])


def cube() -> CategoryModel:
    unit = torch.nn.functional.normalize(torch.ones(8, 8), dim=1)
    return CategoryModel("cube", CUBE, TRIANGLES, unit, unit[:1], {})


@pytest.fixture
def editor(tmp_path: Path) -> Iterator[FramesEditor]:
    pytest.importorskip("viser")
    artifacts.save_model(one_triangle("cube"), tmp_path)
    made = FramesEditor(
        cube(), partial(add_frame, tmp_path), partial(remove_frame, tmp_path), port=18070
    )
    yield made
    made.close()


def test_a_click_places_a_frame_into_the_surface_and_save_writes_it(
    editor: FramesEditor, tmp_path: Path
) -> None:
    editor.store()
    assert "Nothing is placed" in editor._text.content and not read_frames(tmp_path)
    editor.place((5.0, 5.0, 5.0), (0.0, 0.0, 1.0))  # misses
    assert editor.placed is None
    editor.place((0.1, 2.0, -0.05), (0.0, -1.0, 0.0))
    assert editor.placed is not None
    assert editor.placed.tolist() == pytest.approx([0.1, 0.3, -0.05])
    turn = quaternion_to_matrix(torch.tensor(editor._gizmo.wxyz, dtype=torch.float64))
    torch.testing.assert_close(turn[:, 0], torch.tensor([0.0, -1.0, 0.0]).double())
    torch.testing.assert_close(turn[:, 2], torch.tensor([0.0, 0.0, 1.0]).double())

    editor._name.value, editor._width.value = "a/b", 0.1
    editor.store()
    assert "Not saved: name" in editor._text.content and editor.placed is not None
    editor._name.value = "knob"
    editor.store()
    [knob] = read_frames(tmp_path)
    assert (knob.name, knob.width, knob.follow) == ("knob", 0.1, "surface")
    assert knob.position.tolist() == pytest.approx([0.1, 0.3, -0.05])
    assert editor._shown.keys() == {"/frame_knob", "/frame_knob/label"}
    assert editor.placed is None


def test_a_frame_that_a_person_wrote_meanwhile_stays_and_faults_are_said(
    editor: FramesEditor, tmp_path: Path
) -> None:
    (tmp_path / FRAMES).write_text("frames: [{name: rim, position: [0, 0, 0.3]}]")
    editor.place((0.1, 2.0, -0.05), (0.0, -1.0, 0.0))
    editor.store()
    assert [frame.name for frame in read_frames(tmp_path)] == ["rim", "handle"]
    editor.discard()
    assert [frame.name for frame in read_frames(tmp_path)] == ["rim"]
    editor.discard()
    assert "Not deleted" in editor._text.content and "no frame" in editor._text.content
    (tmp_path / FRAMES).write_text("frames: [<b>")
    editor.place((0.1, 2.0, -0.05), (0.0, -1.0, 0.0))
    editor.store()
    assert "Not saved" in editor._text.content and "<b>" not in editor._text.content


def test_the_page_needs_its_token(editor: FramesEditor) -> None:
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"http://127.0.0.1:{editor.port}/", timeout=60)
    with urllib.request.urlopen(editor.address, timeout=60) as answer:
        assert answer.status == 200


@pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no chromium")
def test_a_click_in_a_browser_places_a_frame_on_the_side_that_faces_it(
    editor: FramesEditor, tmp_path: Path
) -> None:
    with browser(editor.address, tmp_path / "profile") as page:
        wait(lambda: "save" in str(page.evaluate("document.body.innerText")).lower())

        middle = [int(page.evaluate(f"window.inner{side}")) // 2 for side in SIDES]

        def click() -> bool:
            page.click(*middle)
            return editor.placed is not None

        wait(click)
        placed = editor.placed
        assert placed is not None
        # the viewer stands at 0.9, -0.675, 0.525 and looks at the middle of the cube
        assert placed.tolist() == pytest.approx([0.3, -0.225, 0.175], abs=0.02)
        button = (
            "[...document.querySelectorAll('button')]"
            ".find(b => b.innerText.trim().toLowerCase() === 'save').click()"
        )
        page.evaluate(button)
        wait(lambda: read_frames(tmp_path))
    [handle] = read_frames(tmp_path)
    torch.testing.assert_close(handle.position, placed, atol=1e-5, rtol=0)
