"""Triangle meshes as binary PLY files, the form every viewer opens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io.given_files import read_given

_VERTEX = np.dtype("<f4")
_FACE = np.dtype([("count", "u1"), ("corner", "<i4", 3)])
_HEADER = """ply
format binary_little_endian 1.0
element vertex {vertices}
property float x
property float y
property float z
element face {triangles}
property list uchar int vertex_indices
end_header
"""
_MAX_HEADER = 4096  # bytes
MAX_MESH = 2**30  # bytes, far more than a mesh of ours takes


def write_ply(path: Path, vertices: Tensor, triangles: Tensor) -> None:
    """Write vertices (V, 3) float32 and triangles (T, 3) int64."""
    faces = np.empty(len(triangles), _FACE)
    faces["count"] = 3
    faces["corner"] = triangles.cpu().numpy()
    header = _HEADER.format(vertices=len(vertices), triangles=len(triangles))
    path.write_bytes(
        header.encode() + vertices.cpu().numpy().astype(_VERTEX).tobytes() + faces.tobytes()
    )


def read_ply(path: Path) -> tuple[Tensor, Tensor]:
    """Read vertices (V, 3) float32 and triangles (T, 3) int64.

    Only the layout of `write_ply` is read.
    """
    try:
        data = read_given(path, MAX_MESH)
    except OSError as error:
        raise InvalidInput(f"{path}: the mesh cannot be read ({error.strerror})") from None
    return parse_ply(data, path)


def parse_ply(data: bytes, path: Path) -> tuple[Tensor, Tensor]:
    """Vertices and triangles of a file's bytes, as `read_ply`; errors name `path`."""
    end = data.find(b"end_header\n", 0, _MAX_HEADER) + len(b"end_header\n")
    header = data[:end].decode("ascii", "replace")
    counts = {
        w[1]: int(w[2])
        for w in map(str.split, header.splitlines())
        if w[:1] == ["element"] and w[2:] and w[2].isdigit()
    }
    v, t = counts.get("vertex", 0), counts.get("face", 0)
    if header != _HEADER.format(vertices=v, triangles=t):
        raise InvalidInput(
            f"{path}: not a mesh written by this program (binary PLY of x y z vertices and "
            "triangles is valid)"
        )
    split = end + v * 3 * _VERTEX.itemsize
    if len(data) != split + t * _FACE.itemsize:
        raise InvalidInput(
            f"{path}: {len(data)} bytes where {v} vertices and {t} triangles take "
            f"{split + t * _FACE.itemsize}"
        )
    vertices = np.frombuffer(data[end:split], _VERTEX).reshape(v, 3)
    faces = np.frombuffer(data[split:], _FACE)
    if t and not (
        (faces["count"] == 3).all()
        and faces["corner"].min() >= 0
        and faces["corner"].max() < v
    ):
        raise InvalidInput(f"{path}: a face is no triangle of the {v} vertices")
    if not np.isfinite(vertices).all():
        raise InvalidInput(f"{path}: a vertex is not finite")
    return torch.from_numpy(vertices.astype(np.float32)), torch.from_numpy(
        faces["corner"].astype(np.int64)
    )
