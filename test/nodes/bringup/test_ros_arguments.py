"""The words of a command become the ROS arguments of its node."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("rclpy")
import rclpy
from rclpy.node import Node

from uns_pose_ros.nodes import entry_points, parameter_declaration
from uns_pose_ros.nodes.estimator.estimator_parameters import NodeParameters
from uns_pose_ros.nodes.recorder.recorder_parameters import RecorderParameters

ROOT = Path(__file__).resolve().parents[3]
YAML = ROOT / "config" / "estimator.yaml"
RECORDER_YAML = ROOT / "config" / "recorder.yaml"


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
