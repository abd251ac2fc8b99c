r"""Start the estimator node on a camera's topics, and on request RViz or a window.

    ros2 launch uns_pose_ros estimate.launch.py models:=mug/model \
        image:=/camera/image_raw camera_info:=/camera/camera_info

For two cameras, include this file twice, with different namespaces. `ros2 launch uns_pose_ros
estimate.launch.py -s` lists the arguments.
"""

from functools import partial

from launch import LaunchContext, LaunchDescription
from launch.action import Action
from launch.actions import DeclareLaunchArgument

from uns_pose_ros.nodes.bringup import launch_common, launch_values, launch_waits

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
        "object_diameter",
        default_value="",
        description="m, diagonal of the object's box, for models without a known size; empty: "
        "as in params_file",
    ),
    DeclareLaunchArgument(
        "fixed_frame",
        default_value="",
        description="TF frame that does not move with the camera, e.g. odom "
        "(tracking.fixed_frame); empty: that of params_file",
    ),
    DeclareLaunchArgument(
        "frame_prefix",
        default_value="",
        description="prefix of the objects' TF frames, / for none; empty: as in params_file, "
        "else made from the namespace",
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
        "rviz_fixed_frame",
        default_value="",
        description="frame in which RViz shows all; empty: the frame of the first image",
    ),
]


def processes(context: LaunchContext) -> list[Action]:
    """Describe the processes; the arguments have their values now."""
    given = launch_common.values(context, ARGUMENTS)
    parameters, remappings = launch_values.estimator_parameters(given)
    # the node waits up to 10 s for the image that it works on
    started = [
        launch_common.node(given, "estimator", parameters, remappings, sigterm_timeout="15")
    ]
    if launch_values.read_flag(given, "rviz"):
        launch_values.existing_path(given, "rviz_config")
        if frame := given["rviz_fixed_frame"]:
            started.append(launch_common.rviz(given, frame))
        else:
            started += launch_waits.start_after(
                partial(launch_waits.image_frame, given=given),
                lambda frame: [launch_common.rviz(given, frame)],
            )
    return [*started, *launch_common.overlay_window(given)]


def generate_launch_description() -> LaunchDescription:
    """Describe the launch."""
    return launch_common.description(ARGUMENTS, processes)
