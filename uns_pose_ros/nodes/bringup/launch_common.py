"""Arguments that several launch files have, and the processes that they start."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ament_index_python.packages import get_package_share_directory
from launch.action import Action
from launch.actions import DeclareLaunchArgument, GroupAction, OpaqueFunction, Shutdown
from launch.events.process import ProcessExited
from launch.launch_context import LaunchContext
from launch.launch_description import LaunchDescription
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterFile, ParameterValue

from uns_pose_ros.nodes.bringup import launch_values

PACKAGE = "uns_pose_ros"
RVIZ = "rviz2"
_RESPAWN_DELAY = 2.0  # s
_SHOWN = ("overlay", "markers", "detections")  # topics of the estimator that RViz shows


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
            "transport",
            default_value="",
            description="topic of the images: image (raw) or image/compressed (compressed); "
            "empty: as in params_file",
        ),
        DeclareLaunchArgument(
            "rectified",
            default_value="",
            description="true: the images are rectified; empty: as in params_file",
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
            "respawn",
            default_value="false",
            description="true: start the node again 2 s after its process ended; false: end "
            "the launch, with an error if the node failed",
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
    arguments: Sequence[DeclareLaunchArgument],
    processes: Callable[[LaunchContext], list[Action]],
) -> LaunchDescription:
    """Describe a launch: the arguments, and the processes that depend on their values.

    Both are in a scope of their own. Otherwise the defaults, such as the node's name, would apply
    to launch files that are included afterwards.
    """
    return LaunchDescription(
        [GroupAction([*arguments, OpaqueFunction(function=processes)])]
    )


def values(
    context: LaunchContext, arguments: Sequence[DeclareLaunchArgument]
) -> dict[str, str]:
    """Return the value of each argument."""
    return {
        argument.name: LaunchConfiguration(argument.name).perform(context)
        for argument in arguments
    }


def node(
    given: Mapping[str, str],
    executable: str,
    parameters: Mapping[str, Any],
    remappings: Sequence[tuple[str, str]] = (),
    **options: Any,
) -> Node:
    """Describe the process of a node; the launch ends with it, unless it respawns.

    Args:
        given: Values of the launch arguments.
        executable: Name of the node's executable.
        parameters: Parameters besides the common ones.
        remappings: Remappings besides the common ones.
        options: Further options of launch_ros's Node.

    Raises:
        InvalidInput: The parameter file does not exist, or a flag is not valid.
    """
    flags = {
        name: launch_values.read_flag(given, name) for name in ("autostart", "use_sim_time")
    }
    image = given["image"]
    topics = [
        ("image", image),
        ("image/compressed", f"{image}/compressed"),
        ("camera_info", given["camera_info"]),
    ]
    respawn = launch_values.read_flag(given, "respawn")
    return Node(
        package=PACKAGE,
        executable=executable,
        name=given["name"],
        namespace=given["namespace"],
        parameters=[
            ParameterFile(launch_values.existing_path(given, "params_file")),
            {name: _typed(value) for name, value in {**flags, **parameters}.items()},
        ],
        remappings=[*topics, *remappings],
        arguments=["--ros-args", "--log-level", given["log_level"]],
        output="screen",
        respawn=respawn,
        respawn_delay=_RESPAWN_DELAY,
        on_exit=None if respawn else end_with_process,
        **options,
    )


def _typed(value: Any) -> Any:
    """Keep strings strings: launch_ros reads `7` or `off` as YAML otherwise."""
    if isinstance(value, str):
        return ParameterValue(value, value_type=str)
    if isinstance(value, list):
        return ParameterValue(value, value_type=list[str])
    return value


def end_with_process(event: ProcessExited, context: LaunchContext) -> Shutdown | None:
    """End the launch when a process has ended by itself.

    Raises:
        RuntimeError: The process failed; `ros2 launch` prints this and ends with code 1.
    """
    if context.is_shutdown:
        return None
    if event.returncode:
        raise RuntimeError(
            f"{event.process_name} has ended with code {event.returncode}; its messages above "
            "say why"
        )
    return Shutdown(reason=f"{event.process_name} has ended")


def rviz(given: Mapping[str, str], frame: str) -> Node:
    """Describe the process of RViz.

    Args:
        given: Values of the launch arguments of the estimator.
        frame: RViz's fixed frame; empty: that of its configuration.

    Raises:
        InvalidInput: The configuration does not exist.
    """
    config = launch_values.existing_path(given, "rviz_config")
    own = launch_values.own_name(given)
    return Node(
        package=RVIZ,
        executable=RVIZ,
        name="rviz",
        namespace=given["namespace"],
        arguments=["-d", config, *(["-f", frame] if frame else [])],
        remappings=[(f"/estimator/{topic}", f"{own}/{topic}") for topic in _SHOWN],
        parameters=[{"use_sim_time": launch_values.read_flag(given, "use_sim_time")}],
    )


def is_rviz(action: Action) -> bool:
    """Whether an action is the process of RViz."""
    return isinstance(action, Node) and action.node_package == RVIZ


def overlay_window(given: Mapping[str, str]) -> list[Node]:
    """Describe the process of the window with the overlay, if the argument `overlay` is true."""
    if not launch_values.read_flag(given, "overlay"):
        return []
    window = Node(
        package="rqt_image_view",
        executable="rqt_image_view",
        name="overlay_view",
        namespace=given["namespace"],
        arguments=[f"{launch_values.own_name(given)}/overlay"],
    )
    return [window]
