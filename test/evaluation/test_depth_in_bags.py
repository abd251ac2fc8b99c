"""Depth in a recorded bag makes the positions of the objects better."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("rosbags")
from rosbags.rosbag2 import StoragePlugin

from bag_writer import CAMERA, camera_info, make, raw, raw_depth, transform, write_bag
from labeled_category import box_mesh
from streams import estimate, noisy, pose
from synthetic import truck
from uns_pose_ros.core.geometry import project
from uns_pose_ros.core.geometry import transform as move
from uns_pose_ros.core.ray_casting import cast_rays
from uns_pose_ros.core.types import Camera, CategoryModel, PoseEstimate
from uns_pose_ros.estimation.depth.depth_refinement import use_depth
from uns_pose_ros.estimation.stream.expectation import Expectation
from uns_pose_ros.evaluation.bag_config import BagConfig
from uns_pose_ros.evaluation.bag_figures import summarize_bag
from uns_pose_ros.evaluation.rosbag_evaluation import estimate_bag_frames

SIZE, KNOWN = 0.5, 0.4  # m, diameters: of the instance, and of the category
IMAGES = 8
OBJECT = pose((0.0, 0.0, 20.0), (0.5, 0.1, 0.0))  # map_from_object


def map_from_cam(k: int) -> Tensor:
    """The pose of a camera that goes around the object, 1 m away, 6 degrees an image."""
    away = pose((0.0, 0.0, 6.0 * k), (0.5, 0.1, 0.0))
    return away @ pose((-110.0, 0.0, 0.0), (0.0, -0.95, 0.34))


def silent(what: str, done: int, total: int) -> None:
    pass


def category(seed: int) -> CategoryModel:
    vertices, triangles = box_mesh(truck(np.random.default_rng(seed)))
    low, high = vertices.min(0), vertices.max(0)
    vertices = (vertices - (low + high) / 2) / np.linalg.norm(high - low)
    unit = torch.nn.functional.normalize(torch.ones(len(vertices), 4), dim=1)
    corners, faces = torch.from_numpy(vertices).float(), torch.from_numpy(triangles.copy())
    return CategoryModel("truck", corners, faces, unit, unit[:1], {}, diameter=KNOWN)


def true_pose(k: int) -> Tensor:
    return torch.linalg.inv(map_from_cam(k)) @ OBJECT


def depth_image(shape: CategoryModel, k: int) -> np.ndarray:
    """Depth (48, 64) uint16 mm of the instance in image k, before nothing."""
    true = true_pose(k)
    v, u = np.mgrid[: CAMERA.height, : CAMERA.width].reshape(2, -1)
    pixels = torch.from_numpy(np.stack([u, v, np.ones_like(u)], 1)).double()
    rays = pixels @ torch.linalg.inv(CAMERA.matrix).T @ true[:3, :3] / SIZE
    origin = -true[:3, :3].T @ true[:3, 3] / SIZE
    depth, _, _ = cast_rays(origin.float(), rays.float(), shape.vertices, shape.triangles)
    depth = torch.where(depth.isfinite(), 1000 * depth, 0.0)
    return depth.reshape(CAMERA.height, CAMERA.width).numpy().astype(np.uint16)


class Monocular:
    """An estimator that sees a truck of the known size: so its distance is wrong by a fifth.

    It knows depth as the Estimator does.
    """

    def __init__(self) -> None:
        self.models = (category(3),)
        self._generator = torch.Generator().manual_seed(0)

    def __call__(
        self,
        image: np.ndarray,
        camera: Camera,
        regions: None = None,
        depth: np.ndarray | None = None,
        expected: Expectation | None = None,
    ) -> list[PoseEstimate]:
        (shape,) = self.models
        near = true_pose(int(image[0, 0, 0]) // 10)
        near[:3, 3] *= KNOWN / SIZE
        near = noisy(near, self._generator)
        pixels = project(camera.matrix, move(near, KNOWN * shape.vertices.double()))
        found = replace(
            estimate(near, size=KNOWN, category="truck"),
            box=torch.cat([pixels.amin(0), pixels.amax(0)]),
        )
        return [found if depth is None else use_depth(found, shape, camera, depth)]


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    instance = category(0)
    messages: list[tuple[str, float, Any]] = [("/cam/camera_info", 99.0, camera_info(99.0))]
    for k in range(IMAGES):
        at = 100 + k / 10
        tf = [
            transform(at, "map", "cam_optical", map_from_cam(k).numpy()),
            transform(at, "map", "thing", OBJECT.numpy()),
        ]
        image = np.full((48, 64, 3), 10 * k, np.uint8)
        messages += [
            ("/tf", at, make("tf2_msgs/msg/TFMessage", transforms=tf)),
            ("/cam/image_raw", at, raw(at, image)),
            ("/cam/depth/image_raw", at, raw_depth(at, depth_image(instance, k))),
        ]
    topics = {topic for topic, _, _ in messages}
    write_bag(tmp_path / "bag", StoragePlugin.MCAP, topics, messages=messages)
    return tmp_path / "bag"


@pytest.mark.parametrize("fuse", [False, True], ids=["single", "fused"])
def test_depth_halves_the_error_of_positions_and_says_how_often_it_was_used(
    bag: Path, fuse: bool
) -> None:
    figures = []
    for depth in (None, "/cam/depth/image_raw"):
        config = BagConfig(
            image_topic="/cam/image_raw",
            depth_topic=depth,
            truth_frame="thing",
            fixed_frame="map",
            fuse=fuse,
        )
        find = Monocular()
        results = estimate_bag_frames(bag, find, config, silent)  # type: ignore[arg-type]
        figures.append(summarize_bag(results, find.models[0], torch.eye(4).double()))
    without, with_depth = figures
    assert without["translation_m"]["p50"] > 0.15
    assert with_depth["translation_m"]["p50"] < 0.5 * without["translation_m"]["p50"]
    assert with_depth["median_deg"] < without["median_deg"] + 1
    assert without["depth"] == {} and with_depth["depth"] == {"refined": IMAGES}
