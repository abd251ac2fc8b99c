"""What a reader accepted is sensible; AssertionError where a value is not."""

from __future__ import annotations

import json
import math
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from uns_pose_ros.core.types import (
    MAX_CAMERA_PX,
    MAX_DISTORTION,
    Alignment,
    Camera,
    CategoryModel,
    FeatureMesh,
    Symmetry,
    Video,
)
from uns_pose_ros.io.colmap import Sparse, has_sparse, read_sparse
from uns_pose_ros.io.given_files import is_entry_name, stays_inside
from uns_pose_ros.io.images import read_image
from uns_pose_ros.io.schema.video_record import read_video_record
from uns_pose_ros.io.video_folder import image_names, load_video

PIXELS = 80e6  # of an image, at most
SIDE = 100_000  # px
_FAR = 1e10  # obj units, further than anything is


def check_finite(numbers: Tensor, most: float = _FAR) -> None:
    assert bool(torch.isfinite(numbers).all()), "not finite"
    assert not numbers.numel() or float(numbers.abs().max()) <= most, "absurdly large"


def check_image(pixels: Tensor) -> None:
    height, width, channels = pixels.shape
    assert channels == 3 and pixels.dtype == torch.uint8
    assert 0 < height * width <= PIXELS


def check_mask(pixels: Tensor) -> None:
    height, width = pixels.shape
    assert pixels.dtype == torch.bool and 0 < height * width <= PIXELS


def check_camera(camera: Camera) -> None:
    check_finite(camera.matrix, MAX_CAMERA_PX)
    check_finite(camera.distortion, MAX_DISTORTION)
    assert camera.matrix[2].tolist() == [0, 0, 1]
    assert camera.matrix[0, 0] > 0 and camera.matrix[1, 1] > 0
    assert 0 < camera.width <= SIDE and 0 < camera.height <= SIDE
    assert len(camera.distortion) <= 14


def check_rotation(rotation: Tensor, most: float = 3e-3) -> None:
    off = rotation.double() @ rotation.double().mT - torch.eye(3, dtype=torch.float64)
    check_finite(rotation)
    assert float(off.abs().max()) <= most, "no rotation"
    assert float(torch.linalg.det(rotation.double())) > 0, "a reflection"


def check_pose(pose: Tensor, most: float = 3e-3) -> None:
    check_finite(pose)
    assert pose[3].tolist() == [0, 0, 0, 1]
    check_rotation(pose[:3, :3], most)


def check_similarity(pose: Tensor) -> None:
    check_finite(pose)
    scale = float(torch.linalg.det(pose[:3, :3])) ** (1 / 3)
    assert isinstance(scale, float) and 1e-10 < scale < _FAR
    assert pose[3].tolist() == [0, 0, 0, 1]
    check_rotation(pose[:3, :3] / scale)


def check_symmetry(symmetry: Symmetry) -> None:
    assert 0 <= symmetry.order <= 3600
    assert 1e-4 < float(symmetry.axis.norm()) < 1e4


def check_sparse(sparse: Sparse) -> None:
    assert sparse.images
    check_finite(sparse.points, math.inf)
    for camera in sparse.cameras.values():
        check_camera(camera)
    for image in sparse.images:
        assert stays_inside(image.name) and image.camera_id in sparse.cameras
        check_pose(image.cam_from_obj)
    names = [image.name for image in sparse.images]
    assert len(names) == len(set(names)), "two poses of one image"


def check_shape(vertices: Tensor, triangles: Tensor) -> None:
    check_finite(vertices, math.inf)
    if triangles.numel():
        assert 0 <= int(triangles.min()) <= int(triangles.max()) < len(vertices)


def check_units(features: Tensor) -> None:
    check_finite(features, 1.1)
    assert bool(((features.float().norm(dim=-1) - 1).abs() < 0.03).all())


def check_mesh(mesh: FeatureMesh) -> None:
    assert len(mesh.vertices) and len(mesh.triangles) and mesh.diameter >= 0
    check_shape(mesh.vertices, mesh.triangles)
    check_units(mesh.features)
    if mesh.mirrored is not None:
        check_units(mesh.mirrored)
    if len(mesh.vertex_index):
        assert bool((mesh.vertex_index.diff() >= 0).all())
        assert 0 <= int(mesh.vertex_index[0]) <= int(mesh.vertex_index[-1])
        assert int(mesh.vertex_index[-1]) < len(mesh.vertices)
        assert 0 <= int(mesh.view_index.min()) <= int(mesh.view_index.max())
        assert int(mesh.view_index.max()) < len(mesh.cameras_in_obj)
    for pose in mesh.cameras_in_obj:
        check_pose(pose)


def check_alignment(alignment: Alignment) -> None:
    assert alignment.videos
    assert all(is_entry_name(name) for name in alignment.videos)
    for pose in alignment.canon_from_obj:
        check_similarity(pose)
    assert bool(((alignment.confidence >= 0) & (alignment.confidence <= 1)).all())
    assert bool(((alignment.residual >= 0) & (alignment.residual <= 180.01)).all())
    check_symmetry(alignment.symmetry)


def check_model(model: CategoryModel) -> None:
    assert model.category and model.category.isprintable()
    check_finite(model.vertices, 100)
    check_shape(model.vertices, model.triangles)
    check_units(model.vertex_features)
    check_units(model.background_features)
    check_symmetry(model.symmetry)
    taught = [(one.weight, one.bias, *one.head.values()) for one in model.taught]
    for weights in (*model.head.values(), *chain(*taught)):
        check_finite(weights, 1e6)
    assert model.diameter is None or 0 < model.diameter <= 1e6
    assert 0 <= model.crop_size <= 10_000
    assert 0 < model.template_share <= 1
    check_rotation(model.turn)
    for name, pose in model.training_poses.items():
        assert is_entry_name(name)
        check_similarity(pose)
    json.dumps(model.provenance, allow_nan=False)
    json.dumps(model.training_curve)


def check_video(video: Video) -> None:
    assert len(video.frames) >= 3
    names = [frame.name for frame in video.frames]
    assert len(names) == len(set(names))
    for frame in video.frames:
        assert stays_inside(frame.name) and frame.image.is_relative_to(video.folder)
        check_camera(frame.camera)
        if frame.cam_from_obj is not None:
            check_pose(frame.cam_from_obj)
    if video.points is not None:
        check_finite(video.points, math.inf)


def check_record(folder: Path) -> None:
    """What video.json says of a video."""
    record = read_video_record(folder)
    for report in (record.poses, record.masks):
        assert report is None or report.seconds is None or 0 <= report.seconds < math.inf
    if record.poses is not None:
        assert 0 <= record.poses.focal_px < _FAR
        meters = record.poses.metres
        assert meters is None or meters.unit_m is None or 0 < meters.unit_m < _FAR


def check_imported(folder: Path) -> None:
    """A video that was imported is one that the pipeline reads."""
    names = image_names(folder)
    assert names, "no image"
    for name in names:
        check_image(read_image(folder / "images" / name))
    if len(names) >= 3:
        check_video(load_video(folder, need_masks=False, need_poses=False))
    if has_sparse(folder / "sparse"):
        check_sparse(read_sparse(folder / "sparse"))
    check_record(folder)


def check_plain(value: Any) -> None:
    """A JSON value of numbers that are finite."""
    json.dumps(value, allow_nan=False)
