"""Parameters of the recorder node, as a frozen dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from uns_pose_ros.capture.keyframes import KeyframeConfig
from uns_pose_ros.capture.recording import next_clip
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.settings import setting
from uns_pose_ros.io.given_files import expand_home, is_entry_name


@dataclass(frozen=True)
class RecorderParameters:
    """Source, destination and format of a recording; `KeyframeConfig` chooses the images."""

    category: str = setting(
        "",
        "folder of a category, e.g. /home/robot/mug; each recording is a video folder in it",
    )
    clip: str = setting(
        "",
        "name of the video, which is continued if it exists; empty: the next of clip_01, "
        "clip_02, …",
    )
    fixed_frame: str = setting(
        "",
        "TF frame in which the object does not move, e.g. odom; empty: no poses, no meters",
    )
    record: bool = setting(
        False,
        "true: recording starts when the node becomes active; false: ~/start starts it",
    )
    autostart: bool = setting(
        True,
        "true: the node configures and activates itself at start; false: it waits for a "
        "lifecycle manager",
    )
    transport: str = setting(
        "raw",
        "topic of the images: image (raw) or image/compressed",
        choices=("raw", "compressed"),
    )
    depth: str = setting(
        "none",
        "topic of the depth that is recorded with the images: depth (raw) or "
        "depth/compressedDepth (compressed); images without depth are left out",
        choices=("none", "raw", "compressed"),
    )
    rectified: bool = setting(
        False,
        "true: images are rectified and P of camera_info is used; false: images are raw and K "
        "and D are used",
    )
    format: str = setting(
        "jpg",
        "file format of raw images; compressed images keep their format",
        choices=("jpg", "png"),
    )
    jpeg_quality: int = setting(95, "quality of JPEG files", low=1, high=100)
    queue: int = setting(
        16,
        "largest number of images that wait for selection, and of images that wait for writing",
        unit="images",
        low=1,
        high=256,
    )
    tf_wait: float = setting(
        0.3,
        "time for which an image waits for the transform of its stamp",
        unit="s",
        low=0.0,
        high=10.0,
    )
    keep_free: float = setting(
        500.0,
        "free space that remains on the disk; recording stops before less is free",
        unit="MB",
        low=0.0,
        high=1e9,
    )

    def __post_init__(self) -> None:
        expand_home(self.category, "category")
        if self.clip and (not is_entry_name(self.clip) or self.clip.startswith(".")):
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
        """The fixed frame without a leading slash, as TF names it."""
        return self.fixed_frame.lstrip("/")

    def category_folder(self) -> Path:
        """Return the folder of the category; raises InvalidInput if it is not set."""
        if not self.category.strip():
            raise InvalidInput(
                "no category: set the parameter category to the folder for its videos, e.g. "
                "/home/robot/mug"
            )
        return expand_home(self.category, "category")

    def folder(self) -> Path:
        """Return the folder of the video that is recorded next."""
        category = self.category_folder()
        return category / self.clip if self.clip else next_clip(category)


# all dataclasses of the node's parameters
SETTINGS: tuple[type, ...] = (RecorderParameters, KeyframeConfig)

# parameters that activate reads; all others can change at any time except while recording
AT_ACTIVATION = ("transport", "depth", "fixed_frame", "queue")
