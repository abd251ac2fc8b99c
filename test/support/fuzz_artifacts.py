"""A reconstructed video, an alignment, a model and pretrained weights, to be spoiled."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn import functional

import fuzz_checks
from uns_pose_ros.core.types import Alignment, CategoryModel, FeatureMesh, TaughtObject
from uns_pose_ros.estimation import loaded_model
from uns_pose_ros.io import artifacts
from uns_pose_ros.networks import weight_catalog, weight_fetching
from uns_pose_ros.networks.correspondence_head import Head, NetworkConfig


def write_category(folder: Path) -> None:
    """One reconstructed video without pictures, an alignment of it, and a model of it."""
    vertices, triangles = (
        torch.eye(4)[:, :3].contiguous(),
        torch.tensor([[0, 1, 2], [0, 2, 3], [0, 3, 1], [1, 3, 2]]),
    )
    features, cameras = torch.eye(4, 8).half(), torch.eye(4).repeat(2, 1, 1)
    mesh = FeatureMesh(
        vertices, triangles, features, torch.arange(4), torch.tensor([0, 1, 0, 1]), cameras
    )
    artifacts.save_feature_mesh(mesh, folder / "clip_01", {"seed": 0})
    one, pose = torch.ones(1, dtype=torch.float64), torch.eye(4, dtype=torch.float64)[None]
    alignment = Alignment(("clip_01",), pose, one, torch.ones(1, dtype=torch.bool), one)
    artifacts.save_alignment(alignment, folder / "alignment.json", {"seed": 0})
    config = NetworkConfig(layers=(11,), width=8, blocks=1, features=4, clutter=2)
    network = Head(config, len(vertices), 16)
    head = {name: tensor.detach() for name, tensor in network.state_dict().items()}
    taught = TaughtObject(
        {name: tensor.detach().clone() for name, tensor in network.named_parameters()},
        torch.ones(16),
        torch.zeros(1),
    )
    vertex_features = functional.normalize(head.pop("vertex_features"), dim=-1)
    background_features = functional.normalize(head.pop("background_features"), dim=-1)
    origin = {
        "network": artifacts.plain(config),
        "crop_size": 224,
        "canon_from_obj": {"clip_01": torch.eye(4).tolist()},
    }
    artifacts.save_model(
        CategoryModel(
            "truck",
            vertices,
            triangles,
            vertex_features,
            background_features,
            head,
            provenance=origin,
            taught=(taught,),
        ),
        folder / "model",
    )


def read_model(folder: Path, _: Path) -> None:
    model = artifacts.load_model(folder / "model")
    fuzz_checks.check_model(model)
    loaded_model.LoadedModel(model, torch.device("cpu"), False)


def renew_mesh(folder: Path, _: Path) -> None:
    """The mesh's new checksum into the features' metadata."""
    path = folder / "clip_01" / artifacts.FEATURES
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    metadata["companions"] = json.dumps(
        {artifacts.MESH: artifacts.file_hash(path.with_name(artifacts.MESH))}
    )
    save_file(load_file(path), path, metadata)


def renew_model(folder: Path, _: Path) -> None:
    path = folder / "model" / artifacts.MODEL
    record = json.loads(path.read_text())
    if isinstance(record.get("companions"), dict):
        record["companions"] = {
            n: artifacts.file_hash(path.with_name(n))
            for n in (artifacts.TEMPLATE, artifacts.WEIGHTS)
        }
        path.write_text(json.dumps(record))


def _field(number: int, content: bytes | int) -> bytes:
    """One field of a protobuf message; numbers and lengths below 2^14."""
    value = content if isinstance(content, int) else len(content)
    head = bytes(
        [
            number << 3 | (0 if isinstance(content, int) else 2),
            value & 127 | 128,
            value >> 7,
        ]
    )
    return head if isinstance(content, int) else head + content


def write_weights(folder: Path) -> None:
    """A graph of one matrix product, and of the parts of DINOv2 that are put together again."""
    graph = _field(
        1,
        _field(1, b"x") + _field(1, b"m") + _field(3, b"/a/MatMul") + _field(4, b"MatMul"),
    )
    for name, shape in (
        ("m", (3, 2)),
        ("model.cls_token", (1, 1, 4)),
        ("onnx::Reshape_1", (1, 2, 4)),
        ("model.b", (5,)),
    ):
        dimensions = b"".join(_field(1, size) for size in shape)
        graph += _field(
            5,
            dimensions
            + _field(2, 1)
            + _field(8, name.encode())
            + _field(9, np.zeros(shape, "<f4").tobytes()),
        )
    (folder / "tiny.onnx").write_bytes(_field(1, 8) + _field(7, graph))
    save_file(
        {"cls_token": torch.zeros(1, 1, 4), "norm.weight": torch.ones(4)},
        folder / "tiny.safetensors",
    )


def read_weights(_: Path, spoiled: Path) -> None:
    weight_fetching._read_tensors(
        spoiled, weight_catalog._BY_NAME["dinov2_vits14"]
    )  # behind it the checksum of their content


def read_mesh(folder: Path, _: Path) -> None:
    fuzz_checks.check_mesh(artifacts.load_feature_mesh(folder / "clip_01"))
