"""BOP: boxes, counts of pixels and symmetries are those that BOP's tools expect."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from label_checks import export
from label_readers import (
    iterate_objects,
    read_labels,
)
from labeled_category import (
    TrueVideo,
    save_true_alignment,
)
from uns_pose_ros.core.types import Symmetry


def test_bop_has_what_its_tools_read(category: tuple[Path, dict[str, TrueVideo]]) -> None:
    folder, truths = category
    out = export(folder, "bop")
    infos = json.loads((out / "models" / "models_info.json").read_text())
    truth = truths["clip_01"]
    sizes = [infos["1"][f"size_{axis}"] for axis in "xyz"]
    np.testing.assert_allclose(sizes, 1000 * truth.unit * truth.size, rtol=1e-5)
    assert max(sizes) < infos["1"]["diameter"] < np.linalg.norm(sizes)
    for image, thing in iterate_objects(read_labels(out)):
        (info,) = image.extra["infos"]
        assert thing.mask is not None and thing.silhouette is not None
        assert not (thing.mask & ~thing.silhouette).any()
        assert info["px_count_visib"] == thing.mask.sum()
        assert info["px_count_all"] >= thing.silhouette.sum()
        assert info["visib_fract"] == info["px_count_visib"] / info["px_count_all"] <= 1
        # the crane leaves the upper rim of the image: the whole box is larger than the visible one
        assert info["bbox_obj"][1] <= info["bbox_visib"][1]
    tops = [image.extra["infos"][0]["bbox_obj"][1] for image in read_labels(out)]
    assert min(tops) < 0


@pytest.mark.parametrize(
    ("order", "key", "count"),
    [(1, None, 0), (2, "symmetries_discrete", 1), (4, "symmetries_discrete", 3)],
)
def test_the_symmetry_of_a_category_is_in_its_models(
    category: tuple[Path, dict[str, TrueVideo]], order: int, key: str | None, count: int
) -> None:
    folder, truths = category
    axis = torch.tensor([0.0, 0.0, 2.0], dtype=torch.float64)
    save_true_alignment(folder, truths, Symmetry(order, axis))
    try:
        models = export(folder, "bop") / "models"
    finally:
        save_true_alignment(folder, truths, Symmetry())
    info = json.loads((models / "models_info.json").read_text())["1"]
    assert [name for name in info if name.startswith("sym")] == ([key] if key else [])
    if key:
        assert len(info[key]) == count
        turn = np.reshape(info[key][0], (4, 4))
        angle = 2 * np.pi / order
        np.testing.assert_allclose(turn[:2, 0], [np.cos(angle), np.sin(angle)], atol=1e-12)
        np.testing.assert_allclose(turn[2:, 2:], np.eye(2), atol=1e-12)


def test_a_continuous_symmetry_is_an_axis_and_said_where_keypoints_are_ambiguous(
    category: tuple[Path, dict[str, TrueVideo]],
) -> None:
    folder, truths = category
    save_true_alignment(folder, truths, Symmetry(0))
    try:
        models = export(folder, "bop") / "models"
        record = json.loads((export(folder, "coco") / "export.json").read_text())
    finally:
        save_true_alignment(folder, truths, Symmetry())
    info = json.loads((models / "models_info.json").read_text())["1"]
    assert info["symmetries_continuous"] == [{"axis": [0, 0, 1], "offset": [0, 0, 0]}]
    assert any("truck: symmetric" in remark for remark in record["remarks"])
