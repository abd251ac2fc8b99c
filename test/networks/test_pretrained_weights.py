"""The cache of pretrained weights: what is in it, and whether it is intact."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.networks import (
    dinov2,
    pretrained_weights,
    weight_catalog,
    weight_fetching,
)


def test_one_flipped_byte_of_the_cached_weights_is_noticed_when_they_are_loaded(
    tmp_path: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = {"cls_token": torch.arange(8.0)}
    weight = replace(
        weight_catalog._BY_NAME["dinov2_vits14"],
        content_sha256=pretrained_weights.tensor_hash(tensors),
    )
    monkeypatch.setitem(weight_catalog._BY_NAME, weight.name, weight)
    empty_cache.mkdir(parents=True)
    path = empty_cache / weight.filename
    safetensors.torch.save_file(tensors, path)
    hashed: list[object] = []
    check = pretrained_weights.is_intact

    def counted(path: Path, weight: weight_catalog.Weight) -> bool:
        hashed.append(path)
        return check(path, weight)

    monkeypatch.setattr(pretrained_weights, "is_intact", counted)
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
    assert "mobile_sam" not in weight_catalog.NAMES
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
        weight_fetching.fetch("mobile_sam", forged)


def test_a_damaged_cache_is_noticed(empty_cache: Path) -> None:
    empty_cache.mkdir(parents=True)
    (empty_cache / "u2netp.onnx").write_bytes(b"half a file")
    (empty_cache / "dinov2_vits14.safetensors").write_bytes(b"half a file")
    assert [(state.cached, state.intact) for state in pretrained_weights.status()] == [
        (True, False),
        (True, False),
    ]
