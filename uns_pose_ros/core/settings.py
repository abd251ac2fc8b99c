"""Settings as fields of dataclasses, with the text, unit and range that users read.

A field made by `setting` becomes a ROS parameter, an option of the command line and a row of
docs/parameters.md. All three use the same text.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from uns_pose_ros.core.errors import InvalidInput


def setting(
    default: Any,
    text: str,
    *,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[str] = (),
    group: str = "",
    deprecated: str = "",
) -> Any:
    """Return a dataclass field that describes itself.

    Args:
        default: Value of the field if the user sets none.
        text: Meaning in one sentence, without the unit.
        unit: Unit of the value, such as "px"; empty for values without a unit.
        low: Least valid number; give both ends of a range or none.
        high: Largest valid number.
        choices: All valid words; empty if every word is valid.
        group: First part of the parameter's name, such as "solver"; empty for none.
        deprecated: Full name of the parameter in the release before, if it was different.
    """
    metadata = {
        "text": text,
        "unit": unit,
        "low": low,
        "high": high,
        "choices": tuple(choices),
        "group": group,
        "deprecated": deprecated,
    }
    return dataclasses.field(default=default, metadata=metadata)


def parameter_name(field: dataclasses.Field[Any]) -> str:
    """Return the full name of the parameter that a field becomes: "group.name" or "name"."""
    group = field.metadata.get("group", "")
    return f"{group}.{field.name}" if group else field.name


def parameter_text(field: dataclasses.Field[Any]) -> str:
    """Return the meaning of a field with its unit in brackets."""
    text = field.metadata.get("text") or field.name.replace("_", " ")
    unit = field.metadata.get("unit", "")
    return f"{text} [{unit}]" if unit else text


def check_ranges(settings: Any) -> None:
    """Raise InvalidInput if a value of a settings object is not valid, see `check_value`."""
    for field in dataclasses.fields(settings):
        check_value(field, field.name, getattr(settings, field.name))


def check_value(field: dataclasses.Field[Any], name: str, value: Any) -> None:
    """Check a value against the words or the range of a field.

    Args:
        field: The field of a settings dataclass.
        name: Name of the field in the message.
        value: Its value.

    Raises:
        InvalidInput: The value is not valid; the message names what is valid.
    """
    choices = field.metadata.get("choices", ())
    if choices and value not in choices:
        raise InvalidInput(f"{name} '{value}': one of {', '.join(choices)} is valid")
    low, high = field.metadata.get("low"), field.metadata.get("high")
    if low is not None and high is not None and not low <= value <= high:
        raise InvalidInput(f"{name} {value}: {low:g} to {high:g} is valid")
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidInput(f"{name} {value}: a finite number is valid")
