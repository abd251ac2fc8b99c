"""PASCAL3D+ 1.1 (Xiang et al., WACV 2014): 12 categories, one object an image counts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.left_out import LeftOut
from uns_pose_ros.core.types import Symmetry
from uns_pose_ros.datasets.labeled_object import LabeledObject, LabeledObjects
from uns_pose_ros.datasets.matlab_records import (
    Annotation,
    labeled_object,
    number_of,
    read_annotation,
    viewpoint_of,
)
from uns_pose_ros.io.given_files import is_entry_name, path_inside
from uns_pose_ros.io.schema.decoding import read_file

PASCAL3D_CATEGORIES = (
    *("aeroplane", "bicycle", "boat", "bottle", "bus", "car", "chair", "diningtable"),
    *("motorbike", "sofa", "train", "tvmonitor"),
)
_NEAREST = 0.01  # units of length; a smaller distance is no pose
_MOST_LIST = 64 * 2**20  # bytes of a list of images


def read_pascal3d(root: Path, category: str, split: str) -> LabeledObjects:
    """Read the images of a category that a split lists.

    As in the paper, only the first object that has a viewpoint counts, and images without a usable
    one are left out.

    Args:
        root: The folder with Annotations, Images and Image_sets.
        category: One of `PASCAL3D_CATEGORIES`.
        split: "val" (the test images) or "train".

    Raises:
        InvalidInput: A file is missing or broken.
    """
    subset = f"{category}_imagenet"
    names = read_names(root / "Image_sets" / f"{subset}_{split}.txt")
    objects, left_out = list[LabeledObject](), LeftOut()
    for name in names:
        annotation = read_annotation(root / "Annotations" / subset / f"{name}.mat")
        image = path_inside(root, f"Images/{subset}/{name}.JPEG")
        item = next((item for item in annotation.objects if viewpoint_of(item)), None)
        reason = _unusable(annotation, item, category)
        if reason is None and not image.is_file():
            reason = "images whose file is missing"
        if reason is not None or item is None:
            left_out.add(reason or "", name)
            continue
        symmetry = Symmetry(0) if category == "bottle" else None
        objects.append(labeled_object(annotation, item, image, category, symmetry))
    return LabeledObjects(tuple(objects), left_out)


def _unusable(
    annotation: Annotation, item: Mapping[str, Any] | None, category: str
) -> str | None:
    """Why the paper leaves an image out; None: it does not."""
    if item is None:
        return "images without an object that has a viewpoint"
    if item.get("class", category) != category:
        return "images whose first object is of another category"
    if not isinstance(item.get("anchors"), Mapping):
        return "images whose object has no named anchors"
    return bad_view(annotation, item)


def bad_view(annotation: Annotation, item: Mapping[str, Any]) -> str | None:
    """Why the view of an object cannot be used; None: it can."""
    view = viewpoint_of(item)
    assert view is not None
    if number_of(annotation, view, "px") < 0 or number_of(annotation, view, "py") < 0:
        return "images whose object has its origin left of or above the image"
    if number_of(annotation, view, "distance") < _NEAREST:
        return "images whose object has no distance"
    if number_of(annotation, view, "focal") * number_of(annotation, view, "viewport") == 0:
        return "images without a focal length"
    return None


def read_names(path: Path) -> list[str]:
    """The names in a list of images, one a line.

    Raises:
        InvalidInput: The list is missing or empty, or a line is no file name.
    """
    data = read_file(path, "list of images", _MOST_LIST)
    names = data.decode("utf-8", "replace").split("\n")
    names = [name.strip() for name in names if name.strip()]
    if not names:
        raise InvalidInput(f"{path}: empty; one image name a line is valid")
    for name in names:
        if not is_entry_name(name):
            raise InvalidInput(
                f"{path}: {name[:80]!r} is no image name; one a line is valid"
            )
    return names
