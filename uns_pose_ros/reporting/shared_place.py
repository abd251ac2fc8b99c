"""Whether videos were filmed in one place, by the colors beside the object.

Two videos share a place if these colors differ no more between the videos than within them, where
the light may change by a tenth. The distance of two color histograms is Hellinger's, which is 0 for
equal ones and 1 for those that have no color in common.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io.images import Pixels, read_image, read_mask, shrunk
from uns_pose_ros.io.video_folder import image_names, mask_path

_IMAGES = 8  # of a video, evenly spread
_LONGEST = 96  # px, longer side of the images that are compared
_GROWTH = 2  # px of those, by which the masks grow: shadows and blurred edges are no place
_BORDER = 0.15  # of the shorter side: width of the border that is compared without masks
_LEAST = 0.02  # share of an image that must lie beside the object
_LIGHT = 1.1  # factor by which the light may change within a place
_STEP = 10.0  # distance of the histogram's nodes in CIELAB
_LOWEST = np.array([0.0, -110.0, -110.0])  # first node: lightness, a, b
_NODES = (11, 23, 23)
_NOISE = 0.1  # distance that compression makes of equal plain images

Histogram = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Surroundings:
    """The colors beside the object of a video."""

    halves: tuple[Histogram, Histogram]  # of every other image, (N,) each, sum 1
    spread: float  # distance within the video: of its halves, and by a change of the light


def measure_surroundings(folder: Path) -> Surroundings | None:
    """The colors beside the object of a video folder.

    They lie outside the masks if there are any, else along the border of the images. None if fewer
    than two images show something beside the object; images that cannot be read are left out.
    """
    masked = (folder / "masks").is_dir() and any((folder / "masks").iterdir())
    names = image_names(folder)
    chosen = np.unique(np.linspace(0, len(names) - 1, _IMAGES).astype(int)) if names else ()
    colors = []
    for index in chosen:
        try:
            beside = _colors_beside(folder, names[index], masked)
        except InvalidInput:
            continue
        if beside is not None:
            colors.append(beside)
    if len(colors) < 2:
        return None
    plain = np.stack([_histogram(image) for image in colors])
    light = np.mean(
        [
            _distance(plain.mean(0), np.mean([_histogram(c * gain) for c in colors], 0))
            for gain in (_LIGHT, 1 / _LIGHT)
        ]
    )
    halves = plain[::2].mean(0), plain[1::2].mean(0)
    spread = float(np.sqrt(_distance(*halves) ** 2 + light**2 + _NOISE**2))
    return Surroundings(halves, spread)


def place_distance(one: Surroundings, other: Surroundings) -> float:
    """How much two videos differ beside the object: up to 1, no more than within themselves."""
    between = np.mean([_distance(a, b) for a, b in product(one.halves, other.halves)])
    return float(between / np.sqrt((one.spread**2 + other.spread**2) / 2))


def group_places(surroundings: Mapping[str, Surroundings]) -> list[list[str]]:
    """Names of the videos of each place, the place of most videos first.

    A video belongs to a place if it shares it with any video there (single linkage).
    """
    groups = list[list[str]]()
    for name, video in surroundings.items():
        near = [
            group
            for group in groups
            if any(place_distance(video, surroundings[other]) <= 1 for other in group)
        ]
        joined = [*(other for group in near for other in group), name]
        groups = [group for group in groups if group not in near] + [joined]
    order = list(surroundings)
    groups = [sorted(group, key=order.index) for group in groups]
    return sorted(groups, key=lambda group: (-len(group), order.index(group[0])))


def _colors_beside(folder: Path, name: str, masked: bool) -> NDArray[np.float32] | None:
    """Colors (N, 3) RGB 0 to 1 beside the object; None if the object leaves hardly any room."""
    image = read_image(folder / "images" / name).numpy()
    small = shrunk(image, _LONGEST)
    beside = _border(small)
    if masked:
        mask = read_mask(mask_path(folder, name)).numpy()
        if mask.shape != image.shape[:2] or not mask.any():
            return None
        beside = _outside(mask, small)
    if beside.mean() < _LEAST:
        return None
    return np.asarray(small[beside] / 255, np.float32)


def _border(image: Pixels) -> NDArray[np.bool_]:
    beside = np.ones(image.shape[:2], bool)
    width = max(1, round(_BORDER * min(beside.shape)))
    beside[width:-width, width:-width] = False
    return beside


def _outside(mask: NDArray[np.bool_], image: Pixels) -> NDArray[np.bool_]:
    """The pixels of a small image (H, W, 3) that a large mask, grown, leaves."""
    size = image.shape[1], image.shape[0]
    share = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    kernel = np.ones((2 * _GROWTH + 1, 2 * _GROWTH + 1), np.uint8)
    return np.asarray(cv2.dilate((share > 0).astype(np.uint8), kernel) == 0)


def _histogram(colors: NDArray[np.float32]) -> Histogram:
    """The histogram of colors (N, 3) RGB in CIELAB; each color counts for the 8 nodes around it."""
    rgb = np.clip(colors, 0, 1).astype(np.float32)
    lab = cv2.cvtColor(rgb[None], cv2.COLOR_RGB2LAB)[0]
    place = np.clip((lab - _LOWEST) / _STEP, 0, np.array(_NODES) - 1.001)
    node = place.astype(int)
    share = place - node
    counts = np.zeros(np.prod(_NODES))
    for corner in product((0, 1), repeat=3):
        index = np.ravel_multi_index(tuple((node + corner).T), _NODES)
        weight = np.where(corner, share, 1 - share).prod(1)
        counts += np.bincount(index, weight, len(counts))
    return np.asarray(counts / len(colors))


def _distance(one: Histogram, other: Histogram) -> float:
    """Hellinger's distance of two histograms, 0 to 1."""
    return float(np.sqrt(max(0.0, 1 - np.sqrt(one * other).sum())))
