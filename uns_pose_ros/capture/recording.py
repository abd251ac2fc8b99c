"""The crash-safe writer of a video folder: images one by one, with stamps, cameras and poses.

An image is whole on disk before its name is there. Its stamp, camera and pose are a line of a
journal, which is on disk before that too; video.json and sparse/ are made from all lines now and
then and at the end, when the journal goes. Whatever ends the process, the folder is a valid video,
and opening it again brings back everything that was kept.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
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
from uns_pose_ros.io.artifacts import atomic_write, read_json, write_json
from uns_pose_ros.io.colmap import SparseImage, has_sparse, read_sparse, write_sparse
from uns_pose_ros.io.depth_images import path_of

JOURNAL = ".recording.jsonl"
_LAZY = 2.0  # s at least between two times that video.json and sparse/ are made
_SHARE = 0.05  # of the time that making them may take


@dataclass(frozen=True, eq=False)
class FrameRecord:
    """What is known of an image besides its pixels."""

    stamp: int  # ns
    camera: Camera | None = None  # of the image as it is stored; None: uncalibrated
    # the camera_info message it came from, as JSON types
    info: Mapping[str, Any] | None = None
    cam_from_obj: Tensor | None = None  # (4, 4) float64, rigid, m


class Recording:
    """A video folder open for writing; one writer at a time, others are refused."""

    def __init__(
        self,
        folder: Path,
        topics: Mapping[str, str],
        fixed_frame: str = "",
        keep_free: float = 0.0,
    ) -> None:
        """Begin a video, or go on with a recording of the same fixed frame.

        topics: where the images come from, for video.json; fixed_frame: the frame that poses are
        in, lengths in m, "": no poses; keep_free: MB that stay free on the disk. Raises
        InvalidInput where the folder is something else or somebody else's, OSError where it cannot
        be written.
        """
        self.folder, self._keep_free = folder, keep_free
        self._record: dict[str, Any] = {
            "metric": bool(fixed_frame),
            "fixed_frame": fixed_frame,
            "topics": dict(topics),
        }
        self._record["recorder"] = f"uns_pose_ros {uns_pose_ros.__version__}"
        self._check(folder)
        (folder / "images").mkdir(parents=True, exist_ok=True)
        self._journal = (folder / JOURNAL).open("a+b")
        try:
            fcntl.flock(self._journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._journal.close()
            raise InvalidInput(
                f"{folder}: another recorder is writing to it; choose another folder"
            ) from None
        try:
            self.frames = _kept(folder, self._journal)
            for place in (folder, folder / "images", folder / "depth", folder / "sparse"):
                for rest in place.glob(".*.tmp"):  # of a process that was killed
                    rest.unlink()
            for path in (folder / "depth").glob("*.png"):
                if not (
                    folder / "images" / path.stem
                ).exists():  # killed before its image had its name
                    path.unlink()
            self._next = 1 + max(
                (_number(path) for path in (folder / "images").iterdir()), default=0
            )
            self.save()
        except Exception:
            self._journal.close()
            raise

    def _check(self, folder: Path) -> None:
        if not (folder / "video.json").exists() and not (folder / JOURNAL).exists():
            if (folder / "images").is_dir() and any((folder / "images").iterdir()):
                raise InvalidInput(
                    f"{folder}: a video that no recorder made is there; choose another folder"
                )
            return
        if not (folder / "video.json").exists():
            return
        record = read_json(folder / "video.json")
        if not isinstance(record, dict) or "recorder" not in record:
            raise InvalidInput(
                f"{folder}: a video that no recorder made is there; choose another folder"
            )
        before, now = record.get("fixed_frame", ""), self._record["fixed_frame"]
        if record.get("frames") and before != now:
            known = [f"in '{frame}'" if frame else "unknown" for frame in (before, now)]
            raise InvalidInput(
                f"{folder}: its poses are {known[0]}, those to come {known[1]}; choose another "
                "folder"
            )

    def __len__(self) -> int:
        return len(self.frames)

    def add(
        self, data: bytes, ending: str, frame: FrameRecord, depth: bytes | None = None
    ) -> str:
        """Write an image file and what is known of it; returns its name.

        OSError where that fails: nothing of it stays.

        depth: the PNG file of its depth, which is there before the image has its name.
        """
        free = (shutil.disk_usage(self.folder).free - len(data) - len(depth or b"")) / 1e6
        if self._keep_free > max(free, 0):
            raise OSError(
                errno.ENOSPC,
                f"only {free:.0f} MB would stay free, keep_free is {self._keep_free:.0f} MB",
            )
        name = f"{self._next:06d}{ending}"
        end = self._journal.seek(0, os.SEEK_END)
        try:
            if depth is not None:
                with atomic_write(path_of(self.folder, name)) as temporary:
                    _write(temporary, depth)
            with atomic_write(self.folder / "images" / name) as temporary:
                _write(temporary, data)
                self._journal.write(_line(name, frame))
                self._journal.flush()
                os.fsync(self._journal.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                path_of(self.folder, name).unlink(missing_ok=True)
                self._journal.truncate(end)
            raise
        self._next += 1
        self.frames[name] = frame
        self._listed = False
        self.settle()
        return name

    def settle(self) -> None:
        """Make sparse/ and video.json if they are behind and it is not too soon after the last
        time; called now and then.
        """
        if not self._listed and time.monotonic() - self._saved > self._pause:
            self.save()

    def save(self) -> None:
        """Make sparse/ and video.json from everything kept."""
        began = time.monotonic()
        cameras: list[dict[str, Any]] = []
        used: dict[int, Camera] = {}
        posed = []
        for name, frame in self.frames.items():
            record = _camera_record(frame)
            if not cameras or {**cameras[-1], "first": ""} != {**record, "first": ""}:
                cameras.append({"first": name, **record})
            if frame.cam_from_obj is not None and frame.camera is not None:
                used[len(cameras)] = frame.camera
                posed.append(SparseImage(name, len(cameras), frame.cam_from_obj))
        if posed:
            write_sparse(
                self.folder / "sparse", used, posed, torch.zeros(0, 3, dtype=torch.float64)
            )
        record = {**self._record, "frames": len(self.frames), "cameras": cameras}
        if len(cameras) == 1 and cameras[0]["K"] is not None:
            record["camera"] = {
                **{key: cameras[0][key] for key in ("K", "D", "width", "height")},
                "from": "camera_info",
            }
        record["stamps"] = {name: frame.stamp / 1e9 for name, frame in self.frames.items()}
        record["stamps_ns"] = {name: frame.stamp for name, frame in self.frames.items()}
        write_json(self.folder / "video.json", record)
        self._saved, self._listed = time.monotonic(), True
        self._pause = max(_LAZY, (self._saved - began) / _SHARE)

    def close(self) -> None:
        """Finish the folder; one without an image is removed.

        OSError where that fails: all kept stays, to be opened again.
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
                    _to_disk(self.folder / name)
                (self.folder / JOURNAL).unlink()
            else:
                (self.folder / JOURNAL).unlink()
                (self.folder / "video.json").unlink()
                with contextlib.suppress(OSError):  # not empty: it was there before
                    if (self.folder / "depth").exists():
                        (self.folder / "depth").rmdir()
                    (self.folder / "images").rmdir()
                    self.folder.rmdir()
        finally:
            self._journal.close()


def next_clip(category: Path) -> Path:
    """The first of clip_01, clip_02, … in a category's folder that is not there."""
    number = 1
    while (category / f"clip_{number:02d}").exists():
        number += 1
    return category / f"clip_{number:02d}"


def recover(category: Path) -> list[str]:
    """Finish every recording of a category whose recorder was killed; their names."""
    found = []
    for folder in sorted(path.parent for path in category.glob(f"*/{JOURNAL}")):
        try:
            record = read_json(folder / "video.json")
            Recording(folder, record["topics"], record["fixed_frame"]).close()
        except (
            InvalidInput,
            OSError,
            KeyError,
            TypeError,
        ):  # being written, or not to be written: whoever opens it is told
            continue
        found.append(folder.name)
    return found


def _kept(folder: Path, journal: BinaryIO) -> dict[str, FrameRecord]:
    """Everything known of the images that are there.

    From video.json and sparse/, and from the journal, which is newer.
    """
    frames: dict[str, FrameRecord] = {}
    path = folder / "video.json"
    try:
        record = read_json(path) if path.exists() else {"stamps_ns": {}, "cameras": []}
        sparse = read_sparse(folder / "sparse") if has_sparse(folder / "sparse") else None
        poses = (
            {image.name: image.cam_from_obj for image in sparse.images}
            if sparse is not None
            else {}
        )
        for name, stamp in record["stamps_ns"].items():
            camera = [camera for camera in record["cameras"] if camera["first"] <= name][-1]
            frames[name] = _shot(stamp, camera, poses.get(name))
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = (
            f"{error} is missing"
            if isinstance(error, KeyError)
            else str(error).splitlines()[0]
        )
        raise InvalidInput(
            f"{path}: not as a recorder writes it ({reason}); choose another folder"
        ) from None
    journal.seek(0)
    text = journal.read()
    if text and not text.endswith(b"\n"):
        journal.write(b"\n")
    for line in text.splitlines():
        try:
            frame = json.loads(line)
            pose = frame["cam_from_obj"]
            pose = None if pose is None else torch.tensor(pose, dtype=torch.float64)
            frames[frame["name"]] = _shot(frame["stamp"], frame["camera"], pose)
        except (
            KeyError,
            TypeError,
            ValueError,
            RuntimeError,
        ):  # torn: its image never got its name
            continue
    return {
        name: frames[name]
        for name in sorted(frames)
        if (folder / "images" / name).is_file()
    }


def _line(name: str, frame: FrameRecord) -> bytes:
    """The journal's line of an image."""
    pose = None if frame.cam_from_obj is None else frame.cam_from_obj.tolist()
    record = {
        "name": name,
        "stamp": frame.stamp,
        "camera": _camera_record(frame),
        "cam_from_obj": pose,
    }
    return (json.dumps(record) + "\n").encode()


def _camera_record(frame: FrameRecord) -> dict[str, Any]:
    """An image's camera as JSON.

    K and D of the image as it is stored, K null where uncalibrated; and its message.
    """
    record: dict[str, Any] = {
        "K": None,
        "D": [],
        "width": None,
        "height": None,
        "camera_info": frame.info,
    }
    if frame.camera is not None:
        camera = frame.camera
        record |= {"K": camera.matrix.flatten().tolist(), "D": camera.distortion.tolist()}
        record |= {"width": camera.width, "height": camera.height}
    return record


def _shot(stamp: int, record: Mapping[str, Any], pose: Tensor | None) -> FrameRecord:
    """What `_camera_record` and a pose say."""
    camera = None
    if record["K"] is not None:
        matrix = torch.tensor(record["K"], dtype=torch.float64).reshape(3, 3)
        camera = Camera(
            matrix,
            record["width"],
            record["height"],
            torch.tensor(record["D"], dtype=torch.float64),
        )
    return FrameRecord(int(stamp), camera, record["camera_info"], pose)


def _number(path: Path) -> int:
    return int(path.stem) if path.stem.isdecimal() else 0


def _write(path: Path, data: bytes) -> None:
    """Write a file and wait until it is on the disk."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _to_disk(path: Path) -> None:
    """Wait until a file's bytes are on the disk."""
    if path.exists():
        with path.open("rb") as file:
            os.fsync(file.fileno())
