"""The binary files of a COLMAP model; rigs.bin and frames.bin repeat what images.bin says."""

from __future__ import annotations

import struct
from pathlib import Path

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io.colmap_model.camera_models import MODELS, CameraRow
from uns_pose_ros.io.colmap_model.image_row import MOST_OBSERVED, ImageRow
from uns_pose_ros.io.given_files import read_given

MAX_FILE = 2**31  # bytes
_POINT_2D = struct.Struct("<2dq")  # x, y, POINT3D_ID


class _Binary:
    """A cursor over a little-endian binary file; reads and counts never go past its end."""

    def __init__(self, path: Path) -> None:
        try:
            self.data = read_given(path, MAX_FILE)
        except OSError as error:
            raise InvalidInput(f"{path}: cannot be read ({error.strerror})") from None
        self.path, self.at = path, 0

    def take(self, layout: str) -> tuple[float, ...]:
        try:
            values = struct.unpack_from("<" + layout, self.data, self.at)
        except struct.error:
            raise InvalidInput(
                f"{self.path}: ends in the middle of an entry, at byte {len(self.data)}"
            ) from None
        self.at += struct.calcsize("<" + layout)
        return values

    def entries(self) -> range:
        """Lazy: a wrong count runs into the end of the file."""
        return range(int(self.take("Q")[0]))

    def skip(self, count: int, size: int) -> None:
        if count * size > len(self.data) - self.at:
            raise InvalidInput(
                f"{self.path}: ends in the middle of an entry, at byte {len(self.data)}"
            )
        self.at += count * size

    def text(self) -> str:
        end = self.data.find(b"\0", self.at)
        if end < 0:
            raise InvalidInput(f"{self.path}: ends in the middle of a name")
        name, self.at = self.data[self.at : end].decode("utf-8", "replace"), end + 1
        return name


def read_binary_cameras(path: Path) -> list[tuple[str, CameraRow]]:
    """The cameras of cameras.bin, each with the words that name its place."""
    file = _Binary(path)
    cameras = []
    for _ in file.entries():
        camera_id, number, width, height = map(int, file.take("iiQQ"))
        if number not in MODELS:
            raise InvalidInput(
                f"{path}, camera {camera_id}: camera model {number} is unknown, 0 to "
                f"{max(MODELS)} are known"
            )
        name, count = MODELS[number]
        row = CameraRow(camera_id, name, width, height, file.take(f"{count}d"))
        cameras.append((f"{path.name}, camera {camera_id}", row))
    return cameras


def read_binary_images(path: Path) -> list[tuple[str, ImageRow]]:
    """The images of images.bin, each with the words that name its place."""
    file = _Binary(path)
    images = []
    for _ in file.entries():
        number, *pose, camera_id = file.take("i7di")
        name, count = file.text(), int(file.take("Q")[0])
        begin = file.at
        file.skip(count, _POINT_2D.size)
        end = begin + _POINT_2D.size * min(count, MOST_OBSERVED)
        table = _POINT_2D.iter_unpack(file.data[begin:end])
        observed = tuple((u, v, point) for u, v, point in table if point >= 0)
        row = ImageRow(name, int(camera_id), pose, observed)
        images.append((f"{path.name}, image {int(number)}", row))
    return images


def read_binary_points(path: Path) -> list[tuple[float, float, float, float]]:
    """Id, x, y, z of the points of points3D.bin."""
    file = _Binary(path)
    rows = []
    for _ in file.entries():
        number, x, y, z, *_, track = file.take("Q3d3BdQ")
        rows.append((number, x, y, z))
        file.skip(int(track), 8)
    return rows
