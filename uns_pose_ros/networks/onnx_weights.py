"""Read the weights of an ONNX file by the names of the PyTorch modules that it was exported from.

ONNX is a protobuf message; the five fields that hold names and weights are read here directly, so
that no ONNX package is needed. Field numbers: onnx/onnx.proto (ModelProto, GraphProto, NodeProto,
TensorProto).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io.given_files import read_given

_FLOAT = 1  # TensorProto.DataType
_MAX_FILE = 2**30  # bytes
_MAX_SHIFT = 63  # bits, of the last byte of a number


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the float32 initializers of the ONNX graph at `path`, by name.

    The export transposes the matrix of a linear layer and drops its name, but the MatMul node that
    uses it still has the module's name: `/blocks.0/attn/qkv/MatMul` gives
    `blocks.0.attn.qkv.weight`, (out, in) as in PyTorch.

    Raises:
        InvalidInput: The file is not an ONNX file.
    """
    try:
        content = memoryview(read_given(path, _MAX_FILE))
        graph = _fields(_fields(content)[7][0])
        initializers = dict(_tensor(message) for message in graph[5])
        for message in graph[1]:
            node = _fields(message)
            inputs, name = [_text(i) for i in node.get(1, [])], _text(node.get(3, [b""])[0])
            if _text(node[4][0]) == "MatMul" and inputs[1] in initializers:
                module = name.strip("/").removesuffix("/MatMul").replace("/", ".")
                initializers[f"{module}.weight"] = initializers.pop(
                    inputs[1]
                ).T.contiguous()
    except (OSError, KeyError, IndexError, TypeError, ValueError) as error:
        raise InvalidInput(
            f"{path} is not an ONNX file with float32 weights ({error})"
        ) from error
    return initializers


def _tensor(message: memoryview) -> tuple[str, Tensor]:
    tensor = _fields(message)
    name = _text(tensor[8][0])
    if tensor[2][0] != _FLOAT:
        raise ValueError(f"{name} has data type {tensor[2][0]}, {_FLOAT} (float32) needed")
    shape = [
        size
        for packed in tensor.get(1, [])
        for size in ([packed] if isinstance(packed, int) else _varints(packed))
    ]
    return name, torch.from_numpy(np.frombuffer(tensor[9][0], "<f4").reshape(shape).copy())


def _fields(message: memoryview) -> dict[int, list[Any]]:
    """All fields of one protobuf message: values by number.

    A value is an int, or the bytes of a string or a message.
    """
    fields: dict[int, list[Any]] = {}
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        kind = key & 7
        value: Any
        if kind == 0:
            value, position = _varint(message, position)
        else:
            size, position = (
                _varint(message, position) if kind == 2 else ({1: 8, 5: 4}[kind], position)
            )
            if position + size > len(message):
                raise ValueError(f"cut off at byte {len(message)}")
            value, position = message[position : position + size], position + size
        fields.setdefault(key >> 3, []).append(value)
    return fields


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = message[position]
        value, shift, position = value | (byte & 127) << shift, shift + 7, position + 1
        if shift > _MAX_SHIFT + 7:
            raise ValueError(f"a number of more than 64 bits at byte {position}")
        if byte < 128:
            return value, position


def _varints(message: memoryview) -> Iterator[int]:
    position = 0
    while position < len(message):
        value, position = _varint(message, position)
        yield value


def _text(value: memoryview | bytes) -> str:
    if isinstance(value, int):  # bytes(N) would be N zeros
        raise TypeError("a number where a name is needed")
    return bytes(value).decode()
