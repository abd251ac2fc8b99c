"""Declares ROS parameters from settings dataclasses and reads them back."""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
import typing
from collections.abc import Sequence
from dataclasses import field
from typing import Any, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node
from rclpy.parameter import Parameter

from uns_pose_ros.core.errors import InvalidInput

T = TypeVar("T")

PREFIXES: dict[
    type, str
] = {}  # of the parameters that a dataclass declares; its owner fills it


def setting(
    default: Any,
    text: str,
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[str] = (),
) -> Any:
    """A dataclass field with what a ROS parameter needs.

    Description with unit, range (both ends or none), valid words.
    """
    return field(
        default=default,
        metadata={"text": text, "low": low, "high": high, "choices": tuple(choices)},
    )


def declare(node: Node, settings: type) -> None:
    """Declare every field of a dataclass of settings.

    Raises rclpy's ParameterException where an override does not fit.
    """
    kinds, comments = typing.get_type_hints(settings), _comments(settings)
    for item in dataclasses.fields(settings):
        kind, facts = kinds[item.name], item.metadata
        text = facts.get("text") or comments.get(item.name) or item.name.replace("_", " ")
        descriptor = ParameterDescriptor(description=text)
        low, high, choices = facts.get("low"), facts.get("high"), facts.get("choices", ())
        if choices:
            descriptor.additional_constraints = "one of " + ", ".join(choices)
        if low is not None and high is not None and kind is float:
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=float(low), to_value=float(high))
            ]
        if low is not None and high is not None and kind is int:
            descriptor.integer_range = [
                IntegerRange(from_value=int(low), to_value=int(high), step=1)
            ]
        default = list(item.default) if isinstance(item.default, tuple) else item.default
        node.declare_parameter(PREFIXES.get(settings, "") + item.name, default, descriptor)


def names(*settings: type) -> set[str]:
    """The parameters that these dataclasses declare."""
    return {
        PREFIXES.get(kind, "") + item.name
        for kind in settings
        for item in dataclasses.fields(kind)
    }


def read(node: Node, settings: type[T], changed: Sequence[Parameter] = ()) -> T:
    """The declared parameters as the dataclass they were made from, with values about to be set in
    place of the present ones.

    Raises InvalidInput that says what is valid.
    """
    new = {parameter.name: parameter.value for parameter in changed}
    values = {}
    # T is one of our dataclasses
    for item in dataclasses.fields(settings):  # type: ignore[arg-type]
        name = PREFIXES.get(settings, "") + item.name
        value = new[name] if name in new else node.get_parameter_or(name).value
        # an empty list from the command line has no type in ROS and leaves the parameter
        # unset
        if value is None:
            value = item.default
        choices = item.metadata.get("choices", ())
        if choices and value not in choices:
            raise InvalidInput(f"{name} '{value}': one of {', '.join(choices)} is valid")
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidInput(f"{name} {value}: a finite number is valid")
        values[item.name] = tuple(value) if isinstance(value, (list, tuple)) else value
    return settings(**values)


def _comments(settings: type) -> dict[str, str]:
    """The comment beside each field of a dataclass, which the command line's help shows too.

    None without its source.
    """
    try:
        source = inspect.getsource(settings)
    except OSError:
        return {}
    return dict(re.findall(r"^    (\w+): .*?  # (.+)$", source, re.MULTILINE))
