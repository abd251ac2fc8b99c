"""Feature meshes as one batch: their shape frames, and their mirrored twins."""

from __future__ import annotations

import pytest
import torch

from synthetic_meshes import moved
from uns_pose_ros.alignment.mesh_batch import build_mesh_batch, reflect
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import from_parts, random_rotations
from uns_pose_ros.core.types import FeatureMesh


def test_shapes_do_not_depend_on_the_obj_frame(
    made: list[tuple[FeatureMesh, torch.Tensor]],
) -> None:
    generator = torch.Generator().manual_seed(3)
    new_from_obj = from_parts(
        random_rotations(1, generator)[0],
        torch.tensor([1.0, 2.0, -3.0], dtype=torch.float64),
        2.5,
    )
    shapes = build_mesh_batch(
        {"here": made[0][0], "there": moved(made[0][0], new_from_obj)}
    )
    torch.testing.assert_close(shapes.points[1], shapes.points[0], atol=1e-4, rtol=0.0)
    for name in (
        "features",
        "direction",
        "share",
    ):  # a view between two clusters may fall to either
        here, there = vars(shapes)[name].flatten(2)
        assert int(((here - there).abs().amax(1) > 1e-2).sum()) <= 0.02 * len(here), name


def test_the_mirrored_twin_of_a_twin_is_the_video_itself(
    made: list[tuple[FeatureMesh, torch.Tensor]],
) -> None:
    mesh = made[0][0]
    twice = reflect(reflect(mesh))
    for name, tensor in vars(mesh).items():
        torch.testing.assert_close(vars(twice)[name], tensor, msg=name)
    rotation = reflect(mesh).cameras_in_obj[:, :3, :3]
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(len(rotation)))


def test_a_mesh_without_mirrored_features_has_no_twin(
    made: list[tuple[FeatureMesh, torch.Tensor]],
) -> None:
    with pytest.raises(InvalidInput, match="mirrored"):
        reflect(FeatureMesh(**{**vars(made[0][0]), "mirrored": None}))


def test_a_mesh_without_features_or_extent_is_named(
    made: list[tuple[FeatureMesh, torch.Tensor]],
) -> None:
    mesh = made[0][0]
    empty = FeatureMesh(
        mesh.vertices,
        mesh.triangles,
        mesh.features[:0],
        mesh.vertex_index[:0],
        mesh.view_index[:0],
        mesh.cameras_in_obj,
    )
    with pytest.raises(
        InvalidInput, match=r"dark: 200 vertices .* 0 of them with features"
    ):
        build_mesh_batch({"bright": mesh, "dark": empty})
    point = FeatureMesh(**{**vars(mesh), "vertices": torch.zeros_like(mesh.vertices)})
    with pytest.raises(InvalidInput, match="over 0 units"):
        build_mesh_batch({"point": point})
