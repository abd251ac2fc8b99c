r"""Publish a film, a folder of images or a bag as a camera, in place of a driver.

    ros2 launch uns_pose_ros camera.launch.py source:=mug.mp4 camera:=K.json
    ros2 launch uns_pose_ros estimate.launch.py models:=mug/model rviz:=true

Other launch files may include it. `ros2 launch uns_pose_ros camera.launch.py -s` lists the
arguments.
"""

from launch import LaunchContext, LaunchDescription
from launch.action import Action
from launch.actions import DeclareLaunchArgument
from launch_ros.actions import Node

from uns_pose_ros.nodes.bringup import launch_common, launch_values

ARGUMENTS = [
    DeclareLaunchArgument(
        "source",
        description="a film, a folder of images, a video folder, or a bag (file or folder)",
    ),
    DeclareLaunchArgument(
        "image", default_value="image", description="topic of the images"
    ),
    DeclareLaunchArgument(
        "camera_info",
        default_value="camera_info",
        description="topic of the camera's calibration",
    ),
    DeclareLaunchArgument(
        "camera",
        default_value="",
        description="file K.json of the upright images; empty: what the source knows, else 60° "
        "of view",
    ),
    DeclareLaunchArgument(
        "rate",
        default_value="",
        description="images a second; empty: as recorded, 5 for images",
    ),
    DeclareLaunchArgument(
        "loop", default_value="true", description="false: end after the last image"
    ),
    DeclareLaunchArgument(
        "frame_id",
        default_value="camera",
        description="TF frame of images that have none (those of a bag have one)",
    ),
    DeclareLaunchArgument(
        "namespace", default_value="", description="put before every relative topic"
    ),
]


def processes(context: LaunchContext) -> list[Action]:
    """Describe the process; the arguments have their values now."""
    given = launch_common.values(context, ARGUMENTS)
    player = Node(
        package=launch_common.PACKAGE,
        executable="camera_player",
        namespace=given["namespace"],
        arguments=launch_values.camera_arguments(given),
        remappings=[(topic, given[topic]) for topic in ("image", "camera_info")],
        output="screen",
        on_exit=launch_common.end_with_process,
    )
    return [player]


def generate_launch_description() -> LaunchDescription:
    """Describe the launch."""
    return launch_common.description(ARGUMENTS, processes)
