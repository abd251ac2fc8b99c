"""alignment.json: the canonical frame of a category."""

from __future__ import annotations

import math

from msgspec import UNSET, Raw, Struct, UnsetType

from uns_pose_ros.io.schema.constraints import (
    Angle,
    Digest,
    Label,
    Order,
    Rows3,
    Rows4,
    Seconds,
    Share,
    Triple,
    check_entry_name,
    check_rotation,
    check_similarity,
)

PUBLISHED = "published"  # the method that aligns each video to one reference by itself


class SymmetryRecord(Struct, frozen=True):
    """Rotations that leave the category unchanged."""

    order: Order
    axis: Triple

    def __post_init__(self) -> None:
        if not 1e-3 < math.hypot(*self.axis) < 1e3:
            raise ValueError("the axis is no direction")


class AlignedVideo(Struct, frozen=True):
    """A video in the canonical frame."""

    canon_from_obj: Rows4
    confidence: Share
    kept: bool
    residual_deg: Angle

    def __post_init__(self) -> None:
        check_similarity(self.canon_from_obj)


class AxesProposal(Struct, frozen=True):
    """How sure the proposed axes are."""

    up_spread_deg: Angle
    front_contrast: Share


class NamedAxes(Struct, frozen=True):
    """The axes that were proposed, and the names that a person gave to them."""

    named_from_computed: Rows3
    up: Label | None = None
    front: Label | None = None
    base_from_computed: Rows3 | UnsetType = UNSET  # unset: names are of the computed frame
    proposal: AxesProposal | UnsetType = UNSET

    def __post_init__(self) -> None:
        check_rotation(self.named_from_computed)
        if not isinstance(self.base_from_computed, UnsetType):
            check_rotation(self.base_from_computed)


class AlignmentOrigin(Struct, frozen=True):
    """What of an alignment's provenance is read."""

    inputs: dict[Label, Digest] = {}
    seconds: Seconds | None = None
    axes: NamedAxes | None = None
    method: Label | None = None  # None: by consensus
    reference: Label | None = None  # of the published method

    def __post_init__(self) -> None:
        if self.method == PUBLISHED and self.reference is None:
            raise ValueError("the published method has a reference")


class AlignmentRecord(Struct, frozen=True):
    """The content of alignment.json."""

    videos: dict[str, Raw]  # AlignedVideo of each
    symmetry: SymmetryRecord
    provenance: Raw = Raw(b"{}")

    def __post_init__(self) -> None:
        if not self.videos:
            raise ValueError("no video is aligned")
        for name in self.videos:
            check_entry_name(name)
