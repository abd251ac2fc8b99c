"""JSON files that a person or another program writes: prompts, labels and a resting pose."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from uns_pose_ros.io.given_files import stays_inside
from uns_pose_ros.io.schema.constraints import (
    Label,
    Rows3,
    Rows4,
    check_rigid,
    check_rotation,
)

ROUNDED = 0.01  # by which an entry of R R^T may differ where a person rounded the numbers
Pixel = Annotated[float, Meta(ge=-1e6, le=1e6)]
Points = Annotated[list[tuple[Pixel, Pixel]], Meta(max_length=10_000)]


class PromptsRecord(Struct, frozen=True):
    """The content of prompts.json: points in one image, x y px."""

    points: Points
    background: Points = []
    frame: str = ""

    def __post_init__(self) -> None:
        if not self.points:
            raise ValueError("no points")
        if self.frame and not stays_inside(self.frame):
            raise ValueError("frame: the name of an image below images/ is valid")


class LabelRecord(Struct, frozen=True):
    """The rotation that a person gave to a video."""

    canon_from_obj: Rows3

    def __post_init__(self) -> None:
        check_rotation(self.canon_from_obj, most=ROUNDED)


class RestingRecord(Struct, frozen=True):
    """The pose of an object that rests in a TF frame, m."""

    frame: Label
    pose: Rows4

    def __post_init__(self) -> None:
        if not self.frame.strip("/"):
            raise ValueError("frame: a name is needed")
        check_rigid(self.pose, most=2 * ROUNDED)
