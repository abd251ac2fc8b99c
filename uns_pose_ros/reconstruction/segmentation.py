"""Object masks of a video that has none: the salient object, consistent over all images.

U2-Net-P (Qin et al., Pattern Recognition 2020) segments one image at a time and may include a
shadow or confuse the object with furniture. Where camera poses are known, the object is what
stays at the center of the orbit: the images vote on every cell there, a refinement segments the
part of each image that shows the occupied cells, and the vote is added to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample

from uns_pose_ros.core.camera import resize_camera
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Camera, Frame, Progress, Video
from uns_pose_ros.io.video_folder import read_frame
from uns_pose_ros.networks.u2net import Salience
from uns_pose_ros.reconstruction.hull_of_others import MaskFit, bad_masks, judge_masks
from uns_pose_ros.reconstruction.mask_correction import (
    PartAsker,
    PartNetwork,
    mend_masks,
)
from uns_pose_ros.reconstruction.mask_voting import (
    MAX_LOG_ODDS,
    MaskConfig,
    OccupancyField,
    central_component,
    fuse_mask,
    vote_occupancy,
)
from uns_pose_ros.reconstruction.misplaced_images import find_places

_KEPT = 120  # shrunk images that stay in memory
_RAYS = 1024  # followed at once, so that their values stay in the processor's cache


@dataclass(frozen=True, eq=False)
class Masks:
    """Masks by image name, and how well each fits the visual hull of the others."""

    masks: dict[str, NDArray[np.bool_]]  # (H, W)
    fits: dict[str, MaskFit]  # empty where no poses are known
    mended: tuple[str, ...] = ()  # names of those that were cut or asked again
    # cam_from_obj (4, 4) float64 of the images whose cameras were placed again
    placed: Mapping[str, Tensor] = field(default_factory=dict)

    def bad(self, config: MaskConfig) -> list[str]:
        """Names of the masks that do not fit the hull."""
        return bad_masks(self.fits, config)


class Segmenter(Protocol):
    """A method that segments the object in undistorted, shrunk images.

    Its results are probabilities of the size of the image.
    """

    def segment(
        self,
        frames: Sequence[Frame],
        read: Callable[[int], NDArray[np.uint8]],
        cameras: Sequence[Camera],
    ) -> list[NDArray[np.float32]]:
        """Segment every image independently of the others' votes.

        Args:
            frames: F frames.
            read: returns the image (h, w, 3) of a frame's number.
            cameras: F cameras of these images.

        Returns:
            F maps (h, w).
        """

    def refine(
        self,
        number: int,
        image: NDArray[np.uint8],
        first: NDArray[np.float32],
        votes: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Segment one image again, after all images have voted.

        Args:
            number: of its frame.
            image: (h, w, 3) uint8 RGB.
            first: the map (h, w) of `segment`.
            votes: (h, w), the largest log-odds along the ray of every pixel.

        Returns:
            The map (h, w).
        """


class SalientSegmenter:
    """Segments the most salient object."""

    def __init__(self, salience: Salience, config: MaskConfig) -> None:
        self._salience, self._config = salience, config

    def segment(
        self,
        frames: Sequence[Frame],
        read: Callable[[int], NDArray[np.uint8]],
        cameras: Sequence[Camera],
    ) -> list[NDArray[np.float32]]:
        """The saliency of every image."""
        return [self._salience(read(number)) for number in range(len(frames))]

    def refine(
        self,
        number: int,
        image: NDArray[np.uint8],
        first: NDArray[np.float32],
        votes: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """The larger one of the first saliency and that of the object's part of the image."""
        silhouette = votes > self._config.needed
        return _refine_part(image, first, silhouette, self._salience, self._config)


def find_masks(
    video: Video,
    how: Salience | Segmenter,
    config: MaskConfig = MaskConfig(),
    progress: Progress | None = None,
    load_network: Callable[[], PartNetwork | None] = lambda: None,
    place_again: bool = False,
) -> Masks:
    """Compute a mask of every frame, in pixels of its image.

    Where poses are known, the masks are made consistent in space, and those that the hull of the
    others does not support are mended.

    Args:
        video: its frames need no masks.
        how: a saliency network, or another segmenter.
        config: sizes and thresholds.
        progress: called after each image.
        load_network: returns the network that mends masks, or None: they are only cut. It is
            called where a mask is in doubt.
        place_again: whether cameras that lie beside their true places get new ones.

    Raises:
        InvalidInput: the images do not agree on an object at the center of the orbit.
    """
    show = progress or (lambda what, done, total: None)
    segmenter: Segmenter = SalientSegmenter(how, config) if callable(how) else how
    frames = video.frames
    cameras = [_shrunk(frame.camera, config) for frame in frames]
    shown = set[int]()

    @lru_cache(maxsize=_KEPT)
    def shrunk(number: int) -> NDArray[np.uint8]:
        return _read_shrunk(frames[number], cameras[number])

    def read(number: int) -> NDArray[np.uint8]:
        shown.add(number)
        show(f"{video.name}: masks", len(shown), len(frames))
        return shrunk(number)

    first = segmenter.segment(frames, read, cameras)
    known_poses = [frame.cam_from_obj for frame in frames if frame.cam_from_obj is not None]
    if len(known_poses) < len(frames) or len(known_poses) < 3:
        masks = {}
        for frame, probability in zip(frames, first, strict=True):
            masks[frame.name] = _enlarged(central_component(probability > 0.5), frame)
        return Masks(masks, {})
    poses = torch.stack(known_poses)
    matrices = torch.stack([camera.matrix for camera in cameras])
    occupied = vote_occupancy(first, matrices, poses, config)
    if occupied is None:
        raise InvalidInput(
            f"{video.folder}: no object in the middle of the orbit; keep it in the middle of "
            "every image, or give masks/"
        )
    refined = []
    votes = _project_votes(occupied, first, matrices, poses, config)
    for number in range(len(frames)):
        image = shrunk(number)
        refined.append(segmenter.refine(number, image, first[number], votes[number]))
        show(f"{video.name}: masks, second look", number + 1, len(frames))
    places = dict[int, Tensor]()
    if place_again:
        places = find_places(first, refined, votes, matrices, poses, config.resolution)
    if places:
        poses[list(places)] = torch.stack(list(places.values()))
        occupied = vote_occupancy(first, matrices, poses, config) or occupied
        votes = _project_votes(occupied, first, matrices, poses, config)
        for number in places:
            refined[number] = segmenter.refine(
                number, shrunk(number), first[number], votes[number]
            )
    occupied = vote_occupancy(refined, matrices, poses, config) or occupied
    votes = _project_votes(occupied, refined, matrices, poses, config)
    fused = [
        fuse_mask(probability, odds, config)
        for probability, odds in zip(refined, votes, strict=True)
    ]
    asker = PartAsker(load_network, shrunk)
    mended, changed = mend_masks(fused, matrices, poses, asker.ask, config)
    fits = judge_masks(
        {frame.name: mask for frame, mask in zip(frames, mended, strict=True)},
        matrices,
        poses,
        config.resolution,
    )
    return Masks(
        {
            frame.name: _enlarged(mask, frame)
            for frame, mask in zip(frames, mended, strict=True)
        },
        fits,
        tuple(frames[number].name for number in changed),
        {frames[number].name: pose for number, pose in places.items()},
    )


def _shrunk(camera: Camera, config: MaskConfig) -> Camera:
    """The camera without distortion, of an image of at most `size` px."""
    scale = min(1.0, config.size / max(camera.width, camera.height))
    width, height = (
        max(1, round(scale * camera.width)),
        max(1, round(scale * camera.height)),
    )
    return resize_camera(Camera(camera.matrix, camera.width, camera.height), width, height)


def _read_shrunk(frame: Frame, camera: Camera) -> NDArray[np.uint8]:
    """The undistorted image (h, w, 3) of a frame, in the size of a camera."""
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
    """A mask in the size of its frame's image."""
    size = (frame.camera.width, frame.camera.height)
    if mask.shape == size[::-1]:
        return mask
    return np.asarray(
        cv2.resize(mask.astype(np.uint8) * 255, size, interpolation=cv2.INTER_LINEAR) > 127
    )


def _project_votes(
    field: OccupancyField,
    probabilities: Sequence[NDArray[np.float32]],
    matrices: Tensor,
    poses: Tensor,
    config: MaskConfig,
) -> list[NDArray[np.float32]]:
    """Project the field into every image.

    Returns:
        For each image the largest log-odds along the ray of every pixel, (H, W) float32.
    """
    projected = []
    for probability, matrix, pose in zip(probabilities, matrices, poses, strict=True):
        height, width = probability.shape
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
        middle = float((field.center - eye).norm())
        reach = (
            torch.linspace(-1.74, 1.74, 2 * config.resolution, dtype=torch.float64)
            * field.half
            + middle
        )
        best = torch.full((len(rays),), -MAX_LOG_ODDS)
        for hits in _rays_through(field, eye, rays).nonzero()[:, 0].split(_RAYS):
            cells = (eye + reach[:, None, None] * rays[hits] - field.center) / field.half
            inside = (cells.abs() <= 1).all(-1)
            cells = cells.float().flip(-1)  # grid_sample names the last axis first
            values = grid_sample(
                field.values[None, None], cells[None, None], align_corners=True
            )[0, 0, 0]
            empty = torch.full_like(values, -MAX_LOG_ODDS)
            best[hits] = torch.where(inside, values, empty).amax(0)
        projected.append(
            np.asarray(
                cv2.resize(
                    best.reshape(rows, columns).numpy(),
                    (width, height),
                    interpolation=cv2.INTER_LINEAR,
                ),
                np.float32,
            )
        )
    return projected


def _rays_through(field: OccupancyField, eye: Tensor, rays: Tensor) -> Tensor:
    """Whether rays (N, 3) from an eye (3,) pass through the sphere around the field's cube (N,)."""
    way = field.center - eye
    nearest = way.square().sum() - (rays @ way).square()
    return nearest <= 3.01 * field.half**2


def _refine_part(
    image: NDArray[np.uint8],
    first: NDArray[np.float32],
    silhouette: NDArray[np.bool_],
    salience: Salience,
    config: MaskConfig,
) -> NDArray[np.float32]:
    """Segment the part of the image around a silhouette (H, W) once more.

    Returns:
        Probability (H, W), the larger one of both segmentations; 0 outside that part and outside
        the silhouette.
    """
    result = np.where(silhouette, first, 0).astype(np.float32)
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
    """The mask (H, W) of the camera's distorted image, from that of the undistorted image."""
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


def summarize_masks(masks: Masks, config: MaskConfig) -> dict[str, Any]:
    """The entry on masks in video.json."""
    values = [fit.overlap for fit in masks.fits.values()]
    mean = None if not values else round(float(np.mean(values)), 3)
    return {
        "frames": len(masks.masks),
        "fused": bool(values),
        "agreement": mean,
        "bad": masks.bad(config),
        "mended": list(masks.mended),
    }
