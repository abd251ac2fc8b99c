"""The figures of a data set: accuracies and average precisions of its categories, and means."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from uns_pose_ros.evaluation.box_overlap import average_precision
from uns_pose_ros.evaluation.dataset.dataset_evaluation import ROWS, DatasetRow
from uns_pose_ros.evaluation.dataset.object_results import ObjectResult
from uns_pose_ros.evaluation.metrics import accuracies

_NOCS_IOU = 0.1  # of boxes in space, of a match in the NOCS figures
_IOU_THRESHOLDS = {"ap25": 0.25, "ap50": 0.5}
# degrees; m, or None; share of the diameter, or None
_POSE_THRESHOLDS: dict[str, tuple[float, float | None, float | None]] = {
    "ap5deg5cm": (5.0, 0.05, None),
    "ap10deg5cm": (10.0, 0.05, None),
    "ap10deg10pct": (10.0, None, 0.1),
}


def summarize_row(row: DatasetRow) -> dict[str, Any]:
    """The figures of a row.

    Accuracies are percent of all objects below the angle, strictly; an object without an estimate
    is wrong. boxes: figures of the boxes in space, None where the data set has none.
    """
    results = row.results
    error = torch.tensor([one.error for one in results], dtype=torch.float64)
    symmetric = torch.tensor([one.symmetric_error for one in results], dtype=torch.float64)
    answered = sum(one.answered for one in results)
    figures: dict[str, Any] = {
        "images": len(row.seconds),
        "objects": len(results),
        "answered": 100 * answered / len(results) if results else None,
    }
    seconds = sum(row.seconds) / len(row.seconds) if row.seconds else None
    return (
        figures
        | accuracies(error)
        | {"symmetry_aware": accuracies(symmetric)}
        | {"boxes": _summarize_boxes(row), "seconds_per_image": seconds}
    )


def _summarize_boxes(row: DatasetRow) -> dict[str, float | None] | None:
    if not row.objects or any(labeled.extents is None for labeled in row.objects):
        return None
    answered = [one for one in row.results if one.answered]
    figures = {
        "iou_mean": 100 * sum(one.iou for one in row.results) / len(row.results),
        "size_error_pct": _percent(_middle([one.size_error for one in answered])),
        "translation_m": _middle([one.shift for one in answered]),
        "translation_pct": _percent(_middle([one.shift_share for one in answered])),
    }
    for name, least in _IOU_THRESHOLDS.items():
        figures[name] = _precision(row, least, lambda _: True)
    for name, limits in _POSE_THRESHOLDS.items():
        known = any(
            (one.shift if limits[1] is not None else one.shift_share) is not None
            for one in answered
        )
        figures[name] = (
            _precision(row, _NOCS_IOU, partial(_is_within, limits=limits))
            if known
            else None
        )
    return figures


def _is_within(
    result: ObjectResult, limits: tuple[float, float | None, float | None]
) -> bool:
    degrees, meters, share = limits
    if not result.symmetric_error < degrees:
        return False
    if meters is not None:
        return result.shift is not None and result.shift < meters
    return share is None or (result.shift_share is not None and result.shift_share < share)


def _precision(
    row: DatasetRow, least_iou: float, accept: Callable[[ObjectResult], bool]
) -> float | None:
    """Average precision; a detection is right if it is the first on an object that it fits."""
    scored = list[tuple[float, bool]]()
    for image in row.detections:
        used = set[int]()
        for detection in sorted(image, key=lambda one: -one.score):
            free = [k for k in range(len(detection.results)) if k not in used]
            best = max(free, key=lambda k: detection.results[k].iou, default=None)
            right = (
                best is not None
                and detection.results[best].iou >= least_iou
                and accept(detection.results[best])
            )
            if right and best is not None:
                used.add(best)
            scored.append((detection.score, right))
    return average_precision(scored, len(row.objects))


def summarize_dataset(
    rows: Mapping[str, Mapping[str, DatasetRow]], in_paper: Sequence[str] = ()
) -> dict[str, Any]:
    """The figures of all categories, and their means.

    Args:
        rows: The rows by category.
        in_paper: Categories of the paper's table; empty: all.

    Returns:
        categories: figures by category and row. mean: each figure's mean over the categories, as
        in the paper. paper_mean: the same over the categories of the paper's table, None unless all
        of them are there. weighted: over all objects at once, as NeMo does.
    """
    categories = {
        category: {name: summarize_row(row) for name, row in both.items()}
        for category, both in rows.items()
    }
    record: dict[str, Any] = {"categories": categories, "mean": {}, "paper_mean": {}}
    record["weighted"] = {}
    for name in ROWS:
        record["mean"][name] = _mean_figures([both[name] for both in categories.values()])
        listed = [categories[key][name] for key in in_paper if key in categories]
        complete = bool(in_paper) and len(listed) == len(in_paper)
        record["paper_mean"][name] = _mean_figures(listed) if complete else None
        record["weighted"][name] = summarize_row(_joined([r[name] for r in rows.values()]))
    return record


def _joined(rows: Sequence[DatasetRow]) -> DatasetRow:
    return DatasetRow(
        tuple(one for row in rows for one in row.objects),
        tuple(one for row in rows for one in row.results),
        tuple(one for row in rows for one in row.detections),
        tuple(one for row in rows for one in row.seconds),
    )


def _mean_figures(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean of every number; counts are added up; None if a category does not have it."""
    mean = dict[str, Any]()
    for key in records[0] if records else ():
        values = [record[key] for record in records]
        if any(value is None for value in values):
            mean[key] = None
        elif isinstance(values[0], Mapping):
            mean[key] = _mean_figures(values)
        elif key in ("images", "objects"):
            mean[key] = sum(values)
        else:
            mean[key] = sum(values) / len(values)
    return mean


def _middle(values: Sequence[float | None]) -> float | None:
    numbers = torch.tensor([v for v in values if v is not None], dtype=torch.float64)
    return float(numbers.quantile(0.5)) if len(numbers) else None


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share
