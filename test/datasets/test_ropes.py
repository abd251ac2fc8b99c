"""ROPE from files in its own format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from msgspec import convert

from mini_boxes import BOXED, ROPE_CAMERA, project_box, rope_image, rope_tag, write_ropes
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import symmetry_rotations
from uns_pose_ros.datasets import ropes
from uns_pose_ros.datasets.ropes import read_ropes, symmetry_of_tag


def test_every_field_comes_back_as_it_was_written(tmp_path: Path) -> None:
    write_ropes(tmp_path)
    read = read_ropes(tmp_path, "bowl", "test")
    assert read.left_out.counts == {"objects that are marked as not valid": 1}
    assert len(read.objects) == 2
    for labeled, (pose, extents) in zip(read.objects, BOXED, strict=True):
        np.testing.assert_allclose(labeled.cam_from_object.numpy(), pose, atol=1e-9)
        assert labeled.extents is not None and labeled.metric and labeled.calibrated
        np.testing.assert_allclose(labeled.extents.numpy(), extents, atol=1e-6)
        np.testing.assert_allclose(labeled.camera.matrix.numpy(), ROPE_CAMERA)
        np.testing.assert_allclose(
            labeled.box.numpy(), project_box(ROPE_CAMERA, pose, extents), atol=1e-3
        )
    assert [one.is_symmetric for one in read.objects] == [True, False]
    symmetry = read.objects[0].symmetry
    assert symmetry is not None and symmetry.axis.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("axes", "order", "count"),
    [
        ({}, 1, 1),
        ({"y": "half"}, 2, 2),
        ({"x": "quarter"}, 4, 4),
        ({"y": "any"}, 0, None),
        ({"x": "half", "y": "half", "z": "half"}, 2, 4),
        ({"x": "half", "y": "quarter", "z": "half"}, 4, 8),
        ({"x": "half", "y": "any", "z": "half"}, 0, None),
        ({"x": "quarter", "y": "quarter", "z": "quarter"}, 4, 24),
    ],
)
def test_a_tag_gives_the_group_of_its_rotations(
    axes: dict[str, str], order: int, count: int | None
) -> None:
    tag = convert(rope_tag(**axes), ropes._SymmetryTag)
    symmetry, turns, is_sphere = symmetry_of_tag(tag)
    assert (symmetry.order, is_sphere) == (order, False)
    if turns is not None:
        assert torch.equal(turns[0].round(decimals=9), torch.eye(3, dtype=torch.float64))
    if count is None:
        return
    about = symmetry_rotations(symmetry.order, symmetry.axis)
    every = about[:, None] @ (torch.eye(3).double()[None] if turns is None else turns.mT)
    flat = every.reshape(-1, 9).round(decimals=6) + 0.0
    group = {tuple(row) for row in flat.tolist()}
    assert len(flat) == count == len(group)
    products = (every.reshape(-1, 1, 3, 3) @ every.reshape(1, -1, 3, 3)).reshape(-1, 9)
    assert {tuple(row) for row in (products.round(decimals=6) + 0.0).tolist()} == group


def test_a_ball_may_be_turned_at_will() -> None:
    for axes in ({"x": "any", "y": "any"}, {"x": "any", "y": "quarter"}):
        assert symmetry_of_tag(convert(rope_tag(**axes), ropes._SymmetryTag))[2]


def changed(name: str, **change: Any) -> dict[str, Any]:
    objects = rope_image()["objects"]
    return {"objects": objects | {name: objects[name] | change}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"objects": []}, "not a valid annotation of ROPE"),
        ({"camera": {}}, "not a valid annotation of ROPE"),
        (changed("1_bowl", translation=[0, 0]), "not a valid annotation of ROPE"),
        (changed("1_bowl", quaternion_wxyz=[0, 0, 0, 0]), "1_bowl: its quaternion"),
        (
            changed("1_bowl", translation=[0, 0, -1]),
            "1_bowl: a corner of the box is behind",
        ),
    ],
)
def test_a_bad_annotation_is_refused_by_one_line(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    write_ropes(tmp_path, **change)
    with pytest.raises(InvalidInput, match=said) as error:
        read_ropes(tmp_path, "bowl", "test")
    assert "000010_meta.json: " in str(error.value) and "\n" not in str(error.value)


def test_what_is_missing_is_counted_or_refused(tmp_path: Path) -> None:
    other = rope_image()["objects"]["1_bowl"]
    other["meta"]["oid"] = "unknown"
    write_ropes(tmp_path, **changed("1_bowl", meta=other["meta"]))
    (tmp_path / "ROPE" / "000003" / "000010_color.png").unlink()
    assert read_ropes(tmp_path, "bowl", "test").left_out.counts == {
        "objects whose instance is not listed": 1,
        "objects whose image is missing": 1,
        "objects that are marked as not valid": 1,
    }
    (tmp_path / "ROPE" / "000003" / "000010_meta.json").unlink()
    with pytest.raises(InvalidInput, match=r"no SCENE/FRAME_meta\.json in it"):
        read_ropes(tmp_path, "bowl", "test")
    (tmp_path / "Meta" / "real_obj_meta.json").unlink()
    with pytest.raises(InvalidInput, match="list of instances is not there"):
        read_ropes(tmp_path, "bowl", "test")
