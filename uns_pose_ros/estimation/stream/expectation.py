"""Where tracked objects are expected in an image, and what their crops show there."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from uns_pose_ros.core.geometry import project, transform
from uns_pose_ros.core.types import Camera, CategoryModel, PoseEstimate

_LEAST_VISIBLE = 0.5  # share of an object's box that must lie in the image
_AGREE = 0.5  # intersection over union of the boxes of a pose and its prediction
_LEAST_INSIDE = 0.5  # share of a region that must lie in a box to belong to it


@dataclass(frozen=True, eq=False)
class ExpectedObject:
    """A tracked object in the camera of an image that is not estimated yet."""

    estimate: PoseEstimate  # with the predicted pose
    least_score: float  # an estimate with less is doubted


@dataclass(frozen=True, eq=False)
class Expectation:
    """What a stream expects of its next image."""

    objects: tuple[ExpectedObject, ...]
    search: bool  # whether the whole image is searched
    # whether a search also tries neighboring regions as one object, as in a single image
    thorough: bool

    def of_category(self, category: str) -> list[ExpectedObject]:
        """The objects of a category."""
        return [entry for entry in self.objects if entry.estimate.category == category]


@dataclass(frozen=True, eq=False)
class ExpectedCrops:
    """Poses and boxes that are expected in B crops."""

    rotation: Tensor  # (B, 3, 3) float64, in the camera of the image
    translation: Tensor  # (B, 3) float64, diameters
    box: Tensor  # (B, 4) float64, px of the image

    def __getitem__(self, crops: slice) -> ExpectedCrops:
        """The same of some of the crops."""
        return ExpectedCrops(self.rotation[crops], self.translation[crops], self.box[crops])


def project_box(model: CategoryModel, estimate: PoseEstimate, camera: Camera) -> Tensor:
    """Compute the box (4,) px of the template at the pose of an estimate; NaN behind the camera."""
    pose = estimate.cam_from_canon
    points = (
        model.vertices.double() @ pose[:3, :3].T + pose[:3, 3] / estimate.scale
    )  # diameters
    if float(points[:, 2].min()) <= 0:
        return torch.full((4,), torch.nan, dtype=torch.float64)
    shown = project(camera.matrix, points)
    return torch.cat([shown.amin(0), shown.amax(0)])


def region_of_box(box: Tensor, share: float, camera: Camera) -> Tensor | None:
    """Return the region (4,) px that a search would give for an object.

    Args:
        box: (4,) px of its template.
        share: Share of an object that the template covers, see `CategoryModel.template_share`.
        camera: Camera of the image.

    Returns:
        The region, inside the image; None if too little of the object is in the image.
    """
    center, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2 / share
    whole = torch.cat([center - half, center + half])
    size = torch.tensor([camera.width, camera.height] * 2, dtype=torch.float64)
    inside = torch.minimum(whole.clamp_min(0), size)
    area, visible = (
        float((entry[2:] - entry[:2]).clamp_min(0).prod()) for entry in (whole, inside)
    )
    return inside if visible > 0 and visible >= _LEAST_VISIBLE * area else None


def expected_crops(objects: list[ExpectedObject], boxes: list[Tensor]) -> ExpectedCrops:
    """Put the poses of B objects and their boxes (4,) px together."""
    poses = [entry.estimate.cam_from_canon for entry in objects]
    return ExpectedCrops(
        torch.stack([pose[:3, :3] for pose in poses]),
        torch.stack(
            [
                entry.estimate.cam_from_canon[:3, 3] / entry.estimate.scale
                for entry in objects
            ]
        ),
        torch.stack(boxes),
    )


def filled_regions(
    presence: Tensor, boxes: Tensor, crop_from_image: Tensor, size: int, threshold: float
) -> Tensor:
    """Measure what presence fills of crops around expected boxes, with the border around them.

    A search makes a box from what presence fills; so the score asks whether a pose fills its
    box. A predicted box would confirm itself: here the regions of presence that lie in the box
    count in its place, as far as they reach into the border.

    Args:
        presence: (B, h, w) probability that a cell shows the object.
        boxes: (B, 4) px of the image, inside the crops.
        crop_from_image: (B, 3, 3) float64.
        size: Side of the crops, px.
        threshold: Probability above which a cell shows the object.

    Returns:
        (B,) float64, longer side of the regions as a share of the crop's side; 1 if there is none.
    """
    maps = presence.float().cpu().numpy()
    corners = torch.ones(len(boxes), 3, 2, dtype=torch.float64)
    corners[:, :2, 0], corners[:, :2, 1] = boxes[:, :2], boxes[:, 2:]
    cells = (crop_from_image.cpu() @ corners)[:, :2] * maps.shape[-1] / size
    return torch.tensor(
        [
            _filled_share(row, box.numpy(), threshold)
            for row, box in zip(maps, cells, strict=True)
        ],
        dtype=torch.float64,
    )


def _filled_share(
    presence: NDArray[np.float32], box: NDArray[np.float64], threshold: float
) -> float:
    """Share of the longer side (h, w) that connected regions in a box (2, 2) of cells take."""
    label, count = ndimage.label(presence > threshold)
    if not count:
        return 1.0
    rows, columns = (np.arange(side) + 0.5 for side in presence.shape)
    inside = (
        ((rows > box[1, 0]) & (rows < box[1, 1]))[:, None]
        & ((columns > box[0, 0]) & (columns < box[0, 1]))[None]
    ).astype(float)
    share = ndimage.mean(inside, label, range(1, count + 1))
    kept = np.isin(label, 1 + np.flatnonzero(np.asarray(share) >= _LEAST_INSIDE))
    if not kept.any():
        return 1.0
    sides = [np.ptp(np.flatnonzero(kept.any(axis))) + 1 for axis in (0, 1)]
    return float(max(sides)) / max(presence.shape)


def agrees(entry: ExpectedObject, box: Tensor, estimate: PoseEstimate) -> bool:
    """Whether an estimate is good, and where its object is expected: box (4,) px."""
    return estimate.score >= entry.least_score and box_iou(estimate.box, box) >= _AGREE


def whole_object_box(estimate: PoseEstimate, camera: Camera) -> Tensor:
    """Return the box (4,) px of an object with all its parts: a template may lack legs.

    It is the box around the projected template and the instance's box in space, where that is
    known.
    """
    if estimate.center is None:
        return estimate.box
    signs = torch.cartesian_prod(*[torch.tensor([-0.5, 0.5], dtype=torch.float64)] * 3)
    corners = transform(estimate.cam_from_canon, estimate.center + signs * estimate.size)
    if float(corners[:, 2].min()) <= 0:
        return estimate.box
    pixels = project(camera.matrix, corners)
    return torch.cat(
        [
            torch.minimum(estimate.box[:2], pixels.amin(0)),
            torch.maximum(estimate.box[2:], pixels.amax(0)),
        ]
    )


def blank_boxes(
    presence: NDArray[np.float32], boxes: list[Tensor], margin: float
) -> NDArray[np.float32]:
    """Return a presence map (h, w) that is 0 in boxes.

    So an object is found beside one that is followed, whose region would include it.

    Args:
        presence: (h, w) probability that a cell shows the object.
        boxes: (4,) cells each.
        margin: By which each box grows on each side, as a share of its longer side.
    """
    blank = presence.copy()
    for box in boxes:
        grow = margin * float((box[2:] - box[:2]).max())
        left, top = (max(0, math.floor(low - grow)) for low in box[:2].tolist())
        right, bottom = (max(0, math.ceil(high + grow)) for high in box[2:].tolist())
        blank[top:bottom, left:right] = 0
    return blank


def outside_boxes(regions: Tensor, boxes: list[Tensor], margin: float) -> Tensor:
    """Return the regions (N, 4) of which no box has most.

    Args:
        regions: (M, 4) px.
        boxes: (4,) px each.
        margin: By which each box grows on each side, as a share of its longer side.
    """
    kept = []
    for region in regions:
        area = (region[2:] - region[:2]).prod().clamp_min(1e-9)
        free = True
        for box in boxes:
            grow = margin * (box[2:] - box[:2]).max()
            low = torch.maximum(region[:2], box[:2] - grow)
            high = torch.minimum(region[2:], box[2:] + grow)
            free &= bool((high - low).clamp_min(0).prod() / area <= _LEAST_INSIDE)
        kept.append(free)
    return regions[torch.tensor(kept, dtype=torch.bool)]


def box_iou(a: Tensor, b: Tensor) -> float:
    """Compute the intersection over union of two boxes (4,) x0 y0 x1 y1."""
    low, high = torch.maximum(a[:2], b[:2]), torch.minimum(a[2:], b[2:])
    shared = (high - low).clamp_min(0).prod()
    return float(
        shared / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared).clamp_min(1e-9)
    )
