"""Aligned videos stand as their cameras were held, and turn about up until their shapes fit."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from synthetic_meshes import feature_mesh
from uns_pose_ros.alignment.mesh_batch import build_mesh_batch
from uns_pose_ros.alignment.upright_refinement import UprightConfig, refine_upright
from uns_pose_ros.core.geometry import (
    angle_between,
    from_parts,
    random_rotations,
    rotation_from_vector,
    split_similarity,
)
from uns_pose_ros.core.types import FeatureMesh

SEEDS = range(4)
PARTNERS = torch.combinations(torch.arange(len(SEEDS)))


def turn(*degrees: float) -> Tensor:
    """Rigid (4, 4) that turns by a rotation vector."""
    vector = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return from_parts(rotation_from_vector(vector), torch.zeros(3, dtype=torch.float64))


@pytest.fixture(scope="module")
def category() -> tuple[list[FeatureMesh], Tensor, Tensor]:
    """Meshes, canon_from_shape (N, 4, 4) and the true rotations canon_from_shape (N, 3, 3)."""
    made = [feature_mesh(seed) for seed in SEEDS]
    shapes = build_mesh_batch({str(k): mesh for k, (mesh, _) in enumerate(made)})
    truth = torch.stack([pose for _, pose in made]) @ torch.linalg.inv(
        shapes.shape_from_obj
    )
    return [mesh for mesh, _ in made], truth, split_similarity(truth)[0]


def refined(
    meshes: list[FeatureMesh],
    poses: Tensor,
    config: UprightConfig = UprightConfig(),
    fixed: int = 0,
) -> Tensor:
    shapes = build_mesh_batch({str(k): mesh for k, mesh in enumerate(meshes)})
    ones = torch.ones(len(meshes), dtype=torch.float64)
    return refine_upright(meshes, shapes, poses, ones, PARTNERS, config, fixed)


def apart(poses: Tensor, truth: Tensor) -> Tensor:
    """Errors (N, N), degrees, of the relative rotations."""
    offset = split_similarity(poses)[0] @ truth.mT
    return angle_between(offset[:, None], offset[None])


TILTED = torch.stack([turn(8, 0, 9), turn(0, -9, -8), turn(-6, 6, 10), turn(3, 9, -9)])


def test_videos_that_lean_or_are_turned_a_little_stand_as_the_others(
    category: tuple[list[FeatureMesh], Tensor, Tensor],
) -> None:
    meshes, truth, rotations = category
    poses = TILTED @ truth
    assert float(apart(poses, rotations).max()) > 20
    result = refined(meshes, poses)
    assert float(apart(result, rotations).max()) < 4
    scales = split_similarity(result)[2]
    assert float((scales / split_similarity(truth)[2]).log().abs().max()) < 0.05


def test_a_video_whose_object_lies_on_its_side_keeps_its_pose(
    category: tuple[list[FeatureMesh], Tensor, Tensor],
) -> None:
    meshes, truth, rotations = category
    poses = TILTED @ truth
    poses[3] = turn(80, 0, 0) @ truth[3]
    result = refined(meshes, poses)
    torch.testing.assert_close(result[3], poses[3])
    assert float(apart(result, rotations)[:3, :3].max()) < 4


def test_nothing_changes_where_the_cameras_of_the_videos_disagree_about_up(
    category: tuple[list[FeatureMesh], Tensor, Tensor],
) -> None:
    meshes, truth, _ = category
    lost = torch.eye(4).double().repeat(len(truth), 1, 1)
    lost[:, :3, :3] = random_rotations(len(truth), torch.Generator().manual_seed(5))
    poses = lost @ truth
    assert torch.equal(refined(meshes, poses), poses)
    assert torch.equal(
        refined(meshes, TILTED @ truth, UprightConfig(steps=0)), TILTED @ truth
    )


def test_a_video_that_is_added_comes_to_those_that_stay(
    category: tuple[list[FeatureMesh], Tensor, Tensor],
) -> None:
    meshes, truth, rotations = category
    poses = truth.clone()
    poses[3] = TILTED[3] @ truth[3]
    result = refined(meshes, poses, fixed=3)
    assert torch.equal(result[:3], poses[:3])
    assert float(apart(result, rotations)[3].max()) < 4


def test_the_refinement_does_not_depend_on_the_frame_it_starts_in(
    category: tuple[list[FeatureMesh], Tensor, Tensor],
) -> None:
    meshes, truth, _ = category
    poses = TILTED @ truth
    lying = turn(90, 0, 0) @ turn(0, 0, math.degrees(1.0))
    torch.testing.assert_close(
        refined(meshes, lying @ poses), lying @ refined(meshes, poses), atol=1e-4, rtol=1e-4
    )
