r"""Play a recorded bag into the estimator node, with RViz.

    ros2 launch uns_pose_ros replay.launch.py bag:=drive.mcap models:=mug/model \
        image:=/camera/image_raw camera_info:=/camera/camera_info

The bag plays when the node is active. RViz stays open after it, with the last estimates. All
arguments of estimate.launch.py are valid too. `ros2 launch uns_pose_ros replay.launch.py -s` lists
the arguments.
"""

from launch import LaunchContext, LaunchDescription
from launch.action import Action
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
    Shutdown,
    TimerAction,
)
from launch.event_handlers import OnProcessExit, OnProcessStart
from launch.events.process import ProcessExited, ProcessStarted
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

from uns_pose_ros.nodes.bringup import launch_common, launch_values, launch_waits

ESTIMATE = launch_common.share("launch", "estimate.launch.py")
LAST_ESTIMATE = 3.0  # s after the bag's end, for the estimate of its last image
ARGUMENTS = [
    DeclareLaunchArgument(
        "bag", description="the bag: an .mcap or .db3 file, or its folder"
    ),
    DeclareLaunchArgument(
        "rate", default_value="1.0", description="speed of playing, 1.0: as it was recorded"
    ),
    DeclareLaunchArgument(
        "delay",
        default_value="1.0",
        description="s between the node being active and the bag's first message",
    ),
    DeclareLaunchArgument(
        "loop", default_value="false", description="true: play the bag again and again"
    ),
    DeclareLaunchArgument(
        "rviz", default_value="true", description="true: open RViz on the results"
    ),
]


def play(context: LaunchContext) -> list[Action]:
    """Describe the player, which starts when the node is active."""
    given = launch_common.values(context, ARGUMENTS)
    command = launch_values.play_command(given)
    with_rviz = launch_values.read_flag(given, "rviz")
    # the estimator's arguments are declared by the included file: here they may be missing
    defaults = {"name": "estimator", "namespace": "", "autostart": "true", "image": "image"}
    estimator = {**defaults, **context.launch_configurations}
    opened = []

    def end(event: ProcessExited, context: LaunchContext) -> Action | None:
        if event.returncode or context.is_shutdown:
            return launch_common.end_with_process(event, context)
        if not with_rviz:
            ended = Shutdown(reason="the bag has been played")
            return TimerAction(period=LAST_ESTIMATE, actions=[ended])
        if not opened:
            topic = launch_values.absolute_topic(estimator, estimator["image"])
            raise RuntimeError(f"the bag has been played, and no image came on {topic}")
        return LogInfo(
            msg="the bag has been played; RViz keeps the last estimates, close it to end"
        )

    def note_rviz(event: ProcessStarted, context: LaunchContext) -> None:
        opened.append(event.pid)

    return [
        RegisterEventHandler(
            OnProcessStart(target_action=launch_common.is_rviz, on_start=note_rviz)
        ),
        RegisterEventHandler(
            OnProcessExit(
                target_action=launch_common.is_rviz, on_exit=launch_common.end_with_process
            )
        ),
        *launch_waits.start_after(
            lambda context: launch_waits.active_node(
                context,
                launch_values.own_name(estimator),
                launch_values.read_flag(estimator, "autostart"),
            ),
            lambda name: [ExecuteProcess(cmd=command, output="screen", on_exit=end)],
        ),
    ]


def generate_launch_description() -> LaunchDescription:
    """Describe the launch."""
    estimate = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(ESTIMATE),
        launch_arguments={
            "use_sim_time": "true",
            "rviz": LaunchConfiguration("rviz"),
        }.items(),
    )
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=play), estimate])
