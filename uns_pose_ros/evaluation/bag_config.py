"""Which messages of a bag are evaluated, and what is known of the pose of the object."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.estimation.cameras.camera_fusion import CameraFusionConfig
from uns_pose_ros.estimation.stream.stream_estimator import StreamConfig

MAX_MESSAGES = 10_000_000  # messages of a topic


@dataclass(frozen=True)
class BagConfig:
    """Which messages of a bag are evaluated, and what is known of the pose of the object."""

    image_topic: str | None = None  # of the images; without: the only one
    camera_info_topic: str | None = None  # without: camera_info beside the images
    # aligned depth, which refines poses and gives meters; without: not used
    depth_topic: str | None = None
    truth_frame: str | None = None  # TF frame of the object
    # topic with the object's pose: PoseStamped, or Detection3DArray (first of the category)
    truth_topic: str | None = None
    # of an object at rest, {"frame": TF frame, "pose": 4x4 frame_from_object, m}
    truth_pose: Path | None = None
    # YAML of a printed board of markers below the object, see `uns-pose board`
    truth_board: Path | None = None
    # bring the model's frame to the truth's by the pose that fits this bag best, a little too well
    fit: bool = False
    # TF frame that does not move with the camera: for fusion, and jitter without truth
    fixed_frame: str | None = None
    # topic of the transforms, its static one goes with it; without: that of the camera
    tf_topic: str | None = None
    # poses fused over images, as the node gives them; without: each image's own
    fuse: bool = False
    every: int = 1  # use only one in so many images
    # the whole image is searched in each of so many images, as the node does; 1: in every one
    search_every: int = StreamConfig.every
    # of several cameras, which are fused as the fusion node does; needs fixed_frame
    image_topics: tuple[str, ...] = ()
    # s, largest difference between the stamps of images that are fused
    max_difference: float = CameraFusionConfig.max_difference

    def __post_init__(self) -> None:
        if self.every < 1:
            raise InvalidInput(f"--every {self.every}: 1 or more is valid")
        StreamConfig(self.search_every)
        given = [
            name
            for name in ("truth_frame", "truth_topic", "truth_pose", "truth_board")
            if getattr(self, name) is not None
        ]
        CameraFusionConfig(max_difference=self.max_difference)
        if self.image_topics:
            self._check_cameras()
        if len(given) > 1:
            raise InvalidInput(
                f"{' and '.join(given)} both say what is true: one of them is valid"
            )

    def _check_cameras(self) -> None:
        """Raise InvalidInput where the settings do not fit several cameras."""
        topics = self.image_topics
        if len(set(topics)) < max(2, len(topics)):
            raise InvalidInput(
                f"--image-topics {' '.join(topics)}: two or more, each once, are valid"
            )
        alone = {
            "--image-topic": self.image_topic,
            "--camera-info-topic": self.camera_info_topic,
            "--depth-topic": self.depth_topic,
        }
        if wrong := [name for name, value in alone.items() if value is not None]:
            raise InvalidInput(
                f"{', '.join(wrong)} with --image-topics: valid for one camera only"
            )
        if self.fixed_frame is None:
            raise InvalidInput(
                "--image-topics: --fixed-frame FRAME is needed too, a frame of TF in which the "
                "cameras are placed"
            )
