"""Random views of a training image: crops, cameras, light, backgrounds and occluders.

Each view comes with the map that was applied to the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
_SCENE = 320  # px


@dataclass(frozen=True)
class AugmentConfig:
    """Ranges of the random changes, and the probability of each change in a sample."""

    # longer side of the object as a fraction of the crop, when the object fills the crop
    near: tuple[float, float] = (0.5, 0.95)
    # the same, when the object is a small part of the image
    far: tuple[float, float] = (0.2, 0.5)
    far_probability: float = 0.25
    rotation: float = 50.0  # degrees, camera about its optical axis
    tilt: float = 6.0  # degrees, camera about the image axes (perspective)
    shift: float = 0.12  # of the crop, object's center from the crop's center
    background_probability: float = 0.75
    occlusion_probability: float = 0.35
    occlusion: tuple[float, float] = (0.1, 0.45)  # of the object's box
    colour_probability: float = 0.9
    grey_probability: float = 0.05
    blur_probability: float = 0.25
    jpeg_probability: float = 0.3


def augment(
    image: Image,
    mask: NDArray[np.bool_],
    size: int,
    rng: np.random.Generator,
    backgrounds: Sequence[Image],
    config: AugmentConfig = AugmentConfig(),
) -> tuple[Image, NDArray[np.bool_], NDArray[np.float64]]:
    """Draw a random view of an image.

    Args:
        image: Image (H, W, 3) RGB.
        mask: Mask (H, W) of the object, with at least one true pixel.
        size: Side of the view, px.
        rng: Random numbers.
        backgrounds: Images (H, W, 3) RGB to paste the object on.
        config: Settings.

    Returns:
        The view (size, size, 3), the visible pixels (size, size) of the object as bool, and the
        homography crop_from_image (3, 3).
    """
    crop_from_image = _random_camera(mask, size, rng, config)
    warped = _warp(image, crop_from_image, size, rng)
    alpha = cv2.warpPerspective(
        mask.astype(np.float32), crop_from_image, (size, size), flags=cv2.INTER_LINEAR
    )
    if rng.random() < config.background_probability:
        soft = cv2.GaussianBlur(alpha, (0, 0), rng.uniform(0.4, 1.2))[..., None]
        backdrop = _backdrop(size, rng, backgrounds)
        warped = np.clip(
            soft * _change_color(warped, rng, config) + (1 - soft) * backdrop, 0, 255
        ).astype(np.uint8)
    visible = alpha > 0.5
    if visible.any() and rng.random() < config.occlusion_probability:
        warped, visible = _occlude(warped, visible, rng, backgrounds, config)
    return (
        _degrade(_change_color(warped, rng, config), rng, config),
        visible,
        crop_from_image,
    )


def empty_scene(
    image: Image,
    mask: NDArray[np.bool_],
    rng: np.random.Generator,
    backgrounds: Sequence[Image],
    config: AugmentConfig = AugmentConfig(),
) -> Image:
    """Draw a random scene (320, 320, 3) that does not show the object.

    It is a square of the image beside the object, if there is room, a part of a background, or a
    collage of small ones, which is full of small things as many images of the world are.

    Args:
        image: Image (H, W, 3) RGB.
        mask: Mask (H, W) of the object.
        rng: Random numbers.
        backgrounds: Images (H, W, 3) RGB without the object.
        config: Settings.
    """
    kind = rng.integers(3)
    scene = _beside(image, mask, rng) if kind == 0 else None
    if kind == 2:
        scene = _collage(image, mask, rng, backgrounds)
    if scene is None:
        scene = _piece(_SCENE, rng, backgrounds)
    scene = np.ascontiguousarray(scene, np.uint8)
    return _degrade(_change_color(scene, rng, config), rng, config)


def _beside(
    image: Image, mask: NDArray[np.bool_], rng: np.random.Generator
) -> Image | None:
    """Draw a square of an image without the object; None if there is none."""
    height, width = mask.shape
    for _ in range(20):
        side = int(min(height, width) * rng.uniform(0.3, 0.9))
        top, left = (int(rng.integers(0, n - side + 1)) for n in (height, width))
        square = slice(top, top + side), slice(left, left + side)
        if side > 0 and not mask[square].any():
            resized = cv2.resize(
                image[square], (_SCENE, _SCENE), interpolation=cv2.INTER_AREA
            )
            return np.asarray(resized, np.uint8)
    return None


def _collage(
    image: Image,
    mask: NDArray[np.bool_],
    rng: np.random.Generator,
    backgrounds: Sequence[Image],
) -> Image:
    """Draw small parts of images and backgrounds over a large one."""
    scene = _piece(_SCENE, rng, backgrounds)
    for _ in range(int(rng.integers(6, 20))):
        part = _beside(image, mask, rng) if rng.random() < 0.3 else None
        if part is None:
            part = _piece(_SCENE, rng, backgrounds)
        if rng.random() < 0.3:  # few colors, as in drawings
            part = (part // 64 * 64 + 32).astype(np.uint8)
        height, width = (int(n) for n in _SCENE * np.exp(rng.uniform(-3.0, -1.0, 2)))
        top, left = int(rng.integers(_SCENE - height)), int(rng.integers(_SCENE - width))
        cover = np.zeros((_SCENE, _SCENE), np.uint8)
        center = (left + width // 2, top + height // 2)
        if rng.random() < 0.5:
            axes = (width // 2, height // 2)
            cv2.ellipse(cover, center, axes, rng.uniform(0, 180), 0, 360, 1, -1)
        else:
            cover[top : top + height, left : left + width] = 1
        small = cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA)
        there = np.zeros_like(scene)
        there[top : top + height, left : left + width] = small
        inside = (cover > 0) & (there.any(2))
        scene = np.where(inside[..., None], there, scene)
    return scene


def _random_camera(
    mask: NDArray[np.bool_], size: int, rng: np.random.Generator, config: AugmentConfig
) -> NDArray[np.float64]:
    rows, columns = np.nonzero(mask)
    center = np.array([columns.min() + columns.max(), rows.min() + rows.max()]) / 2
    extent = max(np.ptp(columns), np.ptp(rows)) + 1
    small = rng.random() < config.far_probability
    fraction = np.exp(rng.uniform(*np.log(config.far if small else config.near)))
    reach = 0.5 - fraction / 2 if small else config.shift
    target = (size - 1) / 2 + size * rng.uniform(-reach, reach, 2)
    angle = np.radians(rng.uniform(-config.rotation, config.rotation))
    scale = fraction * size / extent
    rotate = scale * np.array(
        [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    )
    similarity = np.eye(3)
    similarity[:2, :2] = rotate
    similarity[:2, 2] = target - rotate @ center
    focal = 1.5 * size  # of the camera that is tilted: about 37 degrees of view
    matrix = np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])
    tilt, _ = cv2.Rodrigues(
        np.radians(np.append(rng.uniform(-config.tilt, config.tilt, 2), 0.0))
    )
    turned: NDArray[np.float64] = matrix @ tilt @ np.linalg.inv(matrix) @ similarity
    moved = turned @ np.append(center, 1)
    turned = (
        np.array(
            [
                [1, 0, target[0] - moved[0] / moved[2]],
                [0, 1, target[1] - moved[1] / moved[2]],
                [0, 0, 1],
            ]
        )
        @ turned
    )
    return turned / turned[2, 2]


def _warp(
    image: Image, crop_from_image: NDArray[np.float64], size: int, rng: np.random.Generator
) -> Image:
    scale = float(np.sqrt(abs(np.linalg.det(crop_from_image[:2, :2]))))
    if scale < 0.7:  # average first what the warp would skip
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), 0.4 / scale), np.uint8)
    border = (cv2.BORDER_REFLECT_101, cv2.BORDER_CONSTANT, cv2.BORDER_REPLICATE)[
        rng.integers(3)
    ]
    gray = (127, 127, 127)
    shape, linear = (size, size), cv2.INTER_LINEAR
    warped = cv2.warpPerspective(
        image, crop_from_image, shape, flags=linear, borderMode=border, borderValue=gray
    )
    return np.asarray(warped, np.uint8)


def _backdrop(
    size: int, rng: np.random.Generator, backgrounds: Sequence[Image]
) -> NDArray[np.float32]:
    """A random part of a background image, or colored noise of random smoothness."""
    if len(backgrounds) and rng.random() < 0.8:
        piece: NDArray[Any] = _piece(size, rng, backgrounds)
    else:
        cells = int(2 ** rng.uniform(0, 6))
        noise = rng.uniform(0, 255, (cells, cells, 3)).astype(np.float32)
        piece = cv2.resize(
            noise,
            (size, size),
            interpolation=(cv2.INTER_CUBIC, cv2.INTER_NEAREST)[rng.integers(2)],
        )
    return (
        (piece.astype(np.float32) - 128) * rng.uniform(0.4, 1.1)
        + 128
        + rng.uniform(-40, 40)
    )


def _piece(size: int, rng: np.random.Generator, backgrounds: Sequence[Image]) -> Image:
    """A random square of a background image."""
    background = backgrounds[int(rng.integers(len(backgrounds)))]
    side = int(min(background.shape[:2]) * rng.uniform(0.3, 1.0))
    top, left = (rng.integers(0, n - side + 1) for n in background.shape[:2])
    piece = cv2.resize(
        background[top : top + side, left : left + side],
        (size, size),
        interpolation=cv2.INTER_AREA,
    )
    return np.asarray(piece[:, ::-1] if rng.random() < 0.5 else piece, np.uint8)


def _occlude(
    image: Image,
    visible: NDArray[np.bool_],
    rng: np.random.Generator,
    backgrounds: Sequence[Image],
    config: AugmentConfig,
) -> tuple[Image, NDArray[np.bool_]]:
    rows, columns = np.nonzero(visible)
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    side = np.sqrt(rng.uniform(*config.occlusion))
    stretch = np.exp(rng.uniform(-0.7, 0.7))
    half_w = max(1, int(width * side * stretch / 2))
    half_h = max(1, int(height * side * (1 / stretch) / 2))
    center = (
        int(rng.integers(columns.min(), columns.max() + 1)),
        int(rng.integers(rows.min(), rows.max() + 1)),
    )
    cover = np.zeros(visible.shape, np.uint8)
    if rng.random() < 0.5:
        cv2.ellipse(cover, center, (half_w, half_h), rng.uniform(0, 180), 0, 360, 1, -1)
    else:
        cv2.rectangle(
            cover,
            (center[0] - half_w, center[1] - half_h),
            (center[0] + half_w, center[1] + half_h),
            1,
            -1,
        )
    left = visible & (cover == 0)
    if left.sum() < 0.3 * visible.sum():  # too little is left to estimate a pose from
        return image, visible
    texture = np.clip(_backdrop(image.shape[0], rng, backgrounds), 0, 255).astype(np.uint8)
    return np.where(cover[..., None] > 0, texture, image), left


def _change_color(image: Image, rng: np.random.Generator, config: AugmentConfig) -> Image:
    if rng.random() >= config.colour_probability:
        return image
    pixels = image.astype(np.float32) / 255
    gray = pixels.mean(2, keepdims=True)
    saturation = 0.0 if rng.random() < config.grey_probability else rng.uniform(0.5, 1.4)
    pixels = gray + (pixels - gray) * saturation
    pixels = (pixels - 0.5) * rng.uniform(0.65, 1.35) + 0.5 + rng.uniform(-0.15, 0.15)
    pixels = np.clip(pixels * rng.uniform(0.85, 1.15, 3), 0, 1) ** np.exp(
        rng.uniform(-0.35, 0.35)
    )
    if rng.random() < 0.2:
        pixels = pixels[..., rng.permutation(3)]
    return (pixels * 255).astype(np.uint8)


def _degrade(image: Image, rng: np.random.Generator, config: AugmentConfig) -> Image:
    if rng.random() < config.blur_probability:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 1.8)), np.uint8)
    if rng.random() < 0.3:
        image = np.clip(
            image + rng.normal(0, rng.uniform(2, 10), image.shape), 0, 255
        ).astype(np.uint8)
    if rng.random() < config.jpeg_probability:
        _, data = cv2.imencode(
            ".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(30, 95))]
        )
        image = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return image
