"""An image that few and bad observations hold is found, and registered again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from uns_pose_ros.core.geometry import angle_between
from uns_pose_ros.reconstruction.colmap.colmap_options import silence_colmap
from uns_pose_ros.reconstruction.colmap.weak_images import weak_images
from uns_pose_ros.reconstruction.colmap_mapper import (
    ATTEMPTS,
    ColmapMapper,
    MappedModel,
    SfmConfig,
    registered_poses,
)

LEFT = 40  # observations of a spoilt image
COUNT = 12


def filmed(database: Path | None = None) -> Any:
    """A model of cameras around points, with exact observations, and its matches."""
    pycolmap = pytest.importorskip("pycolmap")
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig = 1, 1
    options.num_frames_per_rig, options.num_points3D = COUNT, 400
    options.num_points2D_without_point3D = 0
    options.camera_width, options.camera_height = 640, 480
    options.camera_params = [700.0, 320.0, 240.0, 0.0]
    pycolmap.set_random_seed(0)
    if database is None:
        return pycolmap.synthesize_dataset(options)
    with pycolmap.Database.open(database) as opened:
        return pycolmap.synthesize_dataset(options, opened)


def spoil(model: Any, name: str, pixels: float) -> None:
    """Take most observations of an image away, and move its camera."""
    pycolmap = pytest.importorskip("pycolmap")
    [image] = [one for one in model.images.values() if one.name == name]
    seen = [k for k, point in enumerate(image.points2D) if point.has_point3D()]
    for k in seen[LEFT:]:
        model.delete_observation(image.image_id, k)
    turn = pycolmap.Rigid3d(
        pycolmap.Rotation3d(np.array([0.0, pixels / 700, 0.0])), np.zeros(3)
    )
    image.frame.set_cam_from_world(image.camera_id, turn * image.cam_from_world())


def names_of(model: Any) -> list[str]:
    return sorted(image.name for image in model.images.values())


def test_an_image_of_few_and_bad_observations_is_weak() -> None:
    model = filmed()
    assert weak_images(model) == []
    name = names_of(model)[4]
    spoil(model, name, pixels=0.0)
    assert weak_images(model) == [], "few, but good"
    spoil(model, name, pixels=20.0)
    assert weak_images(model) == [name]
    for other in names_of(model)[6:8]:
        spoil(model, other, pixels=20.0)
    assert weak_images(model) == [], "so many that the model itself is to blame"


def test_a_weak_image_is_registered_again_where_all_others_see_it(tmp_path: Path) -> None:
    model = filmed(tmp_path / "database.db")
    true = registered_poses(model)
    name = names_of(model)[4]
    spoil(model, name, pixels=40.0)
    mapper = ColmapMapper(
        database=tmp_path / "database.db",
        images=tmp_path,
        work=tmp_path,
        attempt=ATTEMPTS[0],
        refine_camera=False,
        config=SfmConfig(threads=1),
    )
    with silence_colmap():
        strengthened = mapper._strengthen(MappedModel(model, 0.0))
    assert strengthened is not None and strengthened.model is not model
    found = registered_poses(strengthened.model)
    assert found.keys() == true.keys()
    turns = [found[one][:3, :3].mT @ true[one][:3, :3] for one in true]
    apart = angle_between(turns[0].expand(COUNT, 3, 3), torch.stack(turns))
    assert apart.max() < 0.1, "degrees; the weak one was 3 off"
