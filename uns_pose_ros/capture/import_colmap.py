"""Frames, poses, points and masks of a COLMAP dataset in any of its usual layouts."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from uns_pose_ros.capture.video_writer import VideoWriter, select_sharpest
from uns_pose_ros.core.camera import resize_camera
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.left_out import LeftOut
from uns_pose_ros.core.types import Camera, Progress
from uns_pose_ros.io.colmap import (
    Sparse,
    SparseImage,
    choose_largest,
    has_sparse,
    list_models,
)
from uns_pose_ros.io.colmap_model.pose_conventions import PosedPoints, doubt_poses
from uns_pose_ros.io.given_files import path_inside
from uns_pose_ros.io.images import ENDINGS, decode, decode_mask, open_image, sharpness
from uns_pose_ros.io.video_folder import unused_masks

# where programs put the model, below the dataset; of equally large models the first is taken
_MODEL_FOLDERS = (
    "sparse",
    ".",
    "colmap/sparse",  # nerfstudio
    "colmap",
    "dense/sparse",  # colmap image_undistorter
    "dense/0/sparse",
    "distorted/sparse",  # 3D Gaussian splatting: of input/, before the distortion was removed
)
# where programs put the images, below the folder that holds sparse/ or below the dataset
_IMAGE_FOLDERS = ("images", "input", "images_2", "images_4", "images_8")

# of a focal length in longer sides of the image: views of 140 to 2 degrees
_LEAST_FOCAL, _MOST_FOCAL = 0.18, 29.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Dataset:
    """The model and the images that are used."""

    folder: Path
    images: Path
    sparse: Sparse
    files: dict[str, Path]  # of the registered images that are there, by name
    left_out: LeftOut = field(default_factory=LeftOut)


@dataclass(frozen=True)
class _PosedFile:
    """One registered image and its file."""

    image: SparseImage
    path: Path
    camera: Camera  # in the size of the file
    mask: Path | None


def is_colmap(folder: Path) -> bool:
    """Whether a folder holds a COLMAP model and a folder of images."""
    return any(
        _image_folders(folder, folder if place == folder else place.parent)
        for place in _model_folders(folder)
    )


def import_colmap(folder: Path, writer: VideoWriter, progress: Progress) -> None:
    """Import the registered images of a COLMAP dataset under their own names.

    Poses and points are kept, and masks where the dataset has them. What is left out is counted
    by reason.
    """
    dataset = _open_dataset(folder)
    left_out = dataset.left_out
    for line in dataset.sparse.remarks():
        _log.warning("%s: %s", folder, line)
    usable, scores = _usable_files(dataset, writer.config.most, progress)
    _count_masks(dataset, usable)
    _doubt_cameras(usable, writer.notes)
    _doubt_poses(dataset.sparse, writer.notes)
    chosen = select_sharpest(scores, writer.config.frames)
    for index in chosen:
        _write_frame(usable[index], writer, left_out)
        progress(f"writing {folder.name}", len(writer.names), len(chosen))
    for line in left_out.lines():
        _log.warning("%s: %s", folder, line)
    record = {
        "pictures_read": len(usable),
        "model": dataset.sparse.folder.relative_to(folder).as_posix(),
        "left_out": {**dataset.sparse.left_out.counts, **left_out.counts},
    }
    writer.finish(str(folder), "colmap", record, dataset.sparse.points)


def _model_folders(folder: Path) -> list[Path]:
    places = (folder / name for name in _MODEL_FOLDERS)
    return [place for place in places if has_sparse(place)]


def _image_folders(folder: Path, beside: Path) -> list[Path]:
    """The folders of images, those beside the model first."""
    bases = dict.fromkeys((beside, folder))
    places = [base / name for base in bases for name in _IMAGE_FOLDERS]
    return [place for place in places if place.is_dir()]


def _open_dataset(folder: Path) -> _Dataset:
    """The model of which most images are there, and the images that belong to it."""
    models: dict[Path, Sparse] = {}
    errors: list[str] = []
    for place in _model_folders(folder):
        try:
            for model in list_models(place):
                models.setdefault(model.folder.resolve(), model)
        except InvalidInput as error:
            errors.append(str(error))
    if not models:
        needed = "images/ and sparse/ with cameras and images are needed"
        raise InvalidInput(errors[0] if errors else f"{folder}: no COLMAP model; {needed}")
    found = {model.folder: _find_images(folder, model) for model in models.values()}
    present = [
        replace(
            model,
            images=tuple(
                image for image in model.images if image.name in found[model.folder][1]
            ),
        )
        for model in models.values()
    ]
    largest = choose_largest(present)
    images, files = found[largest.folder]
    all_images = next(m for m in models.values() if m.folder == largest.folder).images
    dataset = _Dataset(folder, images, largest, files)
    for image in all_images:
        if image.name not in files:
            where = images.relative_to(folder).as_posix()
            dataset.left_out.add(f"registered images that are not in {where}/", image.name)
    for broken in dict.fromkeys(errors):
        dataset.left_out.add("models that cannot be used", broken)
    return dataset


def _find_images(folder: Path, model: Sparse) -> tuple[Path, dict[str, Path]]:
    """The folder with the most of a model's images, and their files by name."""
    place = model.folder
    while place != folder and place.name != "sparse":
        place = place.parent
    beside = place.parent if place != folder else folder
    names = [image.name for image in model.images]
    folders = _image_folders(folder, beside)
    if place.relative_to(folder).parts[:1] == ("distorted",):
        folders.sort(key=lambda path: path.name != "input")
    found = [(path, _match_names(path, names)) for path in folders]
    nothing: tuple[Path, dict[str, Path]] = (folder / _IMAGE_FOLDERS[0], {})
    # of equally many the first
    return max(found, key=lambda pair: len(pair[1]), default=nothing)


def _match_names(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """The file of each registered image, where there is one.

    A name may start with the name of the folder, lack its folders or its ending, or differ in
    upper and lower case; a file that fits two such names is of none of them.
    """
    found: dict[str, Path] = {}
    for name in names:
        for path in (folder / name, folder / name.removeprefix(f"{folder.name}/")):
            if path.is_file():
                found[name] = path
                break
    rest = [name for name in names if name not in found]
    if not rest:
        return found
    taken = set(found.values())
    by_key: dict[str, list[Path]] = {}
    for name, path in _image_files(folder).items():
        if path not in taken:
            for key in set(_keys(name)):
                by_key.setdefault(key, []).append(path)
    users: dict[Path, list[str]] = {}
    for name in rest:
        matches = (by_key.get(key, []) for key in _keys(name))
        match = next((paths[0] for paths in matches if len(paths) == 1), None)
        if match is not None:
            users.setdefault(match, []).append(name)
    return found | {of[0]: path for path, of in users.items() if len(of) == 1}


def _keys(name: str) -> list[str]:
    """What a name is compared by, the most exact first.

    macOS writes letters with marks as two characters, other systems as one.
    """
    whole = unicodedata.normalize("NFC", name).lower()
    last = whole.split("/")[-1]
    return [whole, _stem(whole), last, _stem(last)]


def _image_files(folder: Path) -> dict[str, Path]:
    """The image files below a folder, by name."""
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in ENDINGS and path.name[0] != "." and path.is_file()
    }


def _stem(name: str) -> str:
    path = PurePosixPath(name)
    return path.with_suffix("").as_posix() if path.suffix in ENDINGS else name


def _usable_files(
    dataset: _Dataset, most: int, progress: Progress
) -> tuple[list[_PosedFile], list[float]]:
    """The registered images that can be read and have their camera's shape, and sharpness."""
    left_out, folder = dataset.left_out, dataset.folder
    registered = {path.resolve() for path in dataset.files.values()}
    for name, path in _image_files(dataset.images).items():
        if path.resolve() not in registered:
            left_out.add("images without a pose in the model", name)
    images = dataset.sparse.images
    for image in images[most:]:
        left_out.add(f"images after the first {most}", image.name)
    usable, scores = [], []
    scaled = renamed = 0
    for done, image in enumerate(images[:most], 1):
        path = dataset.files[image.name]
        name = path.relative_to(dataset.images).as_posix()
        camera = dataset.sparse.cameras[image.camera_id]
        try:
            path_inside(dataset.images, name)
            file = open_image(path, "image")
            gray = np.array(decode(path, "image", draft=True).convert("L"))
        except InvalidInput as error:
            left_out.add("images that cannot be read", str(error))
            continue
        try:
            fitting = resize_camera(camera, *file.size)
        except InvalidInput:
            sizes = f"{file.width} x {file.height} px, not {camera.width} x {camera.height}"
            what = f"{name}: {sizes}"
            left_out.add("images of another shape than their camera in the model", what)
            continue
        scaled += file.size != (camera.width, camera.height)
        renamed += name != image.name
        try:
            mask = _mask_path(folder, name) or _mask_path(folder, image.name)
        except InvalidInput as error:
            left_out.add("masks that are not in the folder", str(error))
            mask = None
        if path.suffix.lower() not in ENDINGS:
            name += f".{str(file.format).lower()}"
        usable.append(_PosedFile(replace(image, name=name), path, fitting, mask))
        scores.append(sharpness(gray))
        progress(f"reading {folder.name}", done, len(images))
    if scaled:
        _log.warning(
            "%s: %d images have another size than their camera in the model, which is scaled "
            "to it",
            folder,
            scaled,
        )
    if renamed:
        _log.warning("%s: %d images have another name in the model", folder, renamed)
    return usable, scores


def _mask_path(folder: Path, name: str) -> Path | None:
    """masks/<image name>.png, or with .png for the image's ending, which COLMAP takes too."""
    masks = folder / "masks"
    places = (f"{name}.png", PurePosixPath(name).with_suffix(".png").as_posix())
    there = (place for place in places if (masks / place).is_file())
    return next((path_inside(masks, place) for place in there), None)


def _count_masks(dataset: _Dataset, usable: Sequence[_PosedFile]) -> None:
    left_out = dataset.left_out
    names = [path.relative_to(dataset.images).as_posix() for path in dataset.files.values()]
    for name in unused_masks(dataset.folder, [*names, *dataset.files]):
        left_out.add("masks of no registered image", name)
    if any(posed.mask is not None for posed in usable):
        for posed in usable:
            if posed.mask is None:
                left_out.add(
                    "images without a mask, where others have one", posed.image.name
                )


def _doubt_cameras(usable: Sequence[_PosedFile], notes: LeftOut) -> None:
    """Count the images whose camera is hardly one: its values are wrong or in other units."""
    for posed in usable:
        camera = posed.camera
        (fx, _, cx), (_, fy, cy), _ = camera.matrix.tolist()
        side = max(camera.width, camera.height)
        likely = all(_LEAST_FOCAL < focal / side < _MOST_FOCAL for focal in (fx, fy))
        if not likely or not (0 < cx < camera.width and 0 < cy < camera.height):
            size = f"{camera.width} x {camera.height} px"
            what = f"focal length {fx:.4g}, {fy:.4g} px, principal point {cx:.4g}, {cy:.4g}"
            detail = f"{posed.image.name}: {size}, {what}"
            notes.add("images whose camera in the model is doubtful", detail)


def _doubt_poses(sparse: Sparse, notes: LeftOut) -> None:
    """Count the images whose poses do not fit the points that they see, all or none."""
    points = {
        int(number): point
        for number, point in zip(sparse.point_ids.tolist(), sparse.points, strict=True)
        if number == number
    }
    images = [
        PosedPoints(sparse.cameras[image.camera_id], image.cam_from_obj, image.observed)
        for image in sparse.images
    ]
    doubt = doubt_poses(images, points)
    for number in range(len(images) if doubt else 0):
        what = "images whose poses in the model do not fit its points"
        notes.add(what, "" if number else doubt)


def _write_frame(posed: _PosedFile, writer: VideoWriter, left_out: LeftOut) -> None:
    """Write one frame; a file that cannot be decoded as a whole is left out."""
    try:
        image = decode(posed.path, "image")
    except InvalidInput as error:
        left_out.add("images that cannot be read", str(error))
        return
    writer.add(
        posed.image.name,
        np.array(image.convert("RGB")),
        posed.camera,
        posed.path.read_bytes(),
        posed.image.cam_from_obj,
        _read_mask(posed, image, left_out),
    )


def _read_mask(
    posed: _PosedFile, image: Image.Image, left_out: LeftOut
) -> np.ndarray | None:
    if posed.mask is None:
        return None
    try:
        mask = decode_mask(posed.mask)
    except InvalidInput as error:
        left_out.add("masks that cannot be read", str(error))
        return None
    height, width = mask.shape
    if (width, height) != image.size:
        what = f"{posed.mask.name}: {width} x {height} px"
        left_out.add("masks of another size than their image", what)
        return None
    return mask
