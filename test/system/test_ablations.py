"""The ablations at their smallest size: every part gives figures, and a stopped run goes on."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import normalize

from synthetic_meshes import feature_mesh
from uns_pose_ros.alignment.published_alignment import PublishedConfig, align_published
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import angle_between, split_similarity, transform
from uns_pose_ros.core.types import Alignment, CategoryModel, FeatureMesh
from uns_pose_ros.io import artifacts
from uns_pose_ros.networks.correspondence_head import Head
from uns_pose_ros.networks.dinov2 import CHANNELS
from uns_pose_ros.training.training_views import TrainConfig

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
EXPECTED = {
    "alpha_tau": ["alpha 0.2, tau 0.9", "alpha 0.2, tau off"],
    "cycle_weight": ["published, on", "ours, on", "published, off", "ours, off"],
    "references": ["published, 1", "ours, 1", "ours, all pairs"],
    "surface": ["published, hull", "ours, hull", "published, alpha", "ours, alpha"],
    "videos": ["2 videos"],
    "loss": ["cross-entropy", "regression"],
    "clutter": ["with clutter", "without"],
}


@pytest.fixture
def ablations(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import ablations

    return ablations


def untrained_model(
    name: str,
    videos: Any,
    meshes: dict[str, FeatureMesh],
    alignment: Alignment,
    backbone: Any,
    config: TrainConfig,
) -> CategoryModel:
    """What the training makes of a category, before its first step."""
    first, pose = next(iter(meshes.values())), alignment.canon_from_obj[0]
    head = Head(config.network, len(first.vertices), 3 * CHANNELS)
    own = ("vertex_features", "background_features")
    weights = {k: v.detach() for k, v in head.state_dict().items() if k not in own}
    return CategoryModel(
        name,
        transform(pose, first.vertices.double()).float(),
        first.triangles,
        normalize(head.vertex_features.detach(), dim=1),
        normalize(head.background_features.detach(), dim=1),
        weights,
        provenance={
            "network": asdict(config.network),
            "crop_size": config.size,
            "canon_from_obj": {
                name: alignment.canon_from_obj[alignment.videos.index(name)].tolist()
                for name in meshes
            },
        },
    )


@pytest.fixture
def category(ablations: Any, trucks: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The trucks; their alignment is known, and the meshes of hulls are made."""
    work = trucks / "work"
    for name in ("clip_01", "clip_02", "clip_03"):
        folder = work / "hull" / name
        folder.mkdir(parents=True)
        artifacts.save_feature_mesh(artifacts.load_feature_mesh(trucks / name), folder, {})
    made = artifacts.load_alignment(trucks / "alignment.json")
    monkeypatch.setattr(ablations, "align_videos", lambda *_, **__: made)
    monkeypatch.setattr("ablation_category.align_videos", lambda *_, **__: made)
    monkeypatch.setattr("ablation_category.train_model", untrained_model)
    sizes = ablations.Sizes(
        every=2,
        crop=56,
        hypotheses=20,
        views=1,
        steps=2,
        batch=2,
        held_out=1,
        alphas=(0.2,),
        taus=(0.9, ablations.OFF),
        references=(1,),
        videos=(3,),
    )
    return ablations.Category(trucks, work, sizes)


def test_every_ablation_runs_at_its_smallest_size_and_goes_on_where_it_stopped(
    ablations: Any, category: Any
) -> None:
    assert list(ablations.ABLATIONS) == list(EXPECTED)
    test_images = list(category.tests())[:1]
    category.tests = lambda: iter(test_images)
    for name, settings in EXPECTED.items():
        rows = ablations.run_ablation(name, category)["rows"]
        assert list(rows) == settings
        assert (category.work / f"{name}.png").stat().st_size > 1000
        path = category.work / f"{name}.json"
        record = json.loads(path.read_text())
        assert record["sizes"]["crop"] == 56
        for label, row in rows.items():
            if "alpha" in label and name == "surface":
                assert "0 points of structure from motion" in row["left_out"]
            else:
                assert 0 <= row["acc30"] <= 100
    path = category.work / "cycle_weight.json"
    record = json.loads(path.read_text())
    del record["rows"]["ours, on"]
    record["rows"] = {label: {**row, "kept": 1} for label, row in record["rows"].items()}
    path.write_text(json.dumps(record))
    again = ablations.run_ablation("cycle_weight", category)["rows"]
    assert [label for label, row in again.items() if "kept" not in row] == ["ours, on"]


def test_other_sizes_in_the_same_folder_are_refused(ablations: Any, category: Any) -> None:
    ablations.run_ablation("surface", category)
    category.sizes = ablations.Sizes()
    with pytest.raises(InvalidInput, match=r"surface\.json: made of other videos or sizes"):
        ablations.run_ablation("surface", category)


def test_the_errors_of_all_settings_are_those_of_the_published_alignment(
    ablations: Any, category: Any
) -> None:
    meshes = {name: feature_mesh(k)[0] for k, name in enumerate(("a", "b"))}
    category.hulls = meshes
    category.labels = {name: torch.eye(3, dtype=torch.float64) for name in meshes}
    errors = ablations._errors_by_setting(category, "a", "b")
    for j, tau in enumerate(category.sizes.taus):
        config = PublishedConfig(tau=tau, hypotheses=20)
        pose = align_published(meshes["a"], meshes["b"], config)
        rotation = split_similarity(pose)[0]
        expected = angle_between(rotation, torch.eye(3, dtype=torch.float64))
        torch.testing.assert_close(errors[0, j], expected)
