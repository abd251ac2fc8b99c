"""The command that evaluates models on a public data set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor
from tyro.conf import Positional, arg

from uns_pose_ros.cli.arguments import Device, Estimation, Json
from uns_pose_ros.cli.console import emit, figure, progress_bar, table
from uns_pose_ros.cli.evaluate.co3d_figures import evaluate_co3d
from uns_pose_ros.core.errors import InvalidInput, shorten
from uns_pose_ros.core.left_out import LeftOut
from uns_pose_ros.core.types import CategoryModel
from uns_pose_ros.datasets.catalog import DATASETS, DatasetEntry
from uns_pose_ros.datasets.labeled_object import LabeledObjects
from uns_pose_ros.estimation.config import EstimatorConfig
from uns_pose_ros.estimation.estimator import Estimator
from uns_pose_ros.evaluation.dataset import (
    dataset_evaluation,
    dataset_figures,
    object_results,
)
from uns_pose_ros.evaluation.metrics import ANGLES
from uns_pose_ros.evaluation.rotation_labels import fit_label_from_canon, load_labels
from uns_pose_ros.io import artifacts

CO3D_ALIGNMENT = "co3d-alignment"
_NAMES = (*DATASETS, CO3D_ALIGNMENT)

Name = Annotated[
    Positional[str], arg(metavar="NAME", help=f"of the data set: {', '.join(_NAMES)}")
]
Root = Annotated[Positional[Path], arg(metavar="ROOT", help="folder of the data set")]
Models = Annotated[
    tuple[Path, ...],
    arg(
        metavar="FOLDER [FOLDER …]",
        help="folders that `uns-pose train` wrote, one for each category",
    ),
]
_TITLES = {"detected": "detected", "true_crop": "true crop"}
_OF_BOXES = {
    "iou_mean": "3D IoU %",
    "ap25": "AP25",
    "ap50": "AP50",
    "size_error_pct": "size off %",
    "translation_pct": "place off %",
    "ap10deg10pct": "10° 10 %",
}


def evaluate_dataset_command(
    name: Name,
    root: Root,
    model: Models = (),
    category: Annotated[
        str | None,
        arg(metavar="NAME", help="the data set's name of the category of a single model"),
    ] = None,
    split: Annotated[
        str | None,
        arg(metavar="NAME", help="without: that of published tables (val or test)"),
    ] = None,
    labels: Annotated[
        Path | None,
        arg(
            metavar="FILE",
            help="labels of videos that the model was trained on, in the frame x forward, y left, "
            "z up: they tie the model's frame to the data set's",
        ),
    ] = None,
    fit: Annotated[
        bool,
        arg(help="fit the rotation between the frames on the evaluated images themselves"),
    ] = False,
    most: Annotated[
        int | None,
        arg(metavar="N", help="evaluate N objects of each category only, evenly spread"),
    ] = None,
    device: Device = "auto",
    json: Json = None,
    estimator: Estimation = EstimatorConfig(),
) -> None:
    """Evaluate models on the images of a public data set, which is read from its own files.

    Two rows for each category. detected: the estimator gets the whole image and nothing else. true
    crop: box, camera and translation are given, as in the paper. Without --labels and --fit the
    model's frame must be x forward, y left, z up (`uns-pose align --up --front`).

    co3d-alignment: ROOT is a category of imported and aligned sequences of CO3D, or a folder of
    such categories with labels.json in each; all ordered pairs, and six frames where --model is
    given.
    """
    if name == CO3D_ALIGNMENT:
        _refuse_for_co3d(category, split, fit, most)
        record, text = evaluate_co3d(root, labels, model, device, estimator)
        emit({"dataset": name, "root": str(root)} | record, text, json)
        return
    if name not in DATASETS:
        raise InvalidInput(f"{name!r} is no data set; {', '.join(_NAMES)} are valid")
    entry = DATASETS[name]
    split = split or entry.splits[0]
    _check_options(name, entry, root, model, category, split, labels, fit, most)
    trained = _load_models(name, entry, model, category)
    rows = dict[str, dict[str, dataset_evaluation.DatasetRow]]()
    details, lines = dict[str, Any](), list[str]()
    for key, one in trained.items():
        read = _at_most(entry.read(root, key, split), most)
        rows[key], details[key] = _evaluate(one, read, labels, fit, device, estimator)
        lines += [f"{key}: left out: {line}" for line in read.left_out.lines()]
    record = dataset_figures.summarize_dataset(rows, entry.in_paper)
    for key, values in record["categories"].items():
        values |= details[key]
    record |= {"dataset": name, "split": split, "root": str(root)}
    emit(record, "\n".join([*_tables(record), *lines]), json)


def _refuse_for_co3d(
    category: str | None, split: str | None, fit: bool, most: int | None
) -> None:
    """InvalidInput where an option is given that the alignment protocols do not have."""
    given = {"category": category, "split": split, "fit": fit or None, "most": most}
    for option, value in given.items():
        if value is not None:
            raise InvalidInput(
                f"--{option}: {CO3D_ALIGNMENT} has no such option; --labels and --model are valid"
            )


def _check_options(
    name: str,
    entry: DatasetEntry,
    root: Path,
    model: tuple[Path, ...],
    category: str | None,
    split: str,
    labels: Path | None,
    fit: bool,
    most: int | None,
) -> None:
    """InvalidInput where options contradict each other or the data set."""
    if not root.is_dir():
        raise InvalidInput(f"{root}: no folder; the folder of the data set {name} is valid")
    if not model:
        raise InvalidInput("no model given: --model FOLDER is needed")
    if split not in entry.splits:
        valid = " and ".join(entry.splits)
        raise InvalidInput(f"split {split!r}: {name} has {valid}")
    if category is not None and len(model) > 1:
        raise InvalidInput("--category names the category of one model; several are given")
    if labels is not None and fit:
        raise InvalidInput("--labels and --fit both tie the frames; one of them is valid")
    if most is not None and most < 1:
        raise InvalidInput(f"--most {most}: 1 or more is valid")


def _load_models(
    name: str, entry: DatasetEntry, folders: tuple[Path, ...], category: str | None
) -> dict[str, CategoryModel]:
    """The models by the data set's name of their category."""
    trained = dict[str, CategoryModel]()
    for folder in folders:
        model = artifacts.load_model(folder)
        key = entry.category_of(category or model.category, name)
        if key in trained:
            raise InvalidInput(f"{folder}: a second model of {key}; one each is valid")
        trained[key] = model
    return trained


def _at_most(read: LabeledObjects, most: int | None) -> LabeledObjects:
    """Evenly spread objects, in their order."""
    count = len(read.objects)
    if most is None or count <= most:
        return read
    chosen = tuple(read.objects[k * count // most] for k in range(most))
    return LabeledObjects(chosen, read.left_out)


def _evaluate(
    model: CategoryModel,
    read: LabeledObjects,
    labels: Path | None,
    fit: bool,
    device: str,
    config: EstimatorConfig,
) -> tuple[dict[str, dataset_evaluation.DatasetRow], dict[str, Any]]:
    """Rows of one category, and what else its record holds."""
    find = Estimator(model, device=device, config=config)
    with progress_bar() as progress:
        images = dataset_evaluation.estimate_objects(
            find,
            find.without_threshold,
            model.category,
            read.objects,
            read.left_out,
            progress,
        )
    rotation, tie = _tie(model, images, labels, fit)
    rows = dataset_evaluation.score_rows(
        images, object_results.FrameTie.of(model, rotation)
    )
    return rows, {
        "model_category": model.category,
        "symmetric": _is_symmetric(model, read),
        "tie": tie,
        "object_from_canon": rotation.tolist(),
        "left_out": _counts(read.left_out),
    }


def _tie(
    model: CategoryModel,
    images: list[dataset_evaluation.ImageEstimates],
    labels: Path | None,
    fit: bool,
) -> tuple[Tensor, str]:
    """The rotation (3, 3) object_from_canon, and where it is from."""
    same = torch.eye(3, dtype=torch.float64)
    if labels is not None:
        known = load_labels(labels, list(model.training_poses))
        return fit_label_from_canon(model, known), "labels"
    if fit:
        fitted = dataset_evaluation.fit_object_from_canon(images, model)
        return (same if fitted is None else fitted), "fitted on the evaluated images"
    return same, "the model's axes"


def _is_symmetric(model: CategoryModel, read: LabeledObjects) -> bool:
    return model.symmetry.order != 1 or any(one.is_symmetric for one in read.objects)


def _counts(left_out: LeftOut) -> dict[str, int]:
    return dict(left_out.counts)


def _tables(record: Mapping[str, Any]) -> list[str]:
    """The table of rotations, and that of boxes where there are any."""
    rows, boxes = list[list[str]](), list[list[str]]()
    groups = [
        (f"{key}{'*' if values['symmetric'] else ''}", values)
        for key, values in record["categories"].items()
    ]
    groups += [("mean over categories", record["mean"])] if len(groups) > 1 else []
    if record["paper_mean"]["detected"] is not None:
        groups.append(("mean as in the paper", record["paper_mean"]))
    groups += [("all objects at once", record["weighted"])] if len(groups) > 1 else []
    for title, values in groups:
        for row, words in _TITLES.items():
            figures = values[row]
            cells = [title, words, str(figures["objects"]), figure(figures["answered"])]
            cells += [figure(figures[f"acc{angle}"]) for angle in ANGLES]
            cells += [figure(figures["median_deg"])]
            aware = figures["symmetry_aware"]
            cells += [figure(aware[f"acc{angle}"]) for angle in (30, 10)]
            rows.append(cells)
            if figures["boxes"] is not None:
                of_boxes = [figure(figures["boxes"][key]) for key in _OF_BOXES]
                boxes.append([title, words, *of_boxes])
    header = ["", "", "objects", "answered %", *(f"@{angle}° %" for angle in ANGLES)]
    header += ["median °", "@30° sym. %", "@10° sym. %"]
    lines = [table(header, rows)]
    if boxes:
        lines.append(table(["", "", *_OF_BOXES.values()], boxes))
    if any(values["symmetric"] for values in record["categories"].values()):
        lines.append("*: a symmetric category; the paper's figures do not treat symmetry")
    ties = {values["tie"] for values in record["categories"].values()}
    lines.append(f"frames are tied by {shorten(sorted(ties))}")
    return lines
