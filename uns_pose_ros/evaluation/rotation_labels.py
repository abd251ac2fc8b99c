"""Label rotations of videos, and what an alignment and a model are by them.

No module that estimates or trains reads labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from msgspec import convert
from torch import Tensor

from uns_pose_ros.core.errors import InvalidInput, shorten
from uns_pose_ros.core.geometry import (
    angle_between,
    nearest_rotation,
    split_similarity,
    symmetry_rotations,
)
from uns_pose_ros.core.types import Alignment, CategoryModel
from uns_pose_ros.evaluation.metrics import accuracies, symmetric_angle
from uns_pose_ros.io.artifacts import read_json
from uns_pose_ros.io.schema.decoding import describe
from uns_pose_ros.io.schema.person_records import LabelRecord

_CONSENSUS = 30.0  # degrees within which training videos agree on the labels' frame


def load_labels(path: Path, known: Sequence[str]) -> dict[str, Tensor]:
    """Read label rotations (3, 3) float64 by video, canon (of the labels) from obj.

    Args:
        path: a JSON file.
        known: names of the videos that may have a label.

    Raises:
        InvalidInput: the file is no label file, or labels a video that is not known.
    """
    record = read_json(path)
    if not isinstance(record, dict) or not record:
        raise InvalidInput(
            f'{path}: {{"VIDEO": {{"canon_from_obj": 3x3 rotation}}, …}} is needed'
        )
    unknown = [name for name in record if name not in known]
    if unknown:
        raise InvalidInput(
            f"{path}: labels for unknown videos: {shorten(unknown)}; there are {shorten(known)}"
        )
    return {name: _rotation(path, name, label) for name, label in record.items()}


def _rotation(path: Path, name: str, label: Any) -> Tensor:
    try:
        rows = convert(label, LabelRecord).canon_from_obj
    except ValueError as error:
        raise InvalidInput(
            f"{path}: the label of {name} has no 3x3 rotation under canon_from_obj "
            f"({describe(error)})"
        ) from None
    return nearest_rotation(torch.tensor(rows, dtype=torch.float64))


def evaluate_alignment(
    alignment: Alignment, labels: Mapping[str, Tensor], videos: Sequence[str] | None = None
) -> dict[str, Any]:
    """Measure an alignment over all unordered pairs of labeled videos, kept or left out.

    The error of a pair is the angle between its relative rotation by the alignment and by the
    labels.

    Args:
        alignment: the alignment.
        labels: label rotations by video.
        videos: names of the videos to use; without: all.

    Raises:
        InvalidInput: fewer than two aligned videos have labels.
    """
    chosen = [
        name
        for name in alignment.videos
        if name in labels and (videos is None or name in videos)
    ]
    if len(chosen) < 2:
        raise InvalidInput(
            f"{len(chosen)} aligned videos have labels, 2 needed; aligned: "
            f"{shorten(alignment.videos)}"
        )
    index = torch.tensor([alignment.videos.index(name) for name in chosen])
    rotation = split_similarity(alignment.canon_from_obj[index])[0]
    canon_from_label = rotation @ torch.stack([labels[name] for name in chosen]).transpose(
        -1, -2
    )
    i, j = torch.triu_indices(len(chosen), len(chosen), 1)
    plain = accuracies(angle_between(canon_from_label[i], canon_from_label[j]))
    symmetric = accuracies(
        symmetric_angle(canon_from_label[i], canon_from_label[j], alignment.symmetry)
    )
    return {"videos": len(chosen), "pairs": len(i)} | plain | {"symmetry_aware": symmetric}


def fit_label_from_canon(model: CategoryModel, labels: Mapping[str, Tensor]) -> Tensor:
    """Fit the rotation (3, 3) from the model's canonical frame to the frame of the labels.

    It is fitted on the labeled videos of the training. Flips make two peaks, and the mean of two
    peaks is wrong. Therefore, the video that agrees with most others is chosen, up to symmetry,
    then exactly. Only videos that agree with it are averaged.

    Args:
        model: the category's model.
        labels: label rotations by video.

    Raises:
        InvalidInput: no video of the training has a label.
    """
    trained = model.training_poses
    names = [name for name in trained if name in labels]
    if not names:
        raise InvalidInput(
            "none of the videos that the model was trained on has a label: "
            f"{shorten(trained) or 'none named'}"
        )
    canon_from_obj = split_similarity(torch.stack([trained[name] for name in names]))[0]
    canon_from_label = canon_from_obj @ torch.stack(
        [labels[name] for name in names]
    ).transpose(-1, -2)
    a, b = canon_from_label[:, None], canon_from_label[None]
    same, close = (
        symmetric_angle(a, b, model.symmetry) < _CONSENSUS,
        angle_between(a, b) < _CONSENSUS,
    )
    best = int((same.sum(1) * (len(names) + 1) + close.sum(1)).argmax())
    group = symmetry_rotations(model.symmetry.order, model.symmetry.axis)
    turned = group @ canon_from_label[same[best]][:, None]
    nearest = angle_between(turned, canon_from_label[best]).argmin(1)
    return nearest_rotation(turned[torch.arange(len(turned)), nearest].mean(0)).T
