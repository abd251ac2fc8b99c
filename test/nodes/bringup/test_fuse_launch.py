"""fuse.launch.py starts an estimator for each camera and the fusion node, with valid parameters.

Where launch is not installed, plain stand-ins record what the file describes.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("rclpy")
from uns_pose_ros.nodes import parameter_declaration
from uns_pose_ros.nodes.estimator import estimator_parameters
from uns_pose_ros.nodes.fusion import fusion_parameters

ROOT = Path(__file__).resolve().parents[3]
COMMON = "uns_pose_ros.nodes.bringup.launch_common"


class Described:
    """Stand-in of an action: it keeps what it is given."""

    def __init__(self, *values: Any, **options: Any) -> None:
        self.values, self.options = values, options
        self.name = values[0] if values else ""

    def perform(self, context: dict[str, str]) -> str:
        return context[str(self.name)]


@pytest.fixture
def fuse(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The launch file as a module."""
    if importlib.util.find_spec("launch_ros") is not None:
        pytest.skip("launch_ros is installed: its own tests load the file")
    for path, names in {
        "launch": ("LaunchContext", "LaunchDescription"),
        "launch.action": ("Action",),
        "launch.actions": (
            "DeclareLaunchArgument",
            "GroupAction",
            "OpaqueFunction",
            "Shutdown",
        ),
        "launch.events": (),
        "launch.events.process": ("ProcessExited",),
        "launch.launch_context": ("LaunchContext",),
        "launch.launch_description": ("LaunchDescription",),
        "launch.substitutions": ("LaunchConfiguration",),
        "launch_ros": (),
        "launch_ros.actions": ("Node",),
        "launch_ros.parameter_descriptions": ("ParameterFile", "ParameterValue"),
        "ament_index_python": (),
        "ament_index_python.packages": (),
    }.items():
        stand_in = ModuleType(path)
        for name in names:
            setattr(stand_in, name, Described)
        monkeypatch.setitem(sys.modules, path, stand_in)
    packages: Any = sys.modules["ament_index_python.packages"]
    packages.get_package_share_directory = lambda _: str(ROOT)
    monkeypatch.delitem(sys.modules, COMMON, raising=False)
    spec = importlib.util.spec_from_file_location("fuse", ROOT / "launch/fuse.launch.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop(COMMON, None)


def plain(value: Any) -> Any:
    return value.values[0] if isinstance(value, Described) else value


def test_each_camera_has_an_estimator_and_all_have_one_fusion_node(fuse: Any) -> None:
    assert isinstance(fuse.generate_launch_description(), Described)
    given = {
        argument.name: argument.options.get("default_value", "")
        for argument in fuse.ARGUMENTS
    }
    given |= {
        "cameras": "left, right,top",
        "fixed_frame": "map",
        "models": str(ROOT),
        "object_diameter": "0.1",
    }
    *estimators, fusion = fuse.processes(given)
    assert [each.options["namespace"] for each in estimators] == ["left", "right", "top"]
    known = parameter_declaration.names(*estimator_parameters.SETTINGS)
    for each in estimators:
        assert (each.options["executable"], each.options["name"]) == (
            "estimator",
            "estimator",
        )
        file, parameters = each.options["parameters"]
        assert Path(plain(file)).is_file()
        assert set(parameters) - {"use_sim_time"} <= known
        topics = dict(each.options["remappings"])
        assert topics["image"] == f"/{each.options['namespace']}/image_raw"
        assert topics["camera_info"] == f"/{each.options['namespace']}/camera_info"
    (parameters,) = fusion.options["parameters"]
    names = parameter_declaration.names(*fusion_parameters.SETTINGS)
    assert set(parameters) - {"use_sim_time"} <= names
    assert plain(parameters["cameras"]) == ["left", "right", "top"]
    assert plain(parameters["fixed_frame"]) == "map"
    assert (fusion.options["executable"], fusion.options["respawn"]) == ("fusion", True)
