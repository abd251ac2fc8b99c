"""ROS parameters made from frozen dataclasses.

Declared once with type, range and description, read back as one object.
"""

from __future__ import annotations

from dataclasses import dataclass

from uns_pose_ros.core.device import choose_device
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.estimation.config import EstimatorConfig
from uns_pose_ros.estimation.pose_fusion import FusionConfig
from uns_pose_ros.estimation.tracker import TrackerConfig
from uns_pose_ros.nodes.parameter_declaration import PREFIXES, setting


@dataclass(frozen=True)
class NodeParameters:
    """Settings of the estimator node itself.

    Those of the estimation are inference.EstimatorConfig's.
    """

    models: tuple[str, ...] = setting(
        ("",), "folders of trained models, one a category, as `uns-pose train` writes them"
    )
    categories: tuple[str, ...] = setting(
        ("",), "those of the models' categories that are looked for; blank: all of them"
    )
    device: str = setting(
        "auto",
        "where the model runs: auto (CUDA where there is one, else CPU), cpu, cuda or cuda:N",
    )
    autostart: bool = setting(
        True, "configure and activate at start; false: wait for a lifecycle manager"
    )
    transport: str = setting(
        "raw",
        "topic of the pictures: image (raw) or image/compressed",
        choices=("raw", "compressed"),
    )
    rectified: bool = setting(
        False,
        "true: images are rectified, P of camera_info holds; false: raw, K and D hold",
    )
    regions: str = setting(
        "search",
        "where objects are: search (the node looks itself), or what the topic detections_2d or "
        "mask says of each picture",
        choices=("search", "detections_2d", "mask"),
    )
    detection_classes: tuple[str, ...] = setting(
        ("",), "class ids of detections_2d to be taken; blank: all of them"
    )
    use_depth: bool = setting(
        False,
        "true: pictures wait for the depth image of their stamp, which gives metres where a "
        "model does not know its size",
    )
    depth_transport: str = setting(
        "raw",
        "topic of the depth: depth (raw) or depth/compressedDepth (compressed)",
        choices=("raw", "compressed"),
    )
    object_diameter: float = setting(
        0.0,
        "m, diagonal of the object's box, for models that do not know their size; 0: unknown, "
        "one diameter is sent as 1 m",
        0.0,
        100.0,
    )
    frame_prefix: str = setting(
        "", "put before every TF child frame: {prefix}{category}_{track id}"
    )

    def __post_init__(self) -> None:
        choose_device(self.device)
        if any(c.isspace() for c in self.frame_prefix) or self.frame_prefix.startswith("/"):
            raise InvalidInput(
                f"frame_prefix '{self.frame_prefix}': no blanks and no leading slash are valid"
            )

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
        "",
        "TF frame that does not move with the camera, e.g. odom; empty: the camera's motion is "
        "not known",
    )
    transform_timeout: float = setting(
        0.1, "s that an image waits for the transforms of its time", 0.0, 10.0
    )
    tentative: bool = setting(
        True, "publish objects too that were not yet seen in tracking.confirm images"
    )


PREFIXES.update(
    dict.fromkeys([TrackingParameters, TrackerConfig, FusionConfig], "tracking.")
)
SETTINGS = (
    NodeParameters,
    TrackingParameters,
    TrackerConfig,
    FusionConfig,
    EstimatorConfig,
)  # all of the estimator node's

# may change while the node is configured; all others are read by configure
LIVE = ("models", "categories", "object_diameter", "frame_prefix", "detection_classes")
