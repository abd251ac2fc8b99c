"""An estimator node in the test's process, which gets images without DDS."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from geometry_msgs.msg import TransformStamped
from rclpy.context import Context
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from scripted_node import ScriptedEstimator, read
from uns_pose_ros.nodes.estimator.estimator_node import EstimatorNode
from uns_pose_ros.nodes.ros_compat import array_to_image


def make_node(
    context: Context, *arguments: str, active: bool = True, make: Any = ScriptedEstimator
) -> EstimatorNode:
    """Make a node that estimates by a script, see scripted_node.

    Args:
        context: Context of rclpy.
        arguments: ROS arguments.
        active: Configure and activate the node.
        make: Makes the estimators.
    """
    given = ["--ros-args", "-p", "models:=[plain]", *arguments]
    node = EstimatorNode(read, make, context=context, cli_args=given)
    if active:
        assert node.start()
    return node


def send(node: EstimatorNode, cars: int, seconds: float) -> list[TransformStamped]:
    """Process an image of cars in this thread and return the transforms of the answer."""
    sent: list[TransformStamped] = []
    assert node._results is not None
    node._results._broadcaster = SimpleNamespace(sendTransform=sent.extend)
    header = Header(frame_id="eye")
    header.stamp.sec, header.stamp.nanosec = int(seconds), round(seconds % 1 * 1e9)
    info = CameraInfo(header=header, width=640, height=480)
    info.k = [600.0, 0.0, 320.0, 0.0, 600.0, 240.0, 0.0, 0.0, 1.0]
    image = array_to_image(np.full((480, 640, 3), cars, np.uint8), "rgb8", header)
    node._work((image, info, {}))
    return sent


def assign(node: EstimatorNode, **parameters: Any) -> str:
    """Set parameters at once, `__` stands for a dot; return the reason of a refusal."""
    given = [
        Parameter(name.replace("__", "."), value=value)
        for name, value in parameters.items()
    ]
    result = node.set_parameters_atomically(given)
    assert result.successful == (not result.reason)
    return str(result.reason)


def close(node: EstimatorNode) -> None:
    """End the node."""
    node.close()
    node.destroy_node()
