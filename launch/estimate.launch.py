"""The estimator node on a camera's topics: /tf, detections, markers, overlay; with RViz or the overlay's window where asked.

    ros2 launch uns_pose_ros estimate.launch.py models:=mug/model image:=/camera/image_raw camera_info:=/camera/camera_info

Two cameras: include it twice, with different namespaces. `ros2 launch uns_pose_ros estimate.launch.py -s` lists the arguments.
"""

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterFile, ParameterValue

CONFIG = get_package_share_directory("uns_pose_ros") + "/config"
SHOWN = ("overlay", "markers", "detections")  # of the node's topics, those that RViz shows
ARGUMENTS = [
    DeclareLaunchArgument(
        "models", default_value="", description="folders of trained models, comma separated; empty: those of params_file"
    ),
    DeclareLaunchArgument(
        "image",
        default_value="image",
        description="topic of the pictures; with transport compressed the one without /compressed",
    ),
    DeclareLaunchArgument("camera_info", default_value="camera_info", description="topic of the camera's calibration"),
    DeclareLaunchArgument(
        "regions", default_value="", description="where objects are: search, detections_2d or mask; empty: as in params_file"
    ),
    DeclareLaunchArgument("detections_2d", default_value="detections_2d", description="topic of a detector's boxes"),
    DeclareLaunchArgument("mask", default_value="mask", description="topic of the objects' masks"),
    DeclareLaunchArgument("namespace", default_value="", description="put before the node's name and every relative topic"),
    DeclareLaunchArgument("name", default_value="estimator", description="the node's name, part of its topics"),
    DeclareLaunchArgument(
        "params_file", default_value=CONFIG + "/estimator.yaml", description="parameter file of the node, YAML"
    ),
    DeclareLaunchArgument("device", default_value="", description="auto, cpu, cuda or cuda:N; empty: that of params_file"),
    DeclareLaunchArgument(
        "autostart", default_value="true", description="false: stay unconfigured and wait for a lifecycle manager"
    ),
    DeclareLaunchArgument("use_sim_time", default_value="false", description="true: take the time from /clock"),
    DeclareLaunchArgument("log_level", default_value="info", description="debug, info, warn, error or fatal"),
    DeclareLaunchArgument("rviz", default_value="false", description="true: open RViz on the results"),
    DeclareLaunchArgument("rviz_config", default_value=CONFIG + "/uns_pose.rviz", description="what RViz shows"),
    DeclareLaunchArgument(
        "fixed_frame", default_value="", description="frame in which RViz shows all; empty: that of rviz_config (camera)"
    ),
    DeclareLaunchArgument(
        "overlay", default_value="false", description="true: open a window with the overlay (rqt_image_view)"
    ),
]


def nodes(context: LaunchContext) -> list[Node]:
    """The processes, once the arguments have their values."""
    given = {argument.name: LaunchConfiguration(argument.name).perform(context) for argument in ARGUMENTS}
    parameters = {name: ParameterValue(LaunchConfiguration(name), value_type=bool) for name in ("autostart", "use_sim_time")}
    if models := [folder.strip() for folder in given["models"].split(",") if folder.strip()]:
        parameters["models"] = models
    if given["device"]:
        parameters["device"] = given["device"]
    if given["regions"]:
        parameters["regions"] = given["regions"]
    own = "/".join(["", *given["namespace"].strip("/").split("/"), given["name"]]).replace("//", "/")
    frame = ["-f", given["fixed_frame"]] if given["fixed_frame"] else []
    return [
        Node(
            package="uns_pose_ros", executable="estimator", name=given["name"], namespace=given["namespace"],
            parameters=[ParameterFile(given["params_file"]), parameters],
            remappings=[
                ("image", given["image"]), ("image/compressed", given["image"] + "/compressed"),
                ("camera_info", given["camera_info"]), ("detections_2d", given["detections_2d"]), ("mask", given["mask"]),
            ],
            arguments=["--ros-args", "--log-level", given["log_level"]], output="screen",
        ),
        Node(
            package="rviz2", executable="rviz2", name="rviz", namespace=given["namespace"],
            arguments=["-d", given["rviz_config"], *frame],
            remappings=[(f"/estimator/{topic}", f"{own}/{topic}") for topic in SHOWN],
            parameters=[{"use_sim_time": parameters["use_sim_time"]}], condition=IfCondition(given["rviz"]),
        ),
        Node(
            package="rqt_image_view", executable="rqt_image_view", name="overlay_view", namespace=given["namespace"],
            arguments=[f"{own}/overlay"], condition=IfCondition(given["overlay"]),
        ),
    ]  # fmt: skip


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=nodes)])
