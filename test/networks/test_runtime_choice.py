"""The fastest runtime that gives the right features is taken, and remembered."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from uns_pose_ros.networks.runtime_choice import (
    RuntimeChoice,
    choose_fastest,
    describe_machine,
)


class Runtimes:
    """Runtimes that take given milliseconds of a clock of their own, and what was loaded."""

    def __init__(self, **milliseconds: float) -> None:
        self.milliseconds = {
            name.replace("_", "-"): ms for name, ms in milliseconds.items()
        }
        self.loaded = list[str]()
        self.wrong, self.broken = "", ""
        self._now = 0.0

    def choose(self, cache: Path, key: str = "this machine") -> RuntimeChoice:
        names = list(self.milliseconds)
        return choose_fastest(names, self.load, cache, key, lambda: self._now)

    def load(self, name: str) -> Callable[[Tensor, Sequence[int]], Tensor]:
        self.loaded.append(name)
        if name == self.broken:
            raise RuntimeError("no such instruction\nat 0x0")

        def run(images: Tensor, layers: Sequence[int]) -> Tensor:
            self._now += self.milliseconds[name] / 1000
            tokens = torch.ones(1, 1, 4, 4, 8)
            if name == self.wrong:
                tokens[..., ::2] = -1
            return tokens

        return run


def test_the_fastest_runtime_is_taken_and_remembered_by_machine(tmp_path: Path) -> None:
    runtimes = Runtimes(torch=100, onnx=80, openvino=60)
    cache = tmp_path / "new" / "runtimes.json"
    chosen = runtimes.choose(cache)
    assert chosen.name == "openvino"
    assert chosen.reason == "openvino 60 ms, onnx 80 ms, torch 100 ms"
    assert runtimes.loaded == ["torch", "onnx", "openvino"]
    assert runtimes.choose(cache) == chosen and len(runtimes.loaded) == 3
    runtimes.choose(cache, "another machine")
    assert len(runtimes.loaded) == 6
    # a runtime that was removed since is not taken
    assert Runtimes(torch=100, onnx=80).choose(cache).name == "onnx"


def test_a_runtime_with_other_features_or_a_fault_is_left_out_with_the_reason(
    tmp_path: Path,
) -> None:
    runtimes = Runtimes(torch_fp32=100, torch=40, onnx=10, openvino=20)
    runtimes.wrong, runtimes.broken = "onnx", "openvino"
    chosen = runtimes.choose(tmp_path / "runtimes.json")
    assert chosen.name == "torch"
    assert "onnx is inexact (cosine 0.000)" in chosen.reason
    assert "openvino failed (no such instruction)" in chosen.reason
    broken = Runtimes(torch=1)
    broken.broken = "torch"
    assert broken.choose(tmp_path / "other.json").name == "torch"


def test_pytorch_stays_where_another_runtime_gains_little(tmp_path: Path) -> None:
    little = Runtimes(torch=100, onnx=95, openvino=91).choose(tmp_path / "little.json")
    assert little.name == "torch"
    assert little.reason == "openvino 91 ms, onnx 95 ms, torch 100 ms"
    assert Runtimes(torch=100, onnx=89).choose(tmp_path / "enough.json").name == "onnx"


def test_what_another_process_measured_meanwhile_is_taken(tmp_path: Path) -> None:
    cache = tmp_path / "runtimes.json"
    first, second = Runtimes(torch=100, onnx=50), Runtimes(torch=100, onnx=50)
    load = first.load

    def start_second(name: str) -> Callable[[Tensor, Sequence[int]], Tensor]:
        if name == "torch":
            thread.start()
        return load(name)

    first.load = start_second  # type: ignore[method-assign]
    thread = threading.Thread(target=lambda: second.choose(cache))
    first.choose(cache)
    thread.join(30)
    assert not thread.is_alive() and second.loaded == []


@pytest.mark.parametrize("text", ["{", "[]", '{"this machine": 3}', '{"this machine": []}'])
def test_a_cache_that_cannot_be_read_is_made_again(tmp_path: Path, text: str) -> None:
    cache = tmp_path / "runtimes.json"
    cache.write_text(text)
    assert Runtimes(torch=1).choose(cache).name == "torch"
    runtimes = Runtimes(torch=1)
    runtimes.choose(cache)
    assert runtimes.loaded == []


def test_where_nothing_can_be_remembered_a_runtime_is_chosen_all_the_same(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("")
    chosen = Runtimes(torch=5).choose(tmp_path / "file" / "runtimes.json")
    assert chosen.name == "torch"


def test_the_machine_is_told_apart_by_threads_versions_and_limits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = describe_machine()
    assert f"torch {torch.__version__.split('+')[0]}" in before and "threads" in before
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert describe_machine() != before


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, "[]", '{"this machine": ["onnx", 3]}', '{"this machine": "on"}', ""],
)
def test_a_spoiled_memory_is_measured_again_and_replaced(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    cache = tmp_path / "runtimes.json"
    cache.write_text(text)
    runtimes = Runtimes(torch_fp32=100, onnx=80)
    assert runtimes.choose(cache).name == "onnx"
    assert "runtimes.json: " in caplog.text and "it is measured again" in caplog.text
    assert runtimes.choose(cache).name == "onnx" and len(runtimes.loaded) == 2
