"""All data sets by name: their readers, splits and categories."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from uns_pose_ros.core.errors import InvalidInput, shorten
from uns_pose_ros.datasets.imagenet3d import read_imagenet3d
from uns_pose_ros.datasets.labeled_object import LabeledObjects
from uns_pose_ros.datasets.nocs import NOCS_CATEGORIES, read_nocs
from uns_pose_ros.datasets.objectnet3d import OBJECTNET3D_PAPER, read_objectnet3d
from uns_pose_ros.datasets.objectron import OBJECTRON_CATEGORIES, read_objectron
from uns_pose_ros.datasets.pascal3d import PASCAL3D_CATEGORIES, read_pascal3d
from uns_pose_ros.datasets.ropes import read_ropes


@dataclass(frozen=True)
class DatasetEntry:
    """How one data set is read."""

    read: Callable[[Path, str, str], LabeledObjects]  # root, category, split
    splits: tuple[str, ...]  # the first one is that of published tables
    categories: tuple[str, ...]  # empty: any, as the root holds them
    # the data set's name of a category by another name of it
    names: Mapping[str, str] = field(default_factory=dict)
    # categories that the paper's table averages over; empty: all
    in_paper: tuple[str, ...] = ()

    def category_of(self, name: str, dataset: str) -> str:
        """The data set's name of a model's category.

        Raises:
            InvalidInput: The data set has no such category.
        """
        plain = name.lower().replace(" ", "_")
        for candidate in (self.names.get(plain, ""), plain):
            if candidate and (not self.categories or candidate in self.categories):
                return candidate
        raise InvalidInput(
            f"{dataset} has no category {name!r}; {shorten(self.categories, 30)} are valid "
            "(--category)"
        )


# names in other data sets, such as CO3D, by the name in PASCAL3D+ and its successors
_PASCAL_NAMES = {
    "airplane": "aeroplane",
    "plane": "aeroplane",
    "bike": "bicycle",
    "couch": "sofa",
    "dining_table": "diningtable",
    "hairdryer": "hair_dryer",
    "monitor": "tvmonitor",
    "motorcycle": "motorbike",
    "remote": "remote_control",
    "toybus": "bus",
    "tv": "tvmonitor",
}

DATASETS: dict[str, DatasetEntry] = {
    "pascal3d": DatasetEntry(
        read_pascal3d,
        ("val", "train"),
        PASCAL3D_CATEGORIES,
        _PASCAL_NAMES,
        ("bicycle", "bus", "car", "chair", "motorbike", "sofa", "tvmonitor"),
    ),
    "objectnet3d": DatasetEntry(
        read_objectnet3d, ("test", "val", "train"), (), _PASCAL_NAMES, OBJECTNET3D_PAPER
    ),
    "imagenet3d": DatasetEntry(read_imagenet3d, ("val", "train"), (), _PASCAL_NAMES),
    "objectron": DatasetEntry(
        read_objectron, ("test", "train"), OBJECTRON_CATEGORIES, {"bicycle": "bike"}
    ),
    "nocs": DatasetEntry(read_nocs, ("real_test", "val"), NOCS_CATEGORIES),
    "ropes": DatasetEntry(read_ropes, ("test",), ()),
}
