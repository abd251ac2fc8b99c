"""Track the objects of one category through a video.

    python3 examples/02_track_video.py mug/model mug/clip_08 --rate 10

The video is a folder as `uns-pose import` makes it. Prints one line for each object and image.
An object keeps its number while it is followed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from uns_pose_ros import Estimator, Tracker, load_model, load_video


def main() -> None:
    """Estimate every image of the video and update the tracker with the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path, help="folder of a trained model")
    parser.add_argument("video", type=Path, help="a video folder")
    parser.add_argument("--rate", type=float, default=10.0, help="images per second")
    options = parser.parse_args()

    estimator = Estimator(load_model(options.model))
    tracker = Tracker()
    video = load_video(options.video, need_masks=False, need_poses=False)
    for number, frame in enumerate(video.frames):
        image = np.array(Image.open(frame.image).convert("RGB"))
        estimates = estimator(image, frame.camera)
        stamp = round(number / options.rate * 1e9)  # ns
        for track in tracker.update(estimates, stamp):
            print(
                f"{frame.image.name}: {track.estimate.category} {track.number}, "
                f"{track.state.name.lower()}, score {track.estimate.score:.2f}"
            )


if __name__ == "__main__":
    main()
