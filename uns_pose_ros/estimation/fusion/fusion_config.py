"""Settings of the fusion of poses over images."""

from __future__ import annotations

from dataclasses import dataclass

from uns_pose_ros.core.settings import check_ranges, setting


@dataclass(frozen=True)
class FusionConfig:
    """How the poses of several images become one pose."""

    outlier_probability: float = setting(
        0.1,
        "probability that none of an image's poses is correct",
        low=1e-6,
        high=1.0,
        group="tracking",
        deprecated="tracking.floor",
    )
    evidence_decay: float = setting(
        0.9,
        "share of the evidence that remains one image later; with a small share, an object that "
        "was turned is recognized soon",
        low=0.0,
        high=1.0,
        group="tracking",
        deprecated="tracking.forget",
    )
    unknown_motion_evidence_decay: float = setting(
        0.7,
        "share of the evidence that remains one image later if the camera's motion is unknown",
        low=0.0,
        high=1.0,
        group="tracking",
        deprecated="tracking.unknown_forget",
    )
    measurement_sigma_deg: float = setting(
        20.0,
        "standard deviation of the rotation between two correct estimates",
        unit="deg",
        low=1.0,
        high=180.0,
        group="tracking",
        deprecated="tracking.agree",
    )
    merge_angle_deg: float = setting(
        30.0,
        "largest rotation between two poses that are one mode",
        unit="deg",
        low=1.0,
        high=180.0,
        group="tracking",
        deprecated="tracking.same",
    )
    max_modes: int = setting(
        8,
        "largest number of modes (distinct poses) of one object",
        low=1,
        high=100,
        group="tracking",
        deprecated="tracking.kept",
    )
    correlated_noise_share: float = setting(
        0.3,
        "share of an image's variance that all images have in common, so that more images do not "
        "average it away",
        low=0.0,
        high=0.99,
        group="tracking",
        deprecated="tracking.common",
    )
    rotation_process_noise: float = setting(
        3.0,
        "rotation of objects at rest, with the error of the known camera motion",
        unit="deg/sqrt(s)",
        low=0.0,
        high=1e4,
        group="tracking",
        deprecated="tracking.turn_noise",
    )
    translation_process_noise: float = setting(
        0.02,
        "translation of objects at rest, with the error of the known camera motion, as a share "
        "of the distance",
        unit="1/sqrt(s)",
        low=0.0,
        high=1e4,
        group="tracking",
        deprecated="tracking.shift_noise",
    )
    unknown_motion_rotation_noise: float = setting(
        60.0,
        "rotation of objects relative to the camera if the camera's motion is unknown",
        unit="deg/sqrt(s)",
        low=0.0,
        high=1e4,
        group="tracking",
        deprecated="tracking.unknown_turn",
    )
    unknown_motion_translation_noise: float = setting(
        0.5,
        "translation of objects relative to the camera if the camera's motion is unknown, as a "
        "share of the distance",
        unit="1/sqrt(s)",
        low=0.0,
        high=1e4,
        group="tracking",
        deprecated="tracking.unknown_shift",
    )
    motion_evidence: float = setting(
        1000.0,
        "how many times likelier the last images must be with an object that moves in the fixed "
        "frame than with one at rest, before its velocity is used; 0: objects are taken to be at "
        "rest",
        low=0.0,
        high=1e12,
        group="tracking",
    )

    def __post_init__(self) -> None:
        check_ranges(self)
