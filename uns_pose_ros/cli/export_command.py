"""The command that writes the backbone as a file for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
from tyro.conf import Positional, arg

from uns_pose_ros.cli.arguments import Json
from uns_pose_ros.cli.console import emit
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.estimation.loaded_model import LoadedModel
from uns_pose_ros.io import artifacts
from uns_pose_ros.networks.backbone_runtimes import require_packages
from uns_pose_ros.networks.dinov2 import CHANNELS, PATCH, load_backbone
from uns_pose_ros.networks.onnx_export import IMAGES, OPSET, TOKENS, backbone_graph

_LARGEST = 1400  # px
Side = Annotated[
    int | None, arg(metavar="PX", help="of the images; without: the model's crops")
]


def export_command(
    model: Annotated[
        Positional[Path],
        arg(metavar="MODEL", help="folder that `uns-pose train` wrote: says which layers"),
    ],
    file: Annotated[Positional[Path], arg(metavar="FILE.onnx", help="written")],
    width: Side = None,
    height: Side = None,
    json: Json = None,
) -> None:
    """Write the backbone of a model as an ONNX file for images of one size, any batch, float32.

    The file is for runtimes outside this package: the estimator makes its graphs itself
    (--estimator.runtime onnx, openvino). TensorRT: trtexec --onnx=FILE.onnx --fp16
    --shapes=images:1x3xHxW, which has not been tried.
    """
    reader = LoadedModel(artifacts.load_model(model), torch.device("cpu"), halved=False)
    sides = {"width": width or reader.crop_size, "height": height or reader.crop_size}
    for name, side in sides.items():
        if side % PATCH or not PATCH <= side <= _LARGEST:
            raise InvalidInput(
                f"{name} {side} px: multiples of {PATCH} from {PATCH} to {_LARGEST} are valid"
            )
    require_packages("an ONNX file", ("onnx",))
    graph = backbone_graph(
        load_backbone(device="cpu"), sides["height"], sides["width"], reader.layers
    )
    with artifacts.atomic_write(file) as temporary:
        temporary.write_bytes(graph)
    images = ["batch", 3, sides["height"], sides["width"]]
    tokens = [
        "batch",
        sides["height"] // PATCH * (sides["width"] // PATCH),
        CHANNELS * len(reader.layers),
    ]
    record = {
        "file": str(file),
        "opset": OPSET,
        "layers": list(reader.layers),
        "inputs": {IMAGES: images},
        "outputs": {TOKENS: tokens},
    }
    text = f"{file}: {len(graph) / 1e6:.0f} MB, {IMAGES} {images} -> {TOKENS} {tokens}"
    emit(
        record,
        f"{text}; images are RGB from 0 to 1, less ImageNet's mean, over its deviation",
        json,
    )
