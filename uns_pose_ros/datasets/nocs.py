"""REAL275 and CAMERA25 of NOCS (Wang et al., CVPR 2019): metric boxes of six categories.

The truth is a pickle for each image. Its poses are those of OpenCV's camera; the object's y axis is
up, and z is its front. A pose holds the object's scale, and its box is in units of that scale.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import from_parts, split_similarity
from uns_pose_ros.core.left_out import LeftOut
from uns_pose_ros.core.types import Camera, Symmetry
from uns_pose_ros.datasets.labeled_object import (
    LabeledObject,
    LabeledObjects,
    box_of_extents,
)
from uns_pose_ros.datasets.restricted_pickle import read_pickle
from uns_pose_ros.datasets.view_angles import OURS_FROM_Y_UP, with_our_axes

NOCS_CATEGORIES = ("bottle", "bowl", "camera", "can", "laptop", "mug")  # from number 1
_SIZE = (640, 480)  # px
# split: fx, fy, cx, cy px, and folders that may hold its images
_SPLITS: dict[str, tuple[tuple[float, float, float, float], tuple[str, ...]]] = {
    "real_test": (
        (591.0125, 590.16775, 322.525, 244.11084),
        ("real/test", "Real/test", "real_test", "test"),
    ),
    "val": ((577.5, 577.5, 319.5, 239.5), ("camera/val", "CAMERA/val", "val")),
}
_ROUND = ("bottle", "bowl", "can")  # they may be turned about their y axis
_FILE = re.compile(r"results_(?:real_test|val)_(\w+)_(\d+)\.pkl")
VALID = "gt_class_ids, gt_RTs and gt_scales of NOCS, one for each object, are valid"


def read_nocs(root: Path, category: str, split: str) -> LabeledObjects:
    """Read the objects of a category.

    Bottles, bowls and cans may be turned about their up axis, and mugs whose handle is hidden.

    Args:
        root: The folder with gts, and the images in real/test or camera/val.
        category: One of `NOCS_CATEGORIES`.
        split: "real_test" (REAL275) or "val" (CAMERA25).

    Raises:
        InvalidInput: A file is missing or broken.
    """
    (fx, fy, cx, cy), folders = _SPLITS[split]
    matrix = torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float64)
    camera = Camera(matrix, *_SIZE)
    files = sorted((root / "gts" / split).glob("results_*.pkl"))
    if not files:
        raise InvalidInput(
            f"{root / 'gts' / split}: no results_{split}_SCENE_FRAME.pkl in it, which are needed"
        )
    objects, left_out = list[LabeledObject](), LeftOut()
    for path in files:
        match = _FILE.fullmatch(path.name)
        if match is None:
            left_out.add("files of another name than results_SPLIT_SCENE_FRAME", path.name)
            continue
        truth = _Truth.of(path)
        numbers = [k for k, name in enumerate(truth.names) if name == category]
        if not numbers:
            continue
        image = _find_image(root, folders, match[1], match[2])
        for k in numbers:
            if image is None:
                left_out.add("objects whose image is missing", path.name)
            elif truth.poses is None:
                left_out.add("objects without a pose", path.name)
            else:
                objects.append(truth.labeled(k, image, camera))
    return LabeledObjects(tuple(objects), left_out)


def _find_image(
    root: Path, folders: tuple[str, ...], scene: str, frame: str
) -> Path | None:
    candidates = [root / folder / scene / f"{frame}_color.png" for folder in folders]
    return next((path for path in candidates if path.is_file()), None)


class _Truth:
    """The content of one pickle."""

    def __init__(self, path: Path, record: Mapping[str, Any]) -> None:
        self.path = path
        numbers = self._array(record, "gt_class_ids", ())
        count = len(numbers)
        if not all(1 <= number <= len(NOCS_CATEGORIES) for number in numbers):
            raise self._invalid(f"gt_class_ids: 1 to {len(NOCS_CATEGORIES)} are classes")
        self.names = [NOCS_CATEGORIES[int(number) - 1] for number in numbers]
        self.poses: Tensor | None = None
        if count and record.get("gt_RTs") is not None:
            self.poses = self._array(record, "gt_RTs", (4, 4), count)
        self.sizes = self._array(record, "gt_scales", (3,), count)
        self.handles = torch.ones(count, dtype=torch.float64)
        if record.get("gt_handle_visibility") is not None:
            self.handles = self._array(record, "gt_handle_visibility", (), count)
        self.boxes: Tensor | None = None
        if record.get("gt_bboxes") is not None:
            self.boxes = self._array(record, "gt_bboxes", (4,), count)

    @staticmethod
    def of(path: Path) -> _Truth:
        """Read a file; InvalidInput where it is broken."""
        record = read_pickle(path)
        if not isinstance(record, Mapping):
            raise InvalidInput(f"{path}: no dict; {VALID}")
        return _Truth(path, record)

    def labeled(self, k: int, image: Path, camera: Camera) -> LabeledObject:
        """The record of the object number `k`."""
        assert self.poses is not None
        rotation, translation, scale = split_similarity(self.poses[k])
        pose = with_our_axes(from_parts(rotation, translation), OURS_FROM_Y_UP)
        is_round = self.names[k] in _ROUND or (
            self.names[k] == "mug" and float(self.handles[k]) == 0
        )
        extents = OURS_FROM_Y_UP.abs() @ self.sizes[k] * scale
        try:
            if self.boxes is None:
                box = box_of_extents(camera, pose, extents)
            else:  # y1 x1 y2 x2, and the last pixel is one less
                y0, x0, y1, x1 = self.boxes[k].tolist()
                box = torch.tensor([x0, y0, x1 - 1, y1 - 1], dtype=torch.float64)
            return LabeledObject(
                image,
                self.names[k],
                camera,
                box,
                pose,
                extents,
                metric=True,
                symmetry=Symmetry(0 if is_round else 1),
            )
        except ValueError as error:
            raise self._invalid(f"object {k + 1}: {error}") from None

    def _array(
        self,
        record: Mapping[str, Any],
        name: str,
        shape: tuple[int, ...],
        count: int | None = None,
    ) -> Tensor:
        """Finite numbers of a shape for each object, float64."""
        try:
            array = np.asarray(record.get(name), np.float64)
        except (TypeError, ValueError):
            array = np.zeros(())
        if array.ndim >= 1 and array.size == 0 and not count:
            array = array.reshape(0, *shape)
        fits = array.ndim == 1 + len(shape) and array.shape[1:] == shape
        if not fits or (count is not None and len(array) != count):
            raise self._invalid(f"{name} has the shape {array.shape}")
        if not np.isfinite(array).all():
            raise self._invalid(f"{name} holds a number that is not finite")
        return torch.from_numpy(array.copy())

    def _invalid(self, what: str) -> InvalidInput:
        return InvalidInput(f"{self.path}: {what}; {VALID}")
