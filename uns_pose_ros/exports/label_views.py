"""What the images of a label set show: pixels, masks, boxes, keypoints and depth of the objects.

Every image is without distortion of the lens, so that formats need a camera matrix only.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from uns_pose_ros.core.camera import undistort, undistortion_maps
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.left_out import LeftOut
from uns_pose_ros.core.ray_casting import cast_rays
from uns_pose_ros.core.types import Camera, Progress
from uns_pose_ros.exports.label_set import (
    LabelFrame,
    LabelScene,
    LabelSet,
    Matrix,
    ObjectInstance,
    ObjectLabel,
)
from uns_pose_ros.exports.work_ahead import work_ahead
from uns_pose_ros.io.depth_images import Depth, read_depth
from uns_pose_ros.io.encoded_image import EncodedImage
from uns_pose_ros.io.given_files import read_given
from uns_pose_ros.io.images import Pixels, decode_rgb, read_image, read_mask
from uns_pose_ros.io.metadata_removal import remove_private_metadata
from uns_pose_ros.visualization.drawing import mesh_silhouette

Mask = NDArray[np.bool_]
Box = tuple[
    int, int, int, int
]  # x y width height, px: whole pixels from the corner of the image

_MAX_IMAGE = 2**30  # bytes of a file
_ORIENTATION = 0x0112  # EXIF tag
_SEEN = 1e-3  # of its distance: a keypoint is hidden if the surface is nearer by more


@dataclass(frozen=True, eq=False)
class ObjectView:
    """An object as an image shows it."""

    label: ObjectLabel
    instance: ObjectInstance
    camera: Camera
    visible: Mask  # (H, W) the pixels that show the object
    silhouette: Mask  # (H, W) the whole object, also where something hides it
    whole_box: Box  # of the whole object, also beyond the image
    whole_pixels: int  # of the whole object, also beyond the image

    @property
    def box(self) -> Box:
        """The box of the visible pixels."""
        return box_of_mask(self.visible)

    def keypoints(self, kind: str) -> tuple[Matrix, NDArray[np.int64]]:
        """Keypoints in the image.

        Args:
            kind: of KEYPOINTS.

        Returns:
            Pixels (K, 2), integers are pixel centers, and for each 0: outside of the image, 1: the
            object hides it, 2: visible.
        """
        points = self.instance.keypoints(kind)
        pose = self.label.cam_from_model
        in_camera = points @ pose[:3, :3].T + pose[:3, 3]
        ahead = in_camera[:, 2] > 1e-9
        safe = np.where(ahead[:, None], in_camera, [0.0, 0.0, 1.0])
        uvw = safe @ self.camera.matrix.numpy().T
        pixels = uvw[:, :2] / uvw[:, 2:]
        size = np.array([self.camera.width, self.camera.height])
        inside = ahead & ((pixels >= -0.5) & (pixels <= size - 0.5)).all(1)
        flags = np.where(inside, np.where(self._is_hidden(points), 1, 2), 0)
        return pixels, flags.astype(np.int64)

    def _is_hidden(self, points: Matrix) -> Mask:
        """For points (K, 3) of the model frame, whether the surface lies before them."""
        pose = self.label.cam_from_model
        eye = -pose[:3, :3].T @ pose[:3, 3]
        distance, _, _ = cast_rays(
            torch.from_numpy(eye),
            torch.from_numpy(points - eye),
            torch.from_numpy(self.instance.vertices),
            torch.from_numpy(self.instance.triangles),
        )
        return np.asarray(distance.numpy() < 1 - _SEEN)


@dataclass(frozen=True, eq=False)
class ImageView:
    """An image and its objects."""

    frame: LabelFrame
    camera: Camera  # without distortion
    file: bytes  # JPEG or PNG, RGB
    ending: str  # .jpg or .png
    objects: tuple[ObjectView, ...]

    @property
    def pixels(self) -> Pixels:
        """(H, W, 3) uint8 RGB."""
        return decode_rgb(self.file, str(self.frame.image))

    def measured_depth(self) -> Depth | None:
        """(H, W) mm; None where no depth was recorded."""
        if self.frame.depth is None:
            return None
        camera = self.frame.camera
        depth = read_depth(self.frame.depth, (camera.width, camera.height))
        if not bool(camera.distortion.any()):
            return depth
        x, y = undistortion_maps(camera)
        return cv2.remap(depth, x, y, cv2.INTER_NEAREST).astype(np.uint16)


class LabelRenderer:
    """Makes the views of a set one after another, and counts what they leave out."""

    def __init__(self, labels: LabelSet, progress: Progress) -> None:
        """Prepare the views of a set; `progress` gets the images done and all images."""
        self.labels = labels
        self.left_out = LeftOut()
        self.images = 0  # written
        self.objects = 0  # written
        self._progress = progress
        self._done = 0

    def views(self, scene: LabelScene) -> Iterator[ImageView]:
        """The images of a scene that can be read and show an object."""
        views = work_ahead(
            lambda frame: view_frame(frame, self.labels.instances), scene.frames
        )
        for frame, result in views:
            self._done += 1
            self._progress("export labels", self._done, self.labels.image_count)
            name = f"{scene.name}/{frame.name}"
            try:
                view = result.result()
            except InvalidInput as error:
                self.left_out.add("images that cannot be read", str(error))
                continue
            for _ in range(len(frame.labels) - len(view.objects)):
                self.left_out.add("labels without a visible pixel", name)
            if not view.objects:
                self.left_out.add("images without a label", name)
                continue
            self.images += 1
            self.objects += len(view.objects)
            yield view

    def leave_out(self, view: ImageView, reason: str, name: str) -> None:
        """Count a view that a writer does not write."""
        self.images -= 1
        self.objects -= len(view.objects)
        self.left_out.add(reason, name)


def view_frame(frame: LabelFrame, instances: Sequence[ObjectInstance]) -> ImageView:
    """Read an image, take the distortion of its lens away, and find its objects.

    Objects that no pixel shows are missing in the result.

    Raises:
        InvalidInput: The image or its mask cannot be read.
    """
    file, ending, mask, camera = _read_pixels(frame)
    views = [
        _view_object(label, instances[label.instance], camera) for label in frame.labels
    ]
    if mask is not None and len(views) == 1:
        views = [_with_mask(views[0], mask)]
    else:
        views = _hide_behind_nearer(views)
    shown = tuple(view for view in views if bool(view.visible.any()))
    return ImageView(frame, camera, file, ending, shown)


def box_of_mask(mask: Mask) -> Box:
    """The box of a mask with at least one pixel."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    x, y = int(columns[0]), int(rows[0])
    return x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1


def _view_object(
    label: ObjectLabel, instance: ObjectInstance, camera: Camera
) -> ObjectView:
    """An object that nothing hides."""
    large, left, top = _enlarged(camera, instance, label.cam_from_model)
    whole = mesh_silhouette(
        torch.from_numpy(instance.vertices),
        torch.from_numpy(instance.triangles),
        large,
        torch.from_numpy(label.cam_from_model),
    )
    silhouette = whole[top : top + camera.height, left : left + camera.width]
    return ObjectView(
        label=label,
        instance=instance,
        camera=camera,
        visible=silhouette,
        silhouette=silhouette,
        whole_box=_move(box_of_mask(whole), -left, -top) if whole.any() else (0, 0, 0, 0),
        whole_pixels=int(whole.sum()),
    )


def _with_mask(view: ObjectView, mask: Mask) -> ObjectView:
    """The object with the mask of its video, which is finer than the projected model."""
    silhouette = view.silhouette | mask
    beyond = view.whole_pixels - int(view.silhouette.sum())
    box = view.whole_box
    if mask.any():
        box = (
            _join_boxes(box, box_of_mask(mask)) if view.whole_pixels else box_of_mask(mask)
        )
    return replace(
        view,
        visible=mask,
        silhouette=silhouette,
        whole_box=box,
        whole_pixels=int(silhouette.sum()) + beyond,
    )


def _hide_behind_nearer(views: list[ObjectView]) -> list[ObjectView]:
    """Take away from each object what nearer objects cover."""
    distances = [float(view.label.cam_from_model[2, 3]) for view in views]
    result = []
    for view, distance in zip(views, distances, strict=True):
        visible = view.visible.copy()
        for other, nearer in zip(views, distances, strict=True):
            if nearer < distance:
                visible &= ~other.silhouette
        result.append(replace(view, visible=visible))
    return result


def _enlarged(
    camera: Camera, instance: ObjectInstance, pose: Matrix
) -> tuple[Camera, int, int]:
    """A camera whose image shows the whole object, at most three times as large.

    Returns:
        The camera, and the columns and rows that it has to the left and above of the image.
    """
    points = instance.vertices @ pose[:3, :3].T + pose[:3, 3]
    points = points[points[:, 2] > 1e-9]
    if not len(points):
        return camera, 0, 0
    uvw = points @ camera.matrix.numpy().T
    pixels = uvw[:, :2] / uvw[:, 2:]
    size = np.array([camera.width, camera.height])
    before = np.clip(np.ceil(1 - pixels.min(0)), 0, size).astype(int)
    behind = np.clip(np.ceil(pixels.max(0) + 2 - size), 0, size).astype(int)
    matrix = camera.matrix.clone()
    matrix[:2, 2] += torch.from_numpy(before).double()
    width, height = (size + before + behind).tolist()
    return Camera(matrix, width, height), int(before[0]), int(before[1])


def _move(box: Box, x: int, y: int) -> Box:
    return box[0] + x, box[1] + y, box[2], box[3]


def _join_boxes(first: Box, second: Box) -> Box:
    x, y = min(first[0], second[0]), min(first[1], second[1])
    right = max(first[0] + first[2], second[0] + second[2])
    bottom = max(first[1] + first[3], second[1] + second[3])
    return x, y, right - x, bottom - y


def _read_pixels(frame: LabelFrame) -> tuple[bytes, str, Mask | None, Camera]:
    """The image file without distortion, its ending, the mask and the camera without distortion.

    A file that needs no change is kept as it is, less what its metadata say about people.
    """
    mask = None if frame.mask is None else read_mask(frame.mask)
    size = (frame.camera.width, frame.camera.height)
    if not bool(frame.camera.distortion.any()):
        camera = Camera(frame.camera.matrix, *size)
        kept = _keep_file(frame, size)
        if kept is not None:
            return *kept, None if mask is None else mask.numpy(), camera
    image = read_image(frame.image)
    if (image.shape[1], image.shape[0]) != size:
        raise InvalidInput(
            f"{frame.image}: {image.shape[1]} x {image.shape[0]} px, its camera has "
            f"{size[0]} x {size[1]}"
        )
    image, mask, camera = undistort(image, mask, frame.camera)
    file, ending = EncodedImage.of_pixels(image.numpy()).encoded(".png", 0)
    return file, ending, None if mask is None else mask.numpy(), camera


def _keep_file(frame: LabelFrame, size: tuple[int, int]) -> tuple[bytes, str] | None:
    """The bytes and the ending of a JPEG or PNG of RGB that every program shows alike."""
    try:
        data = read_given(frame.image, _MAX_IMAGE)
    except OSError as error:
        raise InvalidInput(f"{frame.image}: cannot be read ({error.strerror})") from None
    encoded = EncodedImage.of_file(data, f"{frame.image}: the image")
    if encoded.file is None or (encoded.width, encoded.height) != size:
        return None
    image = Image.open(io.BytesIO(data))
    if image.mode != "RGB" or image.getexif().get(_ORIENTATION, 1) not in (0, 1):
        return None
    cleaned = remove_private_metadata(data)
    return None if cleaned is None else (cleaned, encoded.ending)
