"""The state of an unfinished training: kept in a checkpoint, checked before it is taken up."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from msgspec import convert
from torch import Tensor

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io.checkpoint import Checkpoint
from uns_pose_ros.io.schema.decoding import describe
from uns_pose_ros.io.schema.made_record import TrainingState
from uns_pose_ros.io.schema.model_record import TrainingCurve
from uns_pose_ros.networks.correspondence_head import Head
from uns_pose_ros.training.distributed import DistributedContext

Curve = dict[str, list[float]]  # see `fit_head`
# parameters of the head that version 0.1.0 named differently in its checkpoints
_RENAMED = {"bank": "vertex_features", "clutter": "background_features"}
_HEAD, _MOMENT, _GENERATOR = "head.", "state.", "generator"  # starts of the tensors' names
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")
# entries of the schedule, and of a group of the optimizer, that change from step to step
_PASSING = ("last_epoch", "_step_count", "_last_lr", "_get_lr_called_within_step")
_SCHEDULED = ("lr", "betas")
_LARGEST = 1e6  # of a weight or a moment


@dataclass(frozen=True, eq=False)
class TrainingParts:
    """What a training changes from step to step."""

    head: Head
    optimizer: torch.optim.Optimizer
    schedule: Any  # of the learning rate
    generator: torch.Generator  # random numbers of the batches


def keep_state(
    checkpoint: Checkpoint, parts: TrainingParts, step: int, curve: Curve
) -> None:
    """Keep the state of the training before `step` in the checkpoint."""
    inner = parts.optimizer.state_dict()
    tensors = {f"{_HEAD}{name}": tensor for name, tensor in parts.head.state_dict().items()}
    tensors |= {
        f"{_MOMENT}{k}.{name}": tensor
        for k, moments in inner["state"].items()
        for name, tensor in moments.items()
    }
    tensors[_GENERATOR] = parts.generator.get_state()
    facts = {
        "step": step,
        "curve": curve,
        "groups": inner["param_groups"],
        "schedule": parts.schedule.state_dict(),
    }
    checkpoint.save(tensors, facts)


def resume_state(
    checkpoint: Checkpoint | None,
    parts: TrainingParts,
    steps: int,
    context: DistributedContext = DistributedContext(),
) -> tuple[int, Curve]:
    """Restore the state of a training from the checkpoint.

    A state that no training leaves, or that the other processes have not reached, is not taken up;
    a warning says so.

    Args:
        checkpoint: Where the state is kept; None: nothing is restored.
        parts: What is restored; they stay as they are where nothing is.
        steps: Steps of the whole training.
        context: This process among those that train the model.

    Returns:
        The step to continue with, and the curve until then.
    """
    state: _SavedState | None = None
    if checkpoint is not None:
        try:
            saved = checkpoint.load()
            state = None if saved is None else _parse_state(*saved, parts, steps)
        except InvalidInput as error:
            checkpoint.report_spoiled(error)
    if not context.is_common(0 if state is None else state.step):
        if checkpoint is not None and state is not None:
            checkpoint.report_spoiled("the other processes stopped at another step")
        return 0, {}
    if state is None:
        return 0, {}
    parts.head.load_state_dict(state.weights)
    parts.optimizer.load_state_dict({"state": state.moments, "param_groups": state.groups})
    parts.schedule.load_state_dict(state.schedule)
    parts.generator.set_state(state.generator)
    return state.step, state.curve


@dataclass(frozen=True, eq=False)
class _SavedState:
    """A state that was checked."""

    step: int
    curve: Curve
    weights: dict[str, Tensor]
    moments: dict[int, dict[str, Tensor]]
    groups: list[dict[str, Any]]
    schedule: dict[str, Any]
    generator: Tensor


def _parse_state(
    tensors: Mapping[str, Tensor], facts: Any, parts: TrainingParts, steps: int
) -> _SavedState:
    """A saved state; InvalidInput where a training with these parts does not leave it."""
    try:
        record = convert(facts, TrainingState)
        if not 0 < record.step <= steps:
            raise ValueError(f"step {record.step} of {steps}")
        if any(
            at >= record.step for at in [*record.curve.step, *record.curve.watched_step]
        ):
            raise ValueError("the curve goes on behind the step")
        _check_schedule(record, parts)
        weights, moments, generator = _sort_tensors(tensors, parts)
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise InvalidInput(f"no state of this training: {describe(error)}") from None
    names = [name for name in TrainingCurve.__struct_fields__ if name in facts["curve"]]
    curve: Curve = {name: list(facts["curve"][name]) for name in names}
    return _SavedState(
        record.step, curve, weights, moments, record.groups, record.schedule, generator
    )


def _check_schedule(record: TrainingState, parts: TrainingParts) -> None:
    """ValueError where schedule and groups are not those of this training at the step."""
    fresh = _as_json(parts.schedule.state_dict())
    if _without(record.schedule, _PASSING) != _without(fresh, _PASSING):
        raise ValueError("schedule: that of other settings")
    if record.schedule.get("last_epoch") != record.step:
        raise ValueError("schedule: that of another step")
    for group, new in zip(
        record.groups, _as_json(parts.optimizer.state_dict()["param_groups"]), strict=True
    ):
        if _without(group, _SCHEDULED) != _without(new, _SCHEDULED):
            raise ValueError("groups: those of other settings")
        fastest = new["max_lr"]
        if not (
            _are_rates([group.get("lr")], 1, fastest)
            and _are_rates(record.schedule.get("_last_lr"), len(record.groups), fastest)
            and _are_rates(group.get("betas"), 2, 1.0)
        ):
            raise ValueError("groups: rates that no training has")


def _are_rates(values: Any, count: int, most: float) -> bool:
    """Whether a JSON value is a list of so many numbers from 0 to `most`."""
    return (
        isinstance(values, list)
        and len(values) == count
        and all(type(value) in (int, float) and 0 <= value <= most for value in values)
    )


def _sort_tensors(
    tensors: Mapping[str, Tensor], parts: TrainingParts
) -> tuple[dict[str, Tensor], dict[int, dict[str, Tensor]], Tensor]:
    """Weights of the head, moments of the optimizer and the generator's state, all checked."""
    wanted = parts.head.state_dict()
    shapes = {
        number: tuple(parameter.shape)
        for number, parameter in enumerate(parts.head.parameters())
    }
    weights: dict[str, Tensor] = {}
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        start, _, rest = name.partition(".")
        if f"{start}." == _HEAD:
            rest = _RENAMED.get(rest, rest)
            _check_tensor(tensor, name, tuple(wanted[rest].shape), wanted[rest].dtype)
            weights[rest] = tensor
        elif f"{start}." == _MOMENT:
            number, _, what = rest.partition(".")
            if what not in _MOMENTS:
                raise ValueError(f"{name} is no moment of the optimizer")
            shape = () if what == "step" else shapes[int(number)]
            _check_tensor(tensor, name, shape, torch.float32)
            if what != "exp_avg" and bool((tensor < 0).any()):
                raise ValueError(f"{name} is negative")
            moments.setdefault(int(number), {})[what] = tensor
    if weights.keys() != wanted.keys():
        raise ValueError("weights of the head are missing")
    if any(len(of_parameter) != len(_MOMENTS) for of_parameter in moments.values()):
        raise ValueError("moments of the optimizer are missing")
    generator = tensors[_GENERATOR]
    torch.Generator().set_state(generator)
    return weights, moments, generator


def _check_tensor(
    tensor: Tensor, name: str, shape: tuple[int, ...], kind: torch.dtype
) -> None:
    if tuple(tensor.shape) != shape or tensor.dtype != kind:
        raise ValueError(f"{name} is {tensor.dtype} {tuple(tensor.shape)}")
    if not bool(torch.isfinite(tensor).all()):
        raise ValueError(f"{name} holds values that are not finite")
    if tensor.numel() and float(tensor.abs().max()) > _LARGEST:
        raise ValueError(f"{name} holds values above {_LARGEST:g}, that no training has")


def _without(record: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in names}


def _as_json(value: Any) -> Any:
    """A value as it comes back from a JSON file."""
    return json.loads(json.dumps(value))
