"""A tiny ray caster.

Videos of a toy truck with exact masks and poses, in the folder layout of the pipeline.

The truck (canon frame: x forward, y left, z up) is asymmetric on purpose: a narrow cab in front on
its right, a load area behind and a crane with a long arm on its left. Each instance has its own
proportions, colours, object frame and scale.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from uns_pose_ros.core.types import Camera
from uns_pose_ros.io.colmap import SparseImage, write_sparse

Box = tuple[np.ndarray, np.ndarray, np.ndarray]  # lower corner, upper corner (3,), RGB (3,)
_LIGHT = np.array([0.4, 0.3, 0.85]) / np.linalg.norm([0.4, 0.3, 0.85])


@dataclass(frozen=True)
class Truth:
    """What a rendered video really is."""

    # (4, 4) similarity: metric-free truck frame from the video's own frame
    canon_from_obj: np.ndarray
    cam_from_obj: dict[str, np.ndarray]  # image name: (4, 4) rigid
    camera: Camera


def truck(rng: np.random.Generator) -> list[Box]:
    """Boxes of one instance, canon frame, about one unit long; proportions vary by a tenth."""
    length, width, height = rng.uniform(0.92, 1.08, 3) * [1.0, 0.42, 0.2]
    cab, roof = rng.uniform(0.26, 0.3) * length, rng.uniform(0.2, 0.24)
    paint, load = rng.uniform(90, 235, 3), rng.uniform(90, 235, 3)
    front, back, half = length / 2, -length / 2, width / 2
    seat = -0.1 * width  # inner side of the cab
    boxes = [
        ((back, -half, 0.08), (front, half, 0.08 + 0.5 * height), (70, 70, 75)),  # frame
        ((front - cab, -half, 0.1), (front - 0.02, half, 0.1 + height), paint),  # bonnet
        (
            (front - cab, -half, 0.1 + height),
            (front - 0.02, seat, 0.1 + height + roof),
            paint,
        ),  # cab
        (
            (front - cab + 0.08, -half - 0.004, 0.12 + height),
            (front - 0.06, seat + 0.004, 0.06 + height + roof),
            (35, 45, 60),
        ),
        (
            (front - 0.03, -half + 0.03, 0.12 + height),
            (front - 0.01, seat - 0.03, 0.06 + height + roof),
            (35, 45, 60),
        ),
        (
            (front - 0.03, -half + 0.02, 0.14),
            (front, -half + 0.1, 0.2),
            (250, 245, 190),
        ),  # head lamps
        ((front - 0.03, half - 0.1, 0.14), (front, half - 0.02, 0.2), (250, 245, 190)),
        ((back, seat, 0.15), (front - cab - 0.04, half, 0.12 + 1.5 * height), load),
        (
            (back - 0.01, seat, 0.15),
            (back, half, 0.2 + 1.5 * height),
            (200, 40, 35),
        ),  # tail board
        (
            (-0.14, half - 0.14, 0.1 + height),
            (0.0, half, 0.36 + height + roof),
            (240, 200, 40),
        ),  # crane
        (
            (-0.14, half - 0.12, 0.28 + height + roof),
            (front, half - 0.02, 0.36 + height + roof),
            (240, 200, 40),
        ),
    ]
    for x in (front - 0.7 * cab, back + 0.12, back + 0.3):
        for y in (-half, half):
            boxes.append(
                ((x - 0.075, y - 0.05, 0.0), (x + 0.075, y + 0.05, 0.15), (25, 25, 25))
            )  # wheels
            boxes.append(
                (
                    (x - 0.03, y - 0.055, 0.045),
                    (x + 0.03, y + 0.055, 0.105),
                    (170, 170, 170),
                )
            )
    return [
        (np.array(low, float), np.array(high, float), np.array(colour, float))
        for low, high, colour in boxes
    ]


def render(
    boxes: list[Box], canon_from_cam: np.ndarray, camera: Camera
) -> tuple[np.ndarray, np.ndarray]:
    """Image (H, W, 3) uint8 RGB and mask (H, W) bool of boxes.

    canon_from_cam (4, 4) may hold a scale.
    """
    v, u = np.mgrid[: camera.height, : camera.width].reshape(2, -1).astype(float)
    rays = (
        np.stack([u, v, np.ones_like(u)], -1)
        @ np.linalg.inv(camera.matrix.numpy()).T
        @ canon_from_cam[:3, :3].T
    )
    rays[np.abs(rays) < 1e-12] = 1e-12
    eye = canon_from_cam[:3, 3]
    depth = np.full(len(rays), np.inf)
    image = 205 + 30 * (v / camera.height)[:, None] * np.ones(3)
    for low, high, colour in boxes:
        a, b = (low - eye) / rays, (high - eye) / rays
        near, axis = np.minimum(a, b).max(-1), np.minimum(a, b).argmax(-1)
        hit = (near < np.maximum(a, b).min(-1)) & (near > 0) & (near < depth)
        depth[hit] = near[hit]
        normal = np.zeros((int(hit.sum()), 3))
        normal[np.arange(len(normal)), axis[hit]] = -np.sign(rays[hit, axis[hit]])
        image[hit] = colour * (0.55 + 0.45 * np.clip(normal @ _LIGHT, 0, 1))[:, None]
    mask = np.isfinite(depth).reshape(camera.height, camera.width)
    return image.clip(0, 255).astype(np.uint8).reshape(camera.height, camera.width, 3), mask


def look_at(azimuth: float, elevation: float, distance: float) -> np.ndarray:
    """cam_from_canon (4, 4) of an optical frame that looks at the truck's middle.

    Angles in degrees, x forward is azimuth 0.
    """
    a, e = np.radians([azimuth, elevation])
    eye = distance * np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
    forward = -eye / distance
    right = np.cross(forward, [0, 0, 1.0])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    middle = np.array([0, 0, 0.22])
    return np.block(
        [
            [rotation, (-rotation @ (eye + middle))[:, None]],
            [np.zeros((1, 3)), np.ones((1, 1))],
        ]
    )


def random_similarity(rng: np.random.Generator) -> np.ndarray:
    """(4, 4) with a uniform rotation, a scale between 0.5 and 2 and a small translation."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    matrix = np.eye(4)
    matrix[:3, :3] = q * np.linalg.det(q) * rng.uniform(0.5, 2)
    matrix[:3, 3] = rng.normal(size=3) * 0.3
    return matrix


def write_video(folder: Path, seed: int, views: int = 24, size: int = 192) -> Truth:
    """Render one truck from `views` directions of two rings into a video folder.

    Everything follows from the seed.
    """
    rng = np.random.default_rng(seed)
    boxes, canon_from_obj = truck(rng), random_similarity(rng)
    matrix = torch.tensor(
        [[1.6 * size, 0, (size - 1) / 2], [0, 1.6 * size, (size - 1) / 2], [0, 0, 1]],
        dtype=torch.float64,
    )
    camera = Camera(matrix, size, size)
    scale = np.linalg.det(canon_from_obj[:3, :3]) ** (1 / 3)
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    poses = {}
    for k in range(views):
        cam_from_canon = look_at(
            360 * k / views + rng.uniform(-4, 4), (12, 38)[k % 2] + rng.uniform(-4, 4), 2.3
        )
        image, mask = render(boxes, np.linalg.inv(cam_from_canon), camera)
        name = f"{k:06d}.jpg"
        cv2.imwrite(
            str(folder / "images" / name), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95]
        )
        cv2.imwrite(str(folder / "masks" / f"{name}.png"), mask.astype(np.uint8) * 255)
        cam_from_obj = cam_from_canon @ canon_from_obj
        cam_from_obj[:3] /= scale  # rigid: the whole scene in obj units
        poses[name] = cam_from_obj
    images = [SparseImage(name, 1, torch.from_numpy(pose)) for name, pose in poses.items()]
    write_sparse(
        folder / "sparse", {1: camera}, images, torch.zeros(0, 3, dtype=torch.float64)
    )
    return Truth(canon_from_obj, poses, camera)


def write_category(
    folder: Path, seeds: dict[str, int], views: int = 24, size: int = 192
) -> dict[str, Truth]:
    """Videos by name and seed, and their labels.json."""
    truths = {
        name: write_video(folder / name, seed, views, size) for name, seed in seeds.items()
    }
    labels = {
        name: {
            "canon_from_obj": (
                t.canon_from_obj[:3, :3] / np.cbrt(np.linalg.det(t.canon_from_obj[:3, :3]))
            ).tolist()
        }
        for name, t in truths.items()
    }
    (folder / "labels.json").write_text(json.dumps(labels))
    return truths
