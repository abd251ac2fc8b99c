"""Masks mended by the hull of the others: what it does not support is cut away and asked again.

In clutter, a mask takes along what touches the object in its image. From other viewpoints the same
thing stands apart, so that their hull does not contain it. There, and where the hull has parts that
the mask lacks, MobileSAM is asked again: by points on what both share, by points on the unsupported
parts as negative ones, and by the box of the hull's silhouette. The unsupported part itself is
segmented too: a thing in front of the object hides what the hull shows there. This repeats until no
mask changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uns_pose_ros.reconstruction.hull_of_others import (
    beyond,
    fit_mask,
    grow,
    misfits,
    silhouettes_of_others,
    tolerance,
)
from uns_pose_ros.reconstruction.mask_voting import (
    MaskConfig,
    central_component,
    mask_iou,
)

_PART = 512  # px, at which the part of an image around the object is encoded
_MARGIN = 0.3  # of the object's box, left around it
_POINTS = 3  # on the object, and on each kind of doubtful part
OUTSIDE, INSIDE, CORNER = 0, 1, 2  # kinds of points, as MobileSAM numbers them

# by how much a candidate may overlap the hull's silhouette less than the cut mask: its edges are
# those of the image, the hull's are coarse
_COARSE = 0.05
_LOST = 0.1  # of a mask's area, that it lacks, from which on there are points on it
_SPECK = 0.005  # of a mask's area, up to which nothing is cut away
_COVERED = 0.6  # of an unsupported part, that the mask of a neighbor contains at least
_HIDDEN = 0.6  # of the object, that a neighbor hides at most

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Answer:
    """What the network says of an image."""

    objects: Sequence[Mask] = ()  # candidates (h, w) for the object
    neighbors: Sequence[Mask] = ()  # things (h, w) that touch it


class PartNetwork(Protocol):
    """What is needed of MobileSam to ask about a part of an image."""

    def embed(self, image: NDArray[np.uint8], side: int) -> Tensor:
        """Features of an image (H, W, 3), enlarged or shrunk to a side."""

    def masks(
        self, seen: Tensor, points: Tensor, kinds: Tensor, height: int, width: int
    ) -> tuple[Tensor, Tensor]:
        """Mask logits of several hypotheses, and their expected IoU."""


class PartAsker:
    """Asks the network about the part of each image that shows the object."""

    def __init__(
        self,
        load: Callable[[], PartNetwork | None],
        read: Callable[[int], NDArray[np.uint8]],
    ) -> None:
        """Remember what is needed, and load nothing yet.

        Args:
            load: returns the network, or None where there is none.
            read: returns the image (h, w, 3) of a frame's number.
        """
        self._load, self._read = load, read
        self._parts = dict[int, tuple[slice, slice, Tensor]]()

    def ask(self, number: int, mask: Mask, silhouette: Mask) -> Answer:
        """Ask about one image.

        Args:
            number: of its frame.
            mask: (h, w), as it is.
            silhouette: (h, w) of the hull of the others.

        Returns:
            The answer, an empty one where there is no network.
        """
        network = self._load()
        both = mask & silhouette
        if network is None or not both.any():
            return Answer()
        if number not in self._parts:
            self._parts[number] = self._embed(network, number, silhouette)
        shared = deep_points(both, _POINTS)
        rows, columns, _ = self._parts[number]
        extra = np.zeros_like(mask)
        extra[rows, columns] = beyond(mask, silhouette)[rows, columns]
        outside = deep_points(extra, _POINTS)
        corners = box_corners(silhouette)
        prompts = [(shared, outside), (shared, [])] if outside else [(shared, [])]
        lost = beyond(silhouette, mask)
        if lost.sum() > _LOST * mask.sum():  # less is the hull's own coarseness
            prompts.append(([*shared, *deep_points(lost, _POINTS)], outside))
        objects = list[Mask]()
        for inside, negative in prompts:
            objects += self._decode(network, number, inside, negative, corners, mask.shape)
        neighbors = list[Mask]()
        for part in _largest_parts(extra, _POINTS):
            found = self._decode(
                network, number, deep_points(part, _POINTS), shared, [], mask.shape
            )
            neighbors += [
                other
                for other in found
                if (other & part).sum() >= _COVERED * part.sum()
                and (other & both).sum() <= _HIDDEN * both.sum()
            ]
        return Answer(objects, neighbors)

    def _decode(
        self,
        network: PartNetwork,
        number: int,
        inside: list[list[float]],
        outside: list[list[float]],
        corners: list[list[float]],
        shape: tuple[int, ...],
    ) -> list[Mask]:
        """Masks (h, w) that points and perhaps the corners of a box, x y px, mean in an image."""
        rows, columns, seen = self._parts[number]
        points = torch.tensor([*inside, *outside, *corners], dtype=torch.float64)
        kinds = [INSIDE] * len(inside) + [OUTSIDE] * len(outside)
        kinds += [CORNER, CORNER + 1][: len(corners)]
        logits, _ = network.masks(
            seen,
            points - torch.tensor([columns.start, rows.start]),
            torch.tensor(kinds),
            rows.stop - rows.start,
            columns.stop - columns.start,
        )
        masks = list[Mask]()
        for part in logits.numpy() > 0:
            whole = np.zeros(shape, bool)
            whole[rows, columns] = part
            masks.append(whole)
        return masks

    def _embed(
        self, network: PartNetwork, number: int, silhouette: Mask
    ) -> tuple[slice, slice, Tensor]:
        (left, top), (right, bottom) = box_corners(silhouette)
        pad = _MARGIN * max(right - left, bottom - top) + 2
        height, width = silhouette.shape
        rows = slice(max(0, int(top - pad)), min(height, int(bottom + pad) + 1))
        columns = slice(max(0, int(left - pad)), min(width, int(right + pad) + 1))
        part = np.ascontiguousarray(self._read(number)[rows, columns])
        return rows, columns, network.embed(part, _PART)


def mend_masks(
    masks: Sequence[Mask],
    matrices: Tensor,
    poses: Tensor,
    ask: Callable[[int, Mask, Mask], Answer],
    config: MaskConfig,
) -> tuple[list[Mask], list[int]]:
    """Cut away what the hull of the others does not support, and ask again.

    Nothing is done where most masks do not fit the hulls of the others.

    Args:
        masks: F masks (h, w).
        matrices: (F, 3, 3) float64, px.
        poses: cam_from_obj (F, 4, 4) float64.
        ask: returns what is seen, for a frame's number, mask and silhouette of the others' hull.
        config: limits.

    Returns:
        The masks, and the numbers of the frames whose masks have changed.
    """
    mended = list(masks)
    hidden = dict[int, Mask]()
    for turn in range(config.rounds):
        silhouettes = silhouettes_of_others(mended, matrices, poses, config.resolution)
        if not silhouettes:
            break
        if turn == 0 and _agreement(mended, silhouettes) < config.agreed:
            break
        changed = False
        for number, neighbor in hidden.items():
            silhouettes[number] = silhouettes[number] & ~neighbor
        for number, cuts in _doubtful(mended, silhouettes, config).items():
            silhouette, before = silhouettes[number], mended[number]
            answer = ask(number, before, silhouette)
            mended[number], neighbor = _mend(before, silhouette, answer, cuts)
            if neighbor.any():
                hidden[number] = hidden.get(number, neighbor) | neighbor
            changed |= not np.array_equal(before, mended[number])
        if not changed:
            break
    return mended, [
        number
        for number, (before, after) in enumerate(zip(masks, mended, strict=True))
        if not np.array_equal(before, after)
    ]


def _agreement(masks: Sequence[Mask], silhouettes: Sequence[Mask]) -> float:
    """Median overlap (IoU) of masks (H, W) with the silhouettes of the others' hulls."""
    return float(np.median(list(map(mask_iou, masks, silhouettes))))


def _doubtful(
    masks: Sequence[Mask], silhouettes: Sequence[Mask], config: MaskConfig
) -> dict[int, bool]:
    """The numbers of doubtful masks, and whether each has unsupported parts."""
    fits = {
        str(number): fit_mask(mask, silhouette)
        for number, (mask, silhouette) in enumerate(zip(masks, silhouettes, strict=True))
    }
    too_much = misfits(fits, 0.0, config.doubtful, np.inf)
    lost = misfits(fits, 0.0, np.inf, config.lost)
    return {int(name): name in too_much for name in (*too_much, *lost)}


def _mend(mask: Mask, silhouette: Mask, answer: Answer, cuts: bool) -> tuple[Mask, Mask]:
    """The candidate that fits the silhouette best, or the mask itself.

    If `cuts`, all of them lose their unsupported parts.

    Where a neighbor hides a part of the silhouette, the candidates fit the rest of it better.

    Returns:
        The mask, and the neighbors (h, w) in front of the object.
    """
    cut = central_component(cut_unsupported(mask, silhouette)) if cuts else mask
    objects = [
        central_component(cut_unsupported(candidate, silhouette) if cuts else candidate)
        for candidate in answer.objects
    ]
    best = max(objects, key=lambda one: mask_iou(one, silhouette), default=cut)
    overlap = mask_iou(best, silhouette)
    hidden = np.zeros_like(mask)
    for neighbor in answer.neighbors:
        rest = silhouette & ~neighbor
        for candidate in objects:
            if mask_iou(candidate, rest) > overlap:
                best, overlap = candidate & ~neighbor, mask_iou(candidate, rest)
                hidden |= neighbor
    coarse = 0.0 if np.array_equal(cut, mask) else _COARSE  # what was cut has a coarse edge
    if mask_iou(cut & ~hidden, silhouette & ~hidden) > overlap + coarse:
        best = cut
    return (best, hidden) if best.any() else (mask, np.zeros_like(mask))


def cut_unsupported(mask: Mask, silhouette: Mask) -> Mask:
    """A mask (H, W) without its parts beyond a silhouette (H, W), edges of the parts included."""
    extra = beyond(mask, silhouette)
    if extra.sum() <= _SPECK * mask.sum():
        return mask
    return mask & ~(grow(extra, tolerance(mask) + 1) & ~silhouette)


def _largest_parts(mask: Mask, count: int) -> list[Mask]:
    """At most `count` connected parts (H, W) of a mask, the largest first."""
    _, parts = cv2.connectedComponents(mask.astype(np.uint8))
    sizes = np.bincount(parts.ravel())[1:]
    return [np.asarray(parts == 1 + k) for k in np.argsort(-sizes)[:count]]


def deep_points(mask: Mask, count: int, apart: float = 2.0) -> list[list[float]]:
    """At most `count` points x y, px, deep in a mask (H, W).

    Their distance is at least `apart` times the depth of the first.
    """
    depth = cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, 5)[
        1:-1, 1:-1
    ]
    points = list[list[float]]()
    for _ in range(count):
        row, column = np.unravel_index(int(depth.argmax()), depth.shape)
        if depth[row, column] <= 0:
            break
        points.append([float(column), float(row)])
        around = max(1, int(apart * depth[row, column]))
        cv2.circle(depth, (int(column), int(row)), around, 0.0, -1)
    return points


def box_corners(mask: Mask) -> list[list[float]]:
    """The upper left and the lower right corner x y of a mask (H, W), px."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [[float(columns[0]), float(rows[0])], [float(columns[-1]), float(rows[-1])]]
