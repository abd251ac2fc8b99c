"""Helpers of the launch files: arguments, the node's process, the window with the overlay."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, GroupAction, OpaqueFunction
from launch.conditions import IfCondition
from launch.launch_context import LaunchContext
from launch.launch_description import LaunchDescription
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterFile, ParameterValue

PACKAGE = "uns_pose_ros"


def share(folder: str, file: str) -> str:
    """Return the path of an installed file of the package."""
    return f"{get_package_share_directory(PACKAGE)}/{folder}/{file}"


def common_arguments(name: str) -> list[DeclareLaunchArgument]:
    """Declare the arguments that both nodes have.

    `name` is the node's default name and the name of its parameter file.
    """
    return [
        DeclareLaunchArgument(
            "image",
            default_value="image",
            description="topic of the images; with transport compressed the one without "
            "/compressed",
        ),
        DeclareLaunchArgument(
            "camera_info",
            default_value="camera_info",
            description="topic of the camera's calibration",
        ),
        DeclareLaunchArgument(
            "namespace",
            default_value="",
            description="put before the node's name and every relative topic",
        ),
        DeclareLaunchArgument(
            "name", default_value=name, description="the node's name, part of its topics"
        ),
        DeclareLaunchArgument(
            "params_file",
            default_value=share("config", f"{name}.yaml"),
            description="parameter file of the node, YAML",
        ),
        DeclareLaunchArgument(
            "autostart",
            default_value="true",
            description="false: stay unconfigured and wait for a lifecycle manager",
        ),
        DeclareLaunchArgument(
            "use_sim_time",
            default_value="false",
            description="true: take the time from /clock",
        ),
        DeclareLaunchArgument(
            "log_level",
            default_value="info",
            description="debug, info, warn, error or fatal",
        ),
        DeclareLaunchArgument(
            "overlay",
            default_value="false",
            description="true: open a window with the overlay (rqt_image_view)",
        ),
    ]


def description(
    arguments: Sequence[DeclareLaunchArgument], nodes: Callable[[LaunchContext], list[Node]]
) -> LaunchDescription:
    """Describe a launch: the arguments, and the processes that depend on their values.

    Both are in a scope of their own. Otherwise the defaults, such as the node's name, would apply
    to launch files that are included afterwards.
    """
    return LaunchDescription([GroupAction([*arguments, OpaqueFunction(function=nodes)])])


def values(
    context: LaunchContext, arguments: Sequence[DeclareLaunchArgument]
) -> dict[str, str]:
    """Return the value of each argument."""
    return {
        argument.name: LaunchConfiguration(argument.name).perform(context)
        for argument in arguments
    }


def flag(name: str) -> ParameterValue:
    """Make a Boolean parameter of an argument."""
    return ParameterValue(LaunchConfiguration(name), value_type=bool)


def own_name(given: Mapping[str, str]) -> str:
    """Return the node's name with its namespace."""
    namespace = given["namespace"].strip("/")
    return f"/{namespace}/{given['name']}" if namespace else f"/{given['name']}"


def node(
    given: Mapping[str, str],
    executable: str,
    parameters: Mapping[str, Any],
    remappings: Sequence[tuple[str, str]] = (),
    **options: Any,
) -> Node:
    """Describe the process of a node.

    Args:
        given: Values of the launch arguments.
        executable: Name of the node's executable.
        parameters: Parameters besides the common ones.
        remappings: Remappings besides the common ones.
        options: Further options of launch_ros's Node.
    """
    common = {"autostart": flag("autostart"), "use_sim_time": flag("use_sim_time")}
    image = given["image"]
    topics = [
        ("image", image),
        ("image/compressed", f"{image}/compressed"),
        ("camera_info", given["camera_info"]),
    ]
    return Node(
        package=PACKAGE,
        executable=executable,
        name=given["name"],
        namespace=given["namespace"],
        parameters=[ParameterFile(given["params_file"]), {**common, **parameters}],
        remappings=[*topics, *remappings],
        arguments=["--ros-args", "--log-level", given["log_level"]],
        output="screen",
        **options,
    )


def overlay_window(given: Mapping[str, str]) -> Node:
    """Describe the process of the window with the overlay."""
    return Node(
        package="rqt_image_view",
        executable="rqt_image_view",
        name="overlay_view",
        namespace=given["namespace"],
        arguments=[f"{own_name(given)}/overlay"],
        condition=IfCondition(given["overlay"]),
    )
