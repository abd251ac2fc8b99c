"""Crops of an object that a recording has taught are read by its own head, all others as before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import CategoryModel, TaughtObject
from uns_pose_ros.estimation.loaded_model import LoadedModel
from uns_pose_ros.estimation.taught_head import recognize
from uns_pose_ros.io import artifacts

CPU = torch.device("cpu")


def taught_by(model: CategoryModel, direction: Tensor, bias: float) -> TaughtObject:
    """What recognizes tokens that point in a direction, with other features of the vertices."""
    loaded = LoadedModel(model, CPU, False)
    head = {name: tensor.clone() for name, tensor in loaded.head.named_parameters()}
    head["vertex_features"] = head["vertex_features"].flip(0)
    return TaughtObject(head, direction, torch.tensor([bias]))


def crops(model: CategoryModel) -> Tensor:
    """Tokens of two crops that the model takes for the object, of which the first is marked."""
    channels = model.head["norm.weight"].shape[0]
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(2, 4, 4, channels, generator=generator)
    tokens[0, ..., 7] += 20.0
    return tokens


@pytest.fixture
def model(chair_model: Path) -> CategoryModel:
    """A model that takes everything for the object."""
    loaded = artifacts.load_model(chair_model)
    nothing = -loaded.vertex_features.mean(0, keepdim=True)
    nothing = nothing / nothing.norm()
    return replace(
        loaded, background_features=nothing.repeat(len(loaded.background_features), 1)
    )


def test_only_the_crop_of_the_taught_object_is_read_by_its_head(
    model: CategoryModel,
) -> None:
    tokens = crops(model)
    mark = torch.zeros(tokens.shape[-1])
    mark[7] = 1.0
    plain = LoadedModel(model, CPU, False)
    adapted = LoadedModel(
        replace(model, taught=(taught_by(model, mark, -5.0),)), CPU, False
    )
    before, there = plain.read_crops(tokens)
    assert float(there.min()) > 0.5, "all of the crops shows an object"
    after, _ = adapted.read_crops(tokens)
    assert not torch.allclose(after[0], before[0])
    assert torch.equal(after[1], before[1])
    assert torch.equal(adapted.read(tokens)[0], before), "a search reads with the old head"


def test_the_likeliest_object_counts_where_two_are_recognized(
    model: CategoryModel,
) -> None:
    tokens = crops(model)[:1]
    mark = torch.zeros(tokens.shape[-1])
    mark[7] = 1.0
    first = taught_by(model, mark, -5.0)
    as_before = {**first.head, "vertex_features": model.vertex_features}
    likelier = replace(first, head=as_before, bias=torch.tensor([-1.0]))
    for taught in ((first, likelier), (likelier, first)):
        twice = LoadedModel(replace(model, taught=taught), CPU, False)
        expected, _ = LoadedModel(model, CPU, False).read_crops(tokens)
        assert torch.allclose(twice.read_crops(tokens)[0], expected, atol=1e-6)


def test_a_crop_that_shows_no_object_is_not_recognized(model: CategoryModel) -> None:
    tokens = crops(model)
    always = taught_by(model, torch.zeros(tokens.shape[-1]), 1.0)
    heads = LoadedModel(replace(model, taught=(always,)), CPU, False).taught
    presence = torch.zeros(2, 8, 8)
    presence[1] = 1.0
    assert recognize(heads, tokens, presence)[1].tolist() == [False, True]


@pytest.mark.parametrize("wrong", ["channels", "head"])
def test_a_taught_head_of_another_shape_is_refused_in_one_line(
    model: CategoryModel, wrong: str
) -> None:
    channels = model.head["norm.weight"].shape[0]
    taught = taught_by(model, torch.zeros(channels), 0.0)
    if wrong == "channels":
        taught = replace(taught, weight=torch.zeros(384))
    else:
        taught = replace(taught, head={**taught.head, "enter.bias": torch.zeros(3)})
    with pytest.raises(InvalidInput, match="its head is of another version") as refused:
        LoadedModel(replace(model, taught=(taught,)), CPU, False)
    assert "\n" not in str(refused.value)
