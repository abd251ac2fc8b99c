"""ROPE of Omni6DPose (Zhang et al., ECCV 2024): real films, metric boxes, symmetry by instance.

The axes of an object are taken to be y up and z to the front, as in NOCS. The truth of an image is
a JSON file; sizes and symmetries of the instances are in one other file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch
from msgspec import Struct
from torch import Tensor

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import from_parts, quaternion_to_matrix, symmetry_rotations
from uns_pose_ros.core.left_out import LeftOut
from uns_pose_ros.core.types import Camera, Symmetry
from uns_pose_ros.datasets.labeled_object import (
    LabeledObject,
    LabeledObjects,
    box_of_extents,
)
from uns_pose_ros.datasets.view_angles import OURS_FROM_Y_UP, with_our_axes
from uns_pose_ros.io.schema.constraints import Bounded, Label, Quadruple, Triple
from uns_pose_ros.io.schema.decoding import read_record

_META = Path("Meta") / "real_obj_meta.json"
_ENDING = "meta.json"
_MOST_SIDE = 20_000  # px
_AXES = {"x": (1.0, 0.0, 0.0), "y": (0.0, 1.0, 0.0), "z": (0.0, 0.0, 1.0)}

Turns = Literal["none", "any", "half", "quarter"]


class _SymmetryTag(Struct, frozen=True):
    any: bool
    x: Turns
    y: Turns
    z: Turns


class _Tag(Struct, frozen=True):
    symmetry: _SymmetryTag


class _Instance(Struct, frozen=True):
    dimensions: Triple
    tag: _Tag


class InstancesRecord(Struct, frozen=True):
    """The content of real_obj_meta.json that is used."""

    instance_dict: dict[str, _Instance]


class _Intrinsics(Struct, frozen=True):
    fx: Bounded
    fy: Bounded
    cx: Bounded
    cy: Bounded
    width: Bounded
    height: Bounded


class _View(Struct, frozen=True):
    intrinsics: _Intrinsics


class _ObjectMeta(Struct, frozen=True):
    oid: Label
    class_name: Label
    scale: Triple
    is_background: bool = False


class _Object(Struct, frozen=True):
    meta: _ObjectMeta
    quaternion_wxyz: Quadruple
    translation: Triple
    is_valid: bool = True


class RopeImageRecord(Struct, frozen=True):
    """The content of FRAME_meta.json that is used."""

    camera: _View
    objects: dict[str, _Object]


def read_ropes(root: Path, category: str, split: str) -> LabeledObjects:
    """Read the objects of a category in all images.

    Objects that the authors mark as not valid, and those of the background, are left out.

    Args:
        root: The folder with ROPE and Meta.
        category: A class name of real_obj_meta.json.
        split: "test": all that there is.

    Raises:
        InvalidInput: A file is missing or broken.
    """
    instances = read_record(
        root / _META, InstancesRecord, "list of instances"
    ).instance_dict
    files = sorted((root / "ROPE").glob(f"*/*_{_ENDING}"))
    if not files:
        raise InvalidInput(
            f"{root / 'ROPE'}: no SCENE/FRAME_{_ENDING} in it, which are needed"
        )
    objects, left_out = list[LabeledObject](), LeftOut()
    for path in files:
        record = read_record(path, RopeImageRecord, "annotation of ROPE")
        objects += _objects(path, record, category, instances, left_out)
    return LabeledObjects(tuple(objects), left_out)


def _objects(
    path: Path,
    record: RopeImageRecord,
    category: str,
    instances: dict[str, _Instance],
    left_out: LeftOut,
) -> Iterator[LabeledObject]:
    """The objects of one image."""
    image = path.with_name(f"{path.name.removesuffix(_ENDING)}color.png")
    for name, item in record.objects.items():
        if item.meta.class_name != category or item.meta.is_background:
            continue
        if not item.is_valid:
            left_out.add("objects that are marked as not valid", image.name)
        elif item.meta.oid not in instances:
            left_out.add("objects whose instance is not listed", item.meta.oid)
        elif not image.is_file():
            left_out.add("objects whose image is missing", image.name)
        else:
            try:
                yield _labeled(image, record.camera.intrinsics, item, instances, category)
            except ValueError as error:
                raise InvalidInput(
                    f"{path}: {name[:80]}: {error}; an annotation of ROPE is valid"
                ) from None


def _labeled(
    image: Path,
    lens: _Intrinsics,
    item: _Object,
    instances: dict[str, _Instance],
    category: str,
) -> LabeledObject:
    if not (1 <= lens.width <= _MOST_SIDE and 1 <= lens.height <= _MOST_SIDE):
        raise ValueError(f"an image of {lens.width:g} x {lens.height:g} px")
    matrix = [[lens.fx, 0.0, lens.cx], [0.0, lens.fy, lens.cy], [0.0, 0.0, 1.0]]
    camera = Camera(
        torch.tensor(matrix, dtype=torch.float64), int(lens.width), int(lens.height)
    )
    quaternion = torch.tensor(item.quaternion_wxyz, dtype=torch.float64)
    if not 0.9 < float(quaternion.norm()) < 1.1:
        raise ValueError("its quaternion has not the length 1")
    translation = torch.tensor(item.translation, dtype=torch.float64)
    pose = from_parts(quaternion_to_matrix(quaternion), translation)
    pose = with_our_axes(pose, OURS_FROM_Y_UP)
    instance = instances[item.meta.oid]
    sides = torch.tensor(instance.dimensions) * torch.tensor(item.meta.scale)
    extents = OURS_FROM_Y_UP.abs() @ sides.double().abs()
    symmetry, turns, is_sphere = symmetry_of_tag(instance.tag.symmetry)
    return LabeledObject(
        image,
        category,
        camera,
        box_of_extents(camera, pose, extents),
        pose,
        extents,
        metric=True,
        symmetry=symmetry,
        turns=turns,
        is_sphere=is_sphere,
    )


def symmetry_of_tag(tag: _SymmetryTag) -> tuple[Symmetry, Tensor | None, bool]:
    """The symmetry of an instance with our axes.

    Returns:
        The symmetry about one axis, further rotations (G, 3, 3) that leave the object unchanged
        (None: there are none), and whether every rotation does.
    """
    turns = {"x": tag.x, "y": tag.y, "z": tag.z}
    by_kind = {
        kind: [axis for axis, value in turns.items() if value == kind]
        for kind in ("any", "quarter", "half")
    }
    round_axes, quarters, halves = by_kind["any"], by_kind["quarter"], by_kind["half"]
    if tag.any or len(round_axes) > 1 or (round_axes and quarters):
        return Symmetry(1), None, True
    if len(quarters) > 1:  # a cube: its z axis goes to any of six directions
        sides = [_turn("x", 4), _turn("y", 4)[1::2]]
        return Symmetry(4, _axis("z")), torch.cat(sides), False
    order = {"any": 0, "quarter": 4, "half": 2}
    for kind, axes in by_kind.items():
        if axes:
            main = axes[0]
            others = [*halves] if kind != "half" else halves[1:]
            if not others:
                return Symmetry(order[kind], _axis(main)), None, False
            across = next(axis for axis in "xyz" if axis != main)
            return Symmetry(order[kind], _axis(main)), _turn(across, 2), False
    return Symmetry(1), None, False


def _axis(name: str) -> Tensor:
    """An axis of theirs in our axes (3,)."""
    return OURS_FROM_Y_UP @ torch.tensor(_AXES[name], dtype=torch.float64)


def _turn(name: str, count: int) -> Tensor:
    """All turns (count, 3, 3) about an axis of theirs, in our axes."""
    return symmetry_rotations(count, _axis(name))
