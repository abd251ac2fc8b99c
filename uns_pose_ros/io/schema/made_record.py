"""made.json, which marks a folder that the package made, and an unfinished training's state."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Raw, Struct

from uns_pose_ros.io.schema.constraints import (
    Count,
    Digest,
    Json,
    Label,
    check_entry_name,
)
from uns_pose_ros.io.schema.model_record import TrainingCurve


class MadeRecord(Struct, frozen=True):
    """The content of made.json."""

    provenance: Json
    report: Json


class CheckpointKey(Struct, frozen=True):
    """Which work a checkpoint belongs to."""

    key: Digest
    boot: Label


class CheckpointNotes(Struct, frozen=True):
    """What a stopped run noted of its work, and the sizes of its arrays, bytes."""

    notes: Json
    sizes: dict[str, Annotated[int, Meta(ge=0)]]

    def __post_init__(self) -> None:
        for name in self.sizes:
            check_entry_name(name)


class TrainingState(Struct, frozen=True):
    """The state of a training besides its tensors."""

    step: Count
    curve: TrainingCurve
    groups: Annotated[list[dict[str, Any]], Meta(min_length=1, max_length=64)]
    schedule: Json


class OriginRecord(Struct, frozen=True):
    """What every artifact in JSON carries."""

    provenance: Raw
