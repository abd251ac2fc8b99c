"""What an alignment and a model are by the labels of their videos."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from label_rotations import X, Z, model_of, rotations, turn
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import (
    angle_between,
    from_parts,
)
from uns_pose_ros.core.types import (
    Alignment,
    Symmetry,
)
from uns_pose_ros.evaluation import metrics, rotation_labels

NAMES = ("a", "b", "c", "d")


def alignment_of(
    canon_from_obj: Tensor | list[Tensor], symmetry: Symmetry | None = None
) -> Alignment:
    n = len(canon_from_obj)
    ones = torch.ones(n, dtype=torch.float64)
    matrix = from_parts(
        torch.stack(list(canon_from_obj)),
        torch.randn(n, 3, dtype=torch.float64),
        ones * 0.3,
    )
    return Alignment(NAMES[:n], matrix, ones, ones.bool(), ones, symmetry or Symmetry())


def test_a_perfect_alignment_in_another_frame_is_right_everywhere() -> None:
    labels, frame = rotations(4), rotations(1, seed=5)[0]
    result = rotation_labels.evaluate_alignment(
        alignment_of(frame @ labels), dict(zip(NAMES, labels, strict=True))
    )
    assert (result["videos"], result["pairs"]) == (4, 6)
    assert [result[k] for k in ("acc30", "acc15", "acc10")] == [100, 100, 100]
    assert result["median_deg"] == pytest.approx(0, abs=1e-4)


def test_pair_errors_are_the_angles_between_the_videos_own_errors() -> None:
    labels = rotations(3)
    errors = [0.0, 12.0, 32.0]  # about one axis: pairs are off by 12, 32 and 20 degrees
    aligned = [turn(Z, e) @ r for e, r in zip(errors, labels, strict=True)]
    result = rotation_labels.evaluate_alignment(
        alignment_of(aligned), dict(zip(NAMES, labels, strict=False))
    )
    assert (
        result["acc30"] == pytest.approx(200 / 3)
        and result["acc15"] == pytest.approx(100 / 3)
        and result["acc10"] == 0
    )
    assert result["median_deg"] == pytest.approx(20)


def test_a_half_turn_is_wrong_unless_the_category_has_it() -> None:
    labels = rotations(2)
    named = dict(zip(NAMES, labels, strict=False))
    flipped = [labels[0], turn(Z, 180) @ labels[1]]
    result = rotation_labels.evaluate_alignment(
        alignment_of(flipped, Symmetry(2, Z)), named
    )
    assert result["acc30"] == 0 and result["symmetry_aware"]["acc10"] == 100
    assert (
        rotation_labels.evaluate_alignment(alignment_of(flipped, Symmetry(2, X)), named)[
            "symmetry_aware"
        ]["acc30"]
        == 0
    )


def test_only_labeled_and_chosen_videos_count() -> None:
    labels = rotations(4)
    named = dict(zip(NAMES[:3], labels[:3], strict=True))
    assert rotation_labels.evaluate_alignment(alignment_of(labels), named)["pairs"] == 3
    assert (
        rotation_labels.evaluate_alignment(alignment_of(labels), named, ["a", "b", "d"])[
            "pairs"
        ]
        == 1
    )
    with pytest.raises(InvalidInput, match="1 aligned videos have labels, 2 needed"):
        rotation_labels.evaluate_alignment(alignment_of(labels), named, ["a", "d"])


def write_labels(path: Path, record: object) -> Path:
    path.write_text(json.dumps(record))
    return path


def test_labels_of_an_unknown_video_are_refused_by_name(tmp_path: Path) -> None:
    path = write_labels(
        tmp_path / "labels.json",
        {"a": {"canon_from_obj": torch.eye(3).tolist()}, "typo": {}},
    )
    with pytest.raises(
        InvalidInput, match="labels for unknown videos: typo; there are a, b"
    ):
        rotation_labels.load_labels(path, ["a", "b"])


@pytest.mark.parametrize(
    "label",
    [
        {},
        [],
        None,
        {"canon_from_obj": [[1, 0], [0, 1]]},
        {"canon_from_obj": "x"},
        {"canon_from_obj": [[1, 2, 3]] * 3},
    ]
    + [
        {"canon_from_obj": [[1, 0, 0], [0, 1, 0], [0, 0, -1]]},
        {"canon_from_obj": [[1e300] * 3] * 3},
    ],
)
def test_a_label_that_is_no_rotation_is_refused(tmp_path: Path, label: object) -> None:
    refusal = "the label of a has no 3x3 rotation|not a valid JSON file"  # NaN is not JSON
    with pytest.raises(InvalidInput, match=refusal):
        rotation_labels.load_labels(
            write_labels(tmp_path / "labels.json", {"a": label}), ["a"]
        )


def test_a_label_that_is_not_a_number_is_refused(tmp_path: Path) -> None:
    label = {"canon_from_obj": [[float("nan")] * 3] * 3}
    with pytest.raises(InvalidInput, match="not a valid JSON file"):
        rotation_labels.load_labels(
            write_labels(tmp_path / "labels.json", {"a": label}), ["a"]
        )


@pytest.mark.parametrize("record", [{}, [1]])
def test_a_labels_file_without_labels_is_refused(tmp_path: Path, record: object) -> None:
    with pytest.raises(InvalidInput, match="is needed"):
        rotation_labels.load_labels(write_labels(tmp_path / "labels.json", record), ["a"])


def test_the_frame_between_model_and_labels_ignores_flipped_training_videos() -> None:
    labels, label_from_canon = rotations(5), rotations(1, seed=3)[0]
    noise = [turn(X, e) for e in (3, -3, 0, 0, 0)]
    trained = [n @ label_from_canon.T @ r for n, r in zip(noise, labels, strict=True)]
    trained[2:4] = [turn(Z, 180) @ r for r in trained[2:4]]
    names = [f"v{i}" for i in range(5)]
    fit = rotation_labels.fit_label_from_canon(
        model_of(dict(zip(names, trained, strict=True))),
        dict(zip(names, labels, strict=True)),
    )
    assert float(angle_between(fit, label_from_canon)) < 0.1


def test_equivalent_training_videos_of_a_symmetric_category_agree() -> None:
    labels, label_from_canon = rotations(4), rotations(1, seed=3)[0]
    turns = [0, 180, 180, 0]
    trained = {
        n: turn(Z, t) @ label_from_canon.T @ r
        for n, t, r in zip(NAMES, turns, labels, strict=True)
    }
    fit = rotation_labels.fit_label_from_canon(
        model_of(trained, Symmetry(2, Z)), dict(zip(NAMES, labels, strict=True))
    )
    assert float(metrics.symmetric_angle(fit.T, label_from_canon.T, Symmetry(2, Z))) < 1e-4


def test_a_model_trained_on_unlabeled_videos_cannot_be_compared() -> None:
    with pytest.raises(
        InvalidInput,
        match="none of the videos that the model was trained on has a label: a",
    ):
        rotation_labels.fit_label_from_canon(
            model_of({"a": torch.eye(3, dtype=torch.float64)}), {"b": torch.eye(3).double()}
        )
