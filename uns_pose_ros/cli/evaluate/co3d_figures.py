"""Figures and tables of the alignment protocols on CO3D."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from uns_pose_ros.cli.console import figure, progress_bar, table
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import CategoryModel
from uns_pose_ros.estimation.config import EstimatorConfig
from uns_pose_ros.estimation.estimator import Estimator
from uns_pose_ros.evaluation import co3d_alignment
from uns_pose_ros.evaluation.metrics import ANGLES
from uns_pose_ros.evaluation.rotation_labels import load_labels
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.artifacts import ALIGNMENT
from uns_pose_ros.io.video_folder import list_videos, load_video

LABELS = "labels.json"
_KEYS = (*(f"acc{angle}" for angle in ANGLES), "median_deg")


def evaluate_co3d(
    root: Path,
    labels: Path | None,
    models: Sequence[Path],
    device: str,
    config: EstimatorConfig,
) -> tuple[dict[str, Any], str]:
    """Record and text of the pairs of each category, and of the six frames where a model is given.

    Args:
        root: A category folder, or a folder of them.
        labels: The labels of a single category; None: labels.json in each category folder.
        models: Models of some of the categories.
        device: For the estimates.
        config: For the estimates.

    Raises:
        InvalidInput: There is no aligned category with labels, or a model of none.
    """
    folders = [root] if (root / ALIGNMENT).exists() else _aligned(root)
    if labels is not None and len(folders) > 1:
        raise InvalidInput(
            f"--labels are those of one category; {root} holds {len(folders)}: "
            f"{LABELS} in each of them is valid"
        )
    by_category = _load(models)
    record: dict[str, Any] = {"categories": {}}
    for folder in folders:
        names = [video.name for video in list_videos(folder)]
        known = load_labels(labels or folder / LABELS, names)
        alignment = artifacts.load_alignment(folder / ALIGNMENT)
        values: dict[str, Any] = {"pairs": co3d_alignment.evaluate_pairs(alignment, known)}
        values["symmetric"] = alignment.symmetry.order != 1
        model = by_category.pop(folder.name, None)
        if model is not None:
            trained = model.training_poses
            unseen = [name for name in names if name in known and name not in trained]
            videos = [load_video(folder / name, need_masks=False) for name in unseen]
            find = Estimator(model, device=device, config=config)
            with progress_bar() as progress:
                values["six_frames"] = co3d_alignment.evaluate_six_frames(
                    find, model, videos, known, progress
                )
        record["categories"][folder.name] = values
    if by_category:
        raise InvalidInput(
            f"--model of {', '.join(by_category)}: no such category in {root}; "
            f"{', '.join(record['categories'])} are valid"
        )
    for kind in ("pairs", "six_frames"):
        rows = [one[kind] for one in record["categories"].values() if kind in one]
        record[f"mean_{kind}"] = (
            {key: sum(row[key] for row in rows) / len(rows) for key in _KEYS}
            if rows
            else None
        )
    return record, _text(record)


def _aligned(root: Path) -> list[Path]:
    folders = sorted(path.parent for path in root.glob(f"*/{ALIGNMENT}"))
    if not folders:
        raise InvalidInput(
            f"{root}: no {ALIGNMENT} in it or in its subfolders; sequences of CO3D that were "
            "imported and aligned are valid (uns-pose import, uns-pose align)"
        )
    return folders


def _load(folders: Sequence[Path]) -> dict[str, CategoryModel]:
    models = dict[str, CategoryModel]()
    for folder in folders:
        model = artifacts.load_model(folder)
        if model.category in models:
            raise InvalidInput(
                f"{folder}: a second model of {model.category}; one each is valid"
            )
        models[model.category] = model
    return models


def _text(record: Mapping[str, Any]) -> str:
    rows = list[list[str]]()
    for name, values in record["categories"].items():
        title = f"{name}{'*' if values['symmetric'] else ''}"
        for kind, words in (("pairs", "pairs"), ("six_frames", "six frames")):
            if kind in values:
                one = values[kind]
                spread = one.get("std", {}).get("acc30")
                cells = [title, words, str(one["videos"]), str(one["pairs"])]
                cells += [figure(one[key]) for key in _KEYS]
                aware = figure(one["symmetry_aware"]["acc30"])
                rows.append([*cells, figure(spread), aware])
    for kind, words in (("pairs", "pairs"), ("six_frames", "six frames")):
        mean = record[f"mean_{kind}"]
        if mean is not None and len(record["categories"]) > 1:
            cells = ["mean over categories", words, "–", "–"]
            rows.append([*cells, *(figure(mean[key]) for key in _KEYS), "–", "–"])
    header = ["", "", "videos", "pairs", *(f"@{angle}° %" for angle in ANGLES)]
    header += ["median °", "± of @30°", "@30° sym. %"]
    lines = [table(header, rows)]
    if any(values["symmetric"] for values in record["categories"].values()):
        lines.append("*: a symmetric category; the paper's figures do not treat symmetry")
    return "\n".join(lines)
