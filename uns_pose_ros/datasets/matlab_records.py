"""Annotations of PASCAL3D+ and ObjectNet3D: MATLAB files with one variable `record`."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Symmetry
from uns_pose_ros.datasets.labeled_object import LabeledObject
from uns_pose_ros.datasets.matlab_file import parse_matlab
from uns_pose_ros.datasets.view_angles import (
    OURS_FROM_PASCAL,
    camera_towards,
    pose_from_angles,
    with_our_axes,
)
from uns_pose_ros.io.schema.decoding import read_file

_MOST = 16 * 2**20  # bytes of a file
_MAX_SIDE = 100_000  # px
VALID = "a MATLAB 5 file with the struct `record` of PASCAL3D+ is valid"


@dataclass(frozen=True)
class Annotation:
    """The content of one annotation file, as plain values."""

    path: Path
    record: Mapping[str, Any]

    @property
    def objects(self) -> list[Mapping[str, Any]]:
        """The annotated objects."""
        listed = self.record.get("objects") or []
        listed = listed if isinstance(listed, list) else [listed]
        if not all(isinstance(item, Mapping) for item in listed):
            raise self.invalid("`objects` is no struct array")
        return listed

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the image, px."""
        size = self.record.get("size")
        if isinstance(size, Mapping) and "width" in size and "height" in size:
            sides = [size["width"], size["height"]]
        else:
            listed = self.record.get("imgsize")
            sides = listed[:2] if isinstance(listed, list) else []
        if len(sides) != 2 or not all(
            isinstance(side, float) and 0 < side <= _MAX_SIDE for side in sides
        ):
            raise self.invalid("neither `size` nor `imgsize` is a width and a height")
        return int(sides[0]), int(sides[1])

    def invalid(self, what: str) -> InvalidInput:
        """The error that names this file."""
        return InvalidInput(f"{self.path}: {what}; {VALID}")


def read_annotation(path: Path) -> Annotation:
    """Read an annotation file.

    Raises:
        InvalidInput: The file is missing or not such a file.
    """
    data = read_file(path, "MATLAB file", _MOST)
    try:
        record = parse_matlab(data, "record")
    except KeyError:
        raise InvalidInput(f"{path}: it holds no `record`; {VALID}") from None
    except (ValueError, ArithmeticError, LookupError, StopIteration, zlib.error) as error:
        reason = (str(error) or "it is cut off").splitlines()[0][:200]
        raise InvalidInput(f"{path}: not a MATLAB file ({reason}); {VALID}") from None
    if not isinstance(record, Mapping):
        raise InvalidInput(f"{path}: `record` is no struct; {VALID}")
    return Annotation(path, record)


def viewpoint_of(item: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The viewpoint of an annotated object, if it has one."""
    viewpoint = item.get("viewpoint")
    return viewpoint if isinstance(viewpoint, Mapping) and viewpoint else None


def number_of(
    annotation: Annotation, values: Mapping[str, Any], name: str, other: str = ""
) -> float:
    """A finite number of a struct; `other` is the field that replaces a missing one.

    Raises:
        InvalidInput: There is no such number.
    """
    value = values.get(name, [])
    if value == []:  # MATLAB's word for a missing value
        value = values.get(other)
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise annotation.invalid(f"`{name}` is no finite number")


def labeled_object(
    annotation: Annotation,
    item: Mapping[str, Any],
    image: Path,
    category: str,
    symmetry: Symmetry | None,
    camera_from: Mapping[str, Any] | None = None,
) -> LabeledObject:
    """The record of one annotated object.

    Args:
        annotation: The file.
        item: An object with a viewpoint.
        image: Path of its image.
        category: Its category.
        symmetry: Symmetry of the category.
        camera_from: The viewpoint that gives focal length and viewport; None: the object's.

    Raises:
        InvalidInput: A number is missing, or the numbers are no view of an object.
    """
    view = viewpoint_of(item)
    assert view is not None
    lens = view if camera_from is None else camera_from
    pose = pose_from_angles(
        number_of(annotation, view, "azimuth", "azimuth_coarse"),
        number_of(annotation, view, "elevation", "elevation_coarse"),
        number_of(annotation, view, "theta"),
        number_of(annotation, view, "distance"),
    )
    focal = number_of(annotation, lens, "focal") * number_of(annotation, lens, "viewport")
    at = number_of(annotation, view, "px"), number_of(annotation, view, "py")
    corners = item.get("bbox")
    if not isinstance(corners, list) or len(corners) != 4:
        raise annotation.invalid("`bbox` is not x1 y1 x2 y2")
    try:
        return LabeledObject(
            image,
            category,
            camera_towards(focal, at, *annotation.size),
            # MATLAB counts pixels from 1
            torch.tensor(corners, dtype=torch.float64) - 1,
            with_our_axes(pose, OURS_FROM_PASCAL),
            calibrated=False,
            symmetry=symmetry,
            occluded=_is_set(item.get("occluded")),
            truncated=_is_set(item.get("truncated")),
            difficult=_is_set(item.get("difficult")),
        )
    except (ValueError, TypeError) as error:
        raise annotation.invalid(str(error)) from None


def _is_set(value: Any) -> bool:
    return isinstance(value, float) and value != 0
