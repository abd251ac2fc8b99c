r"""Play a recorded bag into the estimator node, with RViz.

    ros2 launch uns_pose_ros replay.launch.py bag:=drive.mcap models:=mug/model \
        image:=/camera/image_raw camera_info:=/camera/camera_info

`ros2 launch uns_pose_ros replay.launch.py -s` lists the arguments.
"""

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    Shutdown,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

ESTIMATE = get_package_share_directory("uns_pose_ros") + "/launch/estimate.launch.py"


def generate_launch_description() -> LaunchDescription:
    """Describe the launch."""
    rate = LaunchConfiguration("rate")
    delay = LaunchConfiguration("delay")
    play = [
        "ros2",
        "bag",
        "play",
        LaunchConfiguration("bag"),
        "--clock",
        "--rate",
        rate,
        "--delay",
        delay,
    ]
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "bag", description="the bag: an .mcap or .db3 file, or its folder"
            ),
            DeclareLaunchArgument(
                "rate",
                default_value="1.0",
                description="speed of playing, 1.0: as it was recorded",
            ),
            DeclareLaunchArgument(
                "delay",
                default_value="10.0",
                description="s before playing starts, while the models load",
            ),
            DeclareLaunchArgument(
                "rviz", default_value="true", description="true: open RViz on the results"
            ),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(ESTIMATE),
                launch_arguments={
                    "use_sim_time": "true",
                    "rviz": LaunchConfiguration("rviz"),
                }.items(),
            ),
            ExecuteProcess(
                cmd=play,
                output="screen",
                on_exit=Shutdown(reason="the bag has been played"),
            ),
        ]
    )
