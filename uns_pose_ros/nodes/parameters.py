"""ROS parameters made from frozen dataclasses: declared once with type, range and description, read back as one object."""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node
from rclpy.parameter import Parameter

from uns_pose_ros.datatypes import InvalidInput
from uns_pose_ros.device import choose_device
from uns_pose_ros.fusion import FusionConfig
from uns_pose_ros.inference import EstimatorConfig
from uns_pose_ros.tracking import TrackerConfig

T = TypeVar("T")


def setting(default: Any, text: str, low: float | None = None, high: float | None = None, choices: Sequence[str] = ()) -> Any:
    """A dataclass field with what a ROS parameter needs: description with unit, range (both ends or none), valid words."""
    return field(default=default, metadata={"text": text, "low": low, "high": high, "choices": tuple(choices)})


@dataclass(frozen=True)
class NodeParameters:
    """Settings of the estimator node itself; those of the estimation are inference.EstimatorConfig's."""

    models: tuple[str, ...] = setting(("",), "folders of trained models, one a category, as `uns-pose train` writes them")
    categories: tuple[str, ...] = setting(("",), "those of the models' categories that are looked for; blank: all of them")
    device: str = setting("auto", "where the model runs: auto (CUDA where there is one, else CPU), cpu, cuda or cuda:N")
    autostart: bool = setting(True, "configure and activate at start; false: wait for a lifecycle manager")
    transport: str = setting("raw", "topic of the pictures: image (raw) or image/compressed", choices=("raw", "compressed"))
    rectified: bool = setting(False, "true: images are rectified, P of camera_info holds; false: raw, K and D hold")
    regions: str = setting(
        "search",
        "where objects are: search (the node looks itself), or what the topic detections_2d or mask says of each picture",
        choices=("search", "detections_2d", "mask"),
    )
    detection_classes: tuple[str, ...] = setting(("",), "class ids of detections_2d to be taken; blank: all of them")
    use_depth: bool = setting(
        False, "true: pictures wait for the depth image of their stamp, which gives metres where a model does not know its size"
    )
    depth_transport: str = setting(
        "raw", "topic of the depth: depth (raw) or depth/compressedDepth (compressed)", choices=("raw", "compressed")
    )
    object_diameter: float = setting(
        0.0,
        "m, diagonal of the object's box, for models that do not know their size; 0: unknown, one diameter is sent as 1 m",
        0.0,
        100.0,
    )
    frame_prefix: str = setting("", "put before every TF child frame: {prefix}{category}_{track id}")

    def __post_init__(self) -> None:
        choose_device(self.device)
        if any(c.isspace() for c in self.frame_prefix) or self.frame_prefix.startswith("/"):
            raise InvalidInput(f"frame_prefix '{self.frame_prefix}': no blanks and no leading slash are valid")

    @property
    def model_folders(self) -> list[str]:
        """The models named; a blank entry (the default: a ROS list cannot be empty) names none."""
        return [model for model in self.models if model.strip()]

    @property
    def wanted(self) -> list[str] | None:
        """The categories named, None: all."""
        return [name for name in self.categories if name.strip()] or None

    @property
    def classes(self) -> list[str]:
        """The class ids named, none: all."""
        return [name for name in self.detection_classes if name.strip()]


@dataclass(frozen=True)
class TrackingParameters:
    """What the node adds to tracking.TrackerConfig and fusion.FusionConfig."""

    fixed_frame: str = setting(
        "", "TF frame that does not move with the camera, e.g. odom; empty: the camera's motion is not known"
    )
    transform_timeout: float = setting(0.1, "s that an image waits for the transforms of its time", 0.0, 10.0)
    tentative: bool = setting(True, "publish objects too that were not yet seen in tracking.confirm images")


PREFIXES: dict[type, str] = dict.fromkeys([TrackingParameters, TrackerConfig, FusionConfig], "tracking.")
SETTINGS = (NodeParameters, TrackingParameters, TrackerConfig, FusionConfig, EstimatorConfig)  # all of the estimator node's

# may change while the node is configured; all others are read by configure
LIVE = ("models", "categories", "object_diameter", "frame_prefix", "detection_classes")


def declare(node: Node, settings: type) -> None:
    """Declare every field of a dataclass of settings; raises rclpy's ParameterException where an override does not fit."""
    kinds, comments = typing.get_type_hints(settings), _comments(settings)
    for item in dataclasses.fields(settings):
        kind, facts = kinds[item.name], item.metadata
        text = facts.get("text") or comments.get(item.name) or item.name.replace("_", " ")
        descriptor = ParameterDescriptor(description=text)
        low, high, choices = facts.get("low"), facts.get("high"), facts.get("choices", ())
        if choices:
            descriptor.additional_constraints = "one of " + ", ".join(choices)
        if low is not None and high is not None and kind is float:
            descriptor.floating_point_range = [FloatingPointRange(from_value=float(low), to_value=float(high))]
        if low is not None and high is not None and kind is int:
            descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high), step=1)]
        default = list(item.default) if isinstance(item.default, tuple) else item.default
        node.declare_parameter(PREFIXES.get(settings, "") + item.name, default, descriptor)


def _comments(settings: type) -> dict[str, str]:
    """The comment beside each field of a dataclass, which the command line's help shows too; none without its source."""
    try:
        source = inspect.getsource(settings)
    except OSError:
        return {}
    return dict(re.findall(r"^    (\w+): .*?  # (.+)$", source, re.MULTILINE))


def names(*settings: type) -> set[str]:
    """The parameters that these dataclasses declare."""
    return {PREFIXES.get(kind, "") + item.name for kind in settings for item in dataclasses.fields(kind)}


def read(node: Node, settings: type[T], changed: Sequence[Parameter] = ()) -> T:
    """The declared parameters as the dataclass they were made from, with values about to be set in place of the present ones.

    Raises InvalidInput that says what is valid.
    """
    new = {parameter.name: parameter.value for parameter in changed}
    values = {}
    for item in dataclasses.fields(settings):  # type: ignore[arg-type]  # T is one of our dataclasses
        name = PREFIXES.get(settings, "") + item.name
        value = new[name] if name in new else node.get_parameter_or(name).value
        if value is None:  # an empty list from the command line has no type in ROS and leaves the parameter unset
            value = item.default
        choices = item.metadata.get("choices", ())
        if choices and value not in choices:
            raise InvalidInput(f"{name} '{value}': one of {', '.join(choices)} is valid")
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidInput(f"{name} {value}: a finite number is valid")
        values[item.name] = tuple(value) if isinstance(value, (list, tuple)) else value
    return settings(**values)
