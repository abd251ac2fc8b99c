"""Named frames are defined in a browser by clicks on the template and on images of videos."""

from __future__ import annotations

import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from browsing import browser, wait
from small_model import one_triangle
from uns_pose_ros.cli.frames_command import add_frame, remove_frame
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import (
    from_parts,
    invert,
    quaternion_to_matrix,
    rotation_from_vector,
    split_similarity,
    transform,
)
from uns_pose_ros.core.types import Camera, CategoryModel
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.schema.frames_record import FRAMES, read_frames
from uns_pose_ros.visualization.frames_editor import _VIEW, FramesEditor
from uns_pose_ros.visualization.placed_images import PlacedVideo, PosedImage

CUBE = torch.tensor(
    [[x, y, z] for x in (-0.3, 0.3) for y in (-0.3, 0.3) for z in (-0.3, 0.3)]
)
FACES = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
MIDDLE = (  # of the view, which is the largest canvas
    "[...document.querySelectorAll('canvas')].map(c => c.getBoundingClientRect())"
    ".sort((a, b) => b.width - a.width).slice(0, 1)"
    ".map(box => [box.x + box.width / 2, box.y + box.height / 2])[0]"
)
SAVE = (
    "[...document.querySelectorAll('button')]"
    ".find(b => b.innerText.trim().toLowerCase() === 'save').click()"
)
TRIANGLES = torch.tensor([[f[0], f[k], f[k + 1]] for f in FACES for k in (1, 2)])


def cube() -> CategoryModel:
    unit = torch.nn.functional.normalize(torch.ones(8, 8), dim=1)
    return CategoryModel("cube", CUBE, TRIANGLES, unit, unit[:1], {})


# the video: a cube of 1.2 times the size, far from the origin of its own frame
CANON_FROM_OBJ = from_parts(
    rotation_from_vector(torch.tensor([0.4, -0.2, 2.0], dtype=torch.float64)),
    torch.tensor([0.3, -0.1, 0.2], dtype=torch.float64),
    0.4,
)
LARGER = 1.2 * CUBE.double()
KNOB = torch.tensor([-0.36, 0.1, -0.12], dtype=torch.float64)  # on the larger cube's side
CAMERA = Camera(
    torch.tensor([[300.0, 0, 130], [0, 310, 120], [0, 0, 1]], dtype=torch.float64), 320, 200
)


def cam_from_obj(azimuth: float) -> Tensor:
    """The pose of a camera that looks at the cube from a distance of 2.5 diameters."""
    away = torch.tensor(azimuth, dtype=torch.float64).deg2rad()
    eye = 2.5 * torch.stack([away.cos(), away.sin(), torch.tensor(0.3).double()])
    forward = -eye / eye.norm()
    down = torch.tensor([0.0, 0.0, -1.0], dtype=torch.float64)
    right = torch.nn.functional.normalize(torch.linalg.cross(down, forward), dim=0)
    rotation = torch.stack([right, torch.linalg.cross(forward, right), forward])
    cam_from_canon = from_parts(rotation, -rotation @ eye)
    scale = split_similarity(CANON_FROM_OBJ)[2]
    # a rigid pose whose unit is the video's
    pose = cam_from_canon @ CANON_FROM_OBJ
    pose[:3] /= scale
    return pose


def knob_image(azimuth: float) -> PosedImage:
    """The larger cube in gray with a magenta knob, drawn by OpenCV."""
    pose = cam_from_obj(azimuth)
    points = transform(invert(CANON_FROM_OBJ), torch.cat([LARGER, KNOB[None]]))
    pixels, _ = cv2.projectPoints(
        points.numpy(),
        cv2.Rodrigues(pose[:3, :3].numpy())[0],
        pose[:3, 3].numpy(),
        CAMERA.matrix.numpy(),
        None,
    )
    corners, knob = pixels[:-1, 0], pixels[-1, 0]
    image = np.full((CAMERA.height, CAMERA.width, 3), 230, np.uint8)
    cv2.fillConvexPoly(
        image, cv2.convexHull(corners.astype(np.float32)).astype(int), (90,) * 3
    )
    cv2.circle(image, tuple(round(float(x)) for x in knob), 4, (255, 0, 255), -1)
    return PosedImage(image, CAMERA, pose)


def larger_cube() -> PlacedVideo:
    def read(number: int) -> PosedImage:
        if number == 2:
            raise InvalidInput("003.png: cut off")
        return knob_image(160.0 + 30 * number)

    return PlacedVideo(
        CANON_FROM_OBJ, LARGER, TRIANGLES, ("001.png", "002.png", "003.png"), read
    )


@pytest.fixture
def editor(tmp_path: Path) -> Iterator[FramesEditor]:
    pytest.importorskip("viser")
    artifacts.save_model(one_triangle("cube"), tmp_path)
    made = FramesEditor(
        cube(),
        partial(add_frame, tmp_path),
        partial(remove_frame, tmp_path),
        port=18070,
        videos={"clip_01": larger_cube, "clip_02": larger_cube},
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


def test_a_saved_frame_is_picked_moved_and_keeps_its_preference(
    editor: FramesEditor, tmp_path: Path
) -> None:
    text = (
        "{name: rim, position: [0, 0, 0.3], width: 0.1, follow: rigid, prefer: [0, 0, -1]}"
    )
    (tmp_path / FRAMES).write_text(f"frames: [{text}]")
    editor._show(read_frames(tmp_path))
    editor.pick("rim")
    assert editor.placed is not None and editor.placed.tolist() == [0, 0, 0.3]
    editor.place((0.1, 2.0, -0.05), (0.0, -1.0, 0.0))
    editor.store()
    [rim] = read_frames(tmp_path)
    assert rim.position.tolist() == pytest.approx([0.1, 0.3, -0.05])
    assert (rim.width, rim.follow) == (0.1, "rigid")
    assert rim.prefer is not None and rim.prefer.tolist() == [0, 0, -1]


def test_a_ray_through_an_image_places_a_frame_on_the_object_of_its_video(
    editor: FramesEditor,
) -> None:
    editor.place_in_image((0.0, 0.0, 2.0), (0.0, 0.0, -1.0))  # no image is shown
    assert editor.placed is None
    editor.show_image("clip_01", 0)
    assert (editor._source.value, editor._number.value) == ("clip_01", 1)
    assert not editor._template.visible and editor._plane is not None
    place = editor._plane.place
    # a viewer who stands elsewhere clicks on the knob's pixel in the rectangle
    pixel = knob_image(160.0).image[..., 1] < 50
    knob = torch.from_numpy(np.argwhere(pixel).mean(0)[::-1].copy())
    viewer = place + torch.tensor([0.2, -0.1, 0.3], dtype=torch.float64)
    editor.place_in_image(viewer.tolist(), (editor._plane.point_of(knob) - viewer).tolist())
    assert editor.placed is not None
    assert editor.placed.tolist() == pytest.approx(KNOB.tolist(), abs=0.01)
    turn = quaternion_to_matrix(torch.tensor(editor._gizmo.wxyz, dtype=torch.float64))
    torch.testing.assert_close(turn[:, 0], torch.tensor([1.0, 0.0, 0.0]).double())

    corner = editor._plane.point_of(torch.zeros(2, dtype=torch.float64))
    editor.place_in_image(place.tolist(), (corner - place).tolist())
    assert "The surface of the object is not there" in editor._text.content


def test_the_fields_choose_the_image_and_an_image_that_cannot_be_read_is_said(
    editor: FramesEditor,
) -> None:
    editor._source.value = "clip_01"
    assert "clip_01/001.png" in editor._text.content
    editor._number.value = 2
    assert "clip_01/002.png" in editor._text.content and editor._current == ("clip_01", 1)
    editor._number.value = 3
    assert "Not shown: 003.png: cut off" in editor._text.content
    assert editor._current == ("clip_01", 1)
    editor._source.value = "clip_02"
    assert editor._current == ("clip_02", 0) and editor._number.value == 1
    editor._source.value = "template"
    assert editor._plane is None and editor._template.visible


def knob_spot(screenshot: np.ndarray) -> tuple[int, int] | None:
    """The middle of the largest magenta spot, px."""
    red, green, blue = screenshot.astype(int).transpose(2, 0, 1)
    spots = ((red > 180) & (green < 80) & (blue > 180)).astype(np.uint8)
    _, _, stats, middles = cv2.connectedComponentsWithStats(spots)
    areas = stats[1:, cv2.CC_STAT_AREA]
    if len(areas) == 0 or areas.max() < 40:
        return None
    x, y = middles[1 + areas.argmax()]
    return int(x), int(y)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no chromium")
def test_clicks_in_a_browser_place_frames_on_the_template_and_where_an_image_shows_it(
    editor: FramesEditor, tmp_path: Path
) -> None:
    with browser(editor.address, tmp_path / "profile") as page:
        wait(lambda: "save" in str(page.evaluate("document.body.innerText")).lower())

        def viewer_is_there() -> bool:
            viewers = editor._server.get_clients().values()
            return any(np.allclose(v.camera.position, _VIEW, atol=1e-3) for v in viewers)

        wait(viewer_is_there)

        def click() -> bool:
            page.click(*map(int, page.evaluate(MIDDLE)))
            return editor.placed is not None

        wait(click)
        placed = editor.placed
        assert placed is not None
        # the viewer stands at 0.9, -0.675, 0.525 and looks at the middle of the cube
        assert placed.tolist() == pytest.approx([0.3, -0.225, 0.175], abs=0.02)
        page.evaluate(SAVE)
        wait(lambda: read_frames(tmp_path))
        [handle] = read_frames(tmp_path)
        torch.testing.assert_close(handle.position, placed, atol=1e-5, rtol=0)
        wait(lambda: editor.placed is None)

        editor.show_image("clip_01", 0)

        def click_on_knob() -> bool:
            spot = knob_spot(page())
            if spot is not None and editor.placed is None:
                page.click(*spot)
            return editor.placed is not None

        wait(click_on_knob)
        placed = editor.placed
        assert placed is not None
        assert placed.tolist() == pytest.approx(KNOB.tolist(), abs=0.02)
        page.evaluate(SAVE)  # under the same name: the frame is moved
        wait(lambda: editor.placed is None)
    [handle] = read_frames(tmp_path)
    torch.testing.assert_close(handle.position, placed, atol=1e-5, rtol=0)
