"""The figures of `evaluate pose` over the results of all images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch

from uns_pose_ros.evaluation.box_figures import summarize_boxes
from uns_pose_ros.evaluation.metrics import WRONG, accuracies, auroc, reliability
from uns_pose_ros.evaluation.poses.pose_evaluation import ImageResult

BINS = {
    "elevation": (-30.0, 0.0, 30.0, 60.0),
    "distance": (1.0, 2.0, 3.0, 5.0),
}  # edges, degrees and diameters


def summarize_poses(
    results: Sequence[ImageResult], without_box: Mapping[str, int] = {}
) -> dict[str, Any]:
    """The figures of `evaluate pose`.

    A missing estimate is wrong in every accuracy and does not count in the others. answered:
    percent of the images that have an estimate. auroc: of the score over all images without a
    threshold, of which `wrong` are more than 30 degrees off. coverage95: percent of the estimates
    whose 95 % region of rotations contains the true one. shift, aside:
    median distance to the true position, and its part across the line of sight, diameters. score:
    for each tenth of the scores the number of estimates and the percent of them within 30 degrees.
    by: accuracies by BINS of the view. iou3d: figures of the boxes in space, see
    `box_figures.summarize_boxes`; `without_box` are the numbers of videos without, by reason.
    """
    error = torch.tensor([r.error for r in results], dtype=torch.float64)
    symmetric = torch.tensor([r.symmetric_error for r in results], dtype=torch.float64)
    scored = [(r.estimate.score, r.error) for r in results if r.estimate is not None]
    inside = [r.inside for r in results if r.inside is not None]
    everything = [result.scored for result in results]
    trust = {
        "auroc": auroc(everything),
        "wrong": sum(error > WRONG for _, error in everything),
        "coverage95": 100 * sum(inside) / len(inside) if inside else None,
    }
    seconds = float(torch.tensor([r.seconds for r in results]).double().mean())
    figures: dict[str, Any] = {
        "images": len(results),
        "estimated": len(scored),
        "answered": 100 * len(scored) / len(results) if results else None,
    } | accuracies(error)
    figures |= {
        f"{name}_diameters": _median([getattr(r, name) for r in results])
        for name in ("shift", "aside")
    }
    figures |= {"score": reliability(scored)}
    figures |= {"by": {name: accuracy_by_bin(results, name) for name in BINS}}
    return (
        figures
        | {"symmetry_aware": accuracies(symmetric)}
        | trust
        | {"seconds_per_image": seconds}
        | {"iou3d": summarize_boxes([r.box for r in results if r.box], without_box)}
    )


def _median(values: Sequence[float | None]) -> float | None:
    known = torch.tensor(
        [value for value in values if value is not None], dtype=torch.float64
    )
    return float(known.median()) if len(known) else None


def accuracy_by_bin(results: Sequence[ImageResult], name: str) -> list[dict[str, Any]]:
    """Accuracies of the results by elevation or distance.

    Args:
        results: the results.
        name: "elevation" or "distance".

    Returns:
        from and to (None: no limit), images and `accuracies` of each bin that has any image.
    """
    known = [(getattr(r, name), r.error) for r in results if getattr(r, name) is not None]
    edges, rows = [-math.inf, *BINS[name], math.inf], list[dict[str, Any]]()
    for low, high in pairwise(edges):
        errors = torch.tensor(
            [error for value, error in known if low <= value < high], dtype=torch.float64
        )
        if len(errors):
            ends = {
                "from": None if math.isinf(low) else low,
                "to": None if math.isinf(high) else high,
            }
            rows.append(ends | {"images": len(errors)} | accuracies(errors))
    return rows
