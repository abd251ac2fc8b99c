"""ImageNet3D from files in its own format."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from known_colors import CORNERS
from mini_views import AT, AXES, VIEWS, imagenet_item, write_annotations, write_imagenet3d
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.datasets.imagenet3d import read_imagenet3d


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_imagenet3d(tmp_path)
    return tmp_path


def test_every_field_comes_back_as_it_was_written(root: Path) -> None:
    read = read_imagenet3d(root, "car", "val")
    assert not read.left_out
    for labeled, (view, rows) in zip(read.objects, VIEWS, strict=True):
        expected = torch.tensor(rows, dtype=torch.float64) @ torch.tensor(AXES).double().T
        torch.testing.assert_close(
            labeled.cam_from_object[:3, :3], expected, atol=6e-5, rtol=0
        )
        assert labeled.cam_from_object[:3, 3].tolist() == [0, 0, view[3]]
        assert labeled.camera.matrix[0].tolist() == [3000, 0, AT[0]]
        assert labeled.box.tolist() == list(CORNERS)
    assert [one.difficult for one in read.objects] == [False, False, False, True]


def rewrite(root: Path, *items: dict[str, Any]) -> None:
    write_annotations(root / "annotations" / "car" / "n00.npz", items)


def test_what_the_authors_leave_out_is_counted_by_reason(root: Path) -> None:
    view = VIEWS[0][0]
    rewrite(
        root,
        imagenet_item(view, ignore=1),
        imagenet_item(view, distance=0.0),
        imagenet_item(view, **{"class": "bus"}),
        imagenet_item(view),
    )
    (root / "images" / "car" / "n01.JPEG").unlink()
    read = read_imagenet3d(root, "car", "val")
    assert len(read.objects) == 3
    assert sorted(read.left_out.counts.values()) == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"azimuth": 45.0}, "an angle is 45; .* angles in radians"),
        ({"azimuth": np.nan}, "`azimuth` is no finite number"),
        ({"px": None}, "`px` is no finite number"),
        ({"bbox": [9, 9, 3, 3]}, "the box 9 9 3 3 is empty"),
        ({"bbox": None}, "annotations, angles in radians, is valid"),
        ({"width": 0}, "`width` is 0 px"),
    ],
)
def test_a_number_that_is_no_view_is_refused_by_one_line(
    root: Path, change: dict[str, Any], said: str
) -> None:
    rewrite(root, imagenet_item(VIEWS[0][0], **change))
    with pytest.raises(InvalidInput, match=f"n00.npz: .*{said}") as error:
        read_imagenet3d(root, "car", "val")
    assert "\n" not in str(error.value)


class Runs:
    def __reduce__(self) -> Any:
        return os.mkdir, ("made",)


def test_an_annotation_that_would_run_something_is_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    rewrite(root, imagenet_item(VIEWS[0][0], extra=Runs()))
    with pytest.raises(InvalidInput, match=r"n00\.npz: not read \(it names posix.mkdir"):
        read_imagenet3d(root, "car", "val")
    assert not (root / "made").exists()
