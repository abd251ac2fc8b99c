"""Write the licence of every package of a lock as an SBOM (CycloneDX 1.6, JSON), from what is
installed in .venv.

    .venv/bin/python requirements/licences.py [FILE]
        default: standard output; a table of licences goes to standard error

Licences are those that the packages themselves declare: the SPDX expression, else the classifiers,
else the free text.
"""

from __future__ import annotations

import json
import re
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[1]
_LOCK = (
    _ROOT / "requirements" / f"bare-py{sys.version_info.major}{sys.version_info.minor}.txt"
)


def main() -> None:
    components = [_component(name, version) for name, version in _pins()]
    record = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "components": components,
    }
    text = json.dumps(record, indent=1) + "\n"
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(text)
    else:
        print(text, end="")
    counts = Counter(
        component["licenses"][0]["license"]["name"] for component in components
    )
    for licence, count in counts.most_common():
        print(f"{count:4d}  {licence}", file=sys.stderr)


def _pins() -> list[tuple[str, str]]:
    lines = [
        line for line in _LOCK.read_text().splitlines() if line and not line.startswith("#")
    ]
    return [
        (name, version) for name, _, version in (line.partition("==") for line in lines)
    ]


def _component(name: str, version: str) -> dict[str, Any]:
    return {
        "type": "library",
        "name": name,
        "version": version,
        "purl": f"pkg:pypi/{name}@{version}",
        "licenses": [{"license": {"name": _licence(name)}}],
    }


def _licence(name: str) -> str:
    try:
        told: Any = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return "not installed here"
    if expression := told.get("License-Expression"):
        return expression
    classifiers = [
        line.rpartition("::")[2].strip()
        for line in told.get_all("Classifier") or ()
        if line.startswith("License ::")
    ]
    named = [one for one in classifiers if one != "OSI Approved"]
    if named:
        return ", ".join(named)
    if name.startswith("ros-"):
        return _of_ros(name)
    text = (told.get("License") or "").strip()
    if (first := re.match(r"[^\n]{1,60}", text)) and text != "UNKNOWN":
        return first[0]
    return "not declared"


def _of_ros(name: str) -> str:
    """The wheels of ROS packages carry package.xml instead.

    Those without are empty and require one that has it.
    """
    package = name.removeprefix("ros-").removeprefix("jazzy-").replace("-", "_")
    for path in metadata.distribution(name).files or ():
        if path.name == "package.xml" and path.parent.name == package:
            licences = ET.parse(str(path.locate())).getroot().iter("license")
            return ", ".join(sorted({(element.text or "").strip() for element in licences}))
    return "not declared"


if __name__ == "__main__":
    main()
