"""The zero surface of a field on a grid as a closed, decimated triangle mesh."""

from __future__ import annotations

import fast_simplification
import numpy as np
import torch
from skimage.measure import marching_cubes
from torch import Tensor


def extract_surface(
    field: np.ndarray, start: np.ndarray, step: np.ndarray, limit: int
) -> tuple[Tensor, Tensor]:
    """Extract the zero surface of a field; only its largest connected part is kept.

    Args:
        field: (X, Y, Z), positive inside.
        start: Position (3,) of point (0, 0, 0).
        step: Distances (3,) of neighboring points.
        limit: The surface is decimated to this number of vertices.

    Returns:
        Vertices (V, 3) float32 and triangles (T, 3) int64 of a closed surface, even if the field is
        positive at its border.
    """
    volume = np.pad(field, 1, constant_values=-1.0)
    vertices, triangles, _, _ = marching_cubes(volume, 0.0, gradient_direction="ascent")
    points = start + (vertices - 1) * step
    points, triangles = largest_part(points.astype(np.float32), triangles.astype(np.int64))
    points, triangles = decimate(points, triangles, limit)
    return torch.from_numpy(points), torch.from_numpy(triangles)


def largest_part(
    vertices: np.ndarray, triangles: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The largest connected part of a mesh: vertices (V, 3) and triangles (T, 3)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = np.concatenate([triangles[:, :2], triangles[:, 1:]])
    graph = coo_array(
        (np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(len(vertices),) * 2
    )
    _, label = connected_components(graph, directed=False)
    keep = label == np.bincount(label).argmax()
    index = np.cumsum(keep) - 1
    return vertices[keep], index[triangles[keep[triangles[:, 0]]]]


def decimate(
    vertices: np.ndarray, triangles: np.ndarray, limit: int
) -> tuple[np.ndarray, np.ndarray]:
    """Decimate a closed mesh to at most `limit` vertices, by quadrics."""
    target = 2 * limit - 4  # triangles of a closed mesh without holes
    while len(vertices) > limit and target >= 4:
        vertices, triangles = fast_simplification.simplify(
            vertices, triangles, target_count=min(target, len(triangles) - 1)
        )
        target = int(target * 0.97)
    return vertices.astype(np.float32), triangles.astype(np.int64)
