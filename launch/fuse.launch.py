r"""Start an estimator for each of several cameras, and the node that fuses their results.

    ros2 launch uns_pose_ros fuse.launch.py cameras:=left,right,top fixed_frame:=map \
        models:=mug/model image:=image_raw

The topics of a camera are in its namespace: /left/image_raw. The transforms from fixed_frame to the
frames of the images must be on /tf or /tf_static.
"""

from launch import LaunchContext, LaunchDescription
from launch.action import Action
from launch.actions import DeclareLaunchArgument
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from uns_pose_ros.nodes.bringup import launch_common, launch_values

ARGUMENTS = [
    DeclareLaunchArgument(
        "cameras",
        description="namespaces of the cameras, comma separated, e.g. left,right",
    ),
    DeclareLaunchArgument(
        "fixed_frame", description="TF frame of the results, which does not move, e.g. map"
    ),
    DeclareLaunchArgument(
        "models",
        default_value="",
        description="folders of trained models, comma separated; empty: those of params_file",
    ),
    DeclareLaunchArgument(
        "image",
        default_value="image_raw",
        description="topic of the images in each camera's namespace",
    ),
    DeclareLaunchArgument(
        "camera_info",
        default_value="camera_info",
        description="topic of the calibration in each camera's namespace",
    ),
    DeclareLaunchArgument(
        "depth",
        default_value="",
        description="topic of depth images in each camera's namespace; empty: as in params_file",
    ),
    DeclareLaunchArgument(
        "object_diameter",
        default_value="",
        description="m, diagonal of the object's box, for models without a known size; empty: "
        "as in params_file",
    ),
    DeclareLaunchArgument(
        "device",
        default_value="",
        description="auto, cpu, cuda or cuda:N; empty: that of params_file",
    ),
    DeclareLaunchArgument(
        "params_file",
        default_value=launch_common.share("config", "estimator.yaml"),
        description="parameter file of all estimators, YAML",
    ),
    DeclareLaunchArgument(
        "autostart",
        default_value="true",
        description="false: all nodes wait for a lifecycle manager",
    ),
    DeclareLaunchArgument(
        "respawn",
        default_value="true",
        description="true: a node starts again 2 s after its process ended; false: it ends the "
        "launch",
    ),
    DeclareLaunchArgument(
        "use_sim_time",
        default_value="false",
        description="true: take the time from /clock",
    ),
    DeclareLaunchArgument(
        "log_level", default_value="info", description="debug, info, warn, error or fatal"
    ),
]


def processes(context: LaunchContext) -> list[Action]:
    """Describe the processes; the arguments have their values now."""
    given = launch_common.values(context, ARGUMENTS)
    cameras = launch_values.camera_names(given)
    started: list[Action] = []
    for camera in cameras:
        own = launch_values.camera_values(given, camera)
        parameters, remappings = launch_values.estimator_parameters(own)
        # the node waits up to 10 s for the image that it works on
        started.append(
            launch_common.node(
                own, "estimator", parameters, remappings, sigterm_timeout="15"
            )
        )
    respawn = launch_values.read_flag(given, "respawn")
    fusion = Node(
        package=launch_common.PACKAGE,
        executable="fusion",
        name="fusion",
        parameters=[
            {
                "cameras": ParameterValue(cameras, value_type=list[str]),
                "fixed_frame": ParameterValue(given["fixed_frame"], value_type=str),
                "autostart": launch_values.read_flag(given, "autostart"),
                "use_sim_time": launch_values.read_flag(given, "use_sim_time"),
            }
        ],
        arguments=["--ros-args", "--log-level", given["log_level"]],
        output="screen",
        respawn=respawn,
        respawn_delay=2.0,
        on_exit=None if respawn else launch_common.end_with_process,
    )
    return [*started, fusion]


def generate_launch_description() -> LaunchDescription:
    """Describe the launch."""
    return launch_common.description(ARGUMENTS, processes)
