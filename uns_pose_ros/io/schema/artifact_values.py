"""Values of artifacts' tensors that their types alone do not tell right from nonsense."""

from __future__ import annotations

import torch
from torch import Tensor

from uns_pose_ros.core.types import CategoryModel, FeatureMesh

_UNIT = 0.02  # by which a unit feature's length may differ, float16
_ORTHONORMAL = 1e-3
_FAR = 1e9  # obj units
_MAX_CANON = 100.0  # canonical units, of a template's vertices; its diameter is 1
_MAX_WEIGHT = 1e6


def check_mesh(mesh: FeatureMesh) -> None:
    """ValueError where a feature mesh holds what none can hold."""
    if not len(mesh.vertices) or not len(mesh.triangles):
        raise ValueError("the mesh is empty")
    if float(mesh.vertices.abs().max()) > _FAR:
        raise ValueError(f"a vertex lies more than {_FAR:g} from the origin")
    _check_units(mesh.features, "feature")
    if mesh.mirrored is not None:
        _check_units(mesh.mirrored, "mirrored feature")
    if bool((mesh.vertex_index.diff() < 0).any()):
        raise ValueError("the observations are not in the order of the vertices")
    poses = mesh.cameras_in_obj.double()
    last = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    rotations = poses[:, :3, :3]
    off = rotations @ rotations.mT - torch.eye(3, dtype=torch.float64)
    if len(poses) and not (
        bool((poses[:, 3] == last).all())
        and float(off.abs().max()) <= _ORTHONORMAL
        and bool((torch.linalg.det(rotations) > 0).all())
    ):
        raise ValueError("the pose of a view is not rigid")
    if len(poses) and float(poses[:, :3, 3].abs().max()) > _FAR:
        raise ValueError(f"a view lies more than {_FAR:g} from the origin")


def check_model(model: CategoryModel) -> None:
    """ValueError where a category model holds what none can hold."""
    sides = model.vertices.amax(0) - model.vertices.amin(0)
    if float(model.vertices.abs().max()) > _MAX_CANON or not float(sides.max()) > 0:
        raise ValueError("the template's vertices are not those of a shape of diameter 1")
    for name, points in model.instances.items():
        if float(points.abs().max()) > _MAX_CANON or not bool((points.std(0) > 0).all()):
            raise ValueError(f"the points of {name} are not those of a shape of diameter 1")
    if not len(model.triangles):
        raise ValueError("the template has no triangles")
    _check_units(model.vertex_features, "vertex feature")
    _check_units(model.background_features, "background feature")
    for name, tensor in model.head.items():
        _check_size(tensor, f"the head's {name}")
    for taught in model.taught:
        _check_size(taught.weight, "what tells a taught object")
        _check_size(taught.bias, "what tells a taught object")
        for name, tensor in taught.head.items():
            _check_size(tensor, f"a taught head's {name}")


def _check_size(tensor: Tensor, what: str) -> None:
    if tensor.numel() and float(tensor.abs().max()) > _MAX_WEIGHT:
        raise ValueError(f"a weight of {what} exceeds {_MAX_WEIGHT:g}")


def _check_units(features: Tensor, what: str) -> None:
    if features.numel() == 0:
        return
    lengths = torch.linalg.vector_norm(features, dim=1, dtype=torch.float32)
    if not bool(((lengths - 1).abs() <= _UNIT).all()):
        raise ValueError(f"a {what} has not the length 1")
