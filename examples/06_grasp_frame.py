"""Compute where a gripper must be before it grasps a named frame of an object, such as a handle.

uns-pose frames mug add handle --toward 1 0 0 --x-axis -1 0 0 --width 0.08
python3 examples/06_grasp_frame.py mug/model image.jpg --frame handle --distance 0.5

The gripper comes along the frame's x axis and closes along its y axis.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from uns_pose_ros import Camera, Estimator, InvalidInput, PoseEstimate, load_model


def approach(estimate: PoseEstimate, frame: str, distance: float) -> NDArray[np.float64]:
    """Compute the pose of the gripper before it grasps.

    Args:
        estimate: The object.
        frame: The name of the frame.
        distance: From the gripper to the frame, in the unit of the estimate.

    Returns:
        cam_from_gripper (4, 4).

    Raises:
        InvalidInput: The model has no such grasp, or the image does not show it.
    """
    grasps = {one.name: one for one in estimate.frames if one.width is not None}
    if frame not in grasps:
        raise InvalidInput(f"no grasp {frame!r}; {', '.join(grasps) or 'there is none'}")
    if not grasps[frame].seen:
        raise InvalidInput(f"{frame}: the image does not show it; look from another side")
    pose = grasps[frame].cam_from_frame.numpy().copy()
    pose[:3, 3] -= distance * pose[:3, 0]
    return pose


def main() -> int:
    """Print the pose for the most certain object; return 1 if there is none."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path, help="folder of a trained model")
    parser.add_argument("image", type=Path, help="an image file")
    parser.add_argument("--frame", default="handle", help="name of the frame")
    parser.add_argument(
        "--distance",
        type=float,
        default=0.5,
        help="from the gripper to the frame; m where the model knows its size, else diameters",
    )
    parser.add_argument("--fov", type=float, default=60.0, help="horizontal, degrees")
    options = parser.parse_args()

    upright = ImageOps.exif_transpose(Image.open(options.image))
    image = np.array(upright.convert("RGB"))
    height, width, _ = image.shape
    focal = width / 2 / math.tan(math.radians(options.fov / 2))  # px
    matrix = torch.tensor(
        [[focal, 0.0, (width - 1) / 2], [0.0, focal, (height - 1) / 2], [0.0, 0.0, 1.0]],
        dtype=torch.float64,
    )
    estimator = Estimator(load_model(options.model))
    try:
        for estimate in estimator(image, Camera(matrix, width, height))[:1]:
            pose = approach(estimate, options.frame, options.distance)
            print(f"cam_from_gripper\n{np.round(pose, 4)}")
            return 0
        print(estimator.describe_nothing(), file=sys.stderr)
    except InvalidInput as error:
        print(error, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
