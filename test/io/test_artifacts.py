"""An artifact comes back exactly; files that do not belong together are refused."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
import torch

from small_artifacts import (
    PROVENANCE,
    TETRAHEDRON,
    a_mesh,
    a_model,
    an_alignment,
    assert_equal,
    files,
)
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Symmetry, TaughtObject
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.ply import write_ply


def test_broken_json_names_the_file_and_the_line(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": 1,\n "b": }')
    with pytest.raises(InvalidInput, match=r"a.json: not a valid JSON file .*line 2"):
        artifacts.read_json(path)


def test_a_missing_json_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"a.json: JSON file is not there"):
        artifacts.read_json(tmp_path / "a.json")


def test_the_hash_of_a_file_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert (
        artifacts.file_hash(tmp_path / "a")
        == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def test_a_fingerprint_depends_on_values_and_not_on_their_order() -> None:
    assert artifacts.fingerprint(a=1, b={"x": 1, "y": (2, 3)}) == artifacts.fingerprint(
        b={"y": [2, 3], "x": 1}, a=1
    )
    assert artifacts.fingerprint(a=1) != artifacts.fingerprint(a=2)
    assert artifacts.fingerprint(a=Symmetry.__name__) != artifacts.fingerprint(
        b=Symmetry.__name__
    )


def test_a_feature_mesh_comes_back_exactly_with_its_provenance(tmp_path: Path) -> None:
    artifacts.save_feature_mesh(a_mesh(), tmp_path, PROVENANCE)
    assert_equal(artifacts.load_feature_mesh(tmp_path), a_mesh())
    assert artifacts.provenance_of(tmp_path / "features.safetensors") == PROVENANCE
    assert files(tmp_path) == {"mesh.ply", "features.safetensors"}


def test_features_beside_the_mesh_of_another_run_are_refused(tmp_path: Path) -> None:
    artifacts.save_feature_mesh(a_mesh(), tmp_path, PROVENANCE)
    write_ply(tmp_path / "mesh.ply", a_mesh().vertices + 1, TETRAHEDRON)
    assert artifacts.provenance_of(tmp_path / "features.safetensors") is None
    with pytest.raises(InvalidInput, match="mesh.ply beside it is not the file"):
        artifacts.load_feature_mesh(tmp_path)


def test_missing_features_say_which_command_makes_them(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="uns-pose reconstruct"):
        artifacts.load_feature_mesh(tmp_path / "clip_01")


def test_cut_features_are_refused_in_one_line(tmp_path: Path) -> None:
    artifacts.save_feature_mesh(a_mesh(), tmp_path, PROVENANCE)
    path = tmp_path / "features.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(InvalidInput) as caught:
        artifacts.load_feature_mesh(tmp_path)
    assert "features.safetensors" in str(caught.value) and "\n" not in str(caught.value)


def test_an_alignment_comes_back_exactly(tmp_path: Path) -> None:
    path = tmp_path / "alignment.json"
    artifacts.save_alignment(an_alignment(), path, PROVENANCE)
    assert_equal(artifacts.load_alignment(path), an_alignment())
    assert artifacts.provenance_of(path) == PROVENANCE


def test_a_model_comes_back_exactly_also_by_its_category_folder(tmp_path: Path) -> None:
    artifacts.save_model(a_model(), tmp_path / "model")
    assert_equal(artifacts.load_model(tmp_path / "model"), a_model())
    assert_equal(artifacts.load_model(tmp_path), a_model())
    assert files(tmp_path / "model") == {"model.json", "model.safetensors", "template.ply"}


def test_what_recordings_have_taught_a_model_comes_back_exactly(tmp_path: Path) -> None:
    taught = [
        TaughtObject(
            {"enter.bias": torch.full((3,), float(k))}, torch.ones(5), torch.ones(1)
        )
        for k in (1, 2)
    ]
    model = dataclasses.replace(a_model(), taught=tuple(taught))
    artifacts.save_model(model, tmp_path)
    read = artifacts.load_model(tmp_path)
    assert len(read.taught) == 2
    for own, expected in zip(read.taught, taught, strict=True):
        assert_equal(own, expected)
    assert set(read.head) == set(model.head)


def test_a_model_with_the_weights_of_another_is_refused(tmp_path: Path) -> None:
    artifacts.save_model(a_model(), tmp_path / "a")
    artifacts.save_model(
        dataclasses.replace(a_model(), vertex_features=-a_model().vertex_features),
        tmp_path / "b",
    )
    (tmp_path / "b" / "model.safetensors").replace(tmp_path / "a" / "model.safetensors")
    with pytest.raises(InvalidInput, match="not the file that it was saved with"):
        artifacts.load_model(tmp_path / "a")


def test_a_folder_without_a_model_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no model there .*uns-pose train"):
        artifacts.load_model(tmp_path)


def test_a_file_without_provenance_has_none(tmp_path: Path) -> None:
    artifacts.write_json(tmp_path / "a.json", {})
    artifacts.write_json(tmp_path / "b.json", [1])
    (tmp_path / "c.safetensors").write_bytes(b"\xff" * 20)
    assert [
        artifacts.provenance_of(tmp_path / name)
        for name in ("a.json", "b.json", "c.safetensors", "d.json")
    ] == [None] * 4


@pytest.mark.timeout(100)
@pytest.mark.parametrize("kind", ["fifo", "device", "outside", "missing"])
def test_a_companion_is_a_regular_file_of_the_folder(tmp_path: Path, kind: str) -> None:
    artifacts.save_model(a_model(), tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.rename(tmp_path / "elsewhere")
    if kind == "fifo":
        os.mkfifo(weights)
    elif kind != "missing":
        weights.symlink_to("/dev/zero" if kind == "device" else tmp_path / "elsewhere")
    with pytest.raises(InvalidInput, match=r"model.safetensors|leaves the folder") as said:
        artifacts.load_model(tmp_path / "model")
    assert "\n" not in str(said.value)
    assert artifacts.provenance_of(tmp_path / "model" / "model.json") is None
