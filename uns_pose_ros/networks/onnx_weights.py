"""Read the weights of an ONNX file by the names of the PyTorch modules that it was exported from.

ONNX is a protobuf message; the five fields that hold names and weights are read here directly, so
that no ONNX package is needed. Field numbers: onnx/onnx.proto (ModelProto, GraphProto, NodeProto,
TensorProto).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io.given_files import read_given
from uns_pose_ros.io.schema.protobuf_fields import message_fields, packed_varints

_FLOAT = 1  # TensorProto.DataType
_MAX_FILE = 2**30  # bytes


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
        graph = message_fields(message_fields(content)[7][0])
        initializers = dict(_tensor(message) for message in graph[5])
        for message in graph[1]:
            node = message_fields(message)
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
    tensor = message_fields(message)
    name = _text(tensor[8][0])
    if tensor[2][0] != _FLOAT:
        raise ValueError(f"{name} has data type {tensor[2][0]}, {_FLOAT} (float32) needed")
    shape = [
        size
        for packed in tensor.get(1, [])
        for size in ([packed] if isinstance(packed, int) else packed_varints(packed))
    ]
    return name, torch.from_numpy(np.frombuffer(tensor[9][0], "<f4").reshape(shape).copy())


def _text(value: memoryview | bytes) -> str:
    if isinstance(value, int):  # bytes(N) would be N zeros
        raise TypeError("a number where a name is needed")
    return bytes(value).decode()
