"""A bag of a camera that turns around an object, and an estimator that knows every pose."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rosbags.rosbag2 import StoragePlugin
from torch import Tensor

from bag_writer import camera_info, header, make, raw, transform, write_bag
from streams import HALF_TURN, estimate, pose
from uns_pose_ros.core.types import Camera, CategoryModel, PoseEstimate
from uns_pose_ros.estimation.stream.expectation import Expectation
from uns_pose_ros.evaluation import bag_transforms
from uns_pose_ros.evaluation.bag_config import BagConfig
from uns_pose_ros.evaluation.bag_figures import FrameResult, summarize_bag
from uns_pose_ros.evaluation.rosbag_evaluation import estimate_bag_frames

OBJECT = pose((0.0, 0.0, 20.0), (0.5, 0.1, 0.0))  # map_from_object
IDENTITY = torch.eye(4, dtype=torch.float64)


def map_from_cam(k: int) -> Tensor:
    """The pose of a camera that looks at the object and turns by 4 degrees in each image."""
    away = pose((0.0, 0.0, 4.0 * k), (0.5, 0.1, 0.0)) @ pose(
        (-110.0, 0.0, 0.0), (0.0, -1.2, 0.4)
    )
    return away


def true_pose(k: int) -> Tensor:
    return torch.linalg.inv(map_from_cam(k)) @ OBJECT


def car() -> CategoryModel:
    vertices = torch.tensor(
        [[-0.4, -0.2, -0.1], [0.4, -0.2, -0.1], [0.0, 0.2, -0.1], [0.0, 0.0, 0.1]]
    )
    unit = torch.nn.functional.normalize(torch.ones(4, 8), dim=1)
    return CategoryModel(
        "car",
        vertices,
        torch.tensor([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]]),
        unit,
        unit[:1],
        {},
        diameter=0.2,
    )


class Scripted:
    """An estimator that knows the true pose of image k, whose gray value is 10 k.

    It gives a flipped pose in images of `flipped`, and no pose in images of `missed`.
    """

    def __init__(
        self,
        flipped: Sequence[int] = (),
        missed: Sequence[int] = (),
        canon_from_own: Tensor = IDENTITY,
    ) -> None:
        self.models = (car(),)
        self._flipped, self._missed, self._turn = flipped, missed, canon_from_own
        self.depths: dict[int, np.ndarray] = {}  # the depth of each image

    def __call__(
        self,
        image: np.ndarray,
        camera: Camera,
        regions: None = None,
        depth: np.ndarray | None = None,
        expected: Expectation | None = None,
    ) -> list[PoseEstimate]:
        k = int(image[0, 0, 0]) // 10
        if depth is not None:
            self.depths[k] = depth
        if k in self._missed:
            return []
        truth = true_pose(k) @ self._turn
        return [
            estimate(
                truth @ HALF_TURN if k in self._flipped else truth,
                score=0.3 if k in self._flipped else 0.8,
            )
        ]


def write_scripted_bag(path: Path) -> Path:
    """A bag of 20 images, one every 0.1 s, with the pose of the object on TF and on /truth."""
    messages: list[tuple[str, float, Any]] = [
        ("/cam/camera_info", 100.0, camera_info(100.0))
    ]
    for k in range(20):
        at = 100 + k / 10
        tf = [
            transform(at, "map", "cam_optical", map_from_cam(k).numpy()),
            transform(at, "map", "thing", OBJECT.numpy()),
        ]
        messages.append(("/tf", at, make("tf2_msgs/msg/TFMessage", transforms=tf)))
        parts = transform(at, "map", "", OBJECT.numpy()).transform
        position = make(
            "geometry_msgs/msg/Point",
            x=parts.translation.x,
            y=parts.translation.y,
            z=parts.translation.z,
        )
        placed = make(
            "geometry_msgs/msg/Pose", position=position, orientation=parts.rotation
        )
        messages.append(
            (
                "/truth",
                at,
                make(bag_transforms.POSE, header=header(at, "map"), pose=placed),
            )
        )
        messages.append(
            ("/cam/image_raw", at, raw(at, np.full((48, 64, 3), 10 * k, np.uint8)))
        )
    topics = {"/cam/image_raw", "/cam/camera_info", "/tf", "/truth"}
    write_bag(path, StoragePlugin.MCAP, topics, messages=messages)
    return path


def silent(what: str, done: int, total: int) -> None:
    pass


def frame_results(bag: Path, estimator: Scripted, **settings: Any) -> list[FrameResult]:
    # Scripted has the interface of an Estimator
    return estimate_bag_frames(bag, estimator, BagConfig(**settings), silent)  # type: ignore[arg-type]


def figures(bag: Path, estimator: Scripted, **settings: Any) -> dict[str, Any]:
    return summarize_bag(frame_results(bag, estimator, **settings), car(), IDENTITY)
