"""Video folders: which frames are usable, and their pixels.

A video is a COLMAP dataset (images/, masks/, sparse/, video.json). A frame that cannot be used is
left out with one warning line that names it; a video with fewer than three usable frames is an
error. Nothing here trusts a file: sizes are read from headers and bounded before pixels are
decoded.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from torch import Tensor

from uns_pose_ros.core.camera import assumed_camera, undistort
from uns_pose_ros.core.errors import InvalidInput, shorten
from uns_pose_ros.core.types import Camera, Frame, Video
from uns_pose_ros.io.camera_json import parse_camera
from uns_pose_ros.io.colmap import SparseImage, has_sparse, read_sparse
from uns_pose_ros.io.images import (
    decode,
    fills_border,
    is_image_file,
    natural_order,
    open_image,
    read_image,
    read_mask,
)
from uns_pose_ros.io.schema.video_record import VIDEO_RECORD, read_video_record

MIN_FRAMES = 3

_log = logging.getLogger(__name__)


def list_videos(category: Path, patterns: str | None = None) -> list[Path]:
    """List the video folders of a category, which are its subfolders with images/, by name.

    `patterns` are shell patterns, comma separated.
    """
    if not category.is_dir():
        raise InvalidInput(
            f"{category}: no such folder; a category folder with one subfolder a video is needed"
        )
    videos = sorted(
        folder
        for folder in category.iterdir()
        if (folder / "images").is_dir() and folder.name[0] != "."
    )
    if not videos:
        raise InvalidInput(
            f"{category}: no videos; each video is a subfolder with images/ in it, such as "
            f"{category}/clip_01/images"
        )
    if patterns is None:
        return videos
    chosen: set[Path] = set()
    for pattern in filter(None, (p.strip() for p in patterns.split(","))):
        matches = {video for video in videos if fnmatchcase(video.name, pattern)}
        if not matches:
            raise InvalidInput(
                f"{category}: no video is called {pattern!r}; there are "
                f"{shorten(v.name for v in videos)}"
            )
        chosen |= matches
    if not chosen:
        raise InvalidInput(
            f"--videos {patterns!r} names nothing; shell patterns, comma separated, are valid: "
            "'clip_0[1-4],clip_09'"
        )
    return sorted(chosen)


def load_video(folder: Path, need_masks: bool = True, need_poses: bool = True) -> Video:
    """Load the usable frames of a video folder, by name.

    A usable frame is readable and has its camera's size. Without `need_poses`, a frame that is not
    in the sparse model gets the camera in video.json, or else `assumed_camera`.

    Args:
        folder: The video folder.
        need_masks: A usable frame has a mask.
        need_poses: A usable frame has a pose.

    Returns:
        The video.

    Raises:
        InvalidInput: Fewer than three frames are usable; the message gives the first reason.
    """
    frames, dropped, points = frames_of(folder, need_masks, need_poses)
    if len(frames) < MIN_FRAMES:
        reason = f"; the first left out: {dropped[0]}" if dropped else ""
        total = len(frames) + len(dropped)
        raise InvalidInput(
            f"{folder}: {len(frames)} of {total} frames are usable, {MIN_FRAMES} needed{reason}"
        )
    for reason in dropped:
        _log.warning("frame left out: %s", reason)
    return Video(folder, tuple(frames), points, read_video_record(folder).metric)


def frames_of(
    folder: Path, need_masks: bool, need_poses: bool
) -> tuple[list[Frame], list[str], Tensor | None]:
    """Find the usable frames of a video folder.

    Args:
        folder: The video folder.
        need_masks: A usable frame has a mask.
        need_poses: A usable frame has a pose.

    Returns:
        The frames, the reasons why others are left out, and the points of the sparse model, if any.

    Raises:
        InvalidInput: The folder as a whole lacks what is needed.
    """
    images = folder / "images"
    if not images.is_dir():
        raise InvalidInput(
            f"{folder}: no video there; a video is a folder with images/ (and masks/, sparse/) "
            "in it"
        )
    sparse = read_sparse(folder / "sparse") if has_sparse(folder / "sparse") else None
    for line in sparse.remarks() if sparse is not None else ():
        _log.warning("%s: %s", folder / "sparse", line)
    if sparse is None and need_poses:
        raise InvalidInput(
            f"{folder}: no camera poses; a COLMAP model (cameras, images, points3D as .txt or "
            ".bin) in sparse/ is needed"
        )
    if need_masks and not (folder / "masks").is_dir():
        raise InvalidInput(
            f"{folder}: no object masks; masks/<image name>.png, white on the object, is "
            "needed for every image"
        )
    registered = (
        {image.name: image for image in sparse.images} if sparse is not None else {}
    )
    present = set(image_names(folder))
    unused = unused_masks(folder, present | registered.keys())
    if unused:
        _log.warning(
            "%s: %d masks of no image: %s", folder, len(unused), shorten(unused, 3)
        )
    known = recorded_camera(folder)
    frames, dropped, inverted = [], [], list[str]()
    for name in sorted(registered if need_poses else present, key=natural_order):
        try:
            if name not in present:
                raise InvalidInput(f"{images / name}: named in sparse/ but not there")
            frame = _usable_frame(folder, name, need_masks, inverted)
            if known is not None and (known.width, known.height) == (
                frame.camera.width,
                frame.camera.height,
            ):
                frame = replace(frame, camera=known)
            frames.append(
                _with_pose(frame, registered[name], sparse.cameras)
                if sparse and name in registered
                else frame
            )
        except InvalidInput as error:
            dropped.append(str(error))
    if inverted:
        _log.warning(
            "%s: %d masks are dark inside a bright border; white is the object, are they "
            "inverted? %s",
            folder,
            len(inverted),
            shorten(inverted, 3),
        )
    return frames, dropped, sparse.points if sparse is not None else None


def image_names(folder: Path) -> list[str]:
    """Names of the images in a video folder, usable or not, in natural order."""
    images = folder / "images"
    files = (path for path in images.rglob("*") if path.is_file() and is_image_file(path))
    names = (path.relative_to(images).as_posix() for path in files)
    return sorted(names, key=natural_order)


def mask_path(folder: Path, name: str) -> Path:
    """The mask of an image: masks/<image name>.png, or .png for the image's ending, as in COLMAP.

    The first of the two where neither is there.
    """
    masks = folder / "masks"
    places = [masks / f"{name}.png", (masks / name).with_suffix(".png")]
    return next((path for path in places if path.is_file()), places[0])


def unused_masks(folder: Path, names: Collection[str]) -> list[str]:
    """Masks that belong to none of the images `names`, in natural order."""
    masks = folder / "masks"
    used = {mask_path(folder, name) for name in names}
    files = (path for path in masks.rglob("*") if path.is_file() and path.name[0] != ".")
    rest = (path for path in files if path not in used and path.suffix.lower() != ".json")
    return sorted((path.relative_to(masks).as_posix() for path in rest), key=natural_order)


def _usable_frame(folder: Path, name: str, need_masks: bool, inverted: list[str]) -> Frame:
    """A frame with an assumed camera; its image and mask can be decoded and have one size.

    inverted: receives the name of a mask that seems to show the object dark.
    """
    image, mask = folder / "images" / name, mask_path(folder, name)
    width, height = _check_image(image)
    if need_masks:
        pixels = read_mask(mask)
        if pixels.shape != (height, width):
            raise InvalidInput(
                f"{mask}: {pixels.shape[1]} x {pixels.shape[0]} px, its image has {width} x "
                f"{height}"
            )
        if not bool(pixels.any()):
            raise InvalidInput(
                f"{mask}: the mask is empty, the object is nowhere in the image"
            )
        if fills_border(pixels.numpy()):
            inverted.append(mask.name)
    return Frame(
        name, image, assumed_camera(width, height), mask if mask.exists() else None
    )


def _with_pose(
    frame: Frame, registered: SparseImage, cameras: Mapping[int, Camera]
) -> Frame:
    camera, assumed = cameras[registered.camera_id], frame.camera
    if (camera.width, camera.height) != (assumed.width, assumed.height):
        wanted = f"{camera.width} x {camera.height}"
        raise InvalidInput(
            f"{frame.image}: {assumed.width} x {assumed.height} px, its camera in sparse/ has "
            f"{wanted}"
        )
    return replace(frame, camera=camera, cam_from_obj=registered.cam_from_obj)


def recorded_camera(folder: Path) -> Camera | None:
    """The camera that an import wrote into video.json; None without a camera."""
    camera = read_video_record(folder).camera
    return None if camera is None else parse_camera(camera, folder / VIDEO_RECORD)


def read_frame(frame: Frame) -> tuple[Tensor, Tensor | None, Camera]:
    """Read a frame and undistort it.

    Returns:
        Image (H, W, 3) uint8 RGB, mask (H, W) bool or None, and the pinhole camera.
    """
    image = read_image(frame.image)
    mask = read_mask(frame.mask) if frame.mask is not None else None
    return undistort(image, mask, frame.camera)


def _check_image(path: Path) -> tuple[int, int]:
    """Width and height, px, of an image whose pixels can be decoded."""
    file = open_image(path, "image")
    size = file.size
    decode(path, "image", draft=True)
    return size
