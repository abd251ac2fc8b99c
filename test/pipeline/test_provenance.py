"""A file is hashed once in a run, and artifacts of version 0.1.0 still count as made."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from small_category import ALIGN, ALIGN_WORDS, RECONSTRUCT, RECONSTRUCT_WORDS
from uns_pose_ros.alignment import category_alignment
from uns_pose_ros.cli import main
from uns_pose_ros.cli.pipeline import run_command
from uns_pose_ros.core.types import CategoryModel, FeatureMesh
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.images import read_image, read_mask
from uns_pose_ros.networks import u2net
from uns_pose_ros.pipeline import (
    alignment_stage,
    frame_axes,
    reconstruction_stage,
    training_stage,
)
from uns_pose_ros.pipeline.provenance import FileCache, is_current, stage_provenance
from uns_pose_ros.reconstruction import feature_mesh
from uns_pose_ros.training import category_training

TRIANGLE = torch.tensor([[0, 1, 2]])


class TrueMasks:
    """A network that knows the true mask of every image."""

    def __init__(self, category: Path) -> None:
        self.masks = {
            read_image(path).numpy().tobytes(): read_mask(
                path.parents[1] / "truth" / f"{path.name}.png"
            ).numpy()
            for path in category.glob("*/images/*")
        }

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.masks[image.tobytes()].astype(np.float32)


@pytest.fixture
def computed(trucks: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Trucks without masks; reconstruction, alignment and training compute nothing."""
    for folder in trucks.glob("clip_*"):
        shutil.move(folder / "masks", folder / "truth")
    alignment = artifacts.load_alignment(trucks / frame_axes.ALIGNMENT)
    third = torch.full((1, 384), 384**-0.5, dtype=torch.float16)
    vertex = torch.zeros(1, dtype=torch.int64)
    view = vertex.clone()
    mesh = FeatureMesh(torch.eye(3), TRIANGLE, third, vertex, view, torch.eye(4)[None])

    def train_model(category: str, videos: Any, *_: Any) -> CategoryModel:
        poses = {name: torch.eye(4).tolist() for name in videos}
        provenance = {"canon_from_obj": poses}
        vertices, features, background = torch.eye(3), torch.eye(3), torch.eye(3)
        return CategoryModel(
            category, vertices, TRIANGLE, features, background, {}, provenance=provenance
        )

    monkeypatch.setattr(feature_mesh, "build_feature_mesh", lambda *_: mesh)
    monkeypatch.setattr(category_alignment, "align_videos", lambda *_: alignment)
    monkeypatch.setattr(category_training, "train_model", train_model)
    network = TrueMasks(trucks)
    monkeypatch.setattr(u2net, "load_salience", lambda: network)
    return trucks


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> Counter[Path]:
    """How often each file is hashed."""
    count = Counter[Path]()
    file_hash = artifacts.file_hash

    def counted(path: Path) -> str:
        count[path] += 1
        return file_hash(path)

    monkeypatch.setattr(artifacts, "file_hash", counted)
    return count


def run_stages(category: Path, files: FileCache) -> None:
    assert all(
        reconstruction_stage.reconstruct(category, config=RECONSTRUCT, files=files).values()
    )
    alignment_stage.align(category, config=ALIGN, files=files)
    training_stage.train(category, files=files)


def test_each_image_is_hashed_once_in_a_run(
    computed: Path, hashed: Counter[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_command, "make_report", lambda *_, **__: {})
    words = ["run", str(computed), "--device", "cpu", *RECONSTRUCT_WORDS, *ALIGN_WORDS]
    assert main.main(words) == main.DONE
    counts = {path: hashed[path] for path in computed.glob("clip_*/images/*")}
    assert len(counts) == 24
    assert set(counts.values()) == {1}


def test_each_state_of_the_alignment_is_read_once_in_a_run(
    computed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = FileCache()
    run_stages(computed, files)
    reads = Counter[tuple[str, int]]()
    for name in ("load_alignment", "provenance_of"):
        monkeypatch.setattr(artifacts, name, _counted(name, reads))
    fresh = FileCache()
    for _ in range(3):
        fresh.alignment(computed / frame_axes.ALIGNMENT)
        fresh.alignment_provenance(computed / frame_axes.ALIGNMENT)
    assert set(reads.values()) == {1}


def _counted(name: str, reads: Counter[tuple[str, int]]) -> Any:
    function = getattr(artifacts, name)

    def counted(path: Path) -> Any:
        reads[name, path.stat().st_mtime_ns] += 1
        return function(path)

    return counted


def test_a_file_that_changes_in_a_run_is_hashed_again(tmp_path: Path) -> None:
    files, path = FileCache(), tmp_path / "a"
    path.write_text("one")
    first = files.hash(path)
    assert files.hash(path) == first
    path.write_text("two")
    os.utime(path, ns=(0, 1))
    assert files.hash(path) == artifacts.file_hash(path) != first


def test_an_artifact_of_version_0_1_0_counts_as_made(tmp_path: Path) -> None:
    """The keys of its provenance, in their order of that version."""
    path = tmp_path / "alignment.json"
    old = {
        "stage": "align",
        "version": stage_provenance("align", None, {})["version"],
        "seed": 0,
        "config": artifacts.plain(ALIGN),
        "inputs": {"clip_01": "0" * 64},
    }
    path.write_text(json.dumps({"provenance": {**old, "seconds": 1.5}}))
    wanted = stage_provenance("align", ALIGN, {"clip_01": "0" * 64}, seed=0)
    assert is_current(path, wanted)
    assert not is_current(path, {**wanted, "seed": 1})
