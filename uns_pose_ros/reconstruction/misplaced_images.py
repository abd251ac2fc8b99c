"""Images whose camera poses lie beside the truth, placed again by the object's silhouette.

A pattern that repeats, such as tiles, matches itself one period farther. The rotation of such an
image is right, but its camera lies beside its true place by that period, and no feature of the
pattern contradicts it. The object does: its own mask and what all images agree on lie apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uns_pose_ros.core.geometry import transform
from uns_pose_ros.reconstruction.hull_of_others import CarvedCube, carve_cube, draw_field
from uns_pose_ros.reconstruction.mask_voting import central_component, mask_iou
from uns_pose_ros.reconstruction.visual_hull import HullConfig

_USUAL = 0.75  # of the usual overlap with the votes, below which an image is in doubt
# overlaps (IoU) with the silhouette of the object
_FITS = 0.75  # from which on a mask is that of the object
_BETTER = 0.3  # by which it fits at the new place better than where the pose says
_MOST = 0.4  # of the images: if more are misplaced, the others may be the wrong ones
_ROUNDS = 2  # the first without the misplaced images
_STEPS = 6  # of a place, each by the middle and the area of the silhouette
_LEAST = 3  # images that carve a hull

Mask = NDArray[np.bool_]
Probability = NDArray[np.float32]


def find_places(
    first: Sequence[Probability],
    second: Sequence[Probability],
    votes: Sequence[Probability],
    matrices: Tensor,
    poses: Tensor,
    resolution: int = 64,
) -> dict[int, Tensor]:
    """Place the cameras of images that show the object elsewhere than their poses say.

    The hull of the other masks then has the silhouette of the image's own mask. Rotations stay.
    Nothing is done where so many are in doubt that the other images may be the wrong ones.

    Args:
        first: F probabilities (H, W) of the object, of each image by itself.
        second: F probabilities (H, W) of a look where the poses say that the object is.
        votes: F maps (H, W), positive where most images agree on the object.
        matrices: (F, 3, 3) float64, px.
        poses: cam_from_obj (F, 4, 4) float64.
        resolution: voxels along each side of the hull's box.

    Returns:
        cam_from_obj (4, 4) float64 of the misplaced images, by number.
    """
    masks = [central_component(probability > 0.5) for probability in first]
    doubtful = _doubtful(masks, [odds > 0 for odds in votes])
    using = [k for k in range(len(masks)) if k not in doubtful and masks[k].any()]
    if not doubtful or len(doubtful) > _MOST * len(masks):
        return {}
    config = HullConfig(resolution=resolution)
    placed = poses.clone()
    found = dict[int, Tensor]()
    for turn in range(_ROUNDS):
        cube = None
        if len(using) >= _LEAST:
            shown = [masks[k] for k in using]
            cube = carve_cube(shown, matrices[using], placed[using], config)
        if cube is None:
            return {}
        row = {number: place for place, number in enumerate(using)}
        found = {}
        for number in doubtful if turn == 0 else [k for k in doubtful if k in row]:
            field = cube.without(row[number]) if number in row else cube.of_all()
            mask, matrix = masks[number], matrices[number]
            start = placed[number] if turn else _middle_of(cube, number, placed, using)
            pose, overlap = _place(field, cube, mask, matrix, start)
            stated = draw_field(
                field, cube.low, cube.high, matrix, poses[number], mask.shape
            )
            looked = (second[number] > 0.5) & stated
            there = max(mask_iou(mask, stated), looked.sum() / max(1, stated.sum()))
            if there + _BETTER <= overlap and (turn == 0 or overlap >= _FITS):
                found[number] = pose
        for number, pose in found.items():
            placed[number] = pose
        using = sorted({*using, *found})
    return found


def _doubtful(masks: Sequence[Mask], silhouettes: Sequence[Mask]) -> list[int]:
    """Numbers of the masks (H, W) that overlap silhouettes (H, W) less than is usual."""
    overlaps = list(map(mask_iou, masks, silhouettes))
    limit = _USUAL * float(np.median(overlaps))
    return [k for k, mask in enumerate(masks) if mask.any() and overlaps[k] < limit]


def _middle_of(
    cube: CarvedCube, number: int, poses: Tensor, using: Sequence[int]
) -> Tensor:
    """The pose (4, 4) that shows the object straight ahead at the usual distance."""
    center = (cube.low + cube.high) / 2
    ahead = torch.zeros(3, dtype=torch.float64)
    ahead[2] = transform(poses[using], center[None])[:, 0, 2].median()
    return _with_center(poses[number], center, ahead)


def _with_center(pose: Tensor, center: Tensor, place: Tensor) -> Tensor:
    """A pose (4, 4) of the same rotation that brings a point (3,) to a place (3,), camera frame."""
    moved = pose.clone()
    moved[:3, 3] = place - pose[:3, :3] @ center
    return moved


def _place(
    field: Tensor, cube: CarvedCube, mask: Mask, matrix: Tensor, pose: Tensor
) -> tuple[Tensor, float]:
    """The pose (4, 4) in whose image a hull lies on a mask, and the overlap (IoU) of both."""
    center = (cube.low + cube.high) / 2
    middle, area = _middle_and_area(mask)

    def draw() -> Mask:
        return draw_field(field, cube.low, cube.high, matrix, pose, mask.shape)

    place = transform(pose, center[None])[0]
    for _ in range(_STEPS):
        drawn = draw()
        if not drawn.any():
            return pose, 0.0
        drawn_middle, drawn_area = _middle_and_area(drawn)
        pixel = matrix @ (place / place[2])
        pixel[:2] += middle - drawn_middle
        depth = place[2] * (drawn_area / area) ** 0.5
        place = torch.linalg.solve(matrix, pixel) * depth
        pose = _with_center(pose, center, place)
    return pose, mask_iou(draw(), mask)


def _middle_and_area(mask: Mask) -> tuple[Tensor, int]:
    """The mean pixel u v (2,) float64 of a mask (H, W) and the number of its pixels."""
    rows, columns = np.nonzero(mask)
    middle = torch.tensor([columns.mean(), rows.mean()], dtype=torch.float64)
    return middle, len(rows)
