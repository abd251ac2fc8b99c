"""Declares ROS parameters from settings dataclasses and reads them back.

`uns_pose_ros.core.settings` describes how a field of a dataclass becomes a parameter.
"""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Sequence, Sized
from typing import Any, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node
from rclpy.parameter import Parameter

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.settings import check_value, parameter_name, parameter_text

T = TypeVar("T")
# parameters that ROS itself reads from the overrides of a node
_OF_ROS = ("use_sim_time", "start_type_description_service", "qos_overrides.")


def declare(node: Node, settings: type) -> list[str]:
    """Declare every field of a settings dataclass as a parameter.

    A value that the user gave under the deprecated name of a parameter is used too.

    Returns:
        One warning for each deprecated name that the user gave.

    Raises:
        ParameterException: An override has the wrong type or is out of range.
        InvalidInput: The same, for an override under a deprecated name.
    """
    types = typing.get_type_hints(settings)
    warnings = []
    overrides = _overrides(node)
    for field in dataclasses.fields(settings):
        name = parameter_name(field)
        default = list(field.default) if isinstance(field.default, tuple) else field.default
        if name in overrides:
            kind = Parameter(name, value=default).type_
            overrides[name] = _with_type(overrides[name], kind)
        node.declare_parameter(name, default, _descriptor(field, types[field.name]))
        warnings += _use_deprecated_name(node, field)
    return warnings


def _descriptor(field: dataclasses.Field[Any], kind: type) -> ParameterDescriptor:
    """Return the text, the range and the valid words of a parameter."""
    descriptor = ParameterDescriptor(description=parameter_text(field))
    low, high = field.metadata.get("low"), field.metadata.get("high")
    choices = field.metadata.get("choices", ())
    if choices:
        descriptor.additional_constraints = "one of " + ", ".join(choices)
    if low is None or high is None:
        return descriptor
    if kind is float:
        bounds = FloatingPointRange(from_value=float(low), to_value=float(high))
        descriptor.floating_point_range = [bounds]
    if kind is int:
        descriptor.integer_range = [
            IntegerRange(from_value=int(low), to_value=int(high), step=1)
        ]
    return descriptor


def _use_deprecated_name(node: Node, field: dataclasses.Field[Any]) -> list[str]:
    """Set a declared parameter from an override under its deprecated name.

    Returns:
        The warning about the old name; nothing if the user did not give it.
    """
    name, old = parameter_name(field), field.metadata.get("deprecated", "")
    overrides = _overrides(node)
    if not old or old not in overrides:
        return []
    warning = f"parameter '{old}' is now '{name}'; the old name goes with the next release"
    if name in overrides:
        return [f"{warning}; the value of '{name}' is used"]
    given = Parameter(name, overrides[old].type_, overrides[old].value)
    kind = node.get_parameter(name).type_
    (result,) = node.set_parameters([_with_type(given, kind)])
    if not result.successful:
        raise InvalidInput(f"parameter '{old}': {result.reason}")
    return [warning]


def _overrides(node: Node) -> dict[str, Parameter]:
    """Return the parameters that the user gave in files and on the command line."""
    # rclpy has no public access to them
    overrides: dict[str, Parameter] = getattr(node, "_parameter_overrides", {})
    return overrides


def unknown_overrides(node: Node, *settings: type) -> list[str]:
    """Return one warning for each override that names no declared parameter.

    Args:
        node: The node, after all its parameters are declared.
        *settings: The dataclasses that declare its parameters.
    """
    valid = sorted(names(*settings))
    deprecated = {
        field.metadata.get("deprecated", "")
        for kind in settings
        for field in dataclasses.fields(kind)
    }
    warnings = []
    for name in sorted(_overrides(node)):
        if node.has_parameter(name) or name in deprecated or name.startswith(_OF_ROS):
            continue
        nearest = nearest_names(name, valid)
        hint = f"; nearest: {', '.join(nearest)}" if nearest else ""
        warnings.append(f"parameter '{name}' is unknown and has no effect{hint}")
    return warnings


def unknown_names(node: Node, given: Sequence[str], *settings: type) -> str:
    """Return which names are not declared, with the most similar valid ones; empty if none."""
    now = {
        field.metadata.get("deprecated", ""): parameter_name(field)
        for kind in settings
        for field in dataclasses.fields(kind)
    }
    texts = []
    for name in given:
        if node.has_parameter(name):
            continue
        if name in now:
            texts.append(f"parameter '{name}' is now '{now[name]}'")
            continue
        nearest = ", ".join(nearest_names(name, sorted(names(*settings))))
        texts.append(f"parameter '{name}' is unknown{nearest and f'; nearest: {nearest}'}")
    return "; ".join(texts)


def fit(node: Node, given: Parameter) -> Parameter:
    """Return a parameter with the type that the declared one has, where nothing is lost.

    An integer becomes a floating point number, and an empty list becomes a list of one blank text:
    rclpy cannot keep the type of an empty list.
    """
    return _with_type(given, node.get_parameter_or(given.name).type_)


def is_present(node: Node, given: Parameter) -> bool:
    """Whether a declared parameter has this value and type already."""
    present = node.get_parameter_or(given.name)
    if present.type_ != given.type_:
        return False
    if isinstance(given.value, str) or not isinstance(given.value, Sequence):
        return bool(present.value == given.value)
    return list(present.value) == list(given.value)


def _with_type(given: Parameter, kind: Parameter.Type) -> Parameter:
    """Return a parameter with a type if its value has one there, else the parameter itself."""
    if kind == Parameter.Type.DOUBLE and given.type_ == Parameter.Type.INTEGER:
        return Parameter(given.name, kind, float(given.value))
    empty = given.value is None or (isinstance(given.value, Sized) and not len(given.value))
    if (
        kind == Parameter.Type.STRING_ARRAY
        and given.type_ != Parameter.Type.STRING
        and empty
    ):
        return Parameter(given.name, kind, [""])
    return given


def nearest_names(name: str, valid: Sequence[str]) -> list[str]:
    """Return at most three valid names that resemble a name, the most similar first.

    Names are compared whole and without their group, so that a forgotten group is found.
    """

    def similarity(candidate: str) -> float:
        last = candidate.rpartition(".")[2], name.rpartition(".")[2]
        whole = difflib.SequenceMatcher(None, candidate, name).ratio()
        return max(whole, 0.99 * difflib.SequenceMatcher(None, *last).ratio())

    ranked = sorted(valid, key=similarity, reverse=True)
    return [candidate for candidate in ranked[:3] if similarity(candidate) > 0.6]


def names(*settings: type) -> set[str]:
    """Return the parameters that settings dataclasses declare."""
    return {
        parameter_name(field) for kind in settings for field in dataclasses.fields(kind)
    }


def read(node: Node, settings: type[T], changed: Sequence[Parameter] = ()) -> T:
    """Read the declared parameters back as their settings dataclass.

    Args:
        node: The node that has declared them.
        settings: The dataclass.
        changed: Parameters that are about to be set; their values replace the present ones.

    Raises:
        InvalidInput: A value is not valid; the message names the valid ones.
    """
    new = {parameter.name: parameter.value for parameter in changed}
    values = {}
    # T is one of our dataclasses
    for field in dataclasses.fields(settings):  # type: ignore[arg-type]
        name = parameter_name(field)
        value = new[name] if name in new else node.get_parameter_or(name).value
        check_value(field, name, value)
        values[field.name] = tuple(value) if isinstance(value, (list, tuple)) else value
    return settings(**values)
