"""A small feature mesh, model and alignment to save, and the check that what is read is equal."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from uns_pose_ros.core.types import Alignment, CategoryModel, FeatureMesh, Symmetry

TETRAHEDRON = torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
PROVENANCE = {"version": "1", "seed": 3, "config": {"size": 280}}


def unit(features: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(features, dim=-1)


def a_mesh() -> FeatureMesh:
    generator = torch.Generator().manual_seed(1)
    features = unit(torch.randn(6, 8, generator=generator)).half()
    return FeatureMesh(
        vertices=torch.rand(4, 3, generator=generator),
        triangles=TETRAHEDRON,
        features=features,
        mirrored=features.flip(0),
        vertex_index=torch.tensor([0, 0, 1, 2, 3, 3]),
        view_index=torch.tensor([0, 1, 0, 1, 0, 1]),
        cameras_in_obj=torch.eye(4).expand(2, 4, 4),
    )


def a_model() -> CategoryModel:
    generator = torch.Generator().manual_seed(2)
    return CategoryModel(
        category="mug",
        vertices=torch.rand(4, 3, generator=generator),
        triangles=TETRAHEDRON,
        vertex_features=unit(torch.randn(4, 5, generator=generator)),
        background_features=unit(torch.randn(2, 5, generator=generator)),
        head={
            "conv.weight": torch.randn(3, 3, generator=generator),
            "conv.bias": torch.zeros(3),
        },
        symmetry=Symmetry(2, torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)),
        diameter=0.12,
        provenance=PROVENANCE,
    )


def an_alignment() -> Alignment:
    return Alignment(
        videos=("a", "b"),
        canon_from_obj=torch.tensor([0.1, 0.1, 0.1, 1.0], dtype=torch.float64)
        .diag()
        .expand(2, 4, 4),
        confidence=torch.tensor([0.9, 1 / 3], dtype=torch.float64),
        kept=torch.tensor([True, False]),
        residual=torch.tensor([2.0, 170.0], dtype=torch.float64),
        symmetry=Symmetry(0),
    )


def assert_equal(a: object, b: object) -> None:
    for field in dataclasses.fields(a):  # type: ignore[arg-type]
        left, right = getattr(a, field.name), getattr(b, field.name)
        if isinstance(left, torch.Tensor):
            assert left.dtype == right.dtype and torch.equal(left, right), field.name
        elif isinstance(left, Symmetry):
            assert left.order == right.order and torch.equal(left.axis, right.axis)
        elif field.name == "head":
            assert left.keys() == right.keys() and all(
                torch.equal(left[k], right[k]) for k in left
            )
        else:
            assert left == right, field.name


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}
