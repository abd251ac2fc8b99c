"""One image of all aligned meshes.

Each mesh is seen from three sides in the canonical frame. Its colors show its features.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from uns_pose_ros.core.geometry import transform
from uns_pose_ros.core.named_frames import NamedFrame
from uns_pose_ros.core.types import Alignment, FeatureMesh
from uns_pose_ros.visualization import drawing
from uns_pose_ros.visualization.drawing import Floats, RgbImage

VIEWS = {
    "+x": (0.0, 10.0),
    "+y": (90.0, 10.0),
    "+z": (0.0, 89.0),
}  # azimuth, elevation, degrees
_SIZE = 140  # px, side of one view
_LINE = 22  # px, height of a line of text
_LETTER = 6  # px, width of a letter, on average less
_UNSEEN = 200.0  # gray of vertices that no view sees
_RED = (200, 0, 0)


@dataclass(frozen=True, eq=False)
class SurfaceFeatures:
    """A mesh with one feature for each vertex, as the image needs it."""

    vertices: Tensor  # (V, 3) float32, obj frame
    triangles: Tensor  # (T, 3) int64
    # (V, C) float32, mean over the views; zero where no view sees the vertex
    features: Tensor


def average_features(mesh: FeatureMesh) -> SurfaceFeatures:
    """The mesh with the mean feature of each vertex."""
    total = torch.zeros(len(mesh.vertices), mesh.features.shape[1]).index_add_(
        0, mesh.vertex_index, mesh.features.float()
    )
    views = torch.bincount(mesh.vertex_index, minlength=len(mesh.vertices))
    return SurfaceFeatures(
        mesh.vertices, mesh.triangles, total / views.clamp_min(1)[:, None]
    )


def feature_colors(features: Sequence[Tensor]) -> list[Floats]:
    """Colors (V, 3), RGB from 0 to 255, of the vertex features (V, C) of every mesh.

    Equal features have equal colors in all meshes. Red, green and blue are the three directions in
    which the features of all meshes differ most. Vertices without a feature are gray.
    """
    every = torch.cat(list(features))
    seen = every.norm(dim=1) > 0
    mean = every[seen].mean(0) if bool(seen.any()) else every.new_zeros(every.shape[1])
    centered = every[seen] - mean
    directions = (
        torch.linalg.eigh((centered.T @ centered).double())
        .eigenvectors[:, -3:]
        .flip(1)
        .float()
    )
    largest = directions.gather(0, directions.abs().argmax(0, keepdim=True))
    directions = directions * largest.sign()  # an eigenvector's sign is arbitrary
    place = (every - mean) @ directions
    spread = place[seen].std(0).clamp_min(1e-6) if int(seen.sum()) > 1 else torch.ones(3)
    colors = 255 * torch.sigmoid(1.5 * place / spread)
    colors[~seen] = _UNSEEN
    return [
        part.double().numpy() for part in colors.split([len(rows) for rows in features])
    ]


def draw_mesh_views(
    vertices: Tensor,
    triangles: Tensor,
    colors: Floats,
    frames: Sequence[NamedFrame] = (),
) -> RgbImage:
    """A mesh (V, 3) in the canonical frame from each of `VIEWS`, side by side."""
    views = [
        drawing.draw_mesh(
            vertices, triangles, colors, *view, size=_SIZE, span=1.1, frames=frames
        )
        for view in VIEWS.values()
    ]
    return np.concatenate(views, 1)


def render_alignment(
    alignment: Alignment, surfaces: Sequence[SurfaceFeatures], note: str = ""
) -> RgbImage:
    """Draw the meshes of all videos with their names, in the order of the alignment.

    A name is followed by the confidence, if that was measured.

    Args:
        alignment: the alignment; videos that it left out have a red frame.
        surfaces: the mesh of each video.
        note: a sentence below the first line of text.
    """
    colors = feature_colors([surface.features for surface in surfaces])
    tiles = [_tile(alignment, k, surface, colors[k]) for k, surface in enumerate(surfaces)]
    columns = max(1, round((len(tiles) / 2.5) ** 0.5))  # the image is about as wide as high
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % columns)
    rows = [
        np.concatenate(tiles[k : k + columns], 1) for k in range(0, len(tiles), columns)
    ]
    lines = [f"from {', '.join(VIEWS)}; x red, y green, z blue"]
    if note:
        lines.append(note)
    width = rows[0].shape[1]
    parts = [part for line in lines for part in textwrap.wrap(line, width // _LETTER)]
    header = [_text(part, width) for part in parts]
    return np.concatenate([*header, *rows])


def _tile(
    alignment: Alignment, k: int, surface: SurfaceFeatures, colors: Floats
) -> RgbImage:
    """The mesh of the alignment's video k with a line of text; a red frame if it was left out."""
    vertices = transform(alignment.canon_from_obj[k], surface.vertices.double())
    views = draw_mesh_views(vertices, surface.triangles, colors)
    kept = bool(alignment.kept[k])
    text = alignment.videos[k]
    if alignment.is_measured:
        text += f", confidence {float(alignment.confidence[k]):.2f}"
    if not kept:
        text += ", left out"
    tile = np.concatenate([_text(text, views.shape[1]), views])
    if not kept:
        _frame(tile)
    return tile


def _text(text: str, width: int) -> RgbImage:
    canvas = np.full((_LINE, width, 3), 255, np.uint8)
    drawing.write_text(canvas, text, np.array([4.0, _LINE - 6.0]))
    return canvas


def _frame(canvas: RgbImage) -> None:
    for edge in (canvas[:2], canvas[-2:], canvas[:, :2], canvas[:, -2:]):
        edge[:] = _RED
