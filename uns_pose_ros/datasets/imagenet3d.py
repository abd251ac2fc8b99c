"""ImageNet3D v1 (Ma et al., NeurIPS 2024): 200 categories, angles in radians, pickled in .npz."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.left_out import LeftOut
from uns_pose_ros.datasets.labeled_object import LabeledObject, LabeledObjects
from uns_pose_ros.datasets.pascal3d import read_names
from uns_pose_ros.datasets.restricted_pickle import read_npz
from uns_pose_ros.datasets.view_angles import (
    OURS_FROM_PASCAL,
    camera_towards,
    pose_from_angles,
    with_our_axes,
)
from uns_pose_ros.io.given_files import path_inside

VALID = "a list of ImageNet3D's annotations, angles in radians, is valid"
_TURN = 2 * math.pi + 1e-3  # radians, the largest angle
_DIFFICULT = ("status_barely", "status_bad")


def read_imagenet3d(root: Path, category: str, split: str) -> LabeledObjects:
    """Read the objects of a category in the images that a split lists.

    As in the authors' preprocessing, objects that are marked to be ignored or have no distance are
    left out.

    Args:
        root: The folder with images, annotations and lists.
        category: Its name, as in lists/NAME_imagenet_val.txt.
        split: "val" or "train".

    Raises:
        InvalidInput: A file is missing or broken.
    """
    listed = root / "lists" / f"{category}_imagenet_{split}.txt"
    objects, left_out = list[LabeledObject](), LeftOut()
    for name in read_names(listed):
        stem = name.removesuffix(".JPEG")
        annotated = root / "annotations" / category / f"{stem}.npz"
        image = path_inside(root, f"images/{category}/{stem}.JPEG")
        if not image.is_file():
            left_out.add("images whose file is missing", stem)
            continue
        for item in _annotations(annotated):
            reason = _unusable_item(annotated, item, category)
            if reason is None:
                objects.append(_labeled(annotated, item, image, category))
            else:
                left_out.add(reason, stem)
    return LabeledObjects(tuple(objects), left_out)


def _annotations(path: Path) -> list[Mapping[str, Any]]:
    items = read_npz(path, "annotations")
    if not isinstance(items, list) or not all(isinstance(one, Mapping) for one in items):
        raise InvalidInput(f"{path}: no list of dicts; {VALID}")
    return items


def _unusable_item(path: Path, item: Mapping[str, Any], category: str) -> str | None:
    """Why an object is left out; None: it is not."""
    if item.get("class", category) != category:
        return "objects of another category"
    if item.get("ignore") and _number(path, item, "ignore") > 0:
        return "objects that are marked to be ignored"
    if _number(path, item, "distance") <= 0:
        return "objects without a distance"
    return None


def _labeled(
    path: Path, item: Mapping[str, Any], image: Path, category: str
) -> LabeledObject:
    angles = [_number(path, item, name) for name in ("azimuth", "elevation", "theta")]
    if not all(abs(angle) <= _TURN for angle in angles):
        raise InvalidInput(f"{path}: an angle is {max(angles, key=abs):g}; {VALID}")
    focal = _number(path, item, "focal") * _number(path, item, "viewport")
    at = _number(path, item, "px"), _number(path, item, "py")
    azimuth, elevation, theta = map(math.degrees, angles)
    pose = pose_from_angles(azimuth, elevation, theta, _number(path, item, "distance"))
    try:
        return LabeledObject(
            image,
            category,
            camera_towards(
                focal, at, _pixels(path, item, "width"), _pixels(path, item, "height")
            ),
            torch.tensor([float(edge) for edge in item["bbox"]], dtype=torch.float64),
            with_our_axes(pose, OURS_FROM_PASCAL),
            calibrated=False,
            occluded=item.get("object_status") == "status_partially",
            difficult=item.get("object_status") in _DIFFICULT,
        )
    except (KeyError, TypeError, ValueError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise InvalidInput(f"{path}: {reason}; {VALID}") from None


def _number(path: Path, item: Mapping[str, Any], name: str) -> float:
    value = item.get(name)
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise InvalidInput(f"{path}: `{name}` is no finite number; {VALID}")
    return number


def _pixels(path: Path, item: Mapping[str, Any], name: str) -> int:
    number = _number(path, item, name)
    if not 0 < number < 100_000:
        raise InvalidInput(f"{path}: `{name}` is {number:g} px; {VALID}")
    return int(number)
