"""COLMAP sparse models: read as text or binary, written as text.

COLMAP puts the center of the top left pixel at (0.5, 0.5), we at (0, 0): the principal point is
shifted here and nowhere else.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import (
    from_parts,
    matrix_to_quaternion,
    quaternion_to_matrix,
)
from uns_pose_ros.core.types import Camera
from uns_pose_ros.io.artifacts import atomic_write
from uns_pose_ros.io.given_files import read_given, stays_inside

# Name, COLMAP's number, focal lengths, distortion coefficients, and how those become OpenCV's k1 k2
# p1 p2 k3 k4 k5 k6.
_MODELS: dict[str, tuple[int, int, int]] = {
    "SIMPLE_PINHOLE": (0, 1, 0),
    "PINHOLE": (1, 2, 0),
    "SIMPLE_RADIAL": (2, 1, 1),
    "RADIAL": (3, 1, 2),
    "OPENCV": (4, 2, 4),
    "FULL_OPENCV": (6, 2, 8),
}
_OTHER_MODELS = {
    5: "OPENCV_FISHEYE",
    7: "FOV",
    8: "SIMPLE_RADIAL_FISHEYE",
    9: "RADIAL_FISHEYE",
    10: "THIN_PRISM_FISHEYE",
}
_MAX_FILE = 2**31  # bytes


@dataclass(frozen=True, eq=False)
class SparseImage:
    """One registered image."""

    name: str  # path below images/
    camera_id: int
    cam_from_obj: Tensor  # (4, 4) float64, rigid


@dataclass(frozen=True, eq=False)
class Sparse:
    """A sparse model: cameras by id, registered images in the order of their names, points."""

    cameras: Mapping[int, Camera]
    images: tuple[SparseImage, ...]
    points: Tensor  # (N, 3) float64, obj frame


def has_sparse(folder: Path) -> bool:
    """Whether a folder holds a sparse model, in itself or in subfolder 0, as COLMAP writes it."""
    return any(
        (place / f"images{ending}").exists()
        for place in (folder, folder / "0")
        for ending in (".bin", ".txt")
    )


def read_sparse(folder: Path) -> Sparse:
    """Read cameras, images and points3D from a folder or its subfolder 0.

    A binary file is preferred. points3D may be missing. InvalidInput names the file, and the line
    of a text file.
    """
    if not any((folder / f"images{ending}").exists() for ending in (".bin", ".txt")):
        folder = folder / "0"
    binary = {
        name: (folder / f"{name}.bin").exists()
        for name in ("cameras", "images", "points3D")
    }
    path = {name: folder / f"{name}{'.bin' if binary[name] else '.txt'}" for name in binary}
    for name in ("cameras", "images"):
        if not path[name].exists():
            raise InvalidInput(
                f"{folder}: no {name}.txt or {name}.bin; a COLMAP sparse model has cameras, "
                "images and points3D"
            )
    cameras = (_cameras_binary if binary["cameras"] else _cameras_text)(path["cameras"])
    images = (_images_binary if binary["images"] else _images_text)(path["images"])
    points = _points([])
    if path["points3D"].exists():
        points = (_points_binary if binary["points3D"] else _points_text)(path["points3D"])
    for image in images:
        if image.camera_id not in cameras:
            raise InvalidInput(
                f"{folder}: image {image.name} names camera {image.camera_id}, which is not "
                "among the cameras"
            )
    return Sparse(cameras, tuple(sorted(images, key=lambda image: image.name)), points)


def write_sparse(
    folder: Path,
    cameras: Mapping[int, Camera],
    images: Sequence[SparseImage],
    points: Tensor,
) -> None:
    """Write cameras.txt, images.txt and points3D.txt atomically, images last.

    The points (N, 3) float64 have no tracks.
    """
    with atomic_write(folder / "cameras.txt") as path:
        path.write_text(
            "".join(
                f"{_camera_line(number, camera)}\n"
                for number, camera in sorted(cameras.items())
            )
        )
    with atomic_write(folder / "points3D.txt") as path:
        path.write_text(
            "".join(
                f"{i} {x!r} {y!r} {z!r} 128 128 128 0\n"
                for i, (x, y, z) in enumerate(points.tolist(), 1)
            )
        )
    with atomic_write(folder / "images.txt") as path:
        path.write_text(
            "".join(
                f"{_image_line(number, image)}\n\n"
                for number, image in enumerate(images, 1)
            )
        )


def _camera_line(number: int, camera: Camera) -> str:
    k = camera.distortion.tolist()
    model = "PINHOLE" if not any(k) else "OPENCV" if not any(k[4:]) else "FULL_OPENCV"
    k = (k + [0.0] * 8)[: _MODELS[model][2]]
    (fx, _, cx), (_, fy, cy), _ = camera.matrix.tolist()
    return " ".join(
        map(
            str,
            [number, model, camera.width, camera.height, fx, fy, cx + 0.5, cy + 0.5, *k],
        )
    )


def _image_line(number: int, image: SparseImage) -> str:
    pose = [
        *matrix_to_quaternion(image.cam_from_obj[:3, :3]).tolist(),
        *image.cam_from_obj[:3, 3].tolist(),
    ]
    return " ".join(map(str, [number, *pose, image.camera_id, image.name]))


def _camera(model: str, width: int, height: int, values: Sequence[float]) -> Camera:
    """Camera of a COLMAP model's parameters: focal length(s), cx, cy, distortion."""
    if model not in _MODELS:
        raise ValueError(f"camera model {model} is not supported: {', '.join(_MODELS)} are")
    _, focals, coefficients = _MODELS[model]
    if len(values) != focals + 2 + coefficients:
        raise ValueError(
            f"{model} has {focals + 2 + coefficients} parameters, {len(values)} are given"
        )
    fx, fy, (cx, cy) = values[0], values[focals - 1], values[focals : focals + 2]
    k = list(values[focals + 2 :])
    matrix = torch.tensor(
        [[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1]], dtype=torch.float64
    )
    distortion = torch.tensor(k + [0.0] * (4 - len(k)) if k else [], dtype=torch.float64)
    return Camera(matrix, width, height, distortion)


def _image(name: str, camera_id: int, pose: Sequence[float]) -> SparseImage:
    """Image of a pose qw qx qy qz tx ty tz, cam from obj."""
    if not stays_inside(name):
        raise ValueError(f"image name {name!r}: a path below images/ is valid")
    values = torch.tensor(pose, dtype=torch.float64)
    if not bool(torch.isfinite(values).all()) or float(values[:4].norm()) < 1e-6:
        raise ValueError(f"image {name} has no valid pose")
    return SparseImage(
        name, camera_id, from_parts(quaternion_to_matrix(values[:4]), values[4:])
    )


def _points(rows: list[tuple[float, float, float]]) -> Tensor:
    points = torch.tensor(rows, dtype=torch.float64).reshape(-1, 3)
    return points[torch.isfinite(points).all(-1)]


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines with their number, without comments.

    Empty lines stay: in images.txt they mean an image without points.
    """
    try:
        text = read_given(path, _MAX_FILE).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path}: cannot be read as text ({error})") from None
    for number, line in enumerate(text.splitlines(), 1):
        if not line.lstrip().startswith("#"):
            yield number, line.strip()


def _invalid(path: Path, number: int, error: Exception, valid: str) -> InvalidInput:
    return InvalidInput(f"{path}, line {number}: {error}; a line there reads: {valid}")


def _cameras_text(path: Path) -> dict[int, Camera]:
    cameras = {}
    for number, line in _lines(path):
        word = line.split()
        if word:
            try:
                cameras[int(word[0])] = _camera(
                    word[1], int(word[2]), int(word[3]), [float(w) for w in word[4:]]
                )
            except (ValueError, IndexError) as error:
                raise _invalid(
                    path, number, error, "CAMERA_ID MODEL WIDTH HEIGHT PARAMETERS…"
                ) from None
    return cameras


def _images_text(path: Path) -> list[SparseImage]:
    images = []
    lines = _lines(path)
    for number, line in lines:
        if line:
            try:
                word = line.split(maxsplit=9)
                images.append(_image(word[9], int(word[8]), [float(w) for w in word[1:8]]))
            except (ValueError, IndexError) as error:
                raise _invalid(
                    path, number, error, "IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME"
                ) from None
            next(lines, None)  # the image's 2D points
    return images


def _points_text(path: Path) -> Tensor:
    rows = []
    for number, line in _lines(path):
        word = line.split(maxsplit=4)
        if word:
            try:
                rows.append((float(word[1]), float(word[2]), float(word[3])))
            except (ValueError, IndexError) as error:
                raise _invalid(
                    path, number, error, "POINT3D_ID X Y Z R G B ERROR TRACK…"
                ) from None
    return _points(rows)


class _Binary:
    """A cursor over a little-endian binary file; reads and counts never go past its end."""

    def __init__(self, path: Path) -> None:
        try:
            data = read_given(path, _MAX_FILE)
        except OSError as error:
            raise InvalidInput(f"{path}: cannot be read ({error.strerror})") from None
        self.path, self.data, self.at = path, data, 0

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
        return range(
            int(self.take("Q")[0])
        )  # lazy: a wrong count runs into the end of the file

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


def _cameras_binary(path: Path) -> dict[int, Camera]:
    file = _Binary(path)
    names = {number: name for name, (number, _, _) in _MODELS.items()}
    cameras = {}
    for _ in file.entries():
        camera_id, number, width, height = map(int, file.take("iiQQ"))
        name = names.get(number, _OTHER_MODELS.get(number, str(number)))
        values = file.take(f"{sum(_MODELS[name][1:]) + 2}d") if name in _MODELS else ()
        try:
            cameras[camera_id] = _camera(name, width, height, values)
        except ValueError as error:
            raise InvalidInput(f"{path}, camera {camera_id}: {error}") from None
    return cameras


def _images_binary(path: Path) -> list[SparseImage]:
    file = _Binary(path)
    images = []
    for _ in file.entries():
        _, *pose, camera_id = file.take("i7di")
        name = file.text()
        try:
            images.append(_image(name, int(camera_id), pose))
        except ValueError as error:
            raise InvalidInput(f"{path}: {error}") from None
        file.skip(int(file.take("Q")[0]), 24)  # its 2D points: x, y, POINT3D_ID
    return images


def _points_binary(path: Path) -> Tensor:
    file = _Binary(path)
    rows = []
    for _ in file.entries():
        _, x, y, z, *_, track = file.take("Q3d3BdQ")
        rows.append((x, y, z))
        file.skip(int(track), 8)
    return _points(rows)
