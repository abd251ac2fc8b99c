"""COLMAP datasets in the layouts of several programs; what of them is left out is counted."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from synthetic import Truth, write_video
from uns_pose_ros.capture.import_source import import_video
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Video
from uns_pose_ros.io.colmap import SparseImage, read_sparse, write_sparse
from uns_pose_ros.io.images import read_image
from uns_pose_ros.io.video_folder import load_video

SIZE = 32


@pytest.fixture
def dataset(tmp_path: Path) -> tuple[Path, Truth]:
    """Six images with poses in sparse/, without masks."""
    folder = tmp_path / "data"
    truth = write_video(folder, seed=1, views=6, size=SIZE)
    shutil.rmtree(folder / "masks")
    return folder, truth


def imported(folder: Path) -> tuple[Video, dict[str, Any]]:
    into = folder.parent / "clip"
    import_video(folder, into)
    video = load_video(into, need_masks=False)
    return video, json.loads((into / "video.json").read_text())


def check_poses(video: Video, truth: Truth, scale: float = 1) -> None:
    """Every pose is that of the image of its name; the focal length is 1.6 times the size."""
    for frame in video.frames:
        assert frame.cam_from_obj is not None
        expected = truth.cam_from_obj[Path(frame.name).name]
        np.testing.assert_allclose(frame.cam_from_obj.numpy(), expected, atol=1e-9)
        assert float(frame.camera.matrix[0, 0]) == pytest.approx(1.6 * SIZE * scale)


def move(folder: Path, moves: dict[str, str]) -> None:
    for old, new in moves.items():
        (folder / new).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(folder / old, folder / new)


@pytest.mark.parametrize(
    "moves",
    [
        {"sparse": "sparse/1"},
        {"sparse": "colmap/sparse/0"},
        {"sparse": "distorted/sparse/0", "images": "input"},
        {"sparse": "dense/sparse", "images": "dense/images"},
        {"sparse": "dense/0/sparse", "images": "dense/0/images"},
        {"sparse": "0"},
        {"images": "input"},
        {"images": "images_2"},
        {"images": "colmap/images", "sparse": "colmap/sparse"},
    ],
    ids=lambda moves: " ".join(moves.values()),
)
def test_a_layout_of_another_program_is_imported(
    dataset: tuple[Path, Truth], moves: dict[str, str]
) -> None:
    folder, truth = dataset
    move(folder, {old: f"moved/{old}" for old in moves})
    move(folder, {f"moved/{old}": new for old, new in moves.items()})
    video, record = imported(folder)
    assert [frame.name for frame in video.frames] == list(truth.cam_from_obj)
    check_poses(video, truth)
    assert record["left_out"] == {}


def test_the_larger_of_two_models_is_taken_and_both_are_named(
    dataset: tuple[Path, Truth], caplog: pytest.LogCaptureFixture
) -> None:
    folder, truth = dataset
    move(folder, {"sparse": "other"})
    move(folder, {"other": "sparse/1"})
    sparse = read_sparse(folder / "sparse")
    wrong = [
        SparseImage(image.name, 1, torch.eye(4, dtype=torch.float64))
        for image in sparse.images[:3]
    ]
    write_sparse(folder / "sparse" / "0", sparse.cameras, wrong, sparse.points)
    video, record = imported(folder)
    assert len(video.frames) == 6 and record["model"] == "sparse/1"
    check_poses(video, truth)
    assert (
        "2 models: the largest, sparse/1 with 6 images, is taken; sparse/0 has 3"
        in caplog.text
    )


def test_the_undistorted_model_goes_with_images_and_the_distorted_with_input(
    dataset: tuple[Path, Truth],
) -> None:
    folder, truth = dataset
    shutil.copytree(folder / "images", folder / "input")
    sparse = read_sparse(folder / "sparse")
    other = [
        SparseImage(image.name, 1, torch.eye(4, dtype=torch.float64))
        for image in sparse.images
    ]
    write_sparse(folder / "distorted/sparse/0", sparse.cameras, other, sparse.points)
    video, record = imported(folder)
    assert record["model"] == "sparse"
    check_poses(video, truth)


def test_smaller_images_get_the_camera_of_their_size(
    dataset: tuple[Path, Truth], caplog: pytest.LogCaptureFixture
) -> None:
    folder, truth = dataset
    move(folder, {"images": "images_2"})
    for path in (folder / "images_2").iterdir():
        image = cv2.imread(str(path))
        assert image is not None
        cv2.imwrite(str(path), cv2.resize(image, (SIZE // 2, SIZE // 2)))
    video, _ = imported(folder)
    check_poses(video, truth, 0.5)
    assert "6 images have another size than their camera in the model" in caplog.text


@pytest.mark.parametrize("folder_in_name", ["images/", "images\\", "./", "left/"])
def test_names_that_start_with_other_folders_are_matched(
    dataset: tuple[Path, Truth], folder_in_name: str
) -> None:
    folder, truth = dataset
    path = folder / "sparse" / "images.txt"
    path.write_text(path.read_text().replace(" 1 0", f" 1 {folder_in_name}0"))
    video, record = imported(folder)
    assert len(video.frames) == 6 and record["left_out"] == {}
    check_poses(video, truth)


@pytest.mark.parametrize("ending", ["", ".JPG", ".png"])
def test_names_with_another_ending_are_matched(
    dataset: tuple[Path, Truth], ending: str
) -> None:
    folder, truth = dataset
    path = folder / "sparse" / "images.txt"
    path.write_text(path.read_text().replace(".jpg", ending))
    video, _ = imported(folder)
    assert [frame.name for frame in video.frames] == list(truth.cam_from_obj)
    check_poses(video, truth)


def test_images_in_subfolders_keep_their_names(dataset: tuple[Path, Truth]) -> None:
    folder, truth = dataset
    names = list(truth.cam_from_obj)
    move(folder / "images", {name: f"left {k % 2}/{name}" for k, name in enumerate(names)})
    path = folder / "sparse" / "images.txt"
    text = path.read_text()
    for k, name in enumerate(names):
        text = text.replace(name, f"left {k % 2}/{name}")
    path.write_text(text)
    video, _ = imported(folder)
    assert len(video.frames) == 6
    assert {Path(frame.name).parts[0] for frame in video.frames} == {"left 0", "left 1"}
    check_poses(video, truth)


def test_a_name_that_fits_two_files_is_left_out(dataset: tuple[Path, Truth]) -> None:
    folder, truth = dataset
    names = list(truth.cam_from_obj)
    for side in ("left", "right"):
        (folder / "images" / side).mkdir()
        shutil.copy(folder / "images" / names[0], folder / "images" / side / names[0])
    (folder / "images" / names[0]).unlink()
    video, record = imported(folder)
    assert len(video.frames) == 5
    assert record["left_out"] == {
        "registered images that are not in images/": 1,
        "images without a pose in the model": 2,
    }


def test_what_is_left_out_is_counted_by_reason(
    dataset: tuple[Path, Truth], caplog: pytest.LogCaptureFixture
) -> None:
    folder, truth = dataset
    names = list(truth.cam_from_obj)
    images = folder / "images"
    (images / names[0]).unlink()
    (images / names[1]).write_bytes((images / names[1]).read_bytes()[:300])
    cv2.imwrite(str(images / names[2]), np.zeros((SIZE, SIZE // 2, 3), np.uint8))
    shutil.copy(images / names[3], images / "more.jpg")
    (folder / "masks").mkdir()
    white = np.full((SIZE, SIZE), 255, np.uint8)
    cv2.imwrite(str(folder / "masks" / f"{names[3]}.png"), white)
    cv2.imwrite(str(folder / "masks" / names[4].replace("jpg", "png")), white[:9])
    with caplog.at_level(logging.WARNING):
        video, record = imported(folder)
    assert [frame.name for frame in video.frames] == names[3:]
    check_poses(video, truth)
    assert record["left_out"] == {
        "registered images that are not in images/": 1,
        "images without a pose in the model": 1,
        "images that cannot be read": 1,
        "images of another shape than their camera in the model": 1,
        "images without a mask, where others have one": 1,
        "masks of another size than their image": 1,
    }
    assert f"registered images that are not in images/: 1 ({names[0]})" in caplog.text
    assert [frame.mask is not None for frame in video.frames] == [True, False, False]


def test_links_that_leave_the_dataset_are_left_out(dataset: tuple[Path, Truth]) -> None:
    folder, truth = dataset
    names = list(truth.cam_from_obj)
    private = folder.parent / "private.jpg"
    (folder / "images" / names[0]).rename(private)
    (folder / "images" / names[0]).symlink_to(private)
    (folder / "masks").mkdir()
    (folder / "masks" / f"{names[1]}.png").symlink_to(private)
    video, record = imported(folder)
    assert [frame.name for frame in video.frames] == names[1:]
    assert record["left_out"]["images that cannot be read"] == 1
    assert record["left_out"]["masks that are not in the folder"] == 1


def test_masks_are_read_under_both_names_that_colmap_takes(
    dataset: tuple[Path, Truth],
) -> None:
    folder, truth = dataset
    (folder / "masks").mkdir()
    for k, name in enumerate(truth.cam_from_obj):
        mask = np.full((SIZE, SIZE), 255, np.uint8)
        stem = name if k % 2 else name.removesuffix(".jpg")
        cv2.imwrite(str(folder / "masks" / f"{stem}.png"), mask)
    video, record = imported(folder)
    assert all(frame.mask is not None for frame in video.frames) and not record["left_out"]


def test_names_of_macos_are_matched(dataset: tuple[Path, Truth]) -> None:
    folder, truth = dataset
    model = folder / "sparse" / "images.txt"
    names = list(truth.cam_from_obj)
    text = model.read_text()
    for name in names:
        text = text.replace(name, f"\u00e4{name}")
        move(folder, {f"images/{name}": f"images/a\u0308{name}"})
    model.write_text(text)
    video, record = imported(folder)
    assert len(video.frames) == len(names) and not record["left_out"]


@pytest.mark.parametrize(
    "camera", ["9e6 9e6 16 16", "2 2 16 16", "50 50 0 0", "50 50 999 16"]
)
def test_a_camera_that_is_hardly_one_is_said(
    dataset: tuple[Path, Truth], camera: str
) -> None:
    folder, truth = dataset
    (folder / "sparse/cameras.txt").write_text(f"1 PINHOLE {SIZE} {SIZE} {camera}\n")
    _, record = imported(folder)
    assert record["notes"] == {
        "images whose camera in the model is doubtful": len(truth.cam_from_obj)
    }


def test_a_model_without_its_images_is_one_line(dataset: tuple[Path, Truth]) -> None:
    folder, _ = dataset
    for path in (folder / "images").iterdir():
        path.unlink()
    with pytest.raises(InvalidInput, match="0 usable images, at least 3 are needed"):
        imported(folder)


def test_an_image_is_read_back_as_it_was(dataset: tuple[Path, Truth]) -> None:
    folder, _ = dataset
    video, _ = imported(folder)
    for frame in video.frames:
        assert torch.equal(
            read_image(frame.image), read_image(folder / "images" / frame.name)
        )


@pytest.mark.parametrize("order", ["w x y z", "x y z w"])
def test_quaternions_in_another_order_are_said_where_the_model_has_points(
    dataset: tuple[Path, Truth], caplog: pytest.LogCaptureFixture, order: str
) -> None:
    folder, truth = dataset
    points = np.random.default_rng(0).normal(0, 0.2, (50, 3))
    (folder / "sparse/points3D.txt").write_text(
        "".join(f"{k} {x} {y} {z} 0 0 0 0\n" for k, (x, y, z) in enumerate(points))
    )
    lines = []
    for line in (folder / "sparse/images.txt").read_text().splitlines()[::2]:
        words = line.split()
        pose, matrix = truth.cam_from_obj[words[-1]], truth.camera.matrix.numpy()
        u, v, w = matrix @ (pose[:3, :3] @ points.T + pose[:3, 3:])
        lines.append(words[:])
        if order == "x y z w":
            lines[-1][1:5] = [*words[2:5], words[1]]
        lines.append(
            [f"{a} {b} {k}" for k, (a, b) in enumerate(zip(u / w, v / w, strict=True))]
        )
    text = "".join(f"{' '.join(words)}\n" for words in lines)
    (folder / "sparse/images.txt").write_text(text)
    _, record = imported(folder)
    if order == "w x y z":
        assert "notes" not in record
        return
    assert record["notes"] == {"images whose poses in the model do not fit its points": 6}
    assert "they fit poses with quaternions x y z w; …)" in caplog.text
