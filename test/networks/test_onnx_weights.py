"""Weights read from an ONNX graph."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.networks import (
    onnx_weights,
)


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
