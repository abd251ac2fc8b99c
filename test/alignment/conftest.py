"""What the tests of the alignment share: feature meshes whose poses are known."""

from __future__ import annotations

import pytest
import torch

from synthetic_meshes import feature_mesh
from uns_pose_ros.alignment.mesh_batch import MeshBatch, build_mesh_batch
from uns_pose_ros.core.geometry import invert
from uns_pose_ros.core.types import FeatureMesh


@pytest.fixture(scope="module")
def made() -> list[tuple[FeatureMesh, torch.Tensor]]:
    return [feature_mesh(seed) for seed in (0, 1, 2)]


@pytest.fixture(scope="module")
def shapes(made: list[tuple[FeatureMesh, torch.Tensor]]) -> MeshBatch:
    return build_mesh_batch({str(k): mesh for k, (mesh, _) in enumerate(made)})


@pytest.fixture(scope="module")
def true_b_from_a(
    made: list[tuple[FeatureMesh, torch.Tensor]], shapes: MeshBatch
) -> torch.Tensor:
    """The pose (4, 4) between the shape frames of the first two meshes."""
    canon_from_shape = torch.stack([pose for _, pose in made]) @ torch.linalg.inv(
        shapes.shape_from_obj
    )
    return invert(canon_from_shape[1]) @ canon_from_shape[0]
