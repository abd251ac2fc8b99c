"""ObjectNet3D from files in its own format."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mini_views import AXES, VIEWS, pascal_item, write_matlab, write_objectnet3d
from uns_pose_ros.datasets.objectnet3d import read_objectnet3d


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_objectnet3d(tmp_path)
    return tmp_path


def test_images_whose_first_object_is_a_car_are_read(root: Path) -> None:
    read = read_objectnet3d(root, "car", "test")
    assert not read.left_out
    assert [one.image.name for one in read.objects] == [f"n0{k}.JPEG" for k in range(4)]
    for labeled, (_, rows) in zip(read.objects, VIEWS, strict=True):
        expected = torch.tensor(rows, dtype=torch.float64) @ torch.tensor(AXES).double().T
        torch.testing.assert_close(
            labeled.cam_from_object[:3, :3], expected, atol=6e-5, rtol=0
        )


def test_an_object_without_a_focal_length_and_an_image_that_is_missing_are_left_out(
    root: Path,
) -> None:
    item = pascal_item((0, 0, 0, 2))
    item["viewpoint"]["focal"] = 0.0
    write_matlab(root / "Annotations" / "n00.mat", [item], packed=False)
    (root / "Images" / "n02.JPEG").unlink()
    read = read_objectnet3d(root, "car", "test")
    assert len(read.objects) == 2
    assert read.left_out.lines() == [
        "images without a focal length: 1 (n00)",
        "images whose file is missing: 1 (n02)",
    ]
    buses = read_objectnet3d(root, "bus", "test")
    assert not buses.objects and buses.left_out.counts == {
        "images whose file is missing": 1
    }
