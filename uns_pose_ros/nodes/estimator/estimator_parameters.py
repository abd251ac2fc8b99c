"""Parameters of the estimator node, as frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass

from uns_pose_ros.core.device import choose_device
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.settings import setting
from uns_pose_ros.estimation.config import EstimatorConfig
from uns_pose_ros.estimation.fusion.fusion_config import FusionConfig
from uns_pose_ros.estimation.stream.stream_estimator import StreamConfig
from uns_pose_ros.estimation.tracker import TrackerConfig

_NO_PREFIX = (
    "/"  # frame_prefix of a node whose child frames have no prefix in any namespace
)


@dataclass(frozen=True)
class NodeParameters:
    """Settings of the estimator node itself; `EstimatorConfig` has those of the estimation."""

    models: tuple[str, ...] = setting(
        ("",), "folders of trained models, one for each category, from `uns-pose train`"
    )
    categories: tuple[str, ...] = setting(
        ("",),
        "categories that the node searches, of those that the models have; blank: all",
    )
    device: str = setting(
        "auto",
        "device that runs the model: auto (CUDA if available, else CPU), cpu, cuda or cuda:N",
    )
    autostart: bool = setting(
        True,
        "true: the node configures and activates itself at start; false: it waits for a "
        "lifecycle manager",
    )
    enabled: bool = setting(
        True,
        "true: the node receives images; false: it waits, with its models loaded, until the "
        "service ~/enable or ~/toggle switches it on",
    )
    transport: str = setting(
        "raw",
        "topic of the images: image (raw) or image/compressed",
        choices=("raw", "compressed"),
    )
    rectified: bool = setting(
        False,
        "true: images are rectified and P of camera_info is used; false: images are raw and K "
        "and D are used",
    )
    regions: str = setting(
        "search",
        "source of object regions: search (the node itself), or the topic detections_2d or mask",
        choices=("search", "detections_2d", "mask"),
    )
    detection_classes: tuple[str, ...] = setting(
        ("",), "class ids of detections_2d that are used; blank: all"
    )
    use_depth: bool = setting(
        False,
        "true: each image waits for the depth image of the same stamp; the depth gives size and "
        "distance of the objects",
    )
    depth_transport: str = setting(
        "raw",
        "topic of the depth: depth (raw) or depth/compressedDepth (compressed)",
        choices=("raw", "compressed"),
    )
    object_diameter: float = setting(
        0.0,
        "diagonal of the object's box, for models that do not know their size; 0: unknown, the "
        "node publishes one diameter as 1 m",
        unit="m",
        low=0.0,
        high=100.0,
    )
    frame_prefix: str = setting(
        "",
        "prefix of every TF child frame: {prefix}{category}_{track id}; empty: the namespace of "
        "the node with a slash, e.g. left/; a lone slash: no prefix in any namespace",
    )
    named_frames: bool = setting(
        True,
        "true: the frames of the models' frames.yaml are published for each object: TF frames "
        "{object}/{name}, ~/grasps and markers",
    )
    only_seen_grasps: bool = setting(
        False,
        "true: ~/grasps has only grasps whose place the image shows; false: also those that the "
        "pose alone places",
    )
    rerun_folder: str = setting(
        "",
        "folder in which the node writes a recording of images and objects for the viewer rerun, "
        "one file each time it is configured; empty: none. Needs pip install "
        "'uns_pose_ros[rerun]'",
    )

    def __post_init__(self) -> None:
        choose_device(self.device)
        prefix = "" if self.frame_prefix == _NO_PREFIX else self.frame_prefix
        if any(c.isspace() for c in prefix) or prefix.startswith("/"):
            raise InvalidInput(
                f"frame_prefix '{self.frame_prefix}': no blanks and no leading slash are valid; "
                "empty: made from the namespace; /: no prefix"
            )

    def child_prefix(self, namespace: str) -> str:
        """Return the text before every TF child frame of a node in a namespace.

        Args:
            namespace: Namespace of the node, such as /left; / is the root.
        """
        if self.frame_prefix:
            return "" if self.frame_prefix == _NO_PREFIX else self.frame_prefix
        name = namespace.strip("/")
        return f"{name}/" if name else ""

    @property
    def model_folders(self) -> list[str]:
        """The folders of models, without blank entries: a ROS list cannot be empty."""
        return [model for model in self.models if model.strip()]

    @property
    def wanted(self) -> list[str] | None:
        """The categories that the node searches; None: all."""
        return [name for name in self.categories if name.strip()] or None

    @property
    def classes(self) -> list[str]:
        """The class ids of detections_2d that are used; empty: all."""
        return [name for name in self.detection_classes if name.strip()]


@dataclass(frozen=True)
class TrackingParameters:
    """What the node adds to `TrackerConfig` and `FusionConfig`."""

    fixed_frame: str = setting(
        "",
        "TF frame that does not move with the camera, e.g. odom; empty: the camera's motion is "
        "unknown",
        group="tracking",
    )
    transform_timeout: float = setting(
        0.1,
        "time for which an image waits for the transforms of its stamp",
        unit="s",
        low=0.0,
        high=10.0,
        group="tracking",
    )
    tentative: bool = setting(
        True,
        "true: the node also publishes objects that fewer than tracking.min_hits images show",
        group="tracking",
    )


# all dataclasses of the node's parameters
SETTINGS = (
    NodeParameters,
    TrackingParameters,
    TrackerConfig,
    FusionConfig,
    StreamConfig,
    EstimatorConfig,
)

# parameters that only configure or activate reads; all others hold from the next image on
AT_CONFIGURE = ("device", "solver.runtime", "rerun_folder")
AT_ACTIVATION = (
    "transport",
    "regions",
    "use_depth",
    "depth_transport",
    "tracking.fixed_frame",
)


@dataclass(frozen=True)
class ImageSettings:
    """All settings of the node at the time of one image."""

    node: NodeParameters
    tracking: TrackingParameters
    tracker: TrackerConfig
    fusion: FusionConfig
    stream: StreamConfig
    estimator: EstimatorConfig
