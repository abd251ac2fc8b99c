"""The committed demo data agree with themselves, their tools with known answers."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from uns_pose_ros.core.geometry import angle_between, project, transform
from uns_pose_ros.core.types import Frame, Video
from uns_pose_ros.io.images import read_mask
from uns_pose_ros.io.video_folder import list_videos, load_video

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "demo" / "data"
VIDEOS = [*list_videos(DATA / "chair"), *list_videos(DATA / "live")]
sys.path.insert(0, str(ROOT / "tools"))


@pytest.fixture(params=VIDEOS, ids=lambda folder: folder.name)
def video(request: pytest.FixtureRequest) -> Video:
    return load_video(request.param)


def canon_from_obj(folder: Path) -> Tensor:
    labels = json.loads((folder.parent / "labels.json").read_text())
    return torch.tensor(labels[folder.name]["canon_from_obj"], dtype=torch.float64)


def points_of(video: Video) -> Tensor:
    """The video's points, 150 on the object first."""
    assert video.points is not None
    return video.points


def views_of(video: Video) -> list[tuple[Frame, Path, Tensor]]:
    """Every frame with its mask's path and cam_from_obj."""
    views = [(frame, frame.mask, frame.cam_from_obj) for frame in video.frames]
    return [
        (frame, mask, pose)
        for frame, mask, pose in views
        if mask is not None and pose is not None
    ]


def inside_share(video: Video) -> Tensor:
    """(N,) share of the frames in which a point falls into the object's mask."""
    hits = torch.zeros(len(points_of(video)))
    for frame, path, cam_from_obj in views_of(video):
        mask = torch.nn.functional.max_pool2d(read_mask(path)[None].float(), 3, 1, 1)[0] > 0
        pixel = (
            project(frame.camera.matrix, transform(cam_from_obj, points_of(video)))
            .round()
            .long()
        )
        within = (
            (pixel >= 0) & (pixel < torch.tensor([frame.camera.width, frame.camera.height]))
        ).all(1)
        hits[within] += mask[pixel[within, 1], pixel[within, 0]].float()
    return hits / len(video.frames)


def test_there_are_ten_videos_and_two_walks_of_unseen_chairs() -> None:
    assert [folder.name for folder in VIDEOS] == [f"clip_{k:02d}" for k in range(1, 11)] + [
        "live_01",
        "live_02",
    ]
    assert (
        sum(file.stat().st_size for file in DATA.rglob("*") if file.is_file()) < 6_000_000
    )


def test_every_frame_has_a_mask_and_a_pose(video: Video) -> None:
    assert (
        len(views_of(video))
        == len(video.frames)
        == (16 if video.name.startswith("live") else 24)
    )
    for _, mask, _ in views_of(video):
        share = read_mask(mask).float().mean()
        assert 0.04 < share < 0.6


def test_points_of_the_object_project_into_every_mask(video: Video) -> None:
    """Thin parts miss a mask by a pixel now and then, so nine frames of ten must hold them."""
    share = inside_share(video)
    assert (share[:150] > 0.9).float().mean() > 0.9
    assert (share[150:] > 0.9).float().mean() < 0.5


def test_the_floor_is_level_and_under_the_cameras_in_the_labels_frame(video: Video) -> None:
    rotation = canon_from_obj(video.folder)
    points = points_of(video) @ rotation.T
    floor = points[150:]
    normal = torch.linalg.svd(floor - floor.mean(0), full_matrices=False)[2][2]
    assert abs(float(normal[2])) > np.cos(np.radians(0.5))
    cameras = (
        torch.stack([-pose[:3, :3].T @ pose[:3, 3] for _, _, pose in views_of(video)])
        @ rotation.T
    )
    assert bool((cameras[:, 2] > floor[:, 2].mean()).all())
    away = cameras - points[:150].mean(0)
    elevation = torch.rad2deg(torch.atan2(away[:, 2], away[:, :2].norm(dim=1)))
    assert float(elevation.min()) > 5 and float(elevation.max()) < 50


def test_the_backrest_is_behind_the_seat_in_the_labels_frame(video: Video) -> None:
    points = points_of(video)[:150] @ canon_from_obj(video.folder).T
    height = (points[:, 2] - points[:, 2].min()) / (points[:, 2].max() - points[:, 2].min())
    depth = points[:, 0].max() - points[:, 0].min()
    back = points[height > 0.75, 0].mean()
    assert float(points[height < 0.6, 0].mean() - back) > 0.15 * float(depth)


def test_each_video_has_its_own_frame_and_scale() -> None:
    rotations = torch.stack([canon_from_obj(folder) for folder in VIDEOS])
    first, second = torch.triu_indices(len(VIDEOS), len(VIDEOS), 1)
    assert float(angle_between(rotations[first], rotations[second]).min()) > 10
    assert torch.allclose(
        torch.linalg.det(rotations), torch.ones(len(VIDEOS), dtype=torch.float64)
    )
    sizes = [
        float((p.amax(0) - p.amin(0)).norm())
        for p in (points_of(load_video(folder))[:150] for folder in VIDEOS)
    ]
    assert max(sizes) / min(sizes) > 3


def test_the_model_of_every_video_is_named_with_its_licence() -> None:
    text = (DATA / "LICENSES.md").read_text()
    for folder in VIDEOS:
        assert f"{folder.parent.name}/{folder.name}" in text


def test_a_handheld_path_keeps_upright_and_looks_at_the_object() -> None:
    camera = pytest.importorskip("demo_camera")
    low, high = np.array([-0.3, -0.3, 0.0]), np.array([0.3, 0.3, 1.0])
    config = camera.PathConfig()
    path = camera.handheld(np.random.default_rng(0), 50, low, high, np.radians(27), config)
    poses = path.poses(path.times)
    assert np.allclose(poses[:, :3, :3] @ poses[:, :3, :3].transpose(0, 2, 1), np.eye(3))
    middle = poses[:, :3, :3] @ path.center + poses[:, :3, 3]
    assert (
        np.degrees(np.arctan2(np.linalg.norm(middle[:, :2], axis=1), middle[:, 2])) < 12
    ).all()
    assert (poses[:, 1, 2] < -0.7).all()  # the world's up points against the image's y
    assert np.diff(path.times).std() > 0.1 * np.diff(path.times).mean()


CUBE = """mtllib box.mtl
usemtl Red
v 0 0 0
v 10 0 0
v 10 0 40
v 0 20 40
f 1 2 3
f 1 3 -1
"""
CATALOGUE = (
    "name#1=Box\nmodel#1=/models/box/box.obj\nwidth#1=10\ndepth#1=40\n"
    "height#1=20\ncreator#1=Somebody\n"
)
LICENCE = (
    "Box, released under Creative Commons Zero (Public Domain), "
    "http://www.blendswap.com/blends/view/7"
)


def library(path: Path, licence: str) -> Any:
    models = pytest.importorskip("demo_models")
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("PluginFurnitureCatalog.properties", CATALOGUE)
        file.writestr("models/box/box.obj", CUBE)
        file.writestr("models/box/box.mtl", "newmtl Red\nKd 1 0.2 0.2\n")
        file.writestr("models/box/LICENSE.txt", licence)
    return models.Library(path)


def test_a_model_faces_forward_and_stands_on_the_floor_in_metres(tmp_path: Path) -> None:
    box = library(tmp_path / "box.sh3f", LICENCE).load("box")
    # File frame: front +z, up +y, left +x. Canon: forward x, left y, up z, the middle of the box
    # above the origin.
    assert box.corners[0] == pytest.approx(
        np.array([[-0.2, -0.05, 0], [-0.2, 0.05, 0], [0.2, 0.05, 0]])
    )
    assert box.corners[1, 2] == pytest.approx(np.array([0.2, -0.05, 0.2]))


def test_a_model_whose_licence_is_not_cc0_is_refused(tmp_path: Path) -> None:
    chairs = library(
        tmp_path / "box.sh3f",
        "Box, released under CC-BY 3.0, http://www.blendswap.com/blends/view/7",
    )
    with pytest.raises(SystemExit, match="box: no licence file"):
        chairs.load("box")
