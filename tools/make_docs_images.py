"""Make the images of docs/ from the demo's videos, by the package's own code.

    .venv/bin/python tools/make_docs_images.py
        after `make demo`, whose meshes and alignment are shown

`filming`: good images, and the same ones spoilt; what `uns-pose doctor` says of each is printed,
for docs/filming.md.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from uns_pose_ros.io import artifacts
from uns_pose_ros.io.colmap import read_sparse, write_sparse
from uns_pose_ros.io.video_folder import load_video, read_frame
from uns_pose_ros.reporting import capture_check
from uns_pose_ros.reporting.video_summary import (
    canonical_vertices,
    draw_correspondences,
    draw_viewpoints,
    position_colors,
    summarize_video,
)
from uns_pose_ros.visualization import drawing
from uns_pose_ros.visualization.alignment_figure import draw_mesh_views
from uns_pose_ros.visualization.drawing import RgbImage

ROOT = Path(__file__).resolve().parents[1]
MADE, GIVEN, OUT = (
    ROOT / "demo" / "out" / "chair",
    ROOT / "demo" / "data" / "chair",
    ROOT / "docs" / "images",
)
_CLIP, _OTHER = "clip_01", "clip_04"
_TILE = 200  # px


def main() -> None:
    if not (MADE / "alignment.json").exists():
        sys.exit("make demo first: its meshes and alignment are shown")
    how_it_works()
    filming()


def how_it_works() -> None:
    """Four steps.

    A frame, its mask and hull; features on two meshes; all meshes in the canonical frame.
    """
    video, mesh = load_video(MADE / _CLIP), artifacts.load_feature_mesh(MADE / _CLIP)
    frame = video.frames[0]
    image, mask, camera = read_frame(frame)
    assert mask is not None and frame.cam_from_obj is not None
    hull = drawing.mesh_silhouette(
        mesh.vertices, mesh.triangles, camera, frame.cam_from_obj
    )
    steps = [
        image.numpy(),
        drawing.highlight_mask(image.numpy(), mask.numpy()),
        drawing.draw_contour(image.numpy(), hull, (255, 60, 60)),
    ]
    tiles = [drawing.fit_into_square(np.asarray(step, np.uint8), _TILE) for step in steps]
    _save(
        "hull.jpg",
        [
            [
                *tiles,
                drawing.fit_into_square(
                    draw_viewpoints(summarize_video(video, mesh, {})), _TILE
                ),
            ]
        ],
    )
    alignment = artifacts.load_alignment(MADE / "alignment.json")
    meshes = {name: artifacts.load_feature_mesh(MADE / name) for name in alignment.videos}
    _save(
        "correspondences.jpg",
        [list(draw_correspondences(_CLIP, _OTHER, alignment, meshes))],
    )
    strips = []
    for name in list(alignment.videos)[:6]:
        vertices = canonical_vertices(name, alignment, meshes[name])
        strips.append(
            draw_mesh_views(vertices, meshes[name].triangles, position_colors(vertices))
        )
    _save("canonical.jpg", [strips[:2], strips[2:4], strips[4:6]])


def filming() -> None:
    """One row a way to spoil a video: two images, and on standard output what the doctor says."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, spoil in (
            ("good", None),
            ("blurred", _blur),
            ("dark", _darken),
            ("half", _half),
            ("far", _shrink),
            ("few", _few),
        ):
            clip = Path(folder) / name
            shutil.copytree(GIVEN / _CLIP, clip)
            if spoil is not None:
                spoil(clip)
            checkup = capture_check.check_video(clip)
            print(
                f"{name}: "
                + (
                    "; ".join(
                        f"{finding.what}: {finding.remedy}" for finding in checkup.findings
                    )
                    or "ok"
                )
            )
            if name in ("good", "blurred", "dark", "far"):
                images = sorted((clip / "images").iterdir())
                rows.append([_tile(images[k], name) for k in (0, len(images) // 3)])
    _save(
        "filming.jpg",
        [
            [tile for row in rows for tile in row[:1]],
            [tile for row in rows for tile in row[1:]],
        ],
    )


def _blur(clip: Path) -> None:
    kernel = np.zeros((15, 15), np.float32)
    kernel[7] = 1 / 15
    _change(clip, lambda image: np.asarray(cv2.filter2D(image, -1, kernel), np.uint8))


def _darken(clip: Path) -> None:
    _change(clip, lambda image: (image // 8).astype(np.uint8))


def _shrink(clip: Path) -> None:
    """The object far away: the image shrunk into its own middle, camera and mask with it."""
    _change(clip, _padded, masks=True)
    sparse = read_sparse(clip / "sparse")
    cameras = {}
    for number, camera in sparse.cameras.items():
        matrix = camera.matrix.clone()
        matrix[:2, :2] /= 4
        matrix[0, 2], matrix[1, 2] = (camera.width - 1) / 2, (camera.height - 1) / 2
        cameras[number] = replace(camera, matrix=matrix)
    write_sparse(clip / "sparse", cameras, sparse.images, sparse.points)


def _padded(image: RgbImage) -> RgbImage:
    height, width = image.shape[:2]
    small = cv2.resize(image, (width // 4, height // 4), interpolation=cv2.INTER_AREA)
    top, left = (height - small.shape[0]) // 2, (width - small.shape[1]) // 2
    bottom, right = height - top - small.shape[0], width - left - small.shape[1]
    border = cv2.BORDER_CONSTANT if image.ndim == 2 else cv2.BORDER_REPLICATE
    return np.asarray(cv2.copyMakeBorder(small, top, bottom, left, right, border), np.uint8)


def _half(clip: Path) -> None:
    """Images of less than half a turn."""
    sparse = read_sparse(clip / "sparse")
    _keep(clip, [image.name for image in sparse.images][: len(sparse.images) // 3])


def _few(clip: Path) -> None:
    _keep(clip, [image.name for image in read_sparse(clip / "sparse").images][::5])


def _keep(clip: Path, names: list[str]) -> None:
    sparse = read_sparse(clip / "sparse")
    write_sparse(
        clip / "sparse",
        sparse.cameras,
        [image for image in sparse.images if image.name in names],
        sparse.points,
    )
    for path in (clip / "images").iterdir():
        if path.name not in names:
            path.unlink()


def _change(
    clip: Path, change: Callable[[RgbImage], RgbImage], masks: bool = False
) -> None:
    for path in [
        *(clip / "images").iterdir(),
        *((clip / "masks").iterdir() if masks else ()),
    ]:
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert image is not None
        cv2.imwrite(str(path), change(np.asarray(image, np.uint8)))


def _tile(path: Path, words: str) -> RgbImage:
    image = cv2.imread(str(path))
    assert image is not None
    tile = drawing.fit_into_square(np.ascontiguousarray(image[..., ::-1], np.uint8), _TILE)
    drawing.write_text(tile, words, np.array([6.0, _TILE - 8.0]))
    return tile


def _save(name: str, rows: list[list[RgbImage]]) -> None:
    pixels = np.concatenate([np.concatenate(row, 1) for row in rows])
    OUT.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(
        str(OUT / name),
        np.ascontiguousarray(pixels[..., ::-1]),
        [cv2.IMWRITE_JPEG_QUALITY, 80],
    )


if __name__ == "__main__":
    main()
