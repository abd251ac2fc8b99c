"""The tensors of a category model by their names in its file of weights."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from uns_pose_ros.core.types import CategoryModel, TaughtObject

VERTICES, BACKGROUND = "bank", "clutter"
_HEAD, _TAUGHT = "head.", "taught.{}."


def join(model: CategoryModel) -> dict[str, Tensor]:
    """All tensors of a model but its template."""
    tensors = {VERTICES: model.vertex_features, BACKGROUND: model.background_features}
    tensors |= {_HEAD + name: tensor for name, tensor in model.head.items()}
    for number, taught in enumerate(model.taught):
        own = {"weight": taught.weight, "bias": taught.bias}
        own |= {_HEAD + name: tensor for name, tensor in taught.head.items()}
        tensors |= {_TAUGHT.format(number) + name: tensor for name, tensor in own.items()}
    return tensors


def head_weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the head."""
    return _below(_HEAD, tensors)


def taught_objects(tensors: Mapping[str, Tensor]) -> tuple[TaughtObject, ...]:
    """What recordings have taught the model; KeyError: a part of it is missing."""
    taught = list[TaughtObject]()
    while own := _below(_TAUGHT.format(len(taught)), tensors):
        taught.append(TaughtObject(head_weights(own), own["weight"], own["bias"]))
    return tuple(taught)


def _below(start: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(start): tensor
        for name, tensor in tensors.items()
        if name.startswith(start)
    }
