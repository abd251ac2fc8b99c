"""Evaluate a model on a recorded bag.

    python3 examples/04_evaluate_bag.py mug/model drive.mcap

Prints how many images have an estimate, the time per image and how often a track was lost. Use
`uns-pose evaluate bag` to compare with a known pose.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from uns_pose_ros import evaluate_bag, load_model


def main() -> None:
    """Estimate every image of the bag and print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path, help="folder of a trained model")
    parser.add_argument("bag", type=Path, help="a rosbag2 recording: .mcap, .db3 or folder")
    options = parser.parse_args()

    figures = evaluate_bag(load_model(options.model), options.bag)
    print(f"{figures['images']} images, {figures['estimated']} with an estimate")
    print(f"{figures['seconds']['p50']:.3f} s per image in the median")
    print(f"{figures['tracks']['gaps']} times a track was lost")


if __name__ == "__main__":
    main()
