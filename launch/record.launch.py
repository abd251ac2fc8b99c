"""The recorder node on a camera's topics: films an object for training; with the overlay's window where asked.

    ros2 launch uns_pose_ros record.launch.py category:=mug image:=/camera/image_raw camera_info:=/camera/camera_info \\
        fixed_frame:=odom overlay:=true
    ros2 service call /recorder/start std_srvs/srv/Trigger        (or record:=true)

`ros2 launch uns_pose_ros record.launch.py -s` lists the arguments.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterFile, ParameterValue

CONFIG = get_package_share_directory("uns_pose_ros") + "/config"
ARGUMENTS = [
    DeclareLaunchArgument(
        "category", default_value="", description="folder of a category, made if need be; empty: that of params_file"
    ),
    DeclareLaunchArgument(
        "clip", default_value="", description="name of the video in it; empty: the next of clip_01, clip_02, …"
    ),
    DeclareLaunchArgument(
        "fixed_frame", default_value="", description="TF frame in which the object stands; empty: that of params_file"
    ),
    DeclareLaunchArgument("record", default_value="false", description="true: record at once; false: when ~/start is called"),
    DeclareLaunchArgument(
        "image",
        default_value="image",
        description="topic of the pictures; with transport compressed the one without /compressed",
    ),
    DeclareLaunchArgument("camera_info", default_value="camera_info", description="topic of the camera's calibration"),
    DeclareLaunchArgument("namespace", default_value="", description="put before the node's name and every relative topic"),
    DeclareLaunchArgument("name", default_value="recorder", description="the node's name, part of its topics"),
    DeclareLaunchArgument(
        "params_file", default_value=CONFIG + "/recorder.yaml", description="parameter file of the node, YAML"
    ),
    DeclareLaunchArgument(
        "autostart", default_value="true", description="false: stay unconfigured and wait for a lifecycle manager"
    ),
    DeclareLaunchArgument("use_sim_time", default_value="false", description="true: take the time from /clock"),
    DeclareLaunchArgument("log_level", default_value="info", description="debug, info, warn, error or fatal"),
    DeclareLaunchArgument(
        "overlay", default_value="false", description="true: open a window with the overlay (rqt_image_view)"
    ),
]


def nodes(context: LaunchContext) -> list[Node]:
    """The processes, once the arguments have their values."""
    given = {argument.name: LaunchConfiguration(argument.name).perform(context) for argument in ARGUMENTS}
    flags = ("autostart", "use_sim_time", "record")
    parameters = {name: ParameterValue(LaunchConfiguration(name), value_type=bool) for name in flags}
    for name in ("clip", "fixed_frame"):
        if given[name]:
            parameters[name] = ParameterValue(given[name], value_type=str)
    if given["category"]:
        parameters["category"] = str(Path(given["category"]).expanduser().absolute())
    own = "/".join(["", *given["namespace"].strip("/").split("/"), given["name"]]).replace("//", "/")
    return [
        Node(
            package="uns_pose_ros", executable="recorder", name=given["name"], namespace=given["namespace"],
            parameters=[ParameterFile(given["params_file"]), parameters],
            remappings=[
                ("image", given["image"]), ("image/compressed", given["image"] + "/compressed"),
                ("camera_info", given["camera_info"]),
            ],
            arguments=["--ros-args", "--log-level", given["log_level"]], output="screen", sigterm_timeout="40",
        ),
        Node(
            package="rqt_image_view", executable="rqt_image_view", name="overlay_view", namespace=given["namespace"],
            arguments=[f"{own}/overlay"], condition=IfCondition(given["overlay"]),
        ),
    ]  # fmt: skip


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=nodes)])
