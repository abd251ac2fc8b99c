"""Resolve the requirements of a robot for ARM: every package must have a wheel there.

    python3 tools/check_wheels.py                                    requirements/robot.txt
    python3 tools/check_wheels.py requirements/robot-pipeline.txt

It asks the Python package index and installs nothing. pip chooses the wheels by the tags of the
other machine; the conditions of requirements (`; platform_machine == …`) it would take from this
machine, so that they are replaced here.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MACHINE = "aarch64"
# Python and C library of the distributions: Humble on Ubuntu 22.04; Jazzy and Kilted on 24.04
TARGETS = {"3.10": 35, "3.12": 39}
_RUN_PIP = """
import sys
from pip._vendor.packaging import markers
machine, python = sys.argv[1:3]
here = markers.default_environment()
there = {**here, "platform_machine": machine, "python_version": python,
         "python_full_version": python + ".0"}
markers.default_environment = lambda: dict(there)
from pip._internal.cli.main import main
sys.exit(main(sys.argv[3:]))
"""


def pip_command(requirements: Path, python: str, report: Path) -> list[str]:
    """Return the command that resolves a file for another machine and installs nothing."""
    tags = [
        "manylinux2014",
        *(f"manylinux_2_{minor}" for minor in range(17, TARGETS[python] + 1)),
    ]
    platforms = [word for tag in tags for word in ("--platform", f"{tag}_{MACHINE}")]
    return [
        *(sys.executable, "-c", _RUN_PIP, MACHINE, python, "install", "--quiet"),
        *("--dry-run", "--ignore-installed", "--target", str(report.parent / "target")),
        *("--only-binary=:all:", *platforms, "--python-version", python),
        *("--report", str(report), "--requirement", str(requirements)),
    ]


def chosen_wheels(report: dict[str, Any]) -> list[str]:
    """Return the file names of the wheels in a report of pip, sorted."""
    return sorted(
        entry["download_info"]["url"].rpartition("/")[2] for entry in report["install"]
    )


def main() -> None:
    given = [Path(word).resolve() for word in sys.argv[1:]]
    for requirements in given or [ROOT / "requirements" / "robot.txt"]:
        for python in TARGETS:
            with tempfile.TemporaryDirectory() as folder:
                report = Path(folder) / "report.json"
                command = pip_command(requirements, python, report)
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    sys.exit(
                        f"{requirements.name}, {MACHINE}, Python {python}:\n{done.stderr}"
                    )
                wheels = chosen_wheels(json.loads(report.read_text()))
            print(f"{requirements.name}, {MACHINE}, Python {python}: {len(wheels)} wheels")
            print("".join(f"    {wheel}\n" for wheel in wheels), end="")


if __name__ == "__main__":
    main()
