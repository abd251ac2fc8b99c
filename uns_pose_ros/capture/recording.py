"""A crash-safe writer of a video folder: images one by one, with stamps, cameras and poses.

An image file is complete on disk before it gets its name. Before that, its stamp, camera and
pose are written as a line of a journal. video.json and sparse/ are made from all lines now and
then and at the end, when the journal is deleted. However the process ends, the folder is a valid
video, and opening it again recovers every image that was kept.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import math
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

import uns_pose_ros
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Camera
from uns_pose_ros.io.artifacts import atomic_write, write_json
from uns_pose_ros.io.colmap import SparseImage, has_sparse, read_sparse, write_sparse
from uns_pose_ros.io.depth_images import depth_path
from uns_pose_ros.io.given_files import path_inside, require_regular
from uns_pose_ros.io.metadata_removal import remove_private_metadata
from uns_pose_ros.io.schema.decoding import decode_record, read_record
from uns_pose_ros.io.schema.video_record import (
    VIDEO_RECORD,
    RecordedCamera,
    RecordedFrame,
    RecordedVideo,
    read_video_entries,
)
from uns_pose_ros.io.writing.replacement import disk_errors
from uns_pose_ros.io.writing.target_lock import TargetLock

JOURNAL = ".recording.jsonl"
_WHAT = "recording"
_LOG = logging.getLogger(__name__)
_MIN_PAUSE = 2.0  # s, between two times that video.json and sparse/ are made
_MAX_SHARE = 0.05  # of the time that making them may take


@dataclass(frozen=True, eq=False)
class FrameRecord:
    """Everything about an image except its pixels."""

    stamp: int  # ns
    camera: Camera | None = None  # of the image as it is stored; None: uncalibrated
    # the camera_info message it came from, as JSON types
    info: Mapping[str, Any] | None = None
    cam_from_obj: Tensor | None = None  # (4, 4) float64, rigid, m


class Journal:
    """A file with one line per image, in a folder that its process has locked."""

    def __init__(self, path: Path, file: BinaryIO, lock: TargetLock) -> None:
        self.path = path
        self._file = file
        self._lock = lock

    @classmethod
    def open_locked(cls, folder: Path) -> Journal:
        """Open or begin a folder's journal.

        Raises:
            InvalidInput: another process writes the folder.
            DiskError: the disk refuses it.
        """
        lock = TargetLock(folder)
        try:
            with disk_errors(folder):
                (folder / "images").mkdir(parents=True, exist_ok=True)
                path = path_inside(folder, JOURNAL)
                require_regular(path)
                file = path.open("a+b")
        except BaseException:
            lock.release()
            raise
        return cls(folder / JOURNAL, file, lock)

    def read(self) -> dict[str, FrameRecord]:
        """The frames by image name; a torn line is left out, and ended for the next one."""
        self._file.seek(0)
        text = self._file.read()
        if text and not text.endswith(b"\n"):
            self._file.write(b"\n")
        frames: dict[str, FrameRecord] = {}
        wrong: list[str] = []
        lines = text.splitlines()
        for number, line in enumerate(lines, 1):
            try:
                record = decode_record(line, RecordedFrame, self.path, "line of a journal")
                frames[record.name] = _frame_of(
                    record.stamp, record.camera, _pose_of(record)
                )
            except ValueError as error:
                # the last line may be torn: its image never got its name
                if number < len(lines) or text.endswith(b"\n"):
                    wrong.append(str(error))
        if wrong:
            _LOG.warning("%d lines left out, the first: %s", len(wrong), wrong[0])
        return frames

    def end(self) -> int:
        """Length of the file, bytes."""
        return self._file.seek(0, os.SEEK_END)

    def append(self, name: str, frame: FrameRecord) -> None:
        """Write the line of an image, and wait until it is on disk."""
        self._file.write(_journal_line(name, frame))
        self._file.flush()
        os.fsync(self._file.fileno())

    def truncate(self, end: int) -> None:
        """Forget what was written after the length `end`."""
        self._file.truncate(end)

    def delete(self) -> None:
        """Delete the file; the lock stays until `close`."""
        self.path.unlink()

    def close(self) -> None:
        """Close the file and release its lock."""
        try:
            self._file.close()
        finally:
            self._lock.release()


class Recording:
    """A video folder open for writing by one process; other processes are refused."""

    def __init__(
        self,
        folder: Path,
        journal: Journal,
        record: Mapping[str, Any],
        frames: dict[str, FrameRecord],
        keep_free: float,
    ) -> None:
        """Take a folder that `open_or_recover` has prepared.

        Args:
            folder: the video folder.
            journal: its journal.
            record: entries of video.json that do not change.
            frames: the images that are in the folder, by name.
            keep_free: MB that stay free on the disk.
        """
        self.folder = folder
        self.journal = journal
        self.frames = frames
        self._record = dict(record)
        self._keep_free = keep_free
        numbers = (_number(path) for path in (folder / "images").iterdir())
        self._next = 1 + max(numbers, default=0)

    @classmethod
    def open_or_recover(
        cls,
        folder: Path,
        topics: Mapping[str, str],
        fixed_frame: str = "",
        keep_free: float = 0.0,
    ) -> Recording:
        """Begin a video, or continue a recording of the same fixed frame.

        Args:
            folder: the video folder.
            topics: sources of the images, for video.json.
            fixed_frame: frame of the poses, lengths in m; "": no poses.
            keep_free: MB that stay free on the disk.

        Raises:
            InvalidInput: the folder is no recording, or another process has it open.
            OSError: the folder cannot be written.
        """
        _check_folder(folder, fixed_frame)
        journal = Journal.open_locked(folder)
        try:
            frames = _recovered_frames(folder, journal)
            _delete_strays(folder)
            record = {
                "metric": bool(fixed_frame),
                "fixed_frame": fixed_frame,
                "topics": dict(topics),
                "recorder": f"uns_pose_ros {uns_pose_ros.__version__}",
            }
            recording = cls(folder, journal, record, frames, keep_free)
            recording.save()
        except Exception:
            journal.close()
            raise
        return recording

    def __len__(self) -> int:
        return len(self.frames)

    def add(
        self, data: bytes, ending: str, frame: FrameRecord, depth: bytes | None = None
    ) -> str:
        """Write an image file and its record, and return its name.

        Args:
            data: the image file.
            ending: of its name, such as ".png".
            frame: its stamp, camera and pose.
            depth: the PNG file of its depth, which is complete before the image has its name.

        Raises:
            OSError: the write failed; nothing of the image stays.
        """
        data = remove_private_metadata(data) or data
        self._check_space(len(data) + len(depth or b""))
        name = f"{self._next:06d}{ending}"
        end = self.journal.end()
        try:
            if depth is not None:
                with atomic_write(depth_path(self.folder, name)) as temporary:
                    _write_durably(temporary, depth)
            with atomic_write(self.folder / "images" / name) as temporary:
                _write_durably(temporary, data)
                self.journal.append(name, frame)
        except OSError:
            with contextlib.suppress(OSError):
                depth_path(self.folder, name).unlink(missing_ok=True)
                self.journal.truncate(end)
            raise
        self._next += 1
        self.frames[name] = frame
        self._listed = False
        self.settle()
        return name

    def _check_space(self, size: int) -> None:
        """OSError where the disk has no room for so many bytes beside what stays free."""
        free = (shutil.disk_usage(self.folder).free - size) / 1e6
        if self._keep_free > max(free, 0):
            raise OSError(
                errno.ENOSPC,
                f"only {free:.0f} MB would stay free, keep_free is {self._keep_free:.0f} MB",
            )

    def settle(self) -> None:
        """Make sparse/ and video.json if they are behind and the last time is long enough ago.

        The owner calls this now and then.
        """
        if not self._listed and time.monotonic() - self._saved > self._pause:
            self.save()

    def save(self) -> None:
        """Make sparse/ and video.json from all frames."""
        began = time.monotonic()
        cameras: list[dict[str, Any]] = []
        used: dict[int, Camera] = {}
        posed = []
        for name, frame in self.frames.items():
            record = _camera_to_json(frame)
            if not cameras or {**cameras[-1], "first": ""} != {**record, "first": ""}:
                cameras.append({"first": name, **record})
            if frame.cam_from_obj is not None and frame.camera is not None:
                used[len(cameras)] = frame.camera
                posed.append(SparseImage(name, len(cameras), frame.cam_from_obj))
        if posed:
            no_points = torch.zeros(0, 3, dtype=torch.float64)
            write_sparse(self.folder / "sparse", used, posed, no_points)
        record = {**self._record, "frames": len(self.frames), "cameras": cameras}
        if len(cameras) == 1 and cameras[0]["K"] is not None:
            record["camera"] = {
                **{key: cameras[0][key] for key in ("K", "D", "width", "height")},
                "from": "camera_info",
            }
        stamps = {name: frame.stamp for name, frame in self.frames.items()}
        record["stamps"] = {name: stamp / 1e9 for name, stamp in stamps.items()}
        record["stamps_ns"] = stamps
        write_json(self.folder / "video.json", record)
        self._saved = time.monotonic()
        self._listed = True
        self._pause = max(_MIN_PAUSE, (self._saved - began) / _MAX_SHARE)

    def close(self) -> None:
        """Finish the folder; a folder without an image is removed.

        Raises:
            OSError: the write failed; everything kept stays, and the folder can be opened again.
        """
        try:
            if self.frames:
                self.save()
                for name in (
                    "video.json",
                    "sparse/cameras.txt",
                    "sparse/points3D.txt",
                    "sparse/images.txt",
                ):
                    _wait_for_disk(self.folder / name)
                self.journal.delete()
            else:
                self.journal.delete()
                self._remove_folder()
        finally:
            self.journal.close()

    def _remove_folder(self) -> None:
        (self.folder / "video.json").unlink()
        with contextlib.suppress(OSError):  # not empty: it was there before
            if (self.folder / "depth").exists():
                (self.folder / "depth").rmdir()
            (self.folder / "images").rmdir()
            self.folder.rmdir()


def next_clip(category: Path) -> Path:
    """The first of clip_01, clip_02, … that does not exist in a category's folder."""
    number = 1
    while (category / f"clip_{number:02d}").exists():
        number += 1
    return category / f"clip_{number:02d}"


def recover(category: Path) -> list[str]:
    """Finish every recording of a category whose recorder was killed, and return their names."""
    recovered = []
    for folder in sorted(path.parent for path in category.glob(f"*/{JOURNAL}")):
        try:
            record = read_record(folder / VIDEO_RECORD, RecordedVideo, _WHAT)
            Recording.open_or_recover(folder, record.topics, record.fixed_frame).close()
        except (InvalidInput, OSError):
            # another process writes it, or nobody can: who opens it gets the reason
            continue
        recovered.append(folder.name)
    return recovered


def _check_folder(folder: Path, fixed_frame: str) -> None:
    """InvalidInput where the folder is no recording whose poses are in the fixed frame."""
    foreign = f"{folder}: a video that no recorder made is there; choose another folder"
    if not (folder / "video.json").exists():
        images = folder / "images"
        has_images = images.is_dir() and any(images.iterdir())
        if has_images and not (folder / JOURNAL).exists():
            raise InvalidInput(foreign)
        return
    if "recorder" not in read_video_entries(folder):
        raise InvalidInput(foreign)
    record = read_record(folder / VIDEO_RECORD, RecordedVideo, _WHAT)
    before = record.fixed_frame
    if record.frames and before != fixed_frame:
        raise InvalidInput(
            f"{folder}: its poses are {_frame_words(before)}, those to come "
            f"{_frame_words(fixed_frame)}; choose another folder"
        )


def _frame_words(frame: str) -> str:
    return f"in {frame!r}" if frame else "unknown"


def _recovered_frames(folder: Path, journal: Journal) -> dict[str, FrameRecord]:
    """The record of every image in a folder, by name.

    They come from video.json and sparse/, and from the journal, which is newer.
    """
    frames = {**_listed_frames(folder), **journal.read()}
    return {
        name: frames[name]
        for name in sorted(frames)
        if (folder / "images" / name).is_file()
    }


def _listed_frames(folder: Path) -> dict[str, FrameRecord]:
    """The frames that video.json and sparse/ list."""
    path = folder / VIDEO_RECORD
    if not path.exists():
        return {}
    record = read_record(path, RecordedVideo, _WHAT)
    poses: dict[str, Tensor] = {}
    if has_sparse(folder / "sparse"):
        sparse = read_sparse(folder / "sparse")
        poses = {image.name: image.cam_from_obj for image in sparse.images}
    frames: dict[str, FrameRecord] = {}
    for name, stamp in record.stamps_ns.items():
        cameras = [camera for camera in record.cameras if camera.first <= name]
        if not cameras:
            raise InvalidInput(
                f"{path}: not a valid {_WHAT} (no camera for {name}); choose another folder"
            )
        try:
            frames[name] = _frame_of(stamp, cameras[-1], poses.get(name))
        except ValueError as error:
            raise InvalidInput(f"{path}: not a valid {_WHAT} ({error})") from None
    return frames


def _delete_strays(folder: Path) -> None:
    """Delete what a killed process left: temporary files, and depth without an image."""
    for place in (folder, folder / "images", folder / "depth", folder / "sparse"):
        for temporary in place.glob(".*.tmp"):
            temporary.unlink()
    for depth in (folder / "depth").glob("*.png"):
        if not (folder / "images" / depth.stem).exists():
            depth.unlink()


def _journal_line(name: str, frame: FrameRecord) -> bytes:
    """The journal's line of an image."""
    pose = None if frame.cam_from_obj is None else frame.cam_from_obj.tolist()
    record = {
        "name": name,
        "stamp": frame.stamp,
        "camera": _camera_to_json(frame),
        "cam_from_obj": pose,
    }
    return (json.dumps(record) + "\n").encode()


def _camera_to_json(frame: FrameRecord) -> dict[str, Any]:
    """A frame's camera and its camera_info message as JSON types.

    K and D are those of the image as it is stored; K is null where the camera is uncalibrated.
    """
    record: dict[str, Any] = {
        "K": None,
        "D": [],
        "width": None,
        "height": None,
        "camera_info": _without_nan(frame.info),
    }
    if frame.camera is not None:
        camera = frame.camera
        record |= {"K": camera.matrix.flatten().tolist(), "D": camera.distortion.tolist()}
        record |= {"width": camera.width, "height": camera.height}
    return record


def _frame_of(stamp: int, record: RecordedCamera, pose: Tensor | None) -> FrameRecord:
    """The frame of a stamp (ns), a recorded camera and a pose (4, 4)."""
    camera = None
    if record.K is not None and record.width is not None and record.height is not None:
        matrix = torch.tensor(record.K, dtype=torch.float64).reshape(3, 3)
        distortion = torch.tensor(record.D, dtype=torch.float64)
        camera = Camera(matrix, record.width, record.height, distortion)
    return FrameRecord(stamp, camera, record.camera_info, pose)


def _pose_of(record: RecordedFrame) -> Tensor | None:
    rows = record.cam_from_obj
    return None if rows is None else torch.tensor(rows, dtype=torch.float64)


def _without_nan(value: Any) -> Any:
    """JSON types without the numbers that JSON lacks; null stands for them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _without_nan(inner) for key, inner in value.items()}
    return [_without_nan(inner) for inner in value] if isinstance(value, list) else value


def _number(path: Path) -> int:
    return int(path.stem) if path.stem.isdecimal() else 0


def _write_durably(path: Path, data: bytes) -> None:
    """Write a file and wait until it is on the disk."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _wait_for_disk(path: Path) -> None:
    """Wait until a file's bytes are on the disk."""
    if path.exists():
        with path.open("rb") as file:
            os.fsync(file.fileno())
