"""Object masks of a video that has none: the salient object of each picture, made consistent over the video.

U2-Net-P (Qin et al., Pattern Recognition 2020) looks at one picture at a time and may take a shadow or other furniture for the
object. Where camera poses are known, the object is what stays in the middle of the orbit: the pictures vote on every place
there, a second look at the part of each picture that shows those places finds what was missed, and the vote is added to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample

from uns_pose_ros import weights
from uns_pose_ros.datatypes import Camera, Frame, InvalidInput, Progress, Video
from uns_pose_ros.draft import fitted
from uns_pose_ros.geometry import project, transform
from uns_pose_ros.mesh import visual_hull
from uns_pose_ros.orbit import Orbit
from uns_pose_ros.video import read_frame

Salience = Callable[[NDArray[np.uint8]], NDArray[np.float32]]  # RGB (H, W, 3) -> probability of the object (H, W)
_SIDE = 320  # px, what the network reads
_MEAN, _DEVIATION = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
_CERTAIN = 3.0  # log-odds beyond which no picture's opinion counts


@dataclass(frozen=True)
class MaskConfig:
    """How masks of single pictures are brought together."""

    resolution: int = 64  # places along each side of the cube in which the pictures vote
    needed: float = -1.0  # mean log-odds over the pictures below which a place is not part of the object
    size: int = 640  # px, longer side at which pictures are looked at
    side: int = 192  # px, longer side at which silhouettes are drawn
    margin: float = 0.08  # of the object's box, left around it for the second look
    vote: float = 0.5  # weight of all pictures' log-odds against those of the picture itself
    bad: float = 0.6  # intersection over union with the hull of all masks below which a mask is reported


@dataclass(frozen=True, eq=False)
class Masks:
    """Masks by image name, and how well each fits the visual hull of all."""

    masks: dict[str, NDArray[np.bool_]]  # (H, W)
    agreement: dict[str, float]  # intersection over union; empty where no poses are known

    def bad(self, config: MaskConfig) -> list[str]:
        return [name for name, value in self.agreement.items() if value < config.bad]


class Look(Protocol):
    """A way to find the object in pictures that are undistorted and shrunk; masks of the same size are probabilities."""

    def first(
        self, frames: Sequence[Frame], picture: Callable[[int], NDArray[np.uint8]], cameras: Sequence[Camera]
    ) -> list[NDArray[np.float32]]:
        """Of every picture, before anything is known of the object."""

    def again(
        self, number: int, image: NDArray[np.uint8], first: NDArray[np.float32], seen: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Of one picture, where all of them have voted: seen (h, w), the largest log-odds along every pixel's ray."""


class Salient:
    """The object is what stands out."""

    def __init__(self, salience: Salience, config: MaskConfig) -> None:
        self._salience, self._config = salience, config

    def first(
        self, frames: Sequence[Frame], picture: Callable[[int], NDArray[np.uint8]], cameras: Sequence[Camera]
    ) -> list[NDArray[np.float32]]:
        return [self._salience(picture(number)) for number in range(len(frames))]

    def again(
        self, number: int, image: NDArray[np.uint8], first: NDArray[np.float32], seen: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        return _second_look(image, first, seen > self._config.needed, self._salience, self._config)


def load_salience(path: Path | None = None, threads: int = 0) -> Salience:
    """U2-Net-P from the cache (or `path`) on the CPU; threads 0: onnxruntime's choice. InvalidInput where it is not fetched."""
    path = weights.find("u2netp") if path is None else path
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has one exception class for each of its error codes
        raise InvalidInput(
            f"{path}: not U2-Net-P in ONNX ({str(error).splitlines()[0]}); `uns-pose weights` fetches it"
        ) from None
    name = session.get_inputs()[0].name

    def salience(image: NDArray[np.uint8]) -> NDArray[np.float32]:
        small = cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
        pixels = (small / max(float(small.max()), 1.0) - _MEAN) / _DEVIATION
        (found, *_) = session.run(None, {name: pixels.transpose(2, 0, 1)[None].astype(np.float32)})
        return np.asarray(cv2.resize(found[0, 0], (image.shape[1], image.shape[0])).clip(0, 1), np.float32)

    return salience


def find_masks(
    video: Video, how: Salience | Look, config: MaskConfig = MaskConfig(), progress: Progress | None = None
) -> Masks:
    """A mask of every frame, in pixels of its picture. Where poses are known the masks agree with each other in space.

    how: a network that sees what stands out, or another way to look.
    """
    show = progress or (lambda what, done, total: None)
    look: Look = Salient(how, config) if callable(how) else how
    posed = [frame for frame in video.frames if frame.cam_from_obj is not None]
    cameras = [_shrunk(frame.camera, config) for frame in video.frames]
    matrices, shown = [camera.matrix for camera in cameras], set[int]()

    def picture(number: int) -> NDArray[np.uint8]:
        shown.add(number)
        show(f"{video.name}: masks", len(shown), len(video.frames))
        return _picture(video.frames[number], cameras[number])

    first = look.first(video.frames, picture, cameras)
    if len(posed) < len(video.frames) or len(posed) < 3:
        return Masks({f.name: _enlarged(central(p > 0.5), f) for f, p in zip(video.frames, first, strict=True)}, {})
    poses = torch.stack([frame.cam_from_obj for frame in posed if frame.cam_from_obj is not None])
    matrix = torch.stack(matrices)
    field = vote(first, matrix, poses, config)
    if field is None:
        raise InvalidInput(
            f"{video.folder}: no object in the middle of the orbit; keep it in the middle of every picture, or give masks/"
        )
    second = []
    seen = _silhouettes(field, first, matrix, poses, config)
    for number, (frame, one, vote_) in enumerate(zip(video.frames, first, seen, strict=True)):
        second.append(look.again(number, _picture(frame, cameras[number]), one, vote_))
        show(f"{video.name}: masks, second look", number + 1, len(video.frames))
    field = vote(second, matrix, poses, config) or field
    seen = _silhouettes(field, second, matrix, poses, config)
    found = {f.name: outline(own, vote_, config) for f, own, vote_ in zip(video.frames, second, seen, strict=True)}
    agreement = hull_agreement(found, matrix, poses)
    return Masks({frame.name: _enlarged(found[frame.name], frame) for frame in video.frames}, agreement)


def _shrunk(camera: Camera, config: MaskConfig) -> Camera:
    """The camera without its distortion, and of a picture of at most `size` px."""
    scale = min(1.0, config.size / max(camera.width, camera.height))
    width, height = max(1, round(scale * camera.width)), max(1, round(scale * camera.height))
    return fitted(Camera(camera.matrix, camera.width, camera.height), width, height)


def _picture(frame: Frame, camera: Camera) -> NDArray[np.uint8]:
    """The undistorted picture (h, w, 3) of a frame as such a camera takes it."""
    image, _, whole = read_frame(frame)
    if (whole.width, whole.height) == (camera.width, camera.height):
        return image.numpy()
    return np.asarray(cv2.resize(image.numpy(), (camera.width, camera.height), interpolation=cv2.INTER_AREA), np.uint8)


def _enlarged(mask: NDArray[np.bool_], frame: Frame) -> NDArray[np.bool_]:
    """A mask at the size of its frame's picture."""
    size = (frame.camera.width, frame.camera.height)
    if mask.shape == size[::-1]:
        return mask
    return np.asarray(cv2.resize(mask.astype(np.uint8) * 255, size, interpolation=cv2.INTER_LINEAR) > 127)


def hull_agreement(masks: Mapping[str, NDArray[np.bool_]], matrices: Tensor, poses: Tensor) -> dict[str, float]:
    """Intersection over union of each mask (H, W) with the silhouette of the visual hull of all; empty where they have none."""
    shown = [k for k, mask in enumerate(masks.values()) if mask.any()]
    if len(shown) < 3:
        return {}
    listed = [torch.from_numpy(mask) for mask in masks.values() if mask.any()]
    try:
        vertices, triangles = visual_hull(listed, matrices[shown], poses[shown])
    except InvalidInput:
        return {}
    result = {}
    for (name, mask), matrix, pose in zip(masks.items(), matrices, poses, strict=True):
        pixels = project(matrix, transform(pose, vertices.double())).numpy()
        picture = np.zeros(mask.shape, np.uint8)
        for corners in np.rint(16 * pixels[triangles.numpy()]).astype(np.int32):
            cv2.fillConvexPoly(picture, corners, 1, shift=4)
        result[name] = overlap(mask, picture > 0)
    return result


@dataclass(frozen=True, eq=False)
class Field:
    """What the pictures say of places in a cube: mean log-odds (R, R, R) float32."""

    values: Tensor
    centre: Tensor  # (3,) float64, obj frame
    half: float  # side / 2, obj units


def vote(probabilities: Sequence[NDArray[np.float32]], matrices: Tensor, poses: Tensor, config: MaskConfig) -> Field | None:
    """The mean opinion of all pictures on places around the middle of the orbit; None where none is in the object.

    F probabilities (H, W), matrices (F, 3, 3) px, poses cam_from_obj (F, 4, 4). First in the cube that the pictures' middles
    span, then in the one around what was found.
    """
    orbit = Orbit(pose.numpy() for pose in poses)
    if orbit.centre is None:
        return None
    centre = torch.from_numpy(orbit.centre)
    depth = transform(poses, centre[None])[:, 0, 2]
    views = [min(p.shape) / 2 / float(k[0, 0]) * float(z) for p, k, z in zip(probabilities, matrices, depth, strict=True)]
    half = 1.1 * float(np.median(views))
    for _ in range(2):
        values = _middle_part(_mean_odds(probabilities, matrices, poses, centre, half, config), config.needed)
        inside = (values > config.needed).nonzero().double()
        if not len(inside):
            return None
        field = Field(values, centre, half)
        step = 2 * half / (config.resolution - 1)
        low, high = inside.amin(0), inside.amax(0)
        centre = centre + ((low + high) / 2 - (config.resolution - 1) / 2) * step
        half = float((high - low).max() / 2 + 3) * step
    return field


def _mean_odds(
    probabilities: Sequence[NDArray[np.float32]],
    matrices: Tensor,
    poses: Tensor,
    centre: Tensor,
    half: float,
    config: MaskConfig,
) -> Tensor:
    """(R, R, R) float32; a picture that does not show a place has no opinion; what most do not show is not the object."""
    axis = torch.linspace(-half, half, config.resolution, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3) + centre
    total, seen = torch.zeros(len(grid)), torch.zeros(len(grid))
    for probability, matrix, pose in zip(probabilities, matrices, poses, strict=True):
        height, width = probability.shape
        points = transform(pose, grid)
        where = (project(matrix, points) / torch.tensor([width - 1, height - 1]) * 2 - 1).float()
        odds = torch.from_numpy(probability).logit(1e-4).clamp(-_CERTAIN, _CERTAIN)
        found = grid_sample(odds[None, None], where[None, None], align_corners=True)[0, 0, 0]
        visible = ((where.abs() <= 1).all(-1) & (points[:, 2] > 0)).float()
        total += found * visible
        seen += visible
    mean = torch.where(seen * 2 > len(poses), total / seen.clamp(min=1), torch.full_like(total, -_CERTAIN))
    return mean.reshape(config.resolution, config.resolution, config.resolution)


def _middle_part(values: Tensor, needed: float) -> Tensor:
    """The field with only that connected part left above `needed` that is largest near the middle of the cube."""
    from scipy.ndimage import label

    parts, count = label((values > needed).numpy())
    if count <= 1:
        return values
    axis = torch.linspace(-1, 1, len(values))
    near = torch.exp(-2 * (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)).numpy()
    weight = np.bincount(parts.ravel(), weights=near.ravel())
    weight[0] = 0
    return torch.where(torch.from_numpy((parts == 0) | (parts == weight.argmax())), values, torch.full_like(values, -_CERTAIN))


def _silhouettes(
    field: Field, pictures: Sequence[NDArray[np.float32]], matrices: Tensor, poses: Tensor, config: MaskConfig
) -> list[NDArray[np.float32]]:
    """For each picture the largest value of the field along every pixel's ray, (H, W) float32 log-odds."""
    found = []
    for picture, matrix, pose in zip(pictures, matrices, poses, strict=True):
        height, width = picture.shape
        scale = min(1.0, config.side / max(height, width))
        rows, columns = max(1, round(scale * height)), max(1, round(scale * width))
        v, u = torch.meshgrid(torch.arange(rows).double(), torch.arange(columns).double(), indexing="ij")
        pixels = torch.stack([(u + 0.5) * width / columns - 0.5, (v + 0.5) * height / rows - 0.5, torch.ones_like(u)], -1)
        rays = pixels.reshape(-1, 3) @ torch.linalg.inv(matrix).T
        rays = (rays / rays.norm(dim=1, keepdim=True)) @ pose[:3, :3]  # obj frame
        eye = -pose[:3, :3].T @ pose[:3, 3]
        middle = float((field.centre - eye).norm())
        reach = torch.linspace(-1.74, 1.74, 2 * config.resolution, dtype=torch.float64) * field.half + middle
        places = (eye + reach[:, None, None] * rays - field.centre) / field.half
        inside = (places.abs() <= 1).all(-1)
        places = places.float().flip(-1)  # grid_sample names the last axis first
        values = grid_sample(field.values[None, None], places[None, None], align_corners=True)[0, 0, 0]
        best = torch.where(inside, values, torch.full_like(values, -_CERTAIN)).amax(0).reshape(rows, columns).numpy()
        found.append(np.asarray(cv2.resize(best, (width, height), interpolation=cv2.INTER_LINEAR), np.float32))
    return found


def _second_look(
    image: NDArray[np.uint8], first: NDArray[np.float32], silhouette: NDArray[np.bool_], salience: Salience, config: MaskConfig
) -> NDArray[np.float32]:
    """Probability (H, W): the higher one of the first look and of one at the silhouette's part of the picture; 0 outside it."""
    result = np.where(silhouette, first, 0).astype(np.float32)
    rows, columns = np.flatnonzero(silhouette.any(1)), np.flatnonzero(silhouette.any(0))
    if not len(rows):
        return result
    pad = config.margin * max(rows[-1] - rows[0], columns[-1] - columns[0]) + 2
    top, left = max(0, int(rows[0] - pad)), max(0, int(columns[0] - pad))
    bottom, right = int(rows[-1] + pad) + 1, int(columns[-1] + pad) + 1
    part = np.ascontiguousarray(image[top:bottom, left:right])
    result[top:bottom, left:right] = np.maximum(result[top:bottom, left:right], salience(part))
    return result


def outline(own: NDArray[np.float32], seen: NDArray[np.float32], config: MaskConfig) -> NDArray[np.bool_]:
    """A mask (H, W) from the picture's own probability and the vote of all."""
    odds = np.log(np.clip(own, 1e-4, 1) / np.clip(1 - own, 1e-4, 1)).clip(-_CERTAIN, _CERTAIN)
    mask = central((odds + config.vote * seen > 0) & (seen > config.needed))
    return mask if mask.any() else np.asarray(seen > 0)


def central(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The connected part of a mask (H, W) that is largest near the middle of the picture."""
    count, parts = cv2.connectedComponents(mask.astype(np.uint8))
    if count <= 2:
        return mask
    v, u = np.meshgrid(np.linspace(-1, 1, mask.shape[0]), np.linspace(-1, 1, mask.shape[1]), indexing="ij")
    weight = np.bincount(parts.ravel(), weights=np.exp(-2 * (u * u + v * v)).ravel())
    weight[0] = 0
    return np.asarray(parts == weight.argmax())


def as_stored(mask: NDArray[np.bool_], camera: Camera) -> NDArray[np.bool_]:
    """The mask (H, W) of a picture as the camera took it, from that of the undistorted picture."""
    if not bool(camera.distortion.any()):
        return mask
    v, u = np.mgrid[: camera.height, : camera.width].astype(np.float32)
    k = camera.matrix.numpy()
    places = cv2.undistortPoints(np.stack([u, v], -1).reshape(-1, 1, 2), k, camera.distortion.numpy(), P=k)
    where = places.reshape(camera.height, camera.width, 2).astype(np.float32)
    return np.asarray(cv2.remap(mask.astype(np.uint8), where[..., 0], where[..., 1], cv2.INTER_NEAREST) > 0)


def overlap(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Intersection over union, 1 where both are empty."""
    union = int((a | b).sum())
    return 1.0 if union == 0 else float((a & b).sum()) / union


def summary(found: Masks, config: MaskConfig) -> dict[str, Any]:
    """What of masks goes into video.json."""
    values = list(found.agreement.values())
    mean = None if not values else round(float(np.mean(values)), 3)
    return {"frames": len(found.masks), "fused": bool(values), "agreement": mean, "bad": found.bad(config)}
