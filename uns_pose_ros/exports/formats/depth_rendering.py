"""Depth of a mesh as a camera sees it, for formats that need depth where none was measured."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from uns_pose_ros.exports.label_set import Matrix
from uns_pose_ros.exports.label_views import ObjectView

_EDGE = 1e-6  # px^2 beyond an edge of a triangle that still belong to it
_MOST_PIXELS = 2**22  # that are drawn at once

_Numbers = NDArray[np.int64]


def render_depth(view: ObjectView) -> Matrix:
    """Depth (H, W) of the surface of an object in model units; 0 where it is not seen.

    A pixel has the depth of the nearest plane of the triangles that cover it. The inverse of the
    depth of a plane is linear in the pixel.
    """
    pose, camera = view.label.cam_from_model, view.camera
    points = view.instance.vertices @ pose[:3, :3].T + pose[:3, 3]
    corners = points[view.instance.triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    offsets = (normals * corners[:, 0]).sum(1)  # negative: the triangle faces the camera
    shown = (offsets < 0) & (corners[..., 2] > 1e-9).all(1)
    corners, matrix = corners[shown], camera.matrix.numpy()
    uvw = corners @ matrix.T
    pixels = uvw[..., :2] / uvw[..., 2:]
    planes = normals[shown] @ np.linalg.inv(matrix) / offsets[shown, None]  # of u, v and 1
    inverse = np.zeros(camera.height * camera.width)
    for triangle, row, column in _covered_pixels(pixels, camera.width, camera.height):
        slope, across, start = planes[triangle].T
        values = slope * column + (across * row + start)
        np.maximum.at(inverse, row * camera.width + column, values)
    depth = np.divide(1.0, inverse, out=np.zeros_like(inverse), where=inverse > 0)
    return depth.reshape(camera.height, camera.width)


def _covered_pixels(
    corners: Matrix, width: int, height: int
) -> Iterator[tuple[_Numbers, _Numbers, _Numbers]]:
    """Triangle, row and column of the pixels that triangles (T, 3, 2) cover, in several parts."""
    triangle, row, first, count = _spans(corners, width, height)
    part = np.cumsum(count) // _MOST_PIXELS
    for number in np.unique(part):
        chosen = part == number
        lengths = count[chosen]
        starts = np.cumsum(lengths) - lengths
        steps = np.arange(lengths.sum()) - np.repeat(starts, lengths)
        yield (
            np.repeat(triangle[chosen], lengths),
            np.repeat(row[chosen], lengths),
            np.repeat(first[chosen], lengths) + steps,
        )


def _spans(
    corners: Matrix, width: int, height: int
) -> tuple[_Numbers, _Numbers, _Numbers, _Numbers]:
    """Triangle, row, first column and length of each row of pixels that a triangle covers."""
    tops = np.clip(np.floor(corners[..., 1].min(1)), 0, height).astype(np.int64)
    bottoms = np.clip(np.ceil(corners[..., 1].max(1)) + 1, 0, height).astype(np.int64)
    counts = np.maximum(bottoms - tops, 0)
    triangle = np.repeat(np.arange(len(corners)), counts)
    row = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts - tops, counts)
    # linear in u, v and 1; not positive inside, since facing triangles run clockwise in an image
    steps = np.roll(corners, -1, 1) - corners
    along, down = -steps[..., 1][triangle], steps[..., 0][triangle]
    start = (steps[..., 1] * corners[..., 0] - steps[..., 0] * corners[..., 1])[triangle]
    room = _EDGE - (down * row[:, None] + start)  # along * u is at most this
    with np.errstate(divide="ignore", invalid="ignore"):
        border = room / along
    low = np.where(along < 0, border, -np.inf).max(1)
    high = np.where(along > 0, border, np.inf).min(1)
    empty = ((along == 0) & (room < 0)).any(1)
    first = np.clip(np.ceil(low), 0, width).astype(np.int64)
    last = np.clip(np.floor(high), -1, width - 1).astype(np.int64)
    length = np.where(empty, 0, np.maximum(last - first + 1, 0))
    covered = length > 0
    return triangle[covered], row[covered], first[covered], length[covered]
