"""Objectron (Ahmadyan et al., CVPR 2021): films with metric boxes of nine categories.

The camera of the annotations is OpenGL's (y up, z backwards) and held in landscape; the films are
in portrait. A box has y up and z to its front. Messages: annotation_data.proto of the authors.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import fit_similarity, project
from uns_pose_ros.core.left_out import LeftOut
from uns_pose_ros.core.types import Camera, Symmetry
from uns_pose_ros.datasets.labeled_object import (
    LabeledObject,
    LabeledObjects,
    box_of_extents,
)
from uns_pose_ros.datasets.view_angles import OURS_FROM_Y_UP, with_our_axes
from uns_pose_ros.io.given_files import path_inside
from uns_pose_ros.io.schema.decoding import read_file
from uns_pose_ros.io.schema.protobuf_fields import float_values, message_fields

OBJECTRON_CATEGORIES = (
    *("bike", "book", "bottle", "camera", "cereal_box", "chair", "cup", "laptop", "shoe"),
)
# from OpenGL's camera in landscape to OpenCV's camera in portrait
CV_FROM_GL = torch.tensor(
    [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]], dtype=torch.float64
)
_ROUND = ("bottle", "cup")  # turned about their up axis, as in the authors' paper
_STEP = 10  # of the frames of a film, which are alike, one of so many is read
_LEAST_VISIBLE = 0.1
_FAR_OFF = 0.02  # sides of the image that a projected corner may miss its annotation by
_MOST, _MOST_SIDE = 512 * 2**20, 20_000  # bytes of a file, px
# (9, 3): the center, then the corners in the order of the annotations
UNIT_BOX = torch.tensor(
    [(0.0, 0.0, 0.0), *product((-0.5, 0.5), repeat=3)], dtype=torch.float64
)
VALID = "a Sequence of Objectron's annotation_data.proto is valid"


def read_objectron(root: Path, category: str, split: str) -> LabeledObjects:
    """Read every tenth annotated frame of the films of a category.

    Objects that are hardly visible, or whose center is not in the image, are left out.

    Args:
        root: The folder with annotations, videos and index.
        category: One of `OBJECTRON_CATEGORIES`.
        split: "test" or "train".

    Raises:
        InvalidInput: A file is missing or broken.
    """
    listed = root / "index" / f"{category}_annotations_{split}"
    lines = read_file(listed, "index", 2**24).decode("utf-8", "replace").split()
    if not lines:
        raise InvalidInput(f"{listed}: empty; one CATEGORY/BATCH/NUMBER a line is valid")
    objects, left_out = list[LabeledObject](), LeftOut()
    for line in lines:
        path = path_inside(root / "annotations", f"{line}.pbdata")
        film = path_inside(root / "videos", f"{line}/video.MOV")
        if not film.is_file():
            left_out.add("films that are missing", line)
            continue
        objects += read_sequence(path, film, category, left_out)
    return LabeledObjects(tuple(objects), left_out)


def read_sequence(
    path: Path, film: Path, category: str, left_out: LeftOut
) -> list[LabeledObject]:
    """The labeled objects of one film.

    Args:
        path: The annotation.
        film: The film.
        category: Objects of other categories are left out.
        left_out: Receives what is left out.

    Raises:
        InvalidInput: The annotation is missing or broken.
    """
    data = read_file(path, "annotation", _MOST)
    try:
        return list(_objects(memoryview(data), film, category, left_out))
    except (ValueError, LookupError, TypeError, struct.error, RuntimeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise InvalidInput(f"{path}: not read ({reason}); {VALID}") from None


def _objects(
    data: memoryview, film: Path, category: str, left_out: LeftOut
) -> Iterator[LabeledObject]:
    sequence = message_fields(data)
    if not sequence.get(1) or not sequence.get(2):
        raise ValueError("no objects or no frames")
    categories = dict[int, str]()
    for message in sequence[1]:
        item = message_fields(message)
        categories[_integer(item, 1)] = bytes(item[2][0]).decode()
    for number, message in enumerate(sequence[2]):
        if number % _STEP:
            continue
        frame = message_fields(message)
        matrix, size = _portrait_camera(message_fields(frame[3][0]))
        for annotation in frame.get(2, []):
            item = message_fields(annotation)
            name = categories.get(_integer(item, 1))
            example = f"{film.parent.name}, frame {_integer(frame, 1)}"
            if name != category:
                left_out.add("objects of another category", example)
                continue
            camera = Camera(matrix, *size)
            reason, labeled = _read_object(item, camera, film, _integer(frame, 1), category)
            if labeled is None:
                left_out.add(reason, example)
            else:
                yield labeled


def _read_object(
    item: Mapping[int, list[Any]], camera: Camera, film: Path, frame: int, category: str
) -> tuple[str, LabeledObject | None]:
    """A labeled object, or why it is left out."""
    if _number(item, 3) <= _LEAST_VISIBLE:
        return "objects that are hardly visible", None
    corners, annotated = _keypoints(item, camera)
    if not float(corners[:, 2].min()) > 0:
        return "objects behind the camera", None
    size = torch.tensor([camera.width, camera.height], dtype=torch.float64)
    if not bool(((annotated[0] >= 0) & (annotated[0] < size)).all()):
        return "objects whose center is not in the image", None
    off = (project(camera.matrix, corners) - annotated).norm(dim=1).median()
    if float(off) > _FAR_OFF * float(size.max()):
        raise ValueError(
            f"frame {frame}: its points in space are {float(off):.0f} px off those in the image"
        )
    pose, extents = fit_box(corners)
    pose = with_our_axes(pose, OURS_FROM_Y_UP)
    extents = OURS_FROM_Y_UP.abs() @ extents
    symmetry = Symmetry(0 if category in _ROUND else 1)
    labeled = LabeledObject(
        film,
        category,
        camera,
        box_of_extents(camera, pose, extents),
        pose,
        extents,
        metric=True,
        symmetry=symmetry,
        film_frame=frame,
    )
    return "", labeled


def fit_box(points: Tensor) -> tuple[Tensor, Tensor]:
    """Pose (4, 4) and sides (3,) of a box from its center and corners (9, 3).

    The sides are the mean lengths of the edges; the pose is the nearest one to all points.
    """
    corners = points[1:].view(2, 2, 2, 3)
    extents = torch.stack(
        [
            (corners.select(axis, 1) - corners.select(axis, 0)).norm(dim=-1).mean()
            for axis in range(3)
        ]
    )
    return fit_similarity(UNIT_BOX * extents, points, with_scale=False), extents


def _portrait_camera(camera: Mapping[int, list[Any]]) -> tuple[Tensor, tuple[int, int]]:
    """Matrix (3, 3) of the portrait image, and its width and height, px.

    It follows from the projection of the authors' tutorial, u = (1 + y) / 2 * width and
    v = (1 + x) / 2 * height for the clip coordinates x and y.
    """
    width, height = _integer(camera, 6), _integer(camera, 5)  # landscape to portrait
    if not (0 < width <= _MOST_SIDE and 0 < height <= _MOST_SIDE):
        raise ValueError(f"an image of {width} x {height} px")
    p = _finite(float_values(camera[8]), 16)
    matrix = [
        [p[5] * width / 2, 0.0, (1 - p[6]) * width / 2 - 0.5],
        [0.0, p[0] * height / 2, (1 - p[2]) * height / 2 - 0.5],
        [0.0, 0.0, 1.0],
    ]
    return torch.tensor(matrix, dtype=torch.float64), (width, height)


def _keypoints(item: Mapping[int, list[Any]], camera: Camera) -> tuple[Tensor, Tensor]:
    """Points in the camera's frame (9, 3), m, and in the image (9, 2), px."""
    points, pixels = {}, {}
    for message in item.get(2, []):
        keypoint = message_fields(message)
        number = _integer(keypoint, 1)
        point, seen = message_fields(keypoint[2][0]), message_fields(keypoint[3][0])
        points[number] = [_number(point, axis) for axis in (1, 2, 3)]
        pixels[number] = [
            _number(seen, 1) * camera.width - 0.5,
            _number(seen, 2) * camera.height - 0.5,
        ]
    if sorted(points) != list(range(9)):
        raise ValueError(f"{len(points)} keypoints of a box, not the numbers 0 to 8")
    inside = torch.tensor([points[k] for k in range(9)], dtype=torch.float64)
    seen_at = torch.tensor([pixels[k] for k in range(9)], dtype=torch.float64)
    return inside @ CV_FROM_GL.T, seen_at


def _integer(message: Mapping[int, list[Any]], field: int) -> int:
    value = message.get(field, [0])[-1]  # proto3 leaves zeros out
    if not isinstance(value, int):
        raise ValueError(f"field {field} is no integer")
    return value


def _number(message: Mapping[int, list[Any]], field: int) -> float:
    if field not in message:
        return 0.0  # proto3 leaves zeros out
    return _finite(float_values(message[field][-1:]), 1)[0]


def _finite(numbers: list[float], count: int) -> list[float]:
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{count} finite numbers are needed")
    return numbers
