"""Settings of the recorder node itself; which pictures are kept is keyframes.KeyframeConfig's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from uns_pose_ros.capture.recording import next_clip
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.nodes.parameter_declaration import setting


@dataclass(frozen=True)
class RecorderParameters:
    """Where from, where to and how pictures are recorded."""

    category: str = setting(
        "",
        "folder of a category; each recording is a video folder in it, e.g. /home/robot/mug",
    )
    clip: str = setting(
        "",
        "the video's name in it, gone on with if it is there; empty: the next of clip_01, "
        "clip_02, …",
    )
    fixed_frame: str = setting(
        "",
        "TF frame in which the object stands still, e.g. odom; empty: no poses, no metres",
    )
    record: bool = setting(
        False, "start recording as soon as the node is active; false: ~/start does"
    )
    autostart: bool = setting(
        True, "configure and activate at start; false: wait for a lifecycle manager"
    )
    transport: str = setting(
        "raw",
        "topic of the pictures: image (raw) or image/compressed",
        choices=("raw", "compressed"),
    )
    depth: str = setting(
        "none",
        "depth kept beside the images: of topic depth (raw) or depth/compressedDepth (compressed)",
        choices=("none", "raw", "compressed"),
    )
    rectified: bool = setting(
        False,
        "true: images are rectified, P of camera_info holds; false: raw, K and D hold",
    )
    format: str = setting(
        "jpg",
        "of the files of raw pictures; compressed ones are kept as they come",
        choices=("jpg", "png"),
    )
    jpeg_quality: int = setting(95, "of JPEG files", 1, 100)
    queue: int = setting(
        16, "pictures that may wait to be judged, and as many to be written", 1, 256
    )
    tf_wait: float = setting(
        0.3, "s that a picture waits for the transform of its stamp", 0.0, 10.0
    )
    keep_free: float = setting(
        500.0, "MB that stay free on the disk; recording stops before", 0.0, 1e9
    )

    def __post_init__(self) -> None:
        if self.clip and (Path(self.clip).name != self.clip or self.clip.startswith(".")):
            raise InvalidInput(
                f"clip '{self.clip}': a name such as clip_01 is valid, without slash and "
                "leading dot"
            )
        if any(c.isspace() for c in self.fixed_frame):
            raise InvalidInput(
                f"fixed_frame '{self.fixed_frame}': a name without blanks is valid, e.g. odom"
            )

    @property
    def frame(self) -> str:
        """The fixed frame as TF names it."""
        return self.fixed_frame.lstrip("/")

    def category_folder(self) -> Path:
        """Raises InvalidInput where none is set."""
        if not self.category.strip():
            raise InvalidInput(
                "no category: set the parameter category to the folder for its videos, e.g. "
                "/home/robot/mug"
            )
        return Path(self.category).expanduser()

    def folder(self) -> Path:
        """Of the video that is recorded next."""
        category = self.category_folder()
        return category / self.clip if self.clip else next_clip(category)


AT_ACTIVATION = (
    "autostart",
    "transport",
    "depth",
    "fixed_frame",
    "queue",
)  # others may change at any time but while recording
