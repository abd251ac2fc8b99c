#!/usr/bin/env python3
"""Render handheld videos of chairs as video folders with masks, cameras and labels.

The data of `make demo`.

    pip install embreex scikit-image pillow          apt-get install sweethome3d-furniture
    python tools/make_demo_data.py demo/data
        the committed data, from its seed
    python tools/make_demo_data.py /tmp/long --models osakaChair,chair2 --frames 300 \\
        --shutter 0.5 --drift 0.4

Each video has its own random frame and scale, as structure from motion gives it. labels.json holds
the rotations to the canonical frame (x forward, y left, z up). The pictures are a function of the
seed and of the options.
"""

from __future__ import annotations

import argparse
import json
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from PIL import Image  # noqa: E402

from demo_camera import HandheldPath, PathConfig, Wander, handheld, random_rotation  # noqa: E402
from demo_models import Array, Library  # noqa: E402
from demo_render import Renderer  # noqa: E402
from demo_scene import build  # noqa: E402
from uns_pose_ros.core.types import Camera  # noqa: E402
from uns_pose_ros.io.colmap import SparseImage, write_sparse  # noqa: E402

LIBRARY = Path("/usr/share/sweethome3d/furniture/BlendSwap-CC-0.sh3f")
CHAIRS = (
    "oakChair",
    "plasticChair",
    "sillaBlanca",
    "chair",
    "antiqueChair",
    "chairWithCushion",
    "designChair",
    "armchair",
    "osakaChair",
    "chair2",
)
LIVE = (
    "osakaChair",
    "chair2",
)  # filmed a second time, elsewhere, walking half around: the camera of the demo


@dataclass(frozen=True)
class FilmConfig:
    """How a video is filmed."""

    width: int = 288  # px
    height: int = 288  # px
    frames: int = 24
    samples: int = 3  # a pixel has samples * samples rays
    shutter: float = 0.02  # exposure, part of the mean time between frames: motion blur
    drift: float = 0.15  # exposure wanders by so many stops
    noise: float = 1.2  # grey levels of 255, standard deviation
    quality: int = 80  # of the JPEG
    path: PathConfig = PathConfig()


@dataclass(frozen=True)
class Order:
    """One video to render."""

    folder: Path
    model: str
    seed: tuple[int, ...]
    config: FilmConfig


def main() -> None:
    args = _arguments()
    width, height = args.size
    config = FilmConfig(width, height, args.frames, args.samples, args.shutter, args.drift)
    config = replace(config, path=replace(config.path, sweep=tuple(args.sweep)))
    chairs = args.models.split(",") if args.models else CHAIRS
    orders = [
        Order(args.out / "chair" / f"clip_{k:02d}", model, (args.seed, k), config)
        for k, model in enumerate(chairs, 1)
    ]
    if not args.models:
        walk = replace(
            config, frames=16, shutter=0.1, path=replace(config.path, sweep=(170.0, 220.0))
        )
        orders += [
            Order(args.out / "live" / f"live_{k:02d}", model, (args.seed, 100 + k), walk)
            for k, model in enumerate(LIVE, 1)
        ]
    labels: dict[Path, dict[str, object]] = {}
    with ProcessPoolExecutor(args.jobs) as pool:
        for order, rotation in zip(
            orders,
            pool.map(render_video, orders, [args.library] * len(orders)),
            strict=True,
        ):
            labels.setdefault(order.folder.parent, {})[order.folder.name] = {
                "canon_from_obj": rotation
            }
            print(
                f"{order.folder}: {order.model}, {order.config.frames} frames", flush=True
            )
    for category, entries in labels.items():
        (category / "labels.json").write_text(json.dumps(entries, indent=1) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder to fill with chair/ and live/")
    parser.add_argument(
        "--library",
        type=Path,
        default=LIBRARY,
        help="BlendSwap-CC-0.sh3f (default: %(default)s)",
    )
    parser.add_argument(
        "--models",
        help="folders of the library, comma separated (default: ten chairs and two live walks)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=4,
        help="another seed, other rooms and paths (default: %(default)s)",
    )
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        default=(288, 288),
        metavar=("WIDTH", "HEIGHT"),
        help="px",
    )
    parser.add_argument(
        "--frames", type=int, default=24, help="a video (default: %(default)s)"
    )
    parser.add_argument(
        "--samples", type=int, default=3, help="rays across a pixel (default: %(default)s)"
    )
    parser.add_argument(
        "--shutter",
        type=float,
        default=0.02,
        help="motion blur, part of a frame interval (default: %(default)s)",
    )
    parser.add_argument(
        "--drift",
        type=float,
        default=0.15,
        help="exposure drift, stops (default: %(default)s)",
    )
    parser.add_argument(
        "--sweep",
        type=float,
        nargs=2,
        default=PathConfig().sweep,
        metavar=("LEAST", "MOST"),
        help="degrees walked",
    )
    parser.add_argument(
        "--jobs", type=int, default=2, help="videos rendered at once (default: %(default)s)"
    )
    return parser.parse_args()


def render_video(order: Order, library: Path) -> list[list[float]]:
    """Render one video folder; returns the rotation canon_from_obj."""
    random = np.random.default_rng(order.seed)
    config = order.config
    scene = build(Library(library), order.model, random)
    target = scene.triangles.corners[: scene.object_triangles]
    fov = np.radians(random.uniform(50, 60))  # across the longer side
    focal = max(config.width, config.height) / 2 / np.tan(fov / 2)
    center = (np.array([config.width, config.height]) - 1) / 2 + random.uniform(-2, 2, 2)
    matrix = np.array([[focal, 0, center[0]], [0, focal, center[1]], [0, 0, 1]])
    half_fov = np.arctan(min(config.width, config.height) / 2 / focal)
    path = handheld(
        random, config.frames, target.min((0, 1)), target.max((0, 1)), half_fov, config.path
    )
    path = _keep_inside(path, target.reshape(-1, 3)[::7], matrix, config)
    renderer = Renderer(scene, random)
    exposure = 2 ** (config.drift * Wander(random)(path.times))
    for folder in ("images", "masks", "sparse"):
        (order.folder / folder).mkdir(parents=True, exist_ok=True)
    for number, time in enumerate(path.times, 1):
        part = (
            np.arange(config.samples**2) + 0.5
        ) / config.samples**2 - 0.5  # of the exposure
        moments = time + part * config.shutter / config.frames
        poses = path.poses(random.permutation(moments))
        image, mask = renderer.frame(
            matrix, poses, config.width, config.height, config.samples
        )
        _save(
            order.folder,
            f"{number:04d}.jpg",
            _develop(image * exposure[number - 1], config, random),
            mask,
            config,
        )
    return _save_sparse(order.folder, renderer, matrix, path, config, random)


def _keep_inside(
    path: HandheldPath, points: Array, matrix: Array, config: FilmConfig
) -> HandheldPath:
    """The same path, so far away that every frame shows the whole object (points (N, 3)) with a
    margin of 3 %.
    """
    limit = np.array([config.width, config.height])
    while True:
        pose = path.poses(path.times)
        seen = (
            points @ pose[:, :3, :3].transpose(0, 2, 1) + pose[:, None, :3, 3]
        ) @ matrix.T
        pixel = seen[..., :2] / seen[..., 2:]
        if (pixel > 0.03 * limit).all() and (pixel < 0.97 * limit).all():
            return path
        path = replace(path, distance=path.distance * 1.03)


def _develop(image: Array, config: FilmConfig, random: np.random.Generator) -> np.ndarray:
    """Linear light to 8 bit sRGB with a soft shoulder and noise."""
    bent = np.where(image < 0.7, image, 0.7 + 0.3 * (1 - np.exp(-(image - 0.7) / 0.3)))
    levels = 255 * np.clip(bent, 0, 1) ** (1 / 2.2) + config.noise * random.standard_normal(
        image.shape
    )
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def _save(
    folder: Path, name: str, image: np.ndarray, mask: np.ndarray, config: FilmConfig
) -> None:
    Image.fromarray(image).save(
        folder / "images" / name, quality=config.quality, optimize=True
    )
    Image.fromarray(mask.astype(np.uint8) * 255).convert("1").save(
        folder / "masks" / f"{name}.png", optimize=True
    )


def _save_sparse(
    folder: Path,
    renderer: Renderer,
    matrix: Array,
    path: HandheldPath,
    config: FilmConfig,
    random: np.random.Generator,
) -> list[list[float]]:
    """Write sparse/ in a random frame: x_obj = scale * R @ x_canon + t; returns R transposed."""
    rotation, scale, shift = (
        random_rotation(random),
        float(np.exp(random.uniform(-1.5, 1.5))),
        3 * random.standard_normal(3),
    )
    poses = path.poses(path.times)
    images = []
    for number, pose in enumerate(poses, 1):
        cam_from_obj = np.eye(4)
        cam_from_obj[:3, :3] = pose[:3, :3] @ rotation.T
        cam_from_obj[:3, 3] = scale * pose[:3, 3] - cam_from_obj[:3, :3] @ shift
        images.append(SparseImage(f"{number:04d}.jpg", 1, torch.from_numpy(cam_from_obj)))
    points = _surface_points(renderer, poses, random)
    noisy = points + 0.002 * random.standard_normal(points.shape)
    camera = Camera(torch.from_numpy(matrix), config.width, config.height)
    write_sparse(
        folder / "sparse",
        {1: camera},
        images,
        torch.from_numpy((scale * noisy @ rotation.T + shift).round(4)),
    )
    return [[float(x) for x in row] for row in rotation.T]


def _surface_points(
    renderer: Renderer, poses: Array, random: np.random.Generator, count: int = 150
) -> Array:
    """Points (N, 3) on the object and on the floor around it that at least two frames see,
    canonical frame, m.
    """
    scene = renderer.scene
    corners = scene.triangles.corners[: scene.object_triangles].astype(float)
    area = np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
    )
    chosen = corners[random.choice(len(corners), 3 * count, p=area / area.sum())]
    on_object = (random.dirichlet(np.ones(3), len(chosen))[..., None] * chosen).sum(1)
    on_floor = np.concatenate(
        [random.uniform(-1.2, 1.2, (2 * count, 2)), np.zeros((2 * count, 1))], 1
    )
    kept = []
    for points, most in ((on_object, count), (on_floor, count)):
        views = sum(
            renderer.visible(-pose[:3, :3].T @ pose[:3, 3], points).astype(int)
            for pose in poses
        )
        kept.append(points[views >= 2][:most])
    return np.concatenate(kept)


if __name__ == "__main__":
    main()
