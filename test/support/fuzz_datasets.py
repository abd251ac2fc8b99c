"""Miniatures of public data sets for spoiled files."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import fuzz_checks
import mini_boxes
import mini_objectron
import mini_views
from uns_pose_ros.datasets.catalog import DATASETS
from uns_pose_ros.datasets.labeled_object import LabeledObject, crop_around_origin

# data set: how it is written, the category that is read, and the files that are spoiled
MINIATURES: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "pascal3d": (mini_views.write_pascal3d, "car", "Annotations/*/*,Image_sets/*"),
    "objectnet3d": (mini_views.write_objectnet3d, "car", "Annotations/*,Image_sets/*"),
    "imagenet3d": (mini_views.write_imagenet3d, "car", "annotations/*/*,lists/*"),
    "objectron": (mini_objectron.write_objectron, "shoe", "annotations/*/*/*,index/*"),
    "nocs": (mini_boxes.write_nocs, "mug", "gts/*/*"),
    "ropes": (mini_boxes.write_ropes, "bowl", "ROPE/*/*.json,Meta/*"),
}


def check_labeled(labeled: LabeledObject) -> None:
    fuzz_checks.check_camera(labeled.camera)
    fuzz_checks.check_pose(labeled.cam_from_object)
    fuzz_checks.check_finite(labeled.box)
    fuzz_checks.check_finite(crop_around_origin(labeled), 1e7)
    assert labeled.image.name.isprintable()


def _read(name: str, category: str, folder: Path, _: Path) -> None:
    entry = DATASETS[name]
    for labeled in entry.read(folder, category, entry.splits[0]).objects:
        check_labeled(labeled)


def reader_of(name: str) -> Callable[[Path, Path], None]:
    """A function of the folder and the spoiled file that reads a miniature."""
    return partial(_read, name, MINIATURES[name][1])
