r"""Start the estimator node on a camera's topics, and on request RViz or a window.

    ros2 launch uns_pose_ros estimate.launch.py models:=mug/model \
        image:=/camera/image_raw camera_info:=/camera/camera_info

For two cameras, include this file twice, with different namespaces. `ros2 launch uns_pose_ros
estimate.launch.py -s` lists the arguments.
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.conditions import IfCondition
from launch_ros.actions import Node

from uns_pose_ros.nodes import launch_common

SHOWN = ("overlay", "markers", "detections")  # topics of the node that RViz shows
ARGUMENTS = [
    *launch_common.common_arguments("estimator"),
    DeclareLaunchArgument(
        "models",
        default_value="",
        description="folders of trained models, comma separated; empty: those of params_file",
    ),
    DeclareLaunchArgument(
        "device",
        default_value="",
        description="auto, cpu, cuda or cuda:N; empty: that of params_file",
    ),
    DeclareLaunchArgument(
        "regions",
        default_value="",
        description="where objects are: search, detections_2d or mask; empty: as in params_file",
    ),
    DeclareLaunchArgument(
        "detections_2d",
        default_value="detections_2d",
        description="topic of a detector's boxes",
    ),
    DeclareLaunchArgument(
        "mask", default_value="mask", description="topic of the objects' masks"
    ),
    DeclareLaunchArgument(
        "depth",
        default_value="",
        description="topic of depth images to use; empty: topic depth, if params_file enables it",
    ),
    DeclareLaunchArgument(
        "rviz", default_value="false", description="true: open RViz on the results"
    ),
    DeclareLaunchArgument(
        "rviz_config",
        default_value=launch_common.share("config", "uns_pose.rviz"),
        description="what RViz shows",
    ),
    DeclareLaunchArgument(
        "fixed_frame",
        default_value="",
        description="frame in which RViz shows all; empty: that of rviz_config (camera)",
    ),
]


def nodes(context: LaunchContext) -> list[Node]:
    """Describe the processes; the arguments have their values now."""
    given = launch_common.values(context, ARGUMENTS)
    parameters = {name: given[name] for name in ("device", "regions") if given[name]}
    if models := [
        folder.strip() for folder in given["models"].split(",") if folder.strip()
    ]:
        parameters["models"] = models
    own = launch_common.own_name(given)
    frame = ["-f", given["fixed_frame"]] if given["fixed_frame"] else []
    remappings = [
        (topic, given[topic]) for topic in ("detections_2d", "mask") if given[topic]
    ]
    if depth := given["depth"]:
        compressed = depth.endswith("/compressedDepth")
        parameters |= {
            "use_depth": True,
            "depth_transport": "compressed" if compressed else "raw",
        }
        remappings.append(("depth/compressedDepth" if compressed else "depth", depth))
    return [
        launch_common.node(given, "estimator", parameters, remappings),
        Node(
            package="rviz2",
            executable="rviz2",
            name="rviz",
            namespace=given["namespace"],
            arguments=["-d", given["rviz_config"], *frame],
            remappings=[(f"/estimator/{topic}", f"{own}/{topic}") for topic in SHOWN],
            parameters=[{"use_sim_time": launch_common.flag("use_sim_time")}],
            condition=IfCondition(given["rviz"]),
        ),
        launch_common.overlay_window(given),
    ]


def generate_launch_description() -> LaunchDescription:
    """Describe the launch."""
    return launch_common.description(ARGUMENTS, nodes)
