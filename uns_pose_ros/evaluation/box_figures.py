"""How well the boxes of estimates fit the true boxes of labeled objects, in space.

One image does not tell the size of an object from its distance. So the estimated box is first
scaled about the camera until the depth of its center is the true one: it moves along its ray, and
the image stays the same. Where estimate and truth are both in meters, the box as it is counts too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from uns_pose_ros.core.geometry import symmetry_rotations, transform
from uns_pose_ros.core.types import PoseEstimate
from uns_pose_ros.evaluation.box_overlap import OrientedBox, box_iou_3d

IOU_SHARES = (0.25, 0.5)  # overlaps above which the share of the images is given


@dataclass(frozen=True, eq=False)
class TrueBox:
    """The box around an object, along the axes of its label."""

    center: Tensor  # (3,) float64, obj frame
    obj_from_label: Tensor  # (3, 3) float64, rotation
    extents: Tensor  # (3,) float64, along the axes of the label, obj units
    metric: bool  # obj units are meters

    @staticmethod
    def around(vertices: Tensor, label: Tensor, metric: bool) -> TrueBox:
        """The box around vertices (V, 3), obj frame, along the axes of a label (3, 3)."""
        points = vertices.double() @ label.T
        low, high = points.amin(0), points.amax(0)
        return TrueBox(label.T @ (low + high) / 2, label.T, high - low, metric)

    def seen_from(self, cam_from_obj: Tensor) -> OrientedBox:
        """The box in the frame of a camera with a pose (4, 4)."""
        return OrientedBox(
            cam_from_obj[:3, :3] @ self.obj_from_label,
            transform(cam_from_obj, self.center[None])[0],
            self.extents,
        )


@dataclass(frozen=True, eq=False)
class BoxFit:
    """How well one box fits the true box."""

    iou: float
    size_error: Tensor  # (3,) float64, share of the true side, along the axes of the label


@dataclass(frozen=True, eq=False)
class BoxResult:
    """The result of one image whose true box is known; without an estimate it has no fit."""

    scaled: BoxFit | None = None  # with the true depth of the center
    unscaled: BoxFit | None = None  # None also: not both are in meters


def compare_boxes(
    estimate: PoseEstimate | None,
    center: Tensor,
    truth: TrueBox,
    cam_from_obj: Tensor,
    label_from_canon: Tensor,
) -> BoxResult:
    """Compare the box of an estimate with the true one.

    Of the poses that the category's symmetry makes equal, the one whose box fits best counts.

    Args:
        estimate: The estimate, or None.
        center: (3,) of the model's box, canonical units, for an estimate without a center.
        truth: The true box.
        cam_from_obj: (4, 4) true pose of the video's object.
        label_from_canon: (3, 3), see `rotation_labels.fit_label_from_canon`.
    """
    if estimate is None:
        return BoxResult()
    true = truth.seen_from(cam_from_obj)
    symmetry, pose = estimate.symmetry, estimate.cam_from_canon
    turns = symmetry_rotations(symmetry.order, symmetry.axis)
    middle = pose[:3, :3].T @ (estimate.box_pose(center)[:3, 3] - pose[:3, 3])
    boxes = [
        (turn, OrientedBox(pose[:3, :3] @ turn, place, estimate.size))
        for turn, place in zip(turns, transform(pose, turns @ middle), strict=True)
    ]
    scaled = [
        (turn, _scale_box(box, float(true.center[2] / box.center[2].clamp_min(1e-9))))
        for turn, box in boxes
    ]
    is_metric = estimate.metric and truth.metric
    return BoxResult(
        _best_fit(scaled, true, label_from_canon),
        _best_fit(boxes, true, label_from_canon) if is_metric else None,
    )


def _scale_box(box: OrientedBox, factor: float) -> OrientedBox:
    """Scale a box about the camera."""
    return OrientedBox(box.rotation, box.center * factor, box.extents * factor)


def _best_fit(
    boxes: Sequence[tuple[Tensor, OrientedBox]], true: OrientedBox, label_from_canon: Tensor
) -> BoxFit:
    """The fit of the box that overlaps most; each box comes with its turn (3, 3)."""
    overlaps = [box_iou_3d(box, true) for _, box in boxes]
    best = int(np.argmax(overlaps))
    turn, box = boxes[best]
    # the axis of the box that lies along each axis of the label
    likeness = (label_from_canon @ turn).abs().numpy()
    along = linear_sum_assignment(likeness, maximize=True)[1]
    error = (box.extents[torch.from_numpy(along)] / true.extents - 1).abs()
    return BoxFit(overlaps[best], error)


def summarize_boxes(
    results: Sequence[BoxResult], left_out: Mapping[str, int]
) -> dict[str, Any]:
    """The figures under `iou3d`.

    Shares are percent of all images whose true box is known; an image without an estimate has no
    overlap. mean and size_error_pct (median along each axis of the label, percent) are those of
    the estimates. unscaled: the same of the boxes as they are, None where no size is in meters.

    Args:
        results: Of the images whose true box is known.
        left_out: Numbers of videos without a true box, by reason.
    """
    scaled = [one.scaled for one in results if one.scaled is not None]
    plain = [one.unscaled for one in results if one.unscaled is not None]
    return {
        "images": len(results),
        **_figures(scaled, len(results)),
        "unscaled": _figures(plain, len(results)) if plain else None,
        "left_out": dict(left_out),
    }


def _figures(fits: Sequence[BoxFit], images: int) -> dict[str, Any]:
    overlaps = np.array([fit.iou for fit in fits])
    errors = torch.stack([fit.size_error for fit in fits]) if fits else None
    figures: dict[str, Any] = {"mean": float(overlaps.mean()) if fits else None}
    for least in IOU_SHARES:
        share = 100 * float((overlaps >= least).sum()) / images if images else None
        figures[f"share{round(100 * least)}"] = share
    sides = None if errors is None else (100 * errors.quantile(0.5, 0)).tolist()
    return figures | {"size_error_pct": sides}


def describe_boxes(figures: Mapping[str, Any]) -> str:
    """The figures under `iou3d` in words, one line or two; empty where nothing is known."""
    lines = []
    if figures["mean"] is not None:
        lines.append(f"boxes at the true depth: {_in_words(figures)}")
    if figures["unscaled"] is not None:
        lines.append(f"boxes as they are: {_in_words(figures['unscaled'])}")
    if figures["left_out"]:
        reasons = "; ".join(
            f"{reason}: {count}" for reason, count in figures["left_out"].items()
        )
        lines.append(f"not compared by box: {reasons}")
    return "\n".join(lines)


def _in_words(figures: Mapping[str, Any]) -> str:
    shares = ", ".join(
        f"{figures[f'share{round(100 * least)}']:.1f} % ≥ {least:g}" for least in IOU_SHARES
    )
    sides = " ".join(f"{side:.1f}" for side in figures["size_error_pct"])
    return (
        f"3D IoU {figures['mean']:.2f} on average, {shares}; "
        f"sides {sides} % wrong (x y z of the labels)"
    )
