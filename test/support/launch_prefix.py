"""An ament prefix whose programs are scripts of the test, to run the launch files of this package.

It needs `launch` and `launch_ros`; no program of ROS is started.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = {
    "uns_pose_ros": ("estimator", "recorder", "camera_player"),
    "rviz2": ("rviz2",),
    "rqt_image_view": ("rqt_image_view",),
}
# writes its arguments into the folder, then does what the test wants
SHELL = """#!/bin/sh
echo "$@" >> {out}/{name}
for word in "$@"; do
    case "$word" in /tmp/launch_params*) cat "$word" >> {out}/{name}.yaml;; esac
done
{then}
"""


class Prefix:
    """The installed package, beside programs that the test writes."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.out = folder / "out"
        self._folder = folder / "prefix"
        self._bin = folder / "bin"
        index = self._folder / "share" / "ament_index" / "resource_index" / "packages"
        for path in (self.out, self._bin, index):
            path.mkdir(parents=True)
        for package, programs in PROGRAMS.items():
            (index / package).touch()
            for program in programs:
                self.write(program, "exec sleep 60", package)
        share = self._folder / "share" / "uns_pose_ros"
        share.mkdir()
        for name in ("launch", "config"):
            (share / name).symlink_to(ROOT / name)
        self._share = share
        patch.setenv("AMENT_PREFIX_PATH", str(self._folder), prepend=":")
        patch.setenv("PATH", str(self._bin), prepend=":")
        self.write("ros2", "exit 0")

    def write(self, name: str, then: str, package: str = "") -> None:
        """Write a program: it notes its arguments, then runs a line of shell.

        Args:
            name: Name of the program.
            then: The line.
            package: Its package; empty: the program is on the PATH.
        """
        folder = self._folder / "lib" / package if package else self._bin
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / name
        path.write_text(SHELL.format(out=self.out, name=name, then=then))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def run(
        self,
        file: str,
        given: Mapping[str, str],
        started: Callable[[Any], None] = lambda service: None,
    ) -> int:
        """Run a launch file until it ends, and return the exit code of `ros2 launch`.

        Args:
            file: Name without .launch.py.
            given: Values of launch arguments.
            started: The function gets the launch service before it runs.
        """
        from launch.actions import IncludeLaunchDescription
        from launch.launch_description import LaunchDescription
        from launch.launch_description_sources import PythonLaunchDescriptionSource
        from launch.launch_service import LaunchService

        source = PythonLaunchDescriptionSource(f"{self._share}/launch/{file}.launch.py")
        service = LaunchService(noninteractive=True)
        started(service)
        included = IncludeLaunchDescription(source, launch_arguments=given.items())
        service.include_launch_description(LaunchDescription([included]))
        return int(service.run())

    def arguments(self, name: str) -> str:
        """Return what a program was called with; empty if it was not called."""
        path = self.out / name
        return path.read_text().strip() if path.exists() else ""
