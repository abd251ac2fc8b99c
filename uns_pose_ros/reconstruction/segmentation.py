"""Object masks of a video that has none.

The salient object of each image, made consistent over the video.

U2-Net-P (Qin et al., Pattern Recognition 2020) looks at one image at a time and may take a shadow
or other furniture for the object. Where camera poses are known, the object is what stays in the
middle of the orbit: the images vote on every place there, a second look at the part of each
image that shows those places finds what was missed, and the vote is added to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample

from uns_pose_ros.core.camera import fitted
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Camera, Frame, Progress, Video
from uns_pose_ros.io.video_folder import read_frame
from uns_pose_ros.networks.u2net import Salience
from uns_pose_ros.reconstruction.mask_voting import (
    MAX_LOG_ODDS,
    MaskConfig,
    OccupancyField,
    central_component,
    fuse_mask,
    hull_agreement,
    vote_occupancy,
)


@dataclass(frozen=True, eq=False)
class Masks:
    """Masks by image name, and how well each fits the visual hull of all."""

    masks: dict[str, NDArray[np.bool_]]  # (H, W)
    agreement: dict[str, float]  # intersection over union; empty where no poses are known

    def bad(self, config: MaskConfig) -> list[str]:
        return [name for name, value in self.agreement.items() if value < config.bad]


class Segmenter(Protocol):
    """A way to find the object in images that are undistorted and shrunk.

    Masks of the same size are probabilities.
    """

    def segment(
        self,
        frames: Sequence[Frame],
        picture: Callable[[int], NDArray[np.uint8]],
        cameras: Sequence[Camera],
    ) -> list[NDArray[np.float32]]:
        """Of every image, before anything is known of the object."""

    def refine(
        self,
        number: int,
        image: NDArray[np.uint8],
        segment: NDArray[np.float32],
        seen: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Of one image, where all of them have voted.

        Seen (h, w), the largest log-odds along every pixel's ray.
        """


class SalientSegmenter:
    """The object is what stands out."""

    def __init__(self, salience: Salience, config: MaskConfig) -> None:
        self._salience, self._config = salience, config

    def segment(
        self,
        frames: Sequence[Frame],
        picture: Callable[[int], NDArray[np.uint8]],
        cameras: Sequence[Camera],
    ) -> list[NDArray[np.float32]]:
        return [self._salience(picture(number)) for number in range(len(frames))]

    def refine(
        self,
        number: int,
        image: NDArray[np.uint8],
        segment: NDArray[np.float32],
        seen: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        return _second_look(
            image, segment, seen > self._config.needed, self._salience, self._config
        )


def find_masks(
    video: Video,
    how: Salience | Segmenter,
    config: MaskConfig = MaskConfig(),
    progress: Progress | None = None,
) -> Masks:
    """A mask of every frame, in pixels of its image.

    Where poses are known the masks agree with each other in space.

    how: a network that sees what stands out, or another way to look.
    """
    show = progress or (lambda what, done, total: None)
    look: Segmenter = SalientSegmenter(how, config) if callable(how) else how
    posed = [frame for frame in video.frames if frame.cam_from_obj is not None]
    cameras = [_shrunk(frame.camera, config) for frame in video.frames]
    matrices, shown = [camera.matrix for camera in cameras], set[int]()

    def picture(number: int) -> NDArray[np.uint8]:
        shown.add(number)
        show(f"{video.name}: masks", len(shown), len(video.frames))
        return _picture(video.frames[number], cameras[number])

    segment = look.segment(video.frames, picture, cameras)
    if len(posed) < len(video.frames) or len(posed) < 3:
        return Masks(
            {
                f.name: _enlarged(central_component(p > 0.5), f)
                for f, p in zip(video.frames, segment, strict=True)
            },
            {},
        )
    poses = torch.stack(
        [frame.cam_from_obj for frame in posed if frame.cam_from_obj is not None]
    )
    matrix = torch.stack(matrices)
    field = vote_occupancy(segment, matrix, poses, config)
    if field is None:
        raise InvalidInput(
            f"{video.folder}: no object in the middle of the orbit; keep it in the middle of "
            "every image, or give masks/"
        )
    second = []
    seen = _silhouettes(field, segment, matrix, poses, config)
    for number, (frame, one, vote_) in enumerate(
        zip(video.frames, segment, seen, strict=True)
    ):
        second.append(look.refine(number, _picture(frame, cameras[number]), one, vote_))
        show(f"{video.name}: masks, second look", number + 1, len(video.frames))
    field = vote_occupancy(second, matrix, poses, config) or field
    seen = _silhouettes(field, second, matrix, poses, config)
    found = {
        f.name: fuse_mask(own, vote_, config)
        for f, own, vote_ in zip(video.frames, second, seen, strict=True)
    }
    agreement = hull_agreement(found, matrix, poses)
    return Masks(
        {frame.name: _enlarged(found[frame.name], frame) for frame in video.frames},
        agreement,
    )


def _shrunk(camera: Camera, config: MaskConfig) -> Camera:
    """The camera without its distortion, and of an image of at most `size` px."""
    scale = min(1.0, config.size / max(camera.width, camera.height))
    width, height = (
        max(1, round(scale * camera.width)),
        max(1, round(scale * camera.height)),
    )
    return fitted(Camera(camera.matrix, camera.width, camera.height), width, height)


def _picture(frame: Frame, camera: Camera) -> NDArray[np.uint8]:
    """The undistorted image (h, w, 3) of a frame as such a camera takes it."""
    image, _, whole = read_frame(frame)
    if (whole.width, whole.height) == (camera.width, camera.height):
        return image.numpy()
    return np.asarray(
        cv2.resize(
            image.numpy(), (camera.width, camera.height), interpolation=cv2.INTER_AREA
        ),
        np.uint8,
    )


def _enlarged(mask: NDArray[np.bool_], frame: Frame) -> NDArray[np.bool_]:
    """A mask at the size of its frame's image."""
    size = (frame.camera.width, frame.camera.height)
    if mask.shape == size[::-1]:
        return mask
    return np.asarray(
        cv2.resize(mask.astype(np.uint8) * 255, size, interpolation=cv2.INTER_LINEAR) > 127
    )


def _silhouettes(
    field: OccupancyField,
    pictures: Sequence[NDArray[np.float32]],
    matrices: Tensor,
    poses: Tensor,
    config: MaskConfig,
) -> list[NDArray[np.float32]]:
    """For each image the largest value of the field along every pixel's ray, (H, W) float32
    log-odds.
    """
    found = []
    for picture, matrix, pose in zip(pictures, matrices, poses, strict=True):
        height, width = picture.shape
        scale = min(1.0, config.side / max(height, width))
        rows, columns = max(1, round(scale * height)), max(1, round(scale * width))
        v, u = torch.meshgrid(
            torch.arange(rows).double(), torch.arange(columns).double(), indexing="ij"
        )
        pixels = torch.stack(
            [
                (u + 0.5) * width / columns - 0.5,
                (v + 0.5) * height / rows - 0.5,
                torch.ones_like(u),
            ],
            -1,
        )
        rays = pixels.reshape(-1, 3) @ torch.linalg.inv(matrix).T
        rays = (rays / rays.norm(dim=1, keepdim=True)) @ pose[:3, :3]  # obj frame
        eye = -pose[:3, :3].T @ pose[:3, 3]
        middle = float((field.centre - eye).norm())
        reach = (
            torch.linspace(-1.74, 1.74, 2 * config.resolution, dtype=torch.float64)
            * field.half
            + middle
        )
        places = (eye + reach[:, None, None] * rays - field.centre) / field.half
        inside = (places.abs() <= 1).all(-1)
        places = places.float().flip(-1)  # grid_sample names the last axis first
        values = grid_sample(
            field.values[None, None], places[None, None], align_corners=True
        )[0, 0, 0]
        best = (
            torch.where(inside, values, torch.full_like(values, -MAX_LOG_ODDS))
            .amax(0)
            .reshape(rows, columns)
            .numpy()
        )
        found.append(
            np.asarray(
                cv2.resize(best, (width, height), interpolation=cv2.INTER_LINEAR),
                np.float32,
            )
        )
    return found


def _second_look(
    image: NDArray[np.uint8],
    segment: NDArray[np.float32],
    silhouette: NDArray[np.bool_],
    salience: Salience,
    config: MaskConfig,
) -> NDArray[np.float32]:
    """Probability (H, W).

    The higher one of the first look and of one at the silhouette's part of the image; 0 outside
    it.
    """
    result = np.where(silhouette, segment, 0).astype(np.float32)
    rows, columns = np.flatnonzero(silhouette.any(1)), np.flatnonzero(silhouette.any(0))
    if not len(rows):
        return result
    pad = config.margin * max(rows[-1] - rows[0], columns[-1] - columns[0]) + 2
    top, left = max(0, int(rows[0] - pad)), max(0, int(columns[0] - pad))
    bottom, right = int(rows[-1] + pad) + 1, int(columns[-1] + pad) + 1
    part = np.ascontiguousarray(image[top:bottom, left:right])
    result[top:bottom, left:right] = np.maximum(
        result[top:bottom, left:right], salience(part)
    )
    return result


def distort_mask(mask: NDArray[np.bool_], camera: Camera) -> NDArray[np.bool_]:
    """The mask (H, W) of an image as the camera took it, from that of the undistorted image."""
    if not bool(camera.distortion.any()):
        return mask
    v, u = np.mgrid[: camera.height, : camera.width].astype(np.float32)
    k = camera.matrix.numpy()
    places = cv2.undistortPoints(
        np.stack([u, v], -1).reshape(-1, 1, 2), k, camera.distortion.numpy(), P=k
    )
    where = places.reshape(camera.height, camera.width, 2).astype(np.float32)
    return np.asarray(
        cv2.remap(mask.astype(np.uint8), where[..., 0], where[..., 1], cv2.INTER_NEAREST)
        > 0
    )


def summarize_masks(found: Masks, config: MaskConfig) -> dict[str, Any]:
    """What of masks goes into video.json."""
    values = list(found.agreement.values())
    mean = None if not values else round(float(np.mean(values)), 3)
    return {
        "frames": len(found.masks),
        "fused": bool(values),
        "agreement": mean,
        "bad": found.bad(config),
    }
