"""Compute the pose of a gripper before it grasps an object from above, for MoveIt for example.

    python3 examples/grasp_approach.py mug --frame base_link --distance 0.1

The program waits until the estimator node sees a mug, publishes the pose on /grasp_approach
(geometry_msgs/PoseStamped) and prints it. The gripper approaches along its z axis. It closes along
its y axis, across the object's narrower side.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np
import rclpy
from geometry_msgs.msg import Point, Pose, PoseStamped, Quaternion
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.time import Time

from uns_pose_ros.nodes import ObjectPose, PoseClient
from uns_pose_ros.nodes.ros_compat import quaternion_xyzw


def approach_pose(target: ObjectPose, distance: float) -> NDArray[np.float64]:
    """Compute the pose of the gripper above an object.

    Above is the direction of the object's own z axis. An object that lies on its side is grasped
    from its top.

    Args:
        target: The object.
        distance: Distance of the gripper from the object's box, m.

    Returns:
        frame_from_gripper (4, 4).
    """
    x, y, z = target.frame_from_canon[:3, :3].T  # forward, left and up of the object
    across = x if target.size[0] < target.size[1] else y
    pose = np.eye(4)
    pose[:3, 2] = -z
    pose[:3, 1] = across
    pose[:3, 0] = np.cross(across, -z)
    pose[:3, 3] = target.center + (target.size[2] / 2 + distance) * z
    return pose


def pose_message(target: ObjectPose, pose: NDArray[np.float64]) -> PoseStamped:
    """Make the message of a pose, with the frame and the stamp of the object."""
    x, y, z, w = quaternion_xyzw(pose[:3, :3])
    message = PoseStamped(pose=Pose(orientation=Quaternion(x=x, y=y, z=z, w=w)))
    message.pose.position = Point(**dict(zip("xyz", pose[:3, 3].tolist(), strict=True)))
    message.header.frame_id = target.frame
    message.header.stamp = Time(nanoseconds=target.stamp).to_msg()
    return message


def main() -> int:
    """Publish the pose; return 1 if the object does not come in time."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument("category", help="category of the object, e.g. mug")
    parser.add_argument(
        "--frame", default="", help="TF frame of the pose (default: the image's)"
    )
    parser.add_argument(
        "--distance",
        type=float,
        default=0.1,
        help="m above the object (default: %(default)s)",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=30.0,
        help="s to wait for the object (default: %(default)s)",
    )
    parser.add_argument(
        "--min-score",
        type=float,
        default=0.5,
        help="lowest score of the object (default: %(default)s)",
    )
    parser.add_argument(
        "--stay",
        type=float,
        default=5.0,
        help="s to keep the message available (default: %(default)s)",
    )
    options = parser.parse_args()
    rclpy.init()
    node = Node("grasp_approach")
    publisher = node.create_publisher(
        PoseStamped,
        "grasp_approach",
        QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL),
    )
    try:
        with PoseClient(frame=options.frame, min_score=options.min_score) as poses:
            target = poses.wait_for(options.category, options.timeout)
    except TimeoutError as error:
        print(error, file=sys.stderr)
        return 1
    else:
        pose = approach_pose(target, options.distance)
        publisher.publish(pose_message(target, pose))
        print(
            f"{target.category} {target.track}, score {target.score:.2f}: approach in "
            f"{target.frame}\n{np.round(pose, 4)}",
            flush=True,
        )
        time.sleep(options.stay)  # late subscribers get the message while this process runs
        return 0
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    sys.exit(main())
