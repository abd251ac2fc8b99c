"""Write docs/parameters.md from the settings dataclasses of the two nodes."""

from __future__ import annotations

import dataclasses
import typing
from pathlib import Path
from typing import Any

from uns_pose_ros.core.settings import parameter_name
from uns_pose_ros.nodes.estimator import estimator_parameters
from uns_pose_ros.nodes.fusion import fusion_parameters
from uns_pose_ros.nodes.recorder import recorder_parameters

PAGE = Path(__file__).resolve().parents[1] / "docs" / "parameters.md"
_START = """\
# Parameters

Both nodes declare their parameters with a type, a range and a description. `ros2 param describe /estimator NAME` prints
the description. `tools/write_parameters.py` writes this page from the source code.

If a parameter file or a command line names an unknown parameter, the node logs a warning with the most similar names.
Names of version 0.1.0 (column "Name before") are still accepted at start; the next release removes them.

A value outside its range is refused with a reason, by `ros2 param set` and at start (exit code 2). The ranges leave out
values with which a node finds nothing. An integer is accepted for a floating point number. If values are set together
(`set_parameters_atomically`), all are accepted or none. The present value is accepted in every state, so
`ros2 param dump` and `ros2 param load` work on an active node.
"""
_AFTER_ESTIMATOR = """\
Parameters can change while the node is active; the next image is estimated with the new values, and the tracks stay.
These cannot, and the answer says what to do:

- `transport`, `regions`, `use_depth`, `depth_transport` and `tracking.fixed_frame`: deactivate the node first.
- `device` and `solver.runtime`: deactivate and clean up the node first.
- `autostart`: start the process again.

A `search.search_size` that is no multiple of 14 is rounded, and `/diagnostics` shows the size that is used.

`ros2 param set /estimator models "[mug/model,shoe/model]"` returns when the node uses the new models. Loading takes 0.1
s for each model, and the old models answer during this time. If the node refuses the new models, it returns the reason
and changes nothing. After a switch, all tracks start again. If the node has loaded all models,
`ros2 param set /estimator categories "[mug]"` selects the categories that the node searches for.

If a GPU has no free memory or is lost, the node continues. First it estimates the objects one by one; if this fails
too, the processor takes over. `/diagnostics` shows a warning, and the node tries the GPU again every minute. Tests
check this with the errors that PyTorch raises; nobody has tested it on a GPU yet.

### Large images

With the default settings of ROS 2, large images get lost on the way to the node: with best-effort QoS and Fast DDS, half
of those of 1280 × 720 at 30 Hz. `uns-pose doctor --images` measures it and says which setting helps:
[Large images](large_images.md).
"""
_AFTER_RECORDER = """\
`transport`, `depth`, `fixed_frame` and `queue` can change while the node is inactive. All other parameters can change
while the node does not record; `autostart` is read at the start of the process only.
"""


_AFTER_FUSION = """\
`cameras`, `fixed_frame` and `rate` can change while the node is inactive; all others hold from the next result on.
`tracking.evidence_decay` is not used: all cameras count alike.
"""


def main() -> None:
    """Write the page."""
    PAGE.write_text(page())


def page() -> str:
    """Return the page as Markdown."""
    parts = [
        _START,
        "## Parameters of the estimator\n",
        _table(*estimator_parameters.SETTINGS),
        _AFTER_ESTIMATOR,
        "## Parameters of the recorder\n",
        _table(*recorder_parameters.SETTINGS),
        _AFTER_RECORDER,
        "## Parameters of the fusion of cameras\n",
        _table(*fusion_parameters.SETTINGS),
        _AFTER_FUSION,
    ]
    return "\n".join(parts)


def _table(*settings: type) -> str:
    """Return one row for each field of the dataclasses; the column of old names only if used."""
    rows = []
    for kind in settings:
        types = typing.get_type_hints(kind)
        rows += [_row(field, types[field.name]) for field in dataclasses.fields(kind)]
    header = ["Parameter", "Default", "Unit", "Range", "Meaning", "Name before"]
    if not any(row[-1] for row in rows):
        header, rows = header[:-1], [row[:-1] for row in rows]
    lines = [header, ["---"] * len(header), *rows]
    return "".join(_line(cells) for cells in lines)


def _line(cells: list[str]) -> str:
    """Return one line of a table."""
    return "".join(f"| {cell} " if cell else "| " for cell in cells) + "|\n"


def _row(field: dataclasses.Field[Any], kind: type) -> list[str]:
    """Return the cells of one parameter."""
    facts = field.metadata
    before = facts["deprecated"]
    return [
        f"`{parameter_name(field)}`",
        _default(field.default),
        facts["unit"],
        _range(field, kind),
        facts["text"],
        f"`{before}`" if before else "",
    ]


def _default(value: Any) -> str:
    """Return a default value as it stands in YAML; nothing for an empty text."""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return "`[{}]`".format(", ".join(f'"{item}"' for item in value))
    return f"`{value}`" if value != "" else ""


def _range(field: dataclasses.Field[Any], kind: type) -> str:
    """Return the valid values: words, or both ends of a range."""
    facts = field.metadata
    if facts["choices"]:
        return ", ".join(f"`{word}`" for word in facts["choices"])
    if kind is bool:
        return "`true`, `false`"
    if facts["low"] is None:
        return ""
    return f"{facts['low']:.10g} to {facts['high']:.10g}"


if __name__ == "__main__":
    main()
