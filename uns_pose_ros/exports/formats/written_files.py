"""frames.csv: from which video and image each exported image is."""

from __future__ import annotations

import csv
from pathlib import Path

from uns_pose_ros.exports.label_set import LabelScene
from uns_pose_ros.exports.label_views import ImageView

FRAMES = "frames.csv"
_HEADER = ("file", "split", "category", "video", "image")


class WrittenFiles:
    """The images that a writer has made."""

    def __init__(self, folder: Path, categories: tuple[str, ...]) -> None:
        """Begin a list of the images below a folder."""
        self._folder = folder
        self._categories = categories
        self._rows: list[tuple[str, ...]] = []

    def note(self, path: Path, scene: LabelScene, view: ImageView) -> None:
        """Note an image that was written."""
        name = path.relative_to(self._folder).as_posix()
        category = self._categories[scene.category]
        self._rows.append((name, scene.split, category, scene.name, view.frame.name))

    def save(self) -> None:
        """Write frames.csv."""
        path = self._folder / FRAMES
        with path.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(_HEADER)
            rows.writerows(self._rows)
