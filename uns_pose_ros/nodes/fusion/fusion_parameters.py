"""Parameters of the fusion node, as a frozen dataclass."""

from __future__ import annotations

from dataclasses import dataclass

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.settings import check_ranges, setting
from uns_pose_ros.estimation.cameras.camera_fusion import CameraFusionConfig
from uns_pose_ros.estimation.fusion.fusion_config import FusionConfig


@dataclass(frozen=True)
class FusionParameters:
    """Settings of the fusion node itself; `CameraFusionConfig` has those of the matching."""

    cameras: tuple[str, ...] = setting(
        ("",),
        "namespaces of the estimators, e.g. [left, right]: their results are on "
        "{camera}/estimator/detections",
    )
    fixed_frame: str = setting(
        "",
        "TF frame of the results, in which objects at rest do not move, e.g. odom or map",
    )
    rate: float = setting(
        10.0, "results in a second at most", unit="Hz", low=0.1, high=100.0
    )
    outage: float = setting(
        2.0,
        "time without results of a camera after which the diagnostics warn",
        unit="s",
        low=0.1,
        high=3600.0,
    )
    min_score: float = setting(
        0.0, "estimates of a camera with a lower score are not used", low=0.0, high=1.0
    )
    frame_prefix: str = setting(
        "", "prefix of every TF child frame: {prefix}{category}_{number}"
    )
    autostart: bool = setting(
        True,
        "true: the node configures and activates itself at start; false: it waits for a "
        "lifecycle manager",
    )

    def __post_init__(self) -> None:
        check_ranges(self)
        if any(c.isspace() for c in self.frame_prefix) or self.frame_prefix.startswith("/"):
            raise InvalidInput(
                f"frame_prefix '{self.frame_prefix}': no blanks and no leading slash are valid"
            )
        names = self.camera_names
        if len(set(names)) < len(names):
            raise InvalidInput(f"cameras {', '.join(names)}: each once is valid")

    @property
    def camera_names(self) -> list[str]:
        """The cameras without blank entries and outer slashes."""
        return [name.strip().strip("/") for name in self.cameras if name.strip(" /")]


# all dataclasses of the node's parameters
SETTINGS = (FusionParameters, CameraFusionConfig, FusionConfig)
# parameters that only activate reads
AT_ACTIVATION = ("cameras", "fixed_frame", "rate")
