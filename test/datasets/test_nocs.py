"""REAL275 from files in its own format."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mini_boxes import BOXED, REAL275, nocs_truth, project_box, write_nocs
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.datasets.nocs import read_nocs


def test_every_field_comes_back_as_it_was_written(tmp_path: Path) -> None:
    write_nocs(tmp_path)
    read = read_nocs(tmp_path, "mug", "real_test")
    assert not read.left_out and len(read.objects) == 2
    for labeled, (pose, extents) in zip(read.objects, BOXED, strict=True):
        np.testing.assert_allclose(labeled.cam_from_object.numpy(), pose, atol=1e-9)
        assert labeled.extents is not None and labeled.metric and labeled.calibrated
        np.testing.assert_allclose(labeled.extents.numpy(), extents)
        np.testing.assert_allclose(labeled.camera.matrix.numpy(), REAL275)
        np.testing.assert_allclose(
            labeled.box.numpy(), project_box(REAL275, pose, extents), atol=1e-9
        )


def test_a_mug_may_be_turned_where_its_handle_is_hidden_and_a_bowl_always(
    tmp_path: Path,
) -> None:
    write_nocs(tmp_path)
    orders = [one.symmetry for one in read_nocs(tmp_path, "mug", "real_test").objects]
    assert [one.order for one in orders if one is not None] == [1, 0]
    assert [one.axis.tolist() for one in orders if one is not None] == [[0, 0, 1]] * 2
    path = tmp_path / "gts" / "real_test" / "results_real_test_scene_1_0000.pkl"
    path.write_bytes(pickle.dumps(nocs_truth(number=2)))
    bowls = read_nocs(tmp_path, "bowl", "real_test").objects
    assert [one.symmetry.order for one in bowls if one.symmetry is not None] == [0, 0]


def test_without_boxes_they_are_those_of_the_projected_corners(tmp_path: Path) -> None:
    write_nocs(tmp_path, gt_bboxes=None)
    for labeled, (pose, extents) in zip(
        read_nocs(tmp_path, "mug", "real_test").objects, BOXED, strict=True
    ):
        np.testing.assert_allclose(
            labeled.box.numpy(), project_box(REAL275, pose, extents), atol=1e-9
        )


def test_a_missing_image_and_a_missing_pose_are_counted(tmp_path: Path) -> None:
    write_nocs(tmp_path, gt_RTs=None)
    read = read_nocs(tmp_path, "mug", "real_test")
    assert read.left_out.counts == {"objects without a pose": 2}
    (tmp_path / "real" / "test" / "scene_1" / "0000_color.png").unlink()
    read = read_nocs(tmp_path, "mug", "real_test")
    assert read.left_out.counts == {"objects whose image is missing": 2}


BESIDE = np.eye(4)  # beside the camera, hardly in front of it
BESIDE[:3, 3] = 1, 0, 1e-9


@pytest.mark.parametrize(
    ("truth", "said"),
    [
        ({"gt_class_ids": np.array([1, 2, 9])}, "1 to 6 are classes"),
        ({"gt_RTs": np.zeros((2, 4, 4))}, r"gt_RTs has the shape \(2, 4, 4\)"),
        ({"gt_RTs": np.zeros((3, 4, 4))}, "object 1: a rotation has"),
        ({"gt_RTs": np.diag([1.0, 1, -1, 1])[None].repeat(3, 0)}, "object 1: "),
        ({"gt_RTs": BESIDE[None].repeat(3, 0)}, "origin is seen at .* not near the image"),
        ({"gt_scales": np.full((3, 3), np.nan)}, "gt_scales holds a number"),
        ({"gt_scales": np.zeros((3, 3))}, "a side that is not positive"),
        ({"gt_bboxes": "none"}, "gt_bboxes has the shape"),
        ({"gt_class_ids": {1, 2}}, "not read .*no plain value .EMPTY_SET"),
    ],
)
def test_a_bad_truth_is_refused_by_one_line(
    tmp_path: Path, truth: dict[str, Any], said: str
) -> None:
    write_nocs(tmp_path, **truth)
    with pytest.raises(InvalidInput, match=said) as error:
        read_nocs(tmp_path, "mug", "real_test")
    assert "results_real_test_scene_1_0000.pkl: " in str(error.value)
    assert "valid" in str(error.value) and "\n" not in str(error.value)


def test_a_folder_without_truth_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"no results_val_SCENE_FRAME\.pkl in it"):
        read_nocs(tmp_path, "mug", "val")
