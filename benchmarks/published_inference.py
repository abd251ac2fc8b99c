#!/usr/bin/env python3
"""The published inference and ours with one model on the same images: accuracy and time.

    python benchmarks/published_inference.py car/model split/b --videos 'car_01,car_02,car_03'

TEST is a category folder with images, masks, sparse and labels.json, which also labels the videos
that the model was trained on. The images are those of --videos, every --every th.

published    144 start rotations (12 azimuths, 4 elevations, 3 turns in the image) with the TRUE
             translation, box and camera; the best of them is refined by 30 steps of Adam on the
             rotation (Sommer et al., CVPR 2024, and their released code)
starts       the best start, before the refinement
ours, box    our estimator with the true box; it finds translation and size
ours         our estimator with image and camera alone

The published inference renders the vertices' features and compares them with those of the image: a
pixel that shows the object counts by its cosine, or by that of the nearest clutter feature if it is
larger, any other pixel by the latter. Its gradients are those of a rasterizer with one triangle a
pixel: they flow through the barycentric weights. Times are CPU seconds of one thread, the backbone
included.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common import machine, politely, write
from uns_pose_ros.core.crops import crop, mask_box, square_around
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import angle_between, rotation_from_vector, transform
from uns_pose_ros.core.ray_casting import cast_rays
from uns_pose_ros.core.types import Camera, CategoryModel, Frame, PoseEstimate, Video
from uns_pose_ros.estimation.estimator import Estimator
from uns_pose_ros.estimation.loaded_model import LoadedModel
from uns_pose_ros.evaluation.metrics import accuracies
from uns_pose_ros.evaluation.poses.pose_evaluation import ObjectExtent
from uns_pose_ros.evaluation.rotation_labels import fit_label_from_canon, load_labels
from uns_pose_ros.io.artifacts import load_model
from uns_pose_ros.io.video_folder import list_videos, load_video, read_frame
from uns_pose_ros.networks.correspondence_head import STRIDE
from uns_pose_ros.networks.dinov2 import imagenet_normalize
from uns_pose_ros.reconstruction.visual_hull import carve_visual_hull

BETAS, RATE, LARGEST = (0.4, 0.6), 0.02, 0.1  # of Adam; radians a step, as released
WRONG = 180.0  # degrees, of an image without an answer


@dataclass(frozen=True, eq=False)
class Scene:
    """What the published inference gets to know of an image, in canonical units."""

    features: Tensor  # (h, w, D) of the crop, unit length
    rays: Tensor  # (h * w, 3) of its cells, camera frame
    center: Tensor  # (3,) true center of the object, camera frame


@dataclass(frozen=True, eq=False)
class Shape:
    """The template with its features."""

    vertices: Tensor  # (V, 3), relative to the middle of the box
    triangles: Tensor  # (T, 3)
    features: Tensor  # (V, D)
    clutter: Tensor  # (K, D)

    @staticmethod
    def of(model: CategoryModel) -> Shape:
        middle = ObjectExtent.of(model.vertices).center.float()
        return Shape(
            model.vertices - middle,
            model.triangles,
            model.vertex_features,
            model.background_features,
        )


def start_rotations() -> Tensor:
    """The 144 start rotations (144, 3, 3), camera from canonical frame, whose z is up."""
    azimuths = torch.arange(12) * (2 * math.pi / 12)
    elevations = torch.linspace(-math.pi / 6, math.pi / 3, 4)
    turns = torch.linspace(-math.pi / 6, math.pi / 6, 3)
    grid = torch.cartesian_prod(azimuths, elevations, turns)
    azimuth, elevation, turn = grid.unbind(1)
    ring = elevation.cos()
    forward = -torch.stack([ring * azimuth.cos(), ring * azimuth.sin(), elevation.sin()], 1)
    right = torch.stack([-azimuth.sin(), azimuth.cos(), torch.zeros_like(azimuth)], 1)
    level = torch.stack([right, torch.linalg.cross(forward, right), forward], 1)
    return rotation_from_vector(turn[:, None] * torch.tensor([0.0, 0.0, 1.0])) @ level


def similarity(rotation: Tensor, shape: Shape, scene: Scene) -> Tensor:
    """Mean similarity () of the rendered features and the image's; differentiable.

    Args:
        rotation: (3, 3) camera from canonical frame.
        shape: The template.
        scene: The image.
    """
    image = scene.features.flatten(0, 1)
    clutter = (image @ shape.clutter.T).amax(1)
    with torch.no_grad():
        origin = -rotation.T @ scene.center
        distance, triangle, _ = cast_rays(
            origin, scene.rays @ rotation, shape.vertices, shape.triangles
        )
    shown = distance.isfinite().nonzero()[:, 0]
    corner = shape.triangles[triangle[shown]]  # (n, 3)
    moved = shape.vertices @ rotation.T + scene.center
    weight = torch.linalg.solve(moved[corner].mT, scene.rays[shown])
    weight = weight / weight.sum(1, keepdim=True)
    rendered = (weight[..., None] * shape.features[corner]).sum(1)
    alike = torch.maximum((image[shown] * rendered).sum(1), clutter[shown])
    return (clutter.sum() - clutter[shown].sum() + alike.sum()) / len(clutter)


def infer_rotation(
    shape: Shape, scene: Scene, starts: Tensor, steps: int = 30
) -> tuple[Tensor, Tensor]:
    """The best start rotation (3, 3), and the rotation (3, 3) that Adam makes of it."""
    with torch.no_grad():
        scores = torch.stack([similarity(start, shape, scene) for start in starts])
    start = rotation = starts[int(scores.argmax())]
    turn = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.Adam([turn], lr=RATE, betas=BETAS)
    for _ in range(steps):
        loss = -similarity(rotation @ rotation_from_vector(turn), shape, scene)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():  # the next step starts at the new rotation
            rotation = rotation @ rotation_from_vector(turn.clamp(-LARGEST, LARGEST))
            turn.zero_()
    return start, rotation


def cell_rays(matrix: Tensor, side: int) -> Tensor:
    """Rays (side * side, 3) of the cells of a crop whose camera matrix is (3, 3), row by row."""
    places = torch.arange(side, dtype=torch.float64) * STRIDE + (STRIDE - 1) / 2
    y, x = torch.meshgrid(places, places, indexing="ij")
    pixels = torch.stack([x, y, torch.ones_like(x)], -1).flatten(0, 1)
    return (pixels @ torch.linalg.inv(matrix).T).float()


class TrueScenes:
    """Makes scenes with what the published inference is given: true center, box and camera."""

    def __init__(self, estimator: Estimator, loaded: LoadedModel) -> None:
        self.estimator, self.loaded = estimator, loaded
        self.diameter = ObjectExtent.of(loaded.model.vertices).diameter

    @torch.no_grad()
    def __call__(
        self,
        image: Tensor,
        mask: Tensor,
        camera: Camera,
        pose: Tensor,
        extent: ObjectExtent,
    ) -> Scene:
        config, size = self.estimator.config, self.loaded.crop_size
        square = square_around(mask_box(mask)[None], config.crop_margin)
        crops, maps = crop(image.permute(2, 0, 1), square, size)
        layers = self.loaded.layers
        tokens = self.estimator.backbone(imagenet_normalize(crops), layers=layers)
        tokens = tokens.permute(1, 2, 3, 0, 4).flatten(3)
        kind = next(self.loaded.head.norm.parameters()).dtype
        features = self.loaded.head(tokens.to(kind))[0].float()
        center = transform(pose, extent.center[None])[0] / extent.diameter
        rays = cell_rays(maps[0] @ camera.matrix, features.shape[0])
        return Scene(features, rays, (center * self.diameter).float())


def true_extent(video: Video) -> ObjectExtent:
    """The extent of the object of a video, from the visual hull of its masks."""
    masks, matrices, poses = [], [], []
    for frame in video.frames:
        _, mask, camera = read_frame(frame)
        if mask is not None and frame.cam_from_obj is not None and bool(mask.any()):
            masks.append(mask)
            matrices.append(camera.matrix)
            poses.append(frame.cam_from_obj)
    hull, _ = carve_visual_hull(masks, torch.stack(matrices), torch.stack(poses))
    return ObjectExtent.of(hull)


def compare_inferences(
    model: CategoryModel,
    videos: list[Video],
    labels: Mapping[str, Tensor],
    every: int,
    starts: Tensor | None = None,
    estimator: Estimator | None = None,
) -> dict[str, Any]:
    """Errors and times of both inferences over the images of the videos."""
    estimator = estimator or Estimator(model, device="cpu")
    # every image gets its best pose, as in the paper
    estimator.config = replace(estimator.config, score_threshold=0.0)
    loaded = LoadedModel(model, torch.device("cpu"), estimator.backbone.precision == "bf16")
    scenes, shape = TrueScenes(estimator, loaded), Shape.of(model)
    starts = start_rotations() if starts is None else starts
    label_from_canon = fit_label_from_canon(model, labels)
    errors: dict[str, list[float]] = {}
    seconds: dict[str, list[float]] = {}

    def note(name: str, error: float, start: float) -> None:
        errors.setdefault(name, []).append(error)
        seconds.setdefault(name, []).append(time.process_time() - start)

    for video in videos:
        extent = true_extent(video)
        frames = [f for f in video.frames if f.mask and f.cam_from_obj is not None]
        for frame in frames[::every]:
            image, mask, camera = read_frame(frame)
            truth = true_rotation(frame, labels[video.name], label_from_canon)
            assert mask is not None and frame.cam_from_obj is not None
            start = time.process_time()
            scene = scenes(image, mask, camera, frame.cam_from_obj, extent)
            first, rotation = infer_rotation(shape, scene, starts)
            note("published", off(rotation, truth), start)
            note("starts", off(first, truth), start)
            box = mask_box(mask)[None]
            for name, words in (("ours, box", (box,)), ("ours", ())):
                start = time.process_time()
                found = estimator(image, camera, *words)
                note(name, best_error(found, truth), start)
            told = ", ".join(f"{name} {some[-1]:.0f}°" for name, some in errors.items())
            print(f"{video.name}/{frame.name}: {told}", file=sys.stderr)
    if not errors:
        raise InvalidInput("no frame with mask and pose in the videos")
    del seconds["starts"]
    return {
        name: accuracies(torch.tensor(some, dtype=torch.float64))
        | {"images": len(some)}
        | ({"seconds": sum(seconds[name]) / len(some)} if name in seconds else {})
        for name, some in errors.items()
    }


def true_rotation(frame: Frame, label: Tensor, label_from_canon: Tensor) -> Tensor:
    """The rotation (3, 3) camera from canonical frame of the model."""
    assert frame.cam_from_obj is not None
    return frame.cam_from_obj[:3, :3] @ label.T @ label_from_canon


def off(rotation: Tensor, truth: Tensor) -> float:
    """Angle between two rotations (3, 3), degrees."""
    return float(angle_between(rotation.double(), truth))


def best_error(found: list[PoseEstimate], truth: Tensor) -> float:
    """Error of the estimate with the highest score, degrees."""
    best = max(found, key=lambda estimate: estimate.score, default=None)
    return WRONG if best is None else off(best.cam_from_canon[:3, :3], truth)


def table(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """One line for each inference."""
    lines = ["inference      @30°   @15°   @10°  median   seconds an image"]
    for name, row in figures.items():
        accurate = "  ".join(f"{row[f'acc{angle}']:5.1f}" for angle in (30, 15, 10))
        spent = f"{row['seconds']:.2f}" if "seconds" in row else ""
        lines.append(f"{name:12}  {accurate}  {row['median_deg']:5.1f}°   {spent}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="folder of the model")
    parser.add_argument("test", type=Path, help="category folder with the test images")
    parser.add_argument("--videos", help="patterns of the test videos (default: all)")
    parser.add_argument("--labels", type=Path, help="default: labels.json of TEST")
    parser.add_argument("--every", type=int, default=4, help="default: %(default)s")
    parser.add_argument("--json", help="write the figures here; - for standard output")
    args = parser.parse_args()
    torch.set_num_threads(1)
    names = [folder.name for folder in list_videos(args.test)]
    labels = load_labels(args.labels or args.test / "labels.json", names)
    videos = [load_video(folder) for folder in list_videos(args.test, args.videos)]
    figures = compare_inferences(load_model(args.model), videos, labels, args.every)
    images = {"videos": [video.name for video in videos], "every": args.every}
    write({"inference": figures, "images": images, "machine": machine()}, args.json)
    print(table(figures), file=sys.stderr if args.json == "-" else sys.stdout)


if __name__ == "__main__":
    politely(main)
