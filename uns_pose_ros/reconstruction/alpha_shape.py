"""Coarse closed meshes as alpha shapes of points from structure from motion.

Source: Edelsbrunner and Mücke, "Three-Dimensional Alpha Shapes", 1994; Sommer et al., CVPR 2024,
and their released code: alpha starts at the points' spacing and grows by 1.3 until the surface is
closed and has no edge or vertex where it touches itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import Delaunay, QhullError, cKDTree
from torch import Tensor

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import project, transform
from uns_pose_ros.core.isosurface import decimate, largest_part

LEAST_POINTS = 20
_MOST_POINTS = 10_000
_GROWTH = 1.3
# corners of the faces of a tetrahedron; the last is the corner on the other side
_FACES = np.array([[0, 1, 2, 3], [0, 1, 3, 2], [0, 2, 3, 1], [1, 2, 3, 0]])

Points = NDArray[np.float64]
Triangles = NDArray[np.int64]


def points_in_masks(
    points: Tensor,
    masks: Sequence[Tensor],
    matrices: Tensor,
    cam_from_obj: Tensor,
    outvoted: float = 0.1,
) -> Tensor:
    """The points (M, 3) of (N, 3) that lie inside the masks.

    Args:
        points: Points (N, 3) float64, obj frame.
        masks: F masks (H, W) bool.
        matrices: (F, 3, 3) float64, px.
        cam_from_obj: (F, 4, 4) float64.
        outvoted: Fraction of the views that show a point outside their mask and do not count.
    """
    outside, shown = torch.zeros(2, len(points))
    for mask, matrix, pose in zip(masks, matrices, cam_from_obj, strict=True):
        there = transform(pose, points)
        pixels = project(matrix, there).round()
        size = torch.tensor([mask.shape[1], mask.shape[0]])
        visible = (there[:, 2] > 0) & ((pixels >= 0) & (pixels < size)).all(1)
        column, row = pixels[visible].long().unbind(1)
        outside[visible] += (~mask[row, column]).float()
        shown += visible
    return points[(shown > 0) & (outside <= outvoted * shown)]


def compute_alpha_shape(points: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """Compute the tightest closed alpha shape of points (N, 3); only its largest part is kept.

    Args:
        points: Points (N, 3); at most 10,000 of them, evenly chosen, are used.
        limit: The surface is decimated to this number of vertices.

    Returns:
        Vertices (V, 3) float32 and triangles (T, 3) int64, counter-clockwise seen from outside.

    Raises:
        InvalidInput: The points are too few, or lie in one plane.
    """
    unique = np.unique(points.double().numpy(), axis=0)
    if len(unique) < LEAST_POINTS:
        raise InvalidInput(
            f"{len(unique)} points of structure from motion lie inside the masks, "
            f"{LEAST_POINTS} needed for an alpha shape; --surface hull needs none"
        )
    unique = unique[:: -(-len(unique) // _MOST_POINTS)]
    try:
        tetrahedra = Delaunay(unique).simplices.astype(np.int64)
    except QhullError:
        raise InvalidInput(
            f"the {len(unique)} points of structure from motion inside the masks lie in one plane: "
            "they have no alpha shape; --surface hull needs none"
        ) from None
    radius = circumradii(unique[tetrahedra])
    alpha, last = point_spacing(unique), float(radius.max())
    while True:
        faces = boundary_faces(unique, tetrahedra[radius <= alpha])
        if alpha >= last or is_closed_manifold(faces):
            break
        alpha *= _GROWTH
    vertices, triangles = largest_part(*_only_used(unique, faces))
    vertices, triangles = decimate(vertices.astype(np.float32), triangles, limit)
    return torch.from_numpy(vertices), torch.from_numpy(triangles)


def point_spacing(points: Points) -> float:
    """Mean over the points (N, 3) of the 1 % quantile of the distances to all, or of the third."""
    share = max(0.01, 3 / len(points)) * (len(points) - 1)
    low = int(share)
    near = cKDTree(points).query(points, k=min(low + 2, len(points)))[0]
    above = near[:, min(low + 1, near.shape[1] - 1)]
    return float((near[:, low] + (share - low) * (above - near[:, low])).mean())


def circumradii(corners: Points) -> Points:
    """Radii (T,) of the spheres through the corners (T, 4, 3) of tetrahedra; inf: flat."""
    edges = corners[:, 1:] - corners[:, :1]
    volume = np.abs(np.linalg.det(edges))
    flat = volume < 1e-12 * np.linalg.norm(edges, axis=2).prod(1)
    edges[flat] = np.eye(3)
    centers = np.linalg.solve(edges, (edges**2).sum(2)[..., None] / 2)[..., 0]
    return np.where(flat, np.inf, np.linalg.norm(centers, axis=1))


def boundary_faces(points: Points, tetrahedra: Triangles) -> Triangles:
    """The faces (T, 3) that belong to one tetrahedron only, their normals to the outside."""
    faces = tetrahedra[:, _FACES].reshape(-1, 4)
    _, index, count = np.unique(
        np.sort(faces[:, :3], axis=1), axis=0, return_index=True, return_counts=True
    )
    faces = faces[index[count == 1]]
    a, b, c, inside = np.moveaxis(points[faces], 1, 0)
    inwards = (np.cross(b - a, c - a) * (inside - a)).sum(1) > 0
    faces[inwards] = faces[inwards][:, [1, 0, 2, 3]]
    return faces[:, :3]


def is_closed_manifold(triangles: Triangles) -> bool:
    """Whether triangles (T, 3) form a closed surface that nowhere touches itself."""
    if not len(triangles):
        return False
    # an edge is named by its ends; `corner` are the corners of the triangle there
    corner = 3 * np.arange(len(triangles))[:, None, None] + [[0, 1], [1, 2], [2, 0]]
    ends = triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    corner = corner.reshape(-1, 2)
    backward = ends[:, 0] > ends[:, 1]
    ends[backward], corner[backward] = ends[backward, ::-1], corner[backward, ::-1]
    order = np.lexsort(ends.T)
    ends, corner = ends[order], corner[order]
    if len(ends) % 2 or (ends[::2] != ends[1::2]).any():
        return False
    if (ends[1:-1:2] == ends[2::2]).all(1).any():  # more than two triangles at an edge
        return False
    fans = coo_array(
        (np.ones(corner.size // 2), (corner[::2].ravel(), corner[1::2].ravel())),
        shape=(triangles.size, triangles.size),
    )
    return bool(connected_components(fans, directed=False)[0] == len(np.unique(triangles)))


def _only_used(points: Points, triangles: Triangles) -> tuple[Points, Triangles]:
    used, index = np.unique(triangles, return_inverse=True)
    return points[used], index.reshape(triangles.shape).astype(np.int64)
