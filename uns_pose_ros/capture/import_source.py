"""Make a video folder of a film, a folder of images, a bag, a COLMAP dataset or a CO3D sequence."""

from __future__ import annotations

import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import uns_pose_ros
from uns_pose_ros.capture import (
    import_co3d,
    import_colmap,
    import_images,
    import_movie,
    import_rosbag,
)
from uns_pose_ros.capture.film_tracks import is_film_content
from uns_pose_ros.capture.video_writer import (
    RECORD,
    ImportConfig,
    VideoWriter,
)
from uns_pose_ros.core.errors import InvalidInput, shorten
from uns_pose_ros.core.types import Camera, Progress
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.camera_json import camera_record
from uns_pose_ros.io.images import is_image_file
from uns_pose_ros.io.ros import rosbag
from uns_pose_ros.io.schema.video_record import read_video_entries
from uns_pose_ros.io.writing.replacement import repair_folder, replace_folder
from uns_pose_ros.io.writing.target_lock import lock_target

_VALID = (
    "valid are a film (mp4, mov), a rosbag2 recording (its folder, .mcap or .db3), a folder of "
    "photographs, "
    "a COLMAP dataset (images/ and sparse/) and a CO3D sequence (its category's "
    "frame_annotations.jgz beside it)"
)


def import_video(
    source: Path,
    into: Path,
    config: ImportConfig = ImportConfig(),
    camera: Camera | None = None,
    progress: Progress | None = None,
) -> bool:
    """Make a video folder of a source.

    The folder appears complete or not at all: it is built beside its place and then renamed.

    Args:
        source: a film, a bag, a folder of images, a COLMAP dataset or a CO3D sequence.
        into: the video folder.
        config: number and size of the frames.
        camera: the camera of the images, if it is known.
        progress: called after each image.

    Returns:
        Whether the folder was made now; False: it exists already, made from the same source with
        the same settings.

    Raises:
        InvalidInput: the source cannot be used, `into` holds something else, or another process
            works there.
        DiskError: the disk refuses the folder.
    """
    kind = detect_kind(source)
    made_from = _made_from(source, kind, config, camera)
    if not into.name or into.name.startswith("."):
        raise InvalidInput(f"{into}: a folder such as mug/clip_01 is valid")
    with lock_target(into):
        repair_folder(into)
        if into.exists() and not (into.is_dir() and not any(into.iterdir())):
            if _recorded(into) == made_from:
                return False
            raise InvalidInput(
                f"{into}: exists already and was not made from {source} with these settings; "
                "delete it or take another name"
            )
        with replace_folder(into) as staging:
            writer = VideoWriter(staging, config, camera)
            work = {
                "film": import_movie.import_movie,
                "bag": import_rosbag.import_bag,
                "photographs": import_images.import_image_folder,
                "colmap": import_colmap.import_colmap,
                "co3d": import_co3d.import_co3d,
            }[kind]
            work(source, writer, progress or (lambda what, done, total: None))
            entries = read_video_entries(staging)
            artifacts.write_json(staging / RECORD, {**entries, "import": made_from})
    return True


def detect_kind(source: Path) -> str:
    """The kind of a source: film, bag, photographs, colmap or co3d."""
    if not source.exists():
        raise InvalidInput(f"{source}: not there; {_VALID}")
    if rosbag.is_bag(source):
        return "bag"
    if source.is_file() and source.suffix.lower() in import_movie.ENDINGS:
        return "film"
    if source.is_file() and not source.suffix and is_film_content(source):
        return "film"
    if source.is_dir():
        if import_co3d.is_co3d(source):
            return "co3d"
        if import_colmap.is_colmap(source):
            return "colmap"
        if import_images.list_images(source):
            return "photographs"
    raise InvalidInput(f"{source}: cannot be imported{_advise(source)}; {_VALID}")


def _advise(source: Path) -> str:
    """What to import instead, where that is known."""
    if source.is_file():
        if zipfile.is_zipfile(source) or tarfile.is_tarfile(source):
            return " (an archive; unpack it)"
        return " (one image; give its folder)" if is_image_file(source) else ""
    below = sorted(path for path in source.iterdir() if path.is_dir())
    with_images = [path.name for path in below if import_images.list_images(path)]
    if not with_images:
        return ""
    return f" (images are in {shorten(with_images, 3)}; give that folder)"


def _made_from(
    source: Path, kind: str, config: ImportConfig, camera: Camera | None
) -> dict[str, Any]:
    """The origin of a video as JSON types, which decides whether it is up to date.

    It holds the kind, the settings, and size and time of every file of the source.
    """
    files = (
        [source]
        if source.is_file()
        else sorted(path for path in source.rglob("*") if path.is_file())
    )
    listing = []
    for path in files:
        status = path.stat()
        name = path.relative_to(source.parent).as_posix()
        listing.append((name, status.st_size, status.st_mtime_ns))
    record = {
        "source": source.resolve().name,
        "kind": kind,
        "files": artifacts.fingerprint(files=listing),
        "config": artifacts.plain(config),
        "camera": None if camera is None else camera_record(camera),
        "version": uns_pose_ros.__version__,
    }
    return dict(json.loads(json.dumps(record)))


def _recorded(folder: Path) -> dict[str, Any] | None:
    """The origin in a folder's video.json, as `_made_from`; None without one."""
    origin = read_video_entries(folder).get("import")
    if origin is None:
        return None
    # versions before 0.2 wrote the path
    return {**origin, "source": Path(origin.get("source", "")).name}
