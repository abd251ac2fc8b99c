"""What a label set is before a format is chosen: objects, images and the poses that join them.

The `model` frame of an object has the canonical axes and the canonical origin. Its unit is the
meter where the object's size is known, else the canonical unit (the category's diameter).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from uns_pose_ros.core.left_out import LeftOut
from uns_pose_ros.core.types import Camera, Symmetry

SPLITS = ("train", "val", "test")
_SIDES = (("back", "front"), ("right", "left"), ("bottom", "top"))  # of x, y and z
# names of the keypoints by kind; bit d of a corner's number is 1 at the upper end of axis d
KEYPOINTS: dict[str, tuple[str, ...]] = {
    "box": tuple(
        "_".join(_SIDES[axis][corner >> axis & 1] for axis in (0, 1, 2))
        for corner in range(8)
    ),
    "frame": ("origin", "x_front", "y_left", "z_up"),
}
_TIP = 0.5  # canonical units from the origin to the tip of an axis

Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ObjectInstance:
    """An object of a category: its shape in the model frame."""

    category: int  # index into LabelSet.categories
    name: str  # of its video, or of its track in a bag
    vertices: Matrix  # (V, 3) model frame
    triangles: NDArray[np.int64]  # (T, 3) counter-clockwise seen from outside
    symmetry: Symmetry  # about an axis through the origin
    unit: float  # length of one canonical unit in the model frame: m, or 1
    metric: bool  # the unit of the model frame is the meter

    def keypoints(self, kind: str) -> Matrix:
        """The points (K, 3) of KEYPOINTS[kind], model frame."""
        if kind == "frame":
            return np.vstack([np.zeros(3), _TIP * self.unit * np.eye(3)])
        low, high = self.vertices.min(0), self.vertices.max(0)
        return np.stack([np.where([c & 1, c & 2, c & 4], high, low) for c in range(8)])


@dataclass(frozen=True, eq=False)
class ObjectLabel:
    """An object in an image."""

    instance: int  # index into LabelSet.instances
    cam_from_model: Matrix  # (4, 4) rigid
    score: float | None = None  # of an estimate; None: the pose is of the video


@dataclass(frozen=True, eq=False)
class LabelFrame:
    """An image with its labels; pixels are read when they are needed."""

    name: str
    image: Path
    camera: Camera  # with the lens
    labels: tuple[ObjectLabel, ...]
    mask: Path | None = None  # of the only object; None: the model is projected
    depth: Path | None = None  # 16-bit PNG, mm, of every pixel of the image


@dataclass(frozen=True, eq=False)
class LabelScene:
    """The images of a video or of a bag."""

    category: int  # index into LabelSet.categories
    name: str
    frames: tuple[LabelFrame, ...]
    split: str = "train"


@dataclass(frozen=True, eq=False)
class LabelSet:
    """Everything that is exported, and what is left out."""

    categories: tuple[str, ...]
    instances: tuple[ObjectInstance, ...]
    scenes: tuple[LabelScene, ...]
    left_out: LeftOut = field(default_factory=LeftOut)

    @property
    def image_count(self) -> int:
        """Number of images."""
        return sum(len(scene.frames) for scene in self.scenes)

    @property
    def label_count(self) -> int:
        """Number of objects in the images."""
        return sum(len(frame.labels) for scene in self.scenes for frame in scene.frames)

    def scenes_of(self, instance: int) -> list[LabelScene]:
        """The scenes that show an object, with only the images and labels that show it."""
        scenes = []
        for scene in self.scenes:
            frames = [_only_instance(frame, instance) for frame in scene.frames]
            shown = tuple(frame for frame in frames if frame.labels)
            if shown:
                scenes.append(replace(scene, frames=shown))
        return scenes


def _only_instance(frame: LabelFrame, instance: int) -> LabelFrame:
    labels = tuple(label for label in frame.labels if label.instance == instance)
    return replace(frame, labels=labels)


def join_label_sets(sets: Sequence[LabelSet]) -> LabelSet:
    """One set of several categories; the numbers of categories and objects are shifted."""
    categories: list[str] = []
    instances: list[ObjectInstance] = []
    scenes: list[LabelScene] = []
    left_out = LeftOut()
    for part in sets:
        shift, start = len(categories), len(instances)
        categories += part.categories
        instances += [
            replace(instance, category=instance.category + shift)
            for instance in part.instances
        ]
        scenes += [_shift_scene(scene, shift, start) for scene in part.scenes]
        left_out.extend(part.left_out)
    return LabelSet(tuple(categories), tuple(instances), tuple(scenes), left_out)


def _shift_scene(scene: LabelScene, categories: int, instances: int) -> LabelScene:
    frames = [_shift_frame(frame, instances) for frame in scene.frames]
    return replace(scene, category=scene.category + categories, frames=tuple(frames))


def _shift_frame(frame: LabelFrame, instances: int) -> LabelFrame:
    labels = [replace(label, instance=label.instance + instances) for label in frame.labels]
    return replace(frame, labels=tuple(labels))
