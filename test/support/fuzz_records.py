"""Records of exports, bags and measured runtimes, to be spoiled."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import fuzz_checks
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.left_out import LeftOut
from uns_pose_ros.exports import bag_labels, excluded_frames, label_export
from uns_pose_ros.io.schema.decoding import read_record
from uns_pose_ros.networks import runtime_choice
from uns_pose_ros.pipeline import reproduction

_EYE3, _EYE4 = np.eye(3).tolist(), np.eye(4).tolist()
_CATEGORY, _KEY = "car", "a processor"
_FRAMES = {"clip_01": ["000000.jpg", "000001.jpg"], "clip_02": ["000000.jpg"]}


def _write_results(folder: Path) -> None:
    estimate = {"track": 3, "score": 0.9, "cam_from_canon": _EYE4, "scale": 0.2}
    frames = [
        {"stamp_ns": 10**9 + k, "estimates": [{**estimate, "metric": k > 0}]}
        for k in range(3)
    ]
    record = {"frames": frames, "fused": True, "category": "mug", "template_sha256": "0"}
    (folder / "results.json").write_text(json.dumps({**record, "image_topic": "/image"}))


def _read_results(_: Path, spoiled: Path) -> None:
    record = read_record(spoiled, bag_labels.BagResults, "result of an evaluated bag")
    left_out = LeftOut()
    chosen = bag_labels._choose_estimates(record, 0.5, left_out)
    assert all(line.isprintable() for line in left_out.lines())
    for stamp, estimates in chosen.items():
        assert 0 <= stamp <= 2**62
        for estimate in estimates:
            assert 0.5 <= estimate.score <= 1
            assert 0 < bag_labels._track_scale(estimate.track, chosen)[0] <= 1e6
            fuzz_checks.check_pose(torch.tensor(estimate.cam_from_canon))


def _write_exclusion(folder: Path) -> None:
    (folder / "exclude.txt").write_text("# blurred\nclip_01/00000?.jpg\nclip_0[2-3]\n")


def _read_exclusion(_: Path, spoiled: Path) -> None:
    exclusion = excluded_frames.read_exclusion(spoiled.parent)
    exclusion.check_names(_FRAMES)
    struck = [exclusion.excludes_frame("clip_01", name) for name in _FRAMES["clip_01"]]
    assert all(isinstance(value, bool) for value in struck)


def _write_export(folder: Path) -> None:
    record = {"program": label_export._PROGRAM, "version": "1", "images": 3}
    (folder / label_export.EXPORT).write_text(json.dumps(record))


def _read_export(folder: Path, _: Path) -> None:
    """A folder is replaced only where it is an export."""
    label_export._check_place(folder, [folder.parent / "category"])
    record = json.loads((folder / label_export.EXPORT).read_text())
    assert record["program"] == label_export._PROGRAM


def _write_runtimes(folder: Path) -> None:
    (folder / "runtimes.json").write_text(json.dumps({_KEY: ["onnx", "the fastest"]}))


def _read_runtimes(_: Path, spoiled: Path) -> None:
    known = runtime_choice._read_choices(spoiled)
    if not known:
        raise InvalidInput("measured again")
    assert all(
        reason.isprintable() and len(reason) < 10_000 for _, reason in known.values()
    )


def _write_paper(folder: Path) -> None:
    """Labels and ranking of a category of CO3D, and a result of `evaluate dataset`."""
    category = folder / "co3d" / _CATEGORY
    for name in ("1_2_3", "4_5_6"):
        (category / name / "images").mkdir(parents=True)
    ranking = [
        {"sequence_name": name, "viewpoint_quality_score": score}
        for name, score in (("1_2_3", 0.5), ("4_5_6", 1.5))
    ]
    with gzip.open(category / "sequence_annotations.jgz", "wt") as file:
        json.dump(ranking, file)
    lists = folder / "pascal3d" / "Image_sets"
    lists.mkdir(parents=True)
    (lists / "car_imagenet_val.txt").write_text("n00\nn01\n")
    labels = {_CATEGORY: {name: {"canon_from_obj": _EYE3} for name in ("1_2_3", "4_5_6")}}
    (folder / "labels.json").write_text(json.dumps(labels))
    row = {f"acc{angle}": 50.0 for angle in reproduction.ANGLES}
    figures = {"categories": {_CATEGORY: {"detected": row, "true_crop": row}}}
    (folder / "figures.json").write_text(json.dumps(figures))


def _read_paper(folder: Path, spoiled: Path) -> None:
    if spoiled.name == "figures.json":
        for row in reproduction._figures_of(spoiled).values():
            assert all(0 <= value <= 100 for value in row.values())
        return
    into = folder.parent / "into"
    plan = reproduction.plan_paper(
        folder / "co3d", folder / "pascal3d", folder / "labels.json", into, 2
    )
    assert plan.steps and math.isfinite(plan.seconds()) and plan.disk() > 0


# reader: how its files are written, how they are read, and which are spoiled
RECORDS: dict[str, tuple[Callable[[Path], Any], Callable[[Path, Path], Any], str]] = {
    "bag_results": (_write_results, _read_results, "*"),
    "exclusion": (_write_exclusion, _read_exclusion, "*"),
    "export": (_write_export, _read_export, "*"),
    "runtimes": (_write_runtimes, _read_runtimes, "*"),
    "paper": (_write_paper, _read_paper, "*.json,co3d/car/*.jgz,pascal3d/*/*"),
}
