r"""Start the recorder node on a camera's topics, and on request the window with its overlay.

    ros2 launch uns_pose_ros record.launch.py category:=mug image:=/camera/image_raw \
        camera_info:=/camera/camera_info fixed_frame:=odom overlay:=true
    ros2 service call /recorder/start std_srvs/srv/Trigger        (or record:=true)

`ros2 launch uns_pose_ros record.launch.py -s` lists the arguments.
"""

from launch import LaunchContext, LaunchDescription
from launch.action import Action
from launch.actions import DeclareLaunchArgument

from uns_pose_ros.nodes.bringup import launch_common, launch_values

ARGUMENTS = [
    *launch_common.common_arguments("recorder"),
    DeclareLaunchArgument(
        "category",
        default_value="",
        description="folder of a category, made if missing; empty: that of params_file",
    ),
    DeclareLaunchArgument(
        "clip",
        default_value="",
        description="name of the video in it; empty: the next of clip_01, clip_02, …",
    ),
    DeclareLaunchArgument(
        "fixed_frame",
        default_value="",
        description="TF frame in which the object stands; empty: that of params_file",
    ),
    DeclareLaunchArgument(
        "depth",
        default_value="",
        description="topic of depth aligned to the images, recorded too; empty: as in params_file",
    ),
    DeclareLaunchArgument(
        "record",
        default_value="false",
        description="true: record at once; false: when ~/start is called",
    ),
]


def processes(context: LaunchContext) -> list[Action]:
    """Describe the processes; the arguments have their values now."""
    given = launch_common.values(context, ARGUMENTS)
    parameters, remappings = launch_values.recorder_parameters(given)
    return [
        launch_common.node(given, "recorder", parameters, remappings, sigterm_timeout="40"),
        *launch_common.overlay_window(given),
    ]


def generate_launch_description() -> LaunchDescription:
    """Describe the launch."""
    return launch_common.description(ARGUMENTS, processes)
