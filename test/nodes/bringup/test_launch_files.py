"""Launch files, parameter files and the RViz file agree with the nodes and the page."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml

pytest.importorskip("rclpy")
import rclpy
from rclpy.node import Node

from uns_pose_ros.capture.keyframes import KeyframeConfig
from uns_pose_ros.nodes import parameter_declaration
from uns_pose_ros.nodes.bringup import launch_values
from uns_pose_ros.nodes.estimator import estimator_node, estimator_parameters
from uns_pose_ros.nodes.estimator.estimator_parameters import NodeParameters
from uns_pose_ros.nodes.recorder.recorder_parameters import RecorderParameters

ROOT = Path(__file__).resolve().parents[3]
LAUNCH = sorted((ROOT / "launch").glob("*.launch.py"))
COMMON = ROOT / "uns_pose_ros" / "nodes" / "bringup" / "launch_common.py"
PAGE = (ROOT / "docs" / "launch.md").read_text()
# defaults that are not written out in a launch file, as the page shows them
DEFAULTS = {
    "name": "`estimator` or `recorder`",
    "share('config', f'{name}.yaml')": "`config/estimator.yaml` or `config/recorder.yaml`",
    "launch_common.share('config', 'uns_pose.rviz')": "`config/uns_pose.rviz`",
    "launch_common.share('config', 'estimator.yaml')": "`config/estimator.yaml`",
}
YAML = ROOT / "config" / "estimator.yaml"
RECORDER_YAML = ROOT / "config" / "recorder.yaml"


def calls(path: Path, name: str) -> list[ast.Call]:
    """Calls of a class by its plain name in a file, without importing it."""
    nodes = ast.walk(ast.parse(path.read_text()))
    found = [node for node in nodes if isinstance(node, ast.Call)]
    return [
        call for call in found if isinstance(call.func, ast.Name) and call.func.id == name
    ]


def keywords(call: ast.Call) -> dict[str, ast.expr]:
    """Keyword arguments of a call."""
    return {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}


def own_arguments(path: Path) -> dict[str, tuple[str, str]]:
    """Default, as the page shows it, and description of every argument that a file declares."""
    found = {}
    for call in calls(path, "DeclareLaunchArgument"):
        given = keywords(call)
        default = given.get("default_value")
        shown = "required"
        if isinstance(default, ast.Constant):
            shown = f"`{default.value!s}`" if default.value else ""
        elif default is not None:
            shown = DEFAULTS[ast.unparse(default)]
        name = ast.literal_eval(call.args[0])
        found[name] = (shown, ast.literal_eval(given["description"]))
    return found


def declared_arguments(path: Path) -> dict[str, tuple[str, str]]:
    """All arguments of a launch file, those in common too."""
    common = "launch_common.common_arguments(" in path.read_text()
    return (own_arguments(COMMON) if common else {}) | own_arguments(path)


@pytest.mark.parametrize("path", LAUNCH, ids=lambda path: path.name)
def test_every_launch_argument_is_described_and_every_one_used_is_declared(
    path: Path,
) -> None:
    arguments = declared_arguments(path)
    assert arguments
    assert [name for name, (_, text) in arguments.items() if len(text) < 15] == []
    source = path.read_text()
    used = set(re.findall(r'(?:given\[|LaunchConfiguration\(|given, )"(\w+)"', source))
    # the node's program, not an argument
    assert used - {"estimator", "recorder"} <= arguments.keys()


def test_every_argument_that_becomes_a_parameter_is_declared() -> None:
    for file, names in (
        ("estimate", launch_values._ESTIMATOR),
        ("record", launch_values._RECORDER),
    ):
        declared = declared_arguments(ROOT / "launch" / f"{file}.launch.py")
        assert names.keys() <= declared.keys()
    settings = parameter_declaration.names(*estimator_parameters.SETTINGS)
    assert set(launch_values._ESTIMATOR.values()) <= settings
    recorder = parameter_declaration.names(RecorderParameters)
    assert set(launch_values._RECORDER.values()) <= recorder


@pytest.mark.parametrize(
    ("heading", "path"),
    [
        ("Arguments of the estimator and the recorder", COMMON),
        *((path.name, path) for path in LAUNCH),
    ],
)
def test_the_page_lists_exactly_the_arguments_of_the_launch_files(
    heading: str, path: Path
) -> None:
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    listed = [line for line in section.splitlines() if line.startswith("| `")]
    declared = own_arguments(path).items()
    assert listed == [
        f"| `{name}` | {shown} | {text} |" for name, (shown, text) in declared
    ]


def test_the_launch_kills_no_estimator_that_still_works_on_an_image() -> None:
    text = (ROOT / "launch" / "estimate.launch.py").read_text()
    [patience] = re.findall(r'sigterm_timeout="(\d+)"', text)
    assert float(patience) > estimator_node._STOP_TIMEOUT


def test_fixed_frame_is_a_frame_of_tf_in_every_launch_file() -> None:
    for file in ("estimate", "record", "fuse"):
        declared = declared_arguments(ROOT / "launch" / f"{file}.launch.py")
        assert declared["fixed_frame"][1].startswith("TF frame")
    assert "rviz_fixed_frame" in declared_arguments(ROOT / "launch" / "estimate.launch.py")


def test_the_parameter_file_holds_parameters_of_the_node_that_are_valid(
    ros_domain: int,
) -> None:
    given = yaml.safe_load(YAML.read_text())["/**"]["ros__parameters"]
    assert given.keys() <= parameter_declaration.names(*estimator_parameters.SETTINGS)
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=ros_domain)
    node = Node(
        "estimator", context=context, cli_args=["--ros-args", "--params-file", str(YAML)]
    )
    for kind in estimator_parameters.SETTINGS:
        parameter_declaration.declare(node, kind)
        parameter_declaration.read(node, kind)
    settings = parameter_declaration.read(node, NodeParameters)
    node.destroy_node()
    rclpy.shutdown(context=context)
    assert settings.model_folders == []
    assert settings.object_diameter == given["object_diameter"]


def test_the_recorders_parameter_file_holds_its_parameters_and_none_is_other_than_the_default(
    ros_domain: int,
) -> None:
    given = yaml.safe_load(RECORDER_YAML.read_text())["/**"]["ros__parameters"]
    assert given.keys() <= parameter_declaration.names(RecorderParameters, KeyframeConfig)
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=ros_domain)
    node = Node(
        "recorder",
        context=context,
        cli_args=["--ros-args", "--params-file", str(RECORDER_YAML)],
    )
    parameter_declaration.declare(node, RecorderParameters)
    settings = parameter_declaration.read(node, RecorderParameters)
    node.destroy_node()
    rclpy.shutdown(context=context)
    assert settings == RecorderParameters()


def test_rviz_shows_topics_that_the_node_publishes() -> None:
    displays = yaml.safe_load((ROOT / "config" / "uns_pose.rviz").read_text())[
        "Visualization Manager"
    ]["Displays"]
    shown = {display["Topic"]["Value"] for display in displays if "Topic" in display}
    published = (
        ROOT / "uns_pose_ros" / "nodes" / "estimator" / "result_publishers.py"
    ).read_text()
    assert shown == {"/estimator/overlay", "/estimator/markers", "/estimator/detections"}
    assert all(display["Enabled"] for display in displays)
    [scores] = [display["Show Score"] for display in displays if "Show Score" in display]
    assert scores is True
    assert all(f'"~/{topic.rsplit("/", 1)[1]}"' in published for topic in shown)
