"""Start a process only when a topic or a node is ready, without stopping the launch.

The launch process has a ROS node of its own, which listens.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from launch.action import Action
from launch.actions import OpaqueCoroutine, OpaqueFunction, RegisterEventHandler
from launch.event_handlers import OnExecutionComplete
from launch.launch_context import LaunchContext
from launch.logging import get_logger
from launch_ros.ros_adapters import get_ros_node
from lifecycle_msgs.srv import GetState
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image

from uns_pose_ros.nodes.bringup import launch_values

T = TypeVar("T")
_PAUSE = 0.1  # s between two looks
_PATIENCE = 3.0  # s for which a node that starts by itself may be seen unconfigured


def start_after(
    wait: Callable[[LaunchContext], Awaitable[T]], start: Callable[[T], list[Action]]
) -> list[Action]:
    """Describe processes that start when something is ready.

    Args:
        wait: The coroutine waits; if it raises, the launch ends with an error.
        start: The function describes the processes, from what `wait` returns.
    """
    results: list[T] = []

    async def run(context: LaunchContext) -> None:
        # a task that counts as cancelled would make launch leave its processes behind
        with contextlib.suppress(asyncio.CancelledError):
            results.append(await wait(context))

    def begin(context: LaunchContext) -> list[Action]:
        return start(results[0]) if results and not context.is_shutdown else []

    waiting = OpaqueCoroutine(coroutine=run)
    begun = OnExecutionComplete(
        target_action=waiting, on_completion=[OpaqueFunction(function=begin)]
    )
    return [RegisterEventHandler(begun), waiting]


async def image_frame(context: LaunchContext, given: Mapping[str, str]) -> str:
    """Wait for an image of the camera, and return the frame of its header.

    Args:
        context: Context of the launch.
        given: Values of the launch arguments; `image` is the topic, raw or compressed.
    """
    topic = launch_values.absolute_topic(given, given["image"])
    get_logger("rviz").info(
        f"RViz opens with the first image on {topic}, in its frame; "
        "rviz_fixed_frame:=FRAME opens it at once"
    )
    node = get_ros_node(context)
    frames: list[str] = []
    qos = QoSProfile(
        depth=1,
        history=qos_profile_sensor_data.history,
        reliability=qos_profile_sensor_data.reliability,
    )

    def receive(message: Any) -> None:
        frames.append(message.header.frame_id)

    kinds = ((Image, topic), (CompressedImage, f"{topic}/compressed"))
    subscriptions = [
        node.create_subscription(kind, name, receive, qos) for kind, name in kinds
    ]
    while not frames:
        await asyncio.sleep(_PAUSE)
    for subscription in subscriptions:
        node.destroy_subscription(subscription)
    if not frames[0]:
        get_logger("rviz").warning(
            f"the images on {topic} have an empty frame_id: RViz shows the frame of its "
            "configuration"
        )
    return frames[0]


async def active_node(context: LaunchContext, name: str, autostart: bool) -> str:
    """Wait until a lifecycle node is active, and return its name.

    The node is asked for its state: an event of the transition is lost if the launch discovers the
    node after it.

    Args:
        context: Context of the launch.
        name: The node's name with its namespace.
        autostart: Whether the node configures and activates itself.

    Raises:
        RuntimeError: The node starts by itself and could not be configured.
    """
    client = get_ros_node(context).create_client(GetState, f"{name}/get_state")
    label = ""
    since = time.monotonic()
    while label != "active":
        await asyncio.sleep(_PAUSE)
        if not client.service_is_ready():
            continue
        answer = client.call_async(GetState.Request())
        due = time.monotonic() + _PATIENCE
        while not answer.done() and time.monotonic() < due:
            await asyncio.sleep(_PAUSE)
        if not answer.done():
            client.remove_pending_request(answer)
            continue
        if answer.result().current_state.label != label:
            label = answer.result().current_state.label
            since = time.monotonic()
            get_logger("replay").info(f"{name} is {label}")
        failed = autostart and label in ("unconfigured", "inactive", "finalized")
        if failed and time.monotonic() - since > _PATIENCE:
            raise RuntimeError(f"{name} stays {label}; its messages above say why")
    return name
