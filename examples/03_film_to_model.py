"""Make a model of a category from films of a few of its instances.

    python3 examples/03_film_to_model.py mug film1.mp4 film2.mp4 film3.mp4

A film may be a movie file, a folder of images, a COLMAP dataset or a rosbag2 recording. The
program may be stopped and started again: it goes on where it was.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from uns_pose_ros import TrainConfig, align, import_video, reconstruct, train


def main() -> None:
    """Import the films, then run the three stages on the category's folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("category", type=Path, help="folder of the category, is made")
    parser.add_argument("films", type=Path, nargs="+", help="one film of each instance")
    parser.add_argument(
        "--steps", type=int, default=TrainConfig().steps, help="of training"
    )
    parser.add_argument("--views", type=int, default=TrainConfig().views, help="per image")
    options = parser.parse_args()

    for number, film in enumerate(options.films, 1):
        made = import_video(film, options.category / f"clip_{number:02}")
        print(f"{film}: {'imported' if made else 'is there already'}")
    meshes = reconstruct(options.category)
    print(f"{len(meshes)} meshes, {sum(meshes.values())} of them new")
    alignment, _ = align(options.category)
    for name, confidence in zip(
        alignment.videos, alignment.confidence.tolist(), strict=True
    ):
        print(f"{name}: aligned with confidence {confidence:.2f}")
    config = TrainConfig(steps=options.steps, views=options.views)
    model, _ = train(options.category, config=config)
    print(f"{options.category / 'model'}: a model of {model.category}")


if __name__ == "__main__":
    main()
