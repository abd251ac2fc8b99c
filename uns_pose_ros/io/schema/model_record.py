"""model.json, and the metadata of features.safetensors: artifacts of several files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from uns_pose_ros.io.schema.alignment_record import SymmetryRecord
from uns_pose_ros.io.schema.constraints import (
    Bounded,
    Digest,
    Label,
    Rows3,
    Rows4,
    Seconds,
    Share,
    Triple,
    check_covariance,
    check_entry_name,
    check_rotation,
    check_similarity,
)

Layers = Annotated[
    list[Annotated[int, Meta(ge=0, le=63)]], Meta(min_length=1, max_length=64)
]
OutermostPoints = Annotated[list[Triple], Meta(min_length=2, max_length=1000)]


class NetworkRecord(Struct, frozen=True):
    """Shape of the head, by the names of NetworkConfig."""

    layers: Layers | UnsetType = UNSET
    width: Annotated[int, Meta(ge=1)] | UnsetType = UNSET
    blocks: Annotated[int, Meta(ge=0)] | UnsetType = UNSET
    features: Annotated[int, Meta(ge=1)] | UnsetType = UNSET
    clutter: Annotated[int, Meta(ge=0)] | UnsetType = UNSET
    temperature: Annotated[float, Meta(gt=0, le=1e3)] | UnsetType = UNSET


class TrainingCurve(Struct, frozen=True):
    """Losses and accuracies of a training, by step."""

    step: list[Bounded] = []
    object: list[Bounded] = []
    background: list[Bounded] = []
    watched_step: list[Bounded] = []
    watched_accuracy: list[Annotated[float, Meta(ge=0, le=100.001)]] = []

    def __post_init__(self) -> None:
        if not len(self.step) == len(self.object) == len(self.background):
            raise ValueError("step, object and background differ in length")
        if len(self.watched_step) != len(self.watched_accuracy):
            raise ValueError("watched_step and watched_accuracy differ in length")


class ChanceRecord(Struct, frozen=True):
    """A logistic regression on the evidence of a pose."""

    low: list[Bounded]
    high: list[Bounded]
    weight: list[Bounded]
    bias: Bounded


class CalibrationRecord(Struct, frozen=True):
    """How the evidence of a pose becomes its score and its covariance."""

    evidence: Annotated[list[Label], Meta(min_length=1, max_length=100)]
    right: ChanceRecord
    there: ChanceRecord
    right_spread: Rows3
    wrong_spread: Rows3
    factor: Annotated[float, Meta(gt=0, le=1e6)]
    threshold: Share
    floor: Share = 0.0
    fit_share: Annotated[float, Meta(gt=0, le=1e6)] = 1.0
    near_share: Annotated[float, Meta(ge=0, le=1e6)] = 0.0
    far_share: Annotated[float, Meta(ge=0, le=1e6)] = 0.0
    odds: Annotated[float, Meta(ge=1, le=1e6)] = 1.0

    def __post_init__(self) -> None:
        for chance in (self.right, self.there):
            for numbers in (chance.low, chance.high, chance.weight):
                if len(numbers) != len(self.evidence):
                    raise ValueError("calibration: one number for each evidence is valid")
            if any(low > high for low, high in zip(chance.low, chance.high, strict=True)):
                raise ValueError("calibration: low above high")
        for spread in (self.right_spread, self.wrong_spread):
            check_covariance(spread)


class ModelOrigin(Struct, frozen=True):
    """What of a model's provenance is read."""

    network: NetworkRecord | None = None
    crop_size: Annotated[int, Meta(ge=0, le=10_000)] | UnsetType = UNSET
    mirror: Rows4 | None = None
    turn: Rows3 | UnsetType = UNSET
    canon_from_obj: dict[str, Rows4] = {}
    training: TrainingCurve | None = None
    template_share: Annotated[float, Meta(gt=0, le=1)] | UnsetType = UNSET
    instances: dict[str, OutermostPoints] = {}
    calibration: CalibrationRecord | None = None
    inputs: dict[Label, Digest] = {}
    seconds: Seconds | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.turn, UnsetType):
            check_rotation(self.turn)
        for name, pose in self.canon_from_obj.items():
            check_entry_name(name)
            check_similarity(pose)
        for name in self.instances:
            check_entry_name(name)


class ModelRecord(Struct, frozen=True):
    """The content of model.json."""

    category: Annotated[str, Meta(min_length=1, max_length=255)]
    symmetry: SymmetryRecord
    diameter_m: Annotated[float, Meta(gt=0, le=1e6)] | None
    companions: dict[str, Digest]
    provenance: Raw

    def __post_init__(self) -> None:
        if not self.category.isprintable():
            raise ValueError("category: a printable name is valid")


class MeshOrigin(Struct, frozen=True):
    """What of a feature mesh's provenance is read."""

    inputs: dict[Label, Digest] = {}
    seconds: Seconds | None = None


def check_companions(companions: Mapping[str, str], names: tuple[str, ...]) -> None:
    """ValueError unless the hashes are those of the named files and of no others."""
    if companions.keys() != set(names):
        raise ValueError(
            f"companions are {', '.join(map(repr, sorted(companions))) or 'missing'}; "
            f"{' and '.join(names)} are valid"
        )
