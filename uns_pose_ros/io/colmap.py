"""COLMAP sparse models: read as text or binary, the largest of several; written as text."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import matrix_to_quaternion
from uns_pose_ros.core.left_out import LeftOut
from uns_pose_ros.core.types import Camera
from uns_pose_ros.io.artifacts import atomic_write
from uns_pose_ros.io.colmap_model.binary_files import (
    read_binary_cameras,
    read_binary_images,
    read_binary_points,
)
from uns_pose_ros.io.colmap_model.camera_models import CameraRow, describe_camera
from uns_pose_ros.io.colmap_model.image_row import ImageRow, Observed
from uns_pose_ros.io.colmap_model.text_files import (
    read_text_cameras,
    read_text_images,
    read_text_points,
)

_MAX_MODELS = 1000  # in one folder
_NO_POINTS = torch.zeros(0, 3, dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class SparseImage:
    """One registered image."""

    name: str  # path below images/
    camera_id: int
    cam_from_obj: Tensor  # (4, 4) float64, rigid
    observed: Observed = ()  # some of the points that it sees


@dataclass(frozen=True, eq=False)
class Sparse:
    """A sparse model: cameras by id, registered images in the order of their names, points."""

    cameras: Mapping[int, Camera]
    images: tuple[SparseImage, ...]
    points: Tensor  # (N, 3) float64, obj frame
    folder: Path  # of its files
    # numbers of the points, as images name them (N,) float64; NaN: none
    point_ids: Tensor = field(default_factory=lambda: _NO_POINTS[:, 0])
    left_out: LeftOut = field(default_factory=LeftOut)  # of its files
    # registered images of the models that are not taken, by folder
    smaller: Mapping[Path, int] = field(default_factory=dict)

    def remarks(self) -> list[str]:
        """One line for each thing that is not taken: other models, and what cannot be read."""
        lines = []
        if self.smaller:
            base = Path(os.path.commonpath([self.folder, *self.smaller])).parent
            others = ", ".join(
                f"{path.relative_to(base).as_posix()} has {count}"
                for path, count in self.smaller.items()
            )
            lines.append(
                f"{1 + len(self.smaller)} models: the largest, "
                f"{self.folder.relative_to(base).as_posix()} with {len(self.images)} images, "
                f"is taken; {others}"
            )
        return lines + self.left_out.lines()


def has_sparse(folder: Path) -> bool:
    """Whether a folder holds a sparse model, in itself or in a subfolder, as COLMAP writes it."""
    return bool(_model_folders(folder))


def read_sparse(folder: Path) -> Sparse:
    """Read the largest model in a folder and its subfolders.

    A binary file is preferred. points3D may be missing. Entries that cannot be used are left out
    and counted. InvalidInput: a file is missing or cut off, or no image can be used; the message
    names the file, and the line of a text file.
    """
    return choose_largest(list_models(folder))


def choose_largest(models: Sequence[Sparse]) -> Sparse:
    """The first model with the most images, with its points."""
    largest = max(models, key=lambda model: len(model.images))
    smaller = {
        **largest.smaller,
        **{other.folder: len(other.images) for other in models if other is not largest},
    }
    left_out = LeftOut()
    left_out.extend(largest.left_out)
    ids, points = _read_points(largest.folder, left_out)
    return replace(
        largest, points=points, point_ids=ids, left_out=left_out, smaller=smaller
    )


def list_models(folder: Path) -> list[Sparse]:
    """The models in a folder and its subfolders, without points.

    A broken model is left out where another can be read. InvalidInput: none can be read.
    """
    folders = _model_folders(folder) or [folder]
    models: list[Sparse] = []
    errors: list[InvalidInput] = []
    for place in folders:
        try:
            models.append(_read_model(place))
        except InvalidInput as error:
            errors.append(error)
    if not models:
        raise errors[0]
    for broken in errors:
        for model in models:
            model.left_out.add("models that cannot be used", str(broken))
    return models


def _model_folders(folder: Path) -> list[Path]:
    """The folder and its subfolders that hold a model: 0, 1, … 10."""
    if not folder.is_dir():
        return []
    below = sorted(
        (path for path in folder.iterdir() if path.is_dir() and path.name[0] != "."),
        key=lambda path: (len(path.name), path.name),
    )
    places = [folder, *below[:_MAX_MODELS]]
    return [place for place in places if _file(place, "images").exists()]


def _file(folder: Path, name: str) -> Path:
    """The binary file of a model, else the text file."""
    binary = folder / f"{name}.bin"
    return binary if binary.exists() else folder / f"{name}.txt"


def _read_model(folder: Path) -> Sparse:
    """A model without its points."""
    left_out = LeftOut()
    path = {name: _file(folder, name) for name in ("cameras", "images")}
    for file in path.values():
        if not file.exists():
            raise InvalidInput(
                f"{folder}: no {file.stem}.txt or {file.stem}.bin; a COLMAP sparse model has "
                "cameras, images and points3D"
            )
    if path["cameras"].suffix == ".bin":
        camera_rows = read_binary_cameras(path["cameras"])
    else:
        camera_rows = read_text_cameras(path["cameras"], left_out)
    if path["images"].suffix == ".bin":
        image_rows = read_binary_images(path["images"])
    else:
        image_rows = read_text_images(path["images"], left_out)
    cameras = _use_cameras(camera_rows, left_out)
    known = {row.camera_id for _, row in camera_rows}
    images = _use_images(image_rows, cameras, known, left_out)
    if not images:
        reason = "; ".join(left_out.lines()) or f"{path['images'].name} lists none"
        raise InvalidInput(f"{folder}: no image of the model can be used; {reason}")
    ordered = tuple(images[name] for name in sorted(images))
    return Sparse(cameras, ordered, _NO_POINTS, folder, left_out=left_out)


def _use_cameras(
    rows: Sequence[tuple[str, CameraRow]], left_out: LeftOut
) -> dict[int, Camera]:
    cameras: dict[int, Camera] = {}
    for place, row in rows:
        try:
            camera = row.to_camera()
        except (ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            left_out.add("cameras that cannot be used", f"{place}: {reason}")
            continue
        if row.camera_id in cameras:
            left_out.add("cameras whose id is given twice", f"{place}: {row.camera_id}")
            continue
        cameras[row.camera_id] = camera
    return cameras


def _use_images(
    rows: Sequence[tuple[str, ImageRow]],
    cameras: Mapping[int, Camera],
    known: set[int],
    left_out: LeftOut,
) -> dict[str, SparseImage]:
    images: dict[str, SparseImage] = {}
    for place, row in rows:
        try:
            name, pose = row.clean_name(), row.cam_from_obj()
        except ValueError as error:
            left_out.add("images that cannot be used", f"{place}: {error}")
            continue
        what = f"image {name} names camera {row.camera_id}"
        if row.camera_id not in known:
            left_out.add("images whose camera is not in the model", what)
        elif row.camera_id not in cameras:
            left_out.add("images whose camera cannot be used", what)
        elif name in images:
            left_out.add("images that are named twice", f"{place}: {name}")
        else:
            images[name] = SparseImage(name, row.camera_id, pose, row.observed)
    return images


def _read_points(folder: Path, left_out: LeftOut) -> tuple[Tensor, Tensor]:
    """Numbers (N,) and positions (N, 3) of the finite points of a model, float64.

    None where it has no file of them.
    """
    path = _file(folder, "points3D")
    if not path.exists():
        return _NO_POINTS[:, 0], _NO_POINTS
    binary = path.suffix == ".bin"
    rows = read_binary_points(path) if binary else read_text_points(path, left_out)
    table = torch.tensor(rows, dtype=torch.float64).reshape(-1, 4)
    points = table[:, 1:]
    finite = torch.isfinite(points).all(-1)
    for number in torch.nonzero(~finite).flatten().tolist():
        left_out.add("points that are not finite", f"{path.name}, entry {number + 1}")
    return table[finite, 0], points[finite].contiguous()


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
                f"{describe_camera(number, camera)}\n"
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


def _image_line(number: int, image: SparseImage) -> str:
    pose = [
        *matrix_to_quaternion(image.cam_from_obj[:3, :3]).tolist(),
        *image.cam_from_obj[:3, 3].tolist(),
    ]
    return " ".join(map(str, [number, *pose, image.camera_id, image.name]))
