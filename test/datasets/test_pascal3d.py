"""PASCAL3D+ from files in its own format."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.io import savemat

from known_colors import CORNERS
from mini_views import AT, AXES, VIEWS, pascal_item, write_matlab, write_pascal3d
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.datasets.labeled_object import crop_around_origin
from uns_pose_ros.datasets.pascal3d import read_pascal3d


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_pascal3d(tmp_path)
    return tmp_path


def test_every_field_comes_back_as_it_was_written(root: Path) -> None:
    read = read_pascal3d(root, "car", "val")
    assert not read.left_out
    assert [one.image.name for one in read.objects] == [f"n0{k}.JPEG" for k in range(4)]
    for labeled, (view, rows) in zip(read.objects, VIEWS, strict=True):
        axes = torch.tensor(AXES, dtype=torch.float64)
        expected = torch.tensor(rows, dtype=torch.float64) @ axes.T
        torch.testing.assert_close(
            labeled.cam_from_object[:3, :3], expected, atol=6e-5, rtol=0
        )
        assert labeled.cam_from_object[:3, 3].tolist() == [0, 0, view[3]]
        assert labeled.camera.matrix.tolist() == [
            [3000, 0, AT[0]],
            [0, 3000, AT[1]],
            [0, 0, 1],
        ]
        assert (labeled.camera.width, labeled.camera.height) == (96, 64)
        assert labeled.box.tolist() == list(CORNERS)
        assert not labeled.calibrated and labeled.extents is None
    assert [one.occluded for one in read.objects] == [False, False, False, True]


def test_the_true_crop_is_around_the_origin_and_holds_the_box(root: Path) -> None:
    labeled = read_pascal3d(root, "car", "val").objects[0]
    # the right edge of the box is 24 px from the origin, all others are nearer
    assert crop_around_origin(labeled).tolist() == [16, 6, 64, 54]


def left_out_of(root: Path, items: list[dict[str, Any]]) -> dict[str, int]:
    write_matlab(root / "Annotations" / "car_imagenet" / "n00.mat", items, packed=True)
    read = read_pascal3d(root, "car", "val")
    assert len(read.objects) == 4 - sum(read.left_out.counts.values())
    return read.left_out.counts


def viewed(**view: float) -> dict[str, Any]:
    item = pascal_item((0, 0, 0, 2))
    return item | {"viewpoint": item["viewpoint"] | view}


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (
            pascal_item((0, 0, 0, 2), viewpoint=np.zeros((0, 0))),
            "without an object that has",
        ),
        (pascal_item((0, 0, 0, 2), anchors=np.zeros((0, 0))), "no named anchors"),
        (pascal_item((0, 0, 0, 2), **{"class": "bus"}), "another category"),
        (viewed(px=-1.0), "origin left of or above"),
        (viewed(distance=0.001), "no distance"),
        (viewed(focal=0.0), "without a focal length"),
    ],
)
def test_what_the_paper_leaves_out_is_counted_by_reason(
    root: Path, item: dict[str, Any], reason: str
) -> None:
    ((said, count),) = left_out_of(root, [item]).items()
    assert reason in said and count == 1


def test_the_first_object_with_a_viewpoint_counts(root: Path) -> None:
    items = [
        pascal_item((0, 0, 0, 2), viewpoint=np.zeros((0, 0))),
        pascal_item((90, 0, 0, 2)),
        pascal_item((0, 0, 0, 2)),
    ]
    assert left_out_of(root, items) == {}
    first = read_pascal3d(root, "car", "val").objects[0]
    assert first.cam_from_object[:3, 1].tolist() == pytest.approx([0, 0, -1])


def test_a_missing_image_is_counted(root: Path) -> None:
    (root / "Images" / "car_imagenet" / "n02.JPEG").unlink()
    read = read_pascal3d(root, "car", "val")
    assert read.left_out.lines() == ["images whose file is missing: 1 (n02)"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "its header is not that of MATLAB 5"),
        (
            b"MATLAB 5.0 MAT-file" + b" " * 105 + b"\0\x01IM" + b"\x0e\0\0\0\xff\0\0\0",
            "not a",
        ),
        ({"other": 1}, "holds no `record`"),
        ({"record": 3.0}, "`record` is no struct"),
        ({"record": {"objects": [1.0, 2.0]}}, "`objects` is no struct array"),
    ],
)
def test_a_bad_file_is_refused_by_one_line(root: Path, content: Any, said: str) -> None:
    path = root / "Annotations" / "car_imagenet" / "n00.mat"
    path.write_bytes(content) if isinstance(content, bytes) else savemat(path, content)
    with pytest.raises(InvalidInput, match=r"n00\.mat: ") as error:
        read_pascal3d(root, "car", "val")
    assert said in str(error.value) and "is valid" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (viewed(azimuth=np.nan), "`azimuth` is no finite number"),
        (viewed(focal=1e12), "a camera matrix with 3e.15: at most 1e.07 is valid"),
        (
            pascal_item((0, 0, 0, 2), bbox=np.array([[9.0, 9, 3, 3]])),
            "the box 8 8 2 2 is empty",
        ),
        (
            pascal_item((0, 0, 0, 2), bbox=np.array([[9.0, 9, 3]])),
            "`bbox` is not x1 y1 x2 y2",
        ),
    ],
)
def test_a_number_that_is_no_view_is_refused(
    root: Path, item: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidInput, match=said):
        left_out_of(root, [item])


def test_a_file_that_unpacks_to_too_much_is_refused(root: Path) -> None:
    packed = zlib.compress(bytes(2**24 + 1))
    header = b"MATLAB 5.0 MAT-file" + b" " * 105 + b"\0\x01IM"
    tag = np.array([15, len(packed)], "<u4").tobytes()
    path = root / "Annotations" / "car_imagenet" / "n00.mat"
    path.write_bytes(header + tag + packed)
    with pytest.raises(InvalidInput, match="unpack to more than"):
        read_pascal3d(root, "car", "val")


@pytest.mark.parametrize(
    ("names", "said"),
    [("", "empty; one image name a line"), ("../a\n", "is no image name")],
)
def test_a_bad_list_is_refused(root: Path, names: str, said: str) -> None:
    (root / "Image_sets" / "car_imagenet_val.txt").write_text(names)
    with pytest.raises(InvalidInput, match=said):
        read_pascal3d(root, "car", "val")
