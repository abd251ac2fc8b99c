"""video.json: what is known of a video besides its images, masks and poses."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct, field

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io.schema.constraints import (
    Bounded,
    Count,
    Json,
    Label,
    Rows4,
    Seconds,
    check_entry_name,
    check_rigid,
)
from uns_pose_ros.io.schema.decoding import decode_json, decode_record, read_file

VIDEO_RECORD = "video.json"
Nanoseconds = Annotated[int, Meta(ge=0, le=2**62)]


class MetersReport(Struct, frozen=True):
    """What depth says of the unit of computed poses."""

    unit_m: Annotated[float, Meta(gt=0, le=1e9)] | None = None


class PosesReport(Struct, frozen=True):
    """Quality of computed poses."""

    calibration: Label = "given"
    focal_px: Annotated[float, Meta(ge=0, le=1e9)] = 0.0
    reprojection_error_px: Annotated[float, Meta(ge=0, le=1e9)] | None = None
    doubt: str = ""  # why the poses may be wrong
    # images whose cameras the object's silhouette placed again
    placed: tuple[str, ...] = ()
    seconds: Seconds | None = None
    metres: MetersReport | None = None


class MasksReport(Struct, frozen=True):
    """Quality of computed masks."""

    seconds: Seconds | None = None


class ImportOrigin(Struct, frozen=True):
    """What a video was imported from; all of it decides whether the video is up to date."""

    source: Label = ""
    kind: Label = ""
    files: Label = ""
    config: Json = {}
    camera: Json | None = None
    version: Label = ""


class VideoRecord(Struct, frozen=True):
    """The content of video.json; entries of other programs are left alone."""

    metric: bool = False  # obj units are meters
    camera: Json | None = (
        None  # as `camera_json.parse_camera` reads it, and where it is from
    )
    poses: PosesReport | None = None  # None: they were given
    masks: MasksReport | None = None  # None: they were given
    origin: ImportOrigin | None = field(default=None, name="import")

    @property
    def camera_from(self) -> str:
        """Where the camera is from; "" where none is recorded."""
        return str(self.camera.get("from", "given")) if self.camera else ""


class RecordedVideo(Struct, frozen=True):
    """The content of video.json that a recorder writes, and needs to continue."""

    recorder: Label
    fixed_frame: Label = ""
    topics: dict[Label, Label] = {}
    frames: Count = 0
    cameras: list[RecordedCamera] = []
    stamps_ns: dict[str, Nanoseconds] = {}

    def __post_init__(self) -> None:
        for name in self.stamps_ns:
            check_entry_name(name)


class RecordedCamera(Struct, frozen=True):
    """A camera of a recording, from an image on."""

    K: Annotated[list[Bounded], Meta(min_length=9, max_length=9)] | None
    D: Annotated[list[Bounded], Meta(max_length=14)]
    width: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    height: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    camera_info: Json | None = None
    first: str = ""  # the image from which on it holds

    def __post_init__(self) -> None:
        if self.K is not None and None in (self.width, self.height):
            raise ValueError("width and height belong to K")


class RecordedFrame(Struct, frozen=True):
    """A line of a recorder's journal."""

    name: str
    stamp: Nanoseconds
    camera: RecordedCamera
    cam_from_obj: Rows4 | None = None

    def __post_init__(self) -> None:
        check_entry_name(self.name)
        if self.cam_from_obj is not None:
            check_rigid(self.cam_from_obj)


def read_video_record(folder: Path) -> VideoRecord:
    """What a video's video.json says; without the file, what it says by default."""
    path = folder / VIDEO_RECORD
    if not path.exists():
        return VideoRecord()
    return decode_record(read_file(path, "video record"), VideoRecord, path, "video record")


def read_video_entries(folder: Path) -> dict[str, Any]:
    """All entries of a valid video.json, to be written again with others; empty without it.

    Raises:
        InvalidInput: The file is not a video record.
    """
    path = folder / VIDEO_RECORD
    if not path.exists():
        return {}
    data = read_file(path, "video record")
    decode_record(data, VideoRecord, path, "video record")
    entries = decode_json(data, path, "video record")
    if not isinstance(entries, dict):
        raise InvalidInput(f"{path}: an object is needed")
    return entries
