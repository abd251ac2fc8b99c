"""Export the backbone as an ONNX graph for ONNX Runtime, OpenVINO and TensorRT.

A graph is for images of one size. ONNX is a protobuf message; its few fields are written here
directly, so that no ONNX package is needed. Field numbers: onnx/onnx.proto. The network is that of
`dinov2.DinoV2`. Two multiplications are folded into the weights beside them: the attention's 1/8
into the queries, and LayerScale into the matrix before it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

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
_FLOAT, _INT64 = 1, 7  # TensorProto.DataType
_FLOAT_ATTRIBUTE, _INT_ATTRIBUTE, _INTS_ATTRIBUTE = 1, 2, 7  # AttributeProto.AttributeType


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
    """Collects the nodes and constants of a GraphProto."""

    def __init__(self) -> None:
        self._nodes: list[bytes] = []
        self._constants: list[bytes] = []

    def add(
        self,
        kind: str,
        *inputs: str | Tensor | tuple[int, ...],
        name: str = "",
        **attributes: object,
    ) -> str:
        """Add a node, and return the name of its output.

        Args:
            kind: Operator.
            *inputs: Names of outputs; tensors and tuples of integers become constants.
            name: Name of the output; empty: one is made.
            **attributes: Attributes of the operator.
        """
        name = name or f"{kind}_{len(self._nodes)}"
        names = [i if isinstance(i, str) else self._constant(i) for i in inputs]
        fields = [_bytes(1, i) for i in names] + [
            _bytes(2, name),
            _bytes(3, name),
            _bytes(4, kind),
        ]
        self._nodes.append(
            b"".join(
                fields
                + [_bytes(5, _attribute(key, value)) for key, value in attributes.items()]
            )
        )
        return name

    def _constant(self, value: Tensor | tuple[int, ...]) -> str:
        name = f"constant_{len(self._constants)}"
        if isinstance(value, Tensor):
            kind, array = (
                _FLOAT,
                value.detach().float().cpu().contiguous().numpy().astype("<f4"),
            )
        else:
            kind, array = _INT64, np.asarray(value, "<i8")
        shape = b"".join(_number(1, side) for side in array.shape)
        self._constants.append(
            shape + _number(2, kind) + _bytes(8, name) + _bytes(9, array.tobytes())
        )
        return name

    def file(self, image: tuple[int, ...], tokens: tuple[int, ...]) -> bytes:
        """The ModelProto, given the sizes of input and output after the batch dimension."""
        parts = [_bytes(1, node) for node in self._nodes] + [_bytes(2, "dinov2_vits14")]
        parts += [_bytes(5, constant) for constant in self._constants]
        parts += [_bytes(11, _value(IMAGES, image)), _bytes(12, _value(TOKENS, tokens))]
        opset = _bytes(1, "") + _number(2, OPSET)
        return (
            _number(1, IR_VERSION)
            + _bytes(2, "uns_pose_ros")
            + _bytes(7, b"".join(parts))
            + _bytes(8, opset)
        )


def _value(name: str, sides: tuple[int, ...]) -> bytes:
    """ValueInfoProto of a float tensor (batch, *sides)."""
    shape = b"".join(
        _bytes(1, side)
        for side in (_bytes(2, "batch"), *(_number(1, side) for side in sides))
    )
    return _bytes(1, name) + _bytes(2, _bytes(1, _number(1, _FLOAT) + _bytes(2, shape)))


def _attribute(name: str, value: object) -> bytes:
    if isinstance(value, float):
        return (
            _bytes(1, name)
            + _varint(2 << 3 | 5)
            + struct.pack("<f", value)
            + _number(20, _FLOAT_ATTRIBUTE)
        )
    if isinstance(value, int):
        return _bytes(1, name) + _number(3, value) + _number(20, _INT_ATTRIBUTE)
    assert isinstance(value, tuple)
    return (
        _bytes(1, name)
        + b"".join(_number(8, number) for number in value)
        + _number(20, _INTS_ATTRIBUTE)
    )


def _bytes(field: int, value: bytes | str) -> bytes:
    """Protobuf field that holds bytes, text or a message."""
    content = value.encode() if isinstance(value, str) else value
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(
        value & (1 << 64) - 1
    )  # negative ones in two's complement


def _varint(value: int) -> bytes:
    """Protobuf number: seven bits in each byte, the lowest first; the highest bit: more follow."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
