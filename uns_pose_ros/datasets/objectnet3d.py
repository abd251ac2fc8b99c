"""ObjectNet3D (Xiang et al., ECCV 2016): 100 categories in the format of PASCAL3D+."""

from __future__ import annotations

from pathlib import Path

from uns_pose_ros.core.left_out import LeftOut
from uns_pose_ros.core.types import Symmetry
from uns_pose_ros.datasets.labeled_object import LabeledObject, LabeledObjects
from uns_pose_ros.datasets.matlab_records import (
    labeled_object,
    number_of,
    read_annotation,
    viewpoint_of,
)
from uns_pose_ros.datasets.pascal3d import bad_view, read_names
from uns_pose_ros.io.given_files import path_inside

OBJECTNET3D_PAPER = (
    *("cellphone", "toilet", "microwave", "backpack", "bench", "bicycle", "bus", "car"),
    *("chair", "sofa", "cup", "hair_dryer", "keyboard", "laptop", "motorbike", "mouse"),
    *("remote_control", "suitcase", "toaster", "tvmonitor"),
)


def read_objectnet3d(root: Path, category: str, split: str) -> LabeledObjects:
    """Read the images of a split whose first object is of a category.

    As in the paper, only the first object with a viewpoint counts, and objects whose focal length
    is 0 do not.

    Args:
        root: The folder with Annotations, Images and Image_sets.
        category: Its name in the annotations.
        split: "test", "val" or "train".

    Raises:
        InvalidInput: A file is missing or broken.
    """
    objects, left_out = list[LabeledObject](), LeftOut()
    for name in read_names(root / "Image_sets" / f"{split}.txt"):
        annotation = read_annotation(root / "Annotations" / f"{name}.mat")
        views = [item for item in annotation.objects if viewpoint_of(item)]
        usable = [
            item
            for item in views
            if number_of(annotation, viewpoint_of(item) or {}, "focal") != 0
        ]
        if not views or views[0].get("class") != category:
            continue  # an image of another category
        image = path_inside(root, f"Images/{name}.JPEG")
        reason = "images without a focal length" if not usable else None
        if usable and usable[0].get("class") != category:
            reason = "images whose first object with a focal length is of another category"
        reason = reason or bad_view(annotation, usable[0])
        if reason is None and not image.is_file():
            reason = "images whose file is missing"
        if reason is not None:
            left_out.add(reason, name)
            continue
        symmetry = Symmetry(0) if category == "bottle" else None
        objects.append(labeled_object(annotation, usable[0], image, category, symmetry))
    return LabeledObjects(tuple(objects), left_out)
