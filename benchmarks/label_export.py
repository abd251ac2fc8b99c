#!/usr/bin/env python3
"""How long `uns-pose export labels` takes for 200 images in each format.

    python benchmarks/label_export.py --json out.json
        # the demo's chairs, enlarged to 640 px, once without and once with a distorting lens
    python benchmarks/label_export.py mug --frames 200 --json -
        # your own category after `uns-pose align`

Seconds are of the clock, with the threads that the program takes by itself; beside them are the
seconds of the processor, all threads together, which mean the same on a busy machine. Depth is
rendered, and of each video as many images are taken as 200 need. Of the enlarged chairs, the visual
hulls and the labeled poses stand in for a reconstruction and an alignment.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from common import DEMO, machine, politely, write
from uns_pose_ros.core.camera import resize_camera
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Alignment, Camera, FeatureMesh, Symmetry, Video
from uns_pose_ros.evaluation.rotation_labels import load_labels
from uns_pose_ros.exports.label_export import FORMATS, ExportConfig, export_labels
from uns_pose_ros.exports.video_labels import VideoSelection
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.colmap import SparseImage, write_sparse
from uns_pose_ros.io.images import read_image, read_mask
from uns_pose_ros.io.video_folder import list_videos, load_video
from uns_pose_ros.reconstruction.visual_hull import carve_visual_hull

LENSES = {"no lens": [0.0] * 5, "lens": [-0.05, 0.01, 0.0, 0.0, 0.0]}
NOISE = 2.0  # of 255: enlarged images are smoother than those of a camera


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "category", type=Path, nargs="?", help="aligned (default: the demo's chairs)"
    )
    parser.add_argument("--frames", type=int, default=200, help="default: %(default)s")
    parser.add_argument(
        "--width", type=int, default=640, help="px of the demo's images (%(default)s)"
    )
    parser.add_argument("--json", help="write the figures here; - for standard output")
    args = parser.parse_args()
    figures: dict[str, Any] = {"machine": machine()}
    with tempfile.TemporaryDirectory(prefix="uns_pose_benchmark_") as work:
        if args.category is not None:
            sets = {args.category.name: args.category}
        else:
            sets = {
                name: enlarge(
                    DEMO, Path(work) / name / "chair", args.width, lens, args.frames
                )
                for name, lens in LENSES.items()
            }
        for name, category in sets.items():
            figures[name] = benchmark(category, args.frames, Path(work) / "out")
    if args.json != "-":
        print(table(figures), file=sys.stderr)
    write(figures, args.json)


def benchmark(category: Path, frames: int, out: Path) -> dict[str, Any]:
    """Seconds of each format."""
    figures: dict[str, Any] = {}
    videos = len(list_videos(category))
    views = VideoSelection(views=-(-frames // max(1, videos)))
    for kind in FORMATS:
        config = ExportConfig(kind, videos=views, unknown_scale="mark")
        clock, processor = time.perf_counter(), time.process_time()
        record = export_labels([category], out / kind, config, lambda *_: None)
        figures[kind] = {
            "images": record["images"],
            "seconds": time.perf_counter() - clock,
            "processor_seconds": time.process_time() - processor,
        }
    figures["size"] = list(read_image(next((out / "coco").rglob("*.[jp]*g"))).shape[1::-1])
    return figures


def enlarge(source: Path, folder: Path, width: int, lens: list[float], frames: int) -> Path:
    """A category of larger images of labeled videos, as after an alignment.

    Args:
        source: a category with masks, poses and labels.json.
        folder: the new category.
        width: of the images, px.
        lens: k1 k2 p1 p2 k3.
        frames: at least so many in all videos together.
    """
    videos = {place.name: load_video(place) for place in list_videos(source)}
    each = -(-frames // len(videos))
    poses = load_labels(source / "labels.json", list(videos))
    canon_from_obj = []
    for name, video in videos.items():
        place = folder / name
        chosen = replace(video, frames=video.frames[:each])
        _enlarge_video(chosen, place, width, torch.tensor(lens, dtype=torch.float64))
        vertices = _write_mesh(video, place)
        similarity = torch.eye(4, dtype=torch.float64)
        size = (vertices.amax(0) - vertices.amin(0)).norm()
        similarity[:3, :3] = poses[name] / size
        similarity[:3, 3] = -similarity[:3, :3] @ vertices.double().mean(0)
        canon_from_obj.append(similarity)
    ones = torch.ones(len(videos), dtype=torch.float64)
    alignment = Alignment(
        tuple(videos), torch.stack(canon_from_obj), ones, ones > 0, 0 * ones, Symmetry()
    )
    artifacts.save_alignment(alignment, folder / artifacts.ALIGNMENT, {})
    return folder


def _enlarge_video(video: Video, place: Path, width: int, lens: torch.Tensor) -> None:
    rng = np.random.default_rng(0)
    cameras, images = {}, []
    for number, frame in enumerate(video.frames, 1):
        assert frame.mask is not None and frame.cam_from_obj is not None
        height = round(width * frame.camera.height / frame.camera.width)
        pixels = cv2.resize(read_image(frame.image).numpy(), (width, height))
        noisy = pixels + rng.normal(0, NOISE, pixels.shape)
        mask = 255 * read_mask(frame.mask).numpy().astype(np.uint8)
        _write(place / "images" / frame.name, noisy.clip(0, 255)[..., ::-1])
        _write(place / "masks" / f"{frame.name}.png", cv2.resize(mask, (width, height)))
        camera = resize_camera(frame.camera, width, height)
        cameras[number] = Camera(camera.matrix, width, height, lens)
        images.append(SparseImage(frame.name, number, frame.cam_from_obj))
    write_sparse(place / "sparse", cameras, images, torch.zeros(0, 3, dtype=torch.float64))
    (place / "video.json").write_text(json.dumps({"metric": True}))


def _write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), pixels.astype(np.uint8)):
        raise InvalidInput(f"{path}: cannot be written")


def _write_mesh(video: Video, place: Path) -> torch.Tensor:
    """The visual hull of a video, without features; returns its vertices."""
    masks = [read_mask(frame.mask) for frame in video.frames if frame.mask is not None]
    poses = [frame.cam_from_obj for frame in video.frames if frame.cam_from_obj is not None]
    matrices = torch.stack([frame.camera.matrix for frame in video.frames])
    vertices, triangles = carve_visual_hull(masks, matrices, torch.stack(poses))
    zero = torch.zeros(1, dtype=torch.int64)
    features = torch.full((1, 384), 384**-0.5, dtype=torch.float16)
    mesh = FeatureMesh(
        vertices, triangles, features, zero, zero.clone(), torch.eye(4)[None]
    )
    artifacts.save_feature_mesh(mesh, place, {})
    return vertices


def table(figures: dict[str, Any]) -> str:
    """A line for each set and format."""
    machine = figures["machine"]
    lines = [
        f"export labels, on {machine['processor']}, {machine['cores']} cores, load "
        f"{machine['load_average']}"
    ]
    for name, rows in figures.items():
        if name == "machine":
            continue
        width, height = rows["size"]
        lines.append(f"{name}, {width} x {height} px")
        lines += [
            f"  {kind:16} {rows[kind]['images']:4} images {rows[kind]['seconds']:6.2f} s "
            f"({rows[kind]['processor_seconds']:.2f} s of the processor)"
            for kind in FORMATS
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    politely(main)
