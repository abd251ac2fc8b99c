"""Export the backbone as an ONNX graph for ONNX Runtime, OpenVINO and TensorRT.

A graph is for images of one size. The network is that of `dinov2.DinoV2`. Two multiplications are
folded into the weights beside them: the attention's 1/8 into the queries, and LayerScale into the
matrix before it. The package `onnx` (extra `runtimes`) is imported when a graph is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from uns_pose_ros.networks.dinov2 import (
    CHANNELS,
    DEPTH,
    HEADS,
    PATCH,
    DinoV2,
    TransformerBlock,
)

IMAGES, TOKENS = "images", "tokens"
OPSET, IR_VERSION = 17, 8  # of 2022, the first with LayerNormalization


def backbone_graph(
    backbone: DinoV2, height: int, width: int, layers: Sequence[int]
) -> bytes:
    """Write the backbone as an ONNX file.

    Its input `images` (batch, 3, height, width) is as `dinov2.imagenet_normalize` makes it, of any
    batch size. Its output `tokens` (batch, height / 14 * width / 14, L * 384) holds the L layers
    after the final norm, one after the other.

    Args:
        backbone: The network.
        height: Height of the images, a multiple of 14 px.
        width: Width of the images, a multiple of 14 px.
        layers: Block numbers from 0.
    """
    if height % PATCH or width % PATCH or not height or not width:
        raise ValueError(f"image of {width} x {height} px: multiples of {PATCH} px needed")
    wanted = [range(DEPTH)[layer] for layer in layers]
    rows, columns = height // PATCH, width // PATCH
    graph = _Graph()
    projection = backbone.patch_embed.proj
    assert projection.bias is not None
    patches = graph.add(
        "Conv", IMAGES, projection.weight, projection.bias, strides=(PATCH, PATCH)
    )
    patches = graph.add(
        "Transpose", graph.add("Reshape", patches, (0, CHANNELS, -1)), perm=(0, 2, 1)
    )
    # a row of zeros before the patches, and the class token is part of what is added
    added = backbone.positions(rows, columns).clone()
    added[:, :1] += backbone.cls_token
    tokens = graph.add("Add", graph.add("Pad", patches, (0, 1, 0, 0, 0, 0)), added)
    outputs: dict[int, str] = {}
    for number, block in enumerate(backbone.blocks):
        assert isinstance(block, TransformerBlock)
        tokens = _block(graph, block, tokens)
        if number in wanted:
            whole = _norm(graph, backbone.norm, tokens)
            outputs[number] = graph.add("Slice", whole, (1,), (1 + rows * columns,), (1,))
        if number == max(wanted):
            break
    graph.add("Concat", *(outputs[number] for number in wanted), axis=-1, name=TOKENS)
    return graph.file((3, height, width), (rows * columns, len(wanted) * CHANNELS))


def _block(graph: _Graph, block: TransformerBlock, tokens: str) -> str:
    """Add the nodes of one block; tokens (B, N, 384) to tokens of the same shape."""
    attention, mlp = block.attn, block.mlp
    inner, size = _norm(graph, block.norm1, tokens), CHANNELS // HEADS
    parts = []
    for k, scale in enumerate((size**-0.5, 1.0, 1.0)):  # queries, keys, values
        mine = slice(k * CHANNELS, (k + 1) * CHANNELS)
        weight, bias = (
            attention.qkv.weight[mine].float() * scale,
            attention.qkv.bias[mine].float() * scale,
        )
        heads = graph.add(
            "Reshape", _linear(graph, inner, weight, bias), (0, 0, HEADS, size)
        )
        parts.append(
            graph.add("Transpose", heads, perm=(0, 2, 3, 1) if k == 1 else (0, 2, 1, 3))
        )
    share = graph.add("Softmax", graph.add("MatMul", parts[0], parts[1]), axis=-1)
    mixed = graph.add("Transpose", graph.add("MatMul", share, parts[2]), perm=(0, 2, 1, 3))
    mixed = graph.add("Reshape", mixed, (0, 0, CHANNELS))
    gamma = block.ls1.gamma
    projected = _linear(
        graph,
        mixed,
        attention.proj.weight.float() * gamma[:, None],
        attention.proj.bias.float() * gamma,
    )
    tokens = graph.add("Add", tokens, projected)
    hidden = _linear(graph, _norm(graph, block.norm2, tokens), mlp.fc1.weight, mlp.fc1.bias)
    error = graph.add("Erf", graph.add("Mul", hidden, torch.tensor(2**-0.5)))
    hidden = graph.add(
        "Mul",
        graph.add("Mul", hidden, graph.add("Add", error, torch.tensor(1.0))),
        torch.tensor(0.5),
    )
    gamma = block.ls2.gamma
    weight, bias = mlp.fc2.weight.float() * gamma[:, None], mlp.fc2.bias.float() * gamma
    return graph.add("Add", tokens, _linear(graph, hidden, weight, bias))


def _linear(graph: _Graph, x: str, weight: Tensor, bias: Tensor) -> str:
    return graph.add("Add", graph.add("MatMul", x, weight.T), bias)


def _norm(graph: _Graph, norm: torch.nn.LayerNorm, x: str) -> str:
    return graph.add(
        "LayerNormalization", x, norm.weight, norm.bias, axis=-1, epsilon=norm.eps
    )


class _Graph:
    """Collects the nodes and constants of an ONNX graph."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def add(
        self,
        kind: str,
        *inputs: str | Tensor | tuple[int, ...],
        name: str = "",
        **attributes: Any,
    ) -> str:
        """Add a node, and return the name of its output.

        Args:
            kind: Operator.
            *inputs: Names of outputs; tensors and tuples of integers become constants.
            name: Name of the output; empty: one is made.
            **attributes: Attributes of the operator.
        """
        from onnx import helper

        name = name or f"{kind}_{len(self._nodes)}"
        names = [i if isinstance(i, str) else self._constant(i) for i in inputs]
        self._nodes.append(helper.make_node(kind, names, [name], name, **attributes))
        return name

    def _constant(self, value: Tensor | tuple[int, ...]) -> str:
        from onnx import numpy_helper

        name = f"constant_{len(self._constants)}"
        if isinstance(value, Tensor):
            array = value.detach().float().cpu().contiguous().numpy()
        else:
            array = np.asarray(value, np.int64)
        self._constants.append(numpy_helper.from_array(array, name))
        return name

    def file(self, image: tuple[int, ...], tokens: tuple[int, ...]) -> bytes:
        """The ONNX file, given the sizes of input and output after the batch dimension."""
        from onnx import TensorProto, helper

        ends = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *sides])
            for name, sides in ((IMAGES, image), (TOKENS, tokens))
        ]
        graph = helper.make_graph(
            self._nodes, "dinov2_vits14", ends[:1], ends[1:], self._constants
        )
        model = helper.make_model(
            graph,
            producer_name="uns_pose_ros",
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET)],
        )
        return cast("bytes", model.SerializeToString())
