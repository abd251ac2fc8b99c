"""Where a gripper should be before it grasps an object from above.

A pose for MoveIt, or any other planner.

    python3 examples/grasp_approach.py mug --frame base_link --distance 0.1

Waits for the estimator node to see a mug, publishes the pose on /grasp_approach
(geometry_msgs/PoseStamped) and prints it. The gripper comes along its z axis; it closes along its y
axis, across the object's narrower side.
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

from uns_pose_ros.nodes.pose_client import ObjectPose, PoseClient
from uns_pose_ros.nodes.ros_compat import matrix_to_quaternion


def approach(found: ObjectPose, distance: float) -> NDArray[np.float64]:
    """frame_from_gripper (4, 4).

    `distance` m above the object's box, looking down on it, closing across its narrower side.

    Down is the object's own -z, so that an object that lies on its side is grasped from where its
    top is.
    """
    x, y, z = found.frame_from_canon[:3, :3].T  # forward, left and up of the object
    across = x if found.size[0] < found.size[1] else y
    pose = np.eye(4)
    pose[:3, 2] = -z
    pose[:3, 1] = across
    pose[:3, 0] = np.cross(across, -z)
    pose[:3, 3] = found.centre + (found.size[2] / 2 + distance) * z
    return pose


def message(found: ObjectPose, pose: NDArray[np.float64]) -> PoseStamped:
    x, y, z, w = matrix_to_quaternion(pose[:3, :3])
    made = PoseStamped(pose=Pose(orientation=Quaternion(x=x, y=y, z=z, w=w)))
    made.pose.position = Point(**dict(zip("xyz", pose[:3, 3].tolist(), strict=True)))
    made.header.frame_id = found.frame
    made.header.stamp = Time(nanoseconds=found.stamp).to_msg()
    return made


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument("category", help="of the object, e.g. mug")
    parser.add_argument(
        "--frame", default="", help="TF frame of the answer (default: the image's)"
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
        help="of an object to be grasped (default: %(default)s)",
    )
    parser.add_argument(
        "--stay",
        type=float,
        default=5.0,
        help="s to go on publishing (default: %(default)s)",
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
            found = poses.wait_for(options.category, options.timeout)
    except TimeoutError as error:
        print(error, file=sys.stderr)
        return 1
    else:
        pose = approach(found, options.distance)
        publisher.publish(message(found, pose))
        print(
            f"{found.category} {found.track}, score {found.score:.2f}: approach in "
            f"{found.frame}\n{np.round(pose, 4)}",
            flush=True,
        )
        time.sleep(options.stay)  # late listeners hear it as long as this process lives
        return 0
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    sys.exit(main())
