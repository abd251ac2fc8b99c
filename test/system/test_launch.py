"""Launch files, parameter file and RViz file agree with the node.

Started for real wherever `ros2 launch` is installed.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

pytest.importorskip("rclpy")
import rclpy
from rclpy.node import Node

from small_model import CLIP
from uns_pose_ros.capture.keyframes import KeyframeConfig
from uns_pose_ros.io.video_folder import load_video
from uns_pose_ros.nodes import entry_points, parameter_declaration
from uns_pose_ros.nodes.bringup import launch_values
from uns_pose_ros.nodes.estimator import estimator_node, estimator_parameters
from uns_pose_ros.nodes.estimator.estimator_parameters import NodeParameters
from uns_pose_ros.nodes.recorder.recorder_parameters import RecorderParameters

if TYPE_CHECKING:
    from ros_robot import Robot

ROOT = Path(__file__).resolve().parents[2]
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


def test_bringup_makes_the_ros_arguments_that_the_node_needs(
    tmp_path: Path, ros_domain: int
) -> None:
    models = [tmp_path / "mug's model", tmp_path / "shoe"]
    for folder in models:
        folder.mkdir()
    arguments = entry_points.ros_arguments(
        [
            *map(str, models),
            "--image",
            "/cam/image_raw",
            "--namespace",
            "left/",
            "--params-file",
            str(YAML),
            "--sim-time",
        ]
        + ["--ros-args", "-p", "object_diameter:=0.3"]
    )
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=ros_domain)
    node = Node("estimator", context=context, cli_args=arguments)
    parameter_declaration.declare(node, NodeParameters)
    settings = parameter_declaration.read(node, NodeParameters)
    topics = [
        node.resolve_topic_name(name)
        for name in ("image", "image/compressed", "camera_info", "~/overlay")
    ]
    sim_time = node.get_parameter("use_sim_time").value
    node.destroy_node()
    rclpy.shutdown(context=context)
    assert settings.model_folders == [str(folder) for folder in models]
    assert settings.object_diameter == 0.3
    assert topics == [
        "/cam/image_raw",
        "/cam/image_raw/compressed",
        "/left/camera_info",
        "/left/estimator/overlay",
    ]
    assert sim_time is True


def test_bringup_makes_the_ros_arguments_that_the_recorder_needs(ros_domain: int) -> None:
    arguments = entry_points.recorder_arguments(
        [
            "mug's videos",
            "--clip",
            "7",
            "--fixed-frame",
            "odom",
            "--record",
            "--image",
            "/cam/image_raw",
            "--namespace",
            "left",
        ]
        + ["--depth", "/cam/deep/compressedDepth"]
        + ["--params-file", str(RECORDER_YAML), "--ros-args", "-p", "queue:=3"]
    )
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=ros_domain)
    node = Node("recorder", context=context, cli_args=arguments)
    parameter_declaration.declare(node, RecorderParameters)
    settings = parameter_declaration.read(node, RecorderParameters)
    names = ("image", "image/compressed", "camera_info", "depth/compressedDepth", "~/start")
    topics = [node.resolve_topic_name(name) for name in names]
    node.destroy_node()
    rclpy.shutdown(context=context)
    assert settings == RecorderParameters(
        "mug's videos", "7", "odom", record=True, depth="compressed", queue=3
    )
    assert topics[:2] == ["/cam/image_raw", "/cam/image_raw/compressed"]
    assert topics[2:] == [
        "/left/camera_info",
        "/cam/deep/compressedDepth",
        "/left/recorder/start",
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing_there"], "no such folder"),
        (["--params-file", "nothing.yaml"], "no such file"),
    ],
)
def test_bringup_refuses_files_that_are_not_there(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        entry_points.ros_arguments(arguments)
    assert said in capsys.readouterr().err


@pytest.fixture
def installed() -> None:
    """Skip where the launch files cannot be started.

    No launch, or a package that colcon has not built.
    """
    pytest.importorskip("launch_ros")
    from ament_index_python.packages import (
        PackageNotFoundError,
        get_package_share_directory,
    )

    try:
        get_package_share_directory("uns_pose_ros")
    except PackageNotFoundError:
        pytest.skip("uns_pose_ros is not in an ament prefix (colcon build)")


# before the fixtures, which would train a model first
needs_launch = pytest.mark.skipif(
    importlib.util.find_spec("launch_ros") is None, reason="there is no launch_ros"
)


def ros2_has(verb: str) -> bool:
    """Whether this machine's `ros2` knows a command."""
    return (
        shutil.which("ros2") is not None
        and not subprocess.run(["ros2", verb, "--help"], capture_output=True).returncode
    )


def interrupted(process: subprocess.Popen[bytes]) -> int:
    """The exit code after SIGINT."""
    process.send_signal(signal.SIGINT)
    return process.wait(90)


@needs_launch
def test_estimate_starts_the_node_in_its_namespace_and_ends_clean(
    installed: None, robot: Robot
) -> None:
    if not ros2_has("launch"):
        pytest.skip("there is no ros2 launch")
    command = [
        "ros2",
        "launch",
        "uns_pose_ros",
        "estimate.launch.py",
        "autostart:=false",
        "namespace:=left",
    ]
    process = subprocess.Popen(command)
    try:
        robot.wait(
            "the node",
            lambda: ("estimator", "/left") in robot.node.get_node_names_and_namespaces(),
        )
    finally:
        code = interrupted(process)
    assert code == 0


@needs_launch
def test_what_is_recorded_and_played_is_found_by_the_estimator(
    installed: None, ros_domain: int, chair_model: Path, tmp_path: Path
) -> None:
    pytest.importorskip("launch_testing")
    given = {
        "UNS_POSE_TEST_MODEL": str(chair_model),
        "UNS_POSE_TEST_FOLDER": str(tmp_path / "chair"),
    }
    paths = os.pathsep.join(
        [str(ROOT / "test" / "support"), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    command = [
        sys.executable,
        "-c",
        "from launch_testing.launch_test import main; main()",
        str(ROOT / "test/support/chain_launch.py"),
    ]
    done = subprocess.run(
        command,
        env={**os.environ, **given, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@needs_launch
def test_replay_plays_a_bag_to_the_node_and_ends_after_it(
    installed: None, robot: Robot, chair_model: Path, tmp_path: Path
) -> None:
    if not ros2_has("bag"):
        pytest.skip("there is no ros2 bag")
    pytest.importorskip("rosbags")
    from bag_writer import write_photographs

    write_photographs(tmp_path / "bag", load_video(CLIP).frames[:6:2])
    arguments = {
        "bag": tmp_path / "bag",
        "models": chair_model,
        "device": "cpu",
        "image": "/eye/image_raw",
        "camera_info": "/eye/camera_info",
        "rviz": "false",
        "rate": 0.2,
    }
    given = [f"{name}:={value}" for name, value in arguments.items()]
    process = subprocess.Popen(
        ["ros2", "launch", "uns_pose_ros", "replay.launch.py", *given]
    )
    try:
        robot.wait(
            "an object", lambda: [m for m in robot.received["detections"] if m.detections]
        )
        assert process.wait(90) == 0
    finally:
        process.kill()
