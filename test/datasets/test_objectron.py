"""Objectron from messages in its own format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mini_boxes import BOXED, project_box
from mini_objectron import (
    LANDSCAPE,
    PORTRAIT,
    PROJECTION,
    message,
    objectron_sequence,
    write_objectron,
)
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.left_out import LeftOut
from uns_pose_ros.datasets.labeled_object import LabeledObject
from uns_pose_ros.datasets.objectron import read_objectron, read_sequence


def read(tmp_path: Path, data: bytes, category: str = "shoe") -> list[LabeledObject]:
    path = tmp_path / "0.pbdata"
    path.write_bytes(data)
    return read_sequence(path, tmp_path / "video.MOV", category, LeftOut())


def test_every_field_comes_back_as_it_was_written(tmp_path: Path) -> None:
    objects = read(tmp_path, objectron_sequence())
    assert [one.film_frame for one in objects] == [0, 0, 10, 10]
    for labeled, (pose, extents) in zip(objects, BOXED * 2, strict=True):
        np.testing.assert_allclose(labeled.cam_from_object.numpy(), pose, atol=1e-6)
        assert labeled.extents is not None and labeled.metric and labeled.calibrated
        np.testing.assert_allclose(labeled.extents.numpy(), extents, atol=1e-6)
        np.testing.assert_allclose(labeled.camera.matrix.numpy(), PORTRAIT, atol=1e-3)
        assert (labeled.camera.width, labeled.camera.height) == LANDSCAPE[::-1]
        np.testing.assert_allclose(
            labeled.box.numpy(), project_box(PORTRAIT, pose, extents), atol=0.01
        )
        assert labeled.symmetry is not None and labeled.symmetry.order == 1


def test_cups_and_bottles_may_be_turned_about_up(tmp_path: Path) -> None:
    for labeled in read(tmp_path, objectron_sequence(category="cup"), "cup"):
        assert labeled.symmetry is not None
        assert (labeled.symmetry.order, labeled.symmetry.axis.tolist()) == (0, [0, 0, 1])


def test_what_is_left_out_is_counted_by_reason(tmp_path: Path) -> None:
    write_objectron(tmp_path, objectron_sequence(frames=1, visibility=0.05))
    left_out = read_objectron(tmp_path, "shoe", "test").left_out
    assert left_out.counts == {"objects that are hardly visible": 2}
    (tmp_path / "videos" / "shoe" / "batch-1" / "0" / "video.MOV").unlink()
    left_out = read_objectron(tmp_path, "shoe", "test").left_out
    assert left_out.counts == {"films that are missing": 1}


def test_a_camera_of_another_convention_is_refused(tmp_path: Path) -> None:
    flipped = PROJECTION.copy()
    flipped[0, 0] *= -1  # mirrored
    flipped[0, 0] *= -1.3  # and another focal length
    with pytest.raises(InvalidInput, match="frame 0: its points in space are .* px off"):
        read(tmp_path, objectron_sequence(projection=flipped))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no objects or no frames"),
        (b"\xff" * 40, "not read"),
        (objectron_sequence()[:-7], "cut off"),
        (objectron_sequence(projection=PROJECTION[:3]), "16 finite numbers are needed"),
        (objectron_sequence(projection=PROJECTION * np.nan), "16 finite numbers"),
        (
            message([(1, message([(1, 1), (2, "shoe")])), (2, message([(3, b"")]))]),
            "0 x 0 px",
        ),
    ],
)
def test_a_broken_message_is_refused_by_one_line(
    tmp_path: Path, data: bytes, said: str
) -> None:
    with pytest.raises(InvalidInput, match=r"0\.pbdata: not read") as error:
        read(tmp_path, data)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_an_index_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    write_objectron(tmp_path)
    (tmp_path / "index" / "shoe_annotations_test").write_text("../../shoe\n")
    with pytest.raises(InvalidInput, match="leaves the folder"):
        read_objectron(tmp_path, "shoe", "test")
