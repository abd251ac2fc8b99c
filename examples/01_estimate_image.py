"""Estimate the poses of all objects of one category in an image.

    python3 examples/01_estimate_image.py mug/model kitchen.jpg --fov 60

Prints one line for each object, the most certain first.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from uns_pose_ros import Camera, Estimator, load_model


def main() -> None:
    """Read the image, estimate, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path, help="folder of a trained model")
    parser.add_argument("image", type=Path, help="an image file")
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
    for estimate in estimator(image, Camera(matrix, width, height)):
        x, y, z = estimate.cam_from_canon[:3, 3].tolist()
        unit = "m" if estimate.metric else "object diameters"
        print(
            f"{estimate.category}: score {estimate.score:.2f}, "
            f"x {x:.3f}, y {y:.3f}, z {z:.3f} {unit}"
        )


if __name__ == "__main__":
    main()
