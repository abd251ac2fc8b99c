"""Wait in a node of your own until the estimator node sees an object, and print its pose.

ros2 launch uns_pose_ros estimate.launch.py models:=mug/model ...
python3 examples/05_wait_for_pose.py mug --frame base_link
"""

from __future__ import annotations

import argparse
import sys

import rclpy

from uns_pose_ros.nodes import ObjectPose, PoseClient


def describe(pose: ObjectPose) -> str:
    """Format the object's position in its frame as one line."""
    x, y, z = pose.frame_from_canon[:3, 3].tolist()
    return (
        f"{pose.category} {pose.track}, score {pose.score:.2f}: "
        f"x {x:.3f}, y {y:.3f}, z {z:.3f} m in {pose.frame}"
    )


def main() -> int:
    """Wait for the object; return 1 if it does not come in time."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("category", help="of the object, e.g. mug")
    parser.add_argument(
        "--frame", default="", help="TF frame of the pose (default: camera)"
    )
    parser.add_argument("--timeout", type=float, default=30.0, help="s to wait")
    options = parser.parse_args()

    rclpy.init()
    try:
        with PoseClient(frame=options.frame) as poses:
            print(describe(poses.wait_for(options.category, options.timeout)), flush=True)
    except TimeoutError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
