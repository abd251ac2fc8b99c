"""No set of numbers that is accepted makes the estimator or the tracker blind: corners of ranges.

Large searches only take longer, so the search is tried up to 560 px.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor

from small_model import CLIP
from uns_pose_ros.core.types import Camera, Frame, PoseEstimate, Symmetry
from uns_pose_ros.estimation.config import EstimatorConfig
from uns_pose_ros.estimation.estimator import Estimator
from uns_pose_ros.estimation.fusion.fusion_config import FusionConfig
from uns_pose_ros.estimation.tracker import Tracker, TrackerConfig, TrackState
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.images import read_image
from uns_pose_ros.io.video_folder import load_video
from uns_pose_ros.networks.backbone_runtimes import Backbone

SLOW = {"search_size": 560}  # used in place of the end of the range
LEAST = 0.15  # score of a pose that counts: the model is trained for seconds only


class Memory:
    """A backbone that remembers its answers, since most corners ask for the same crops."""

    def __init__(self, backbone: Backbone) -> None:
        self.precision = backbone.precision
        self._backbone = backbone
        self._answers: dict[bytes, Tensor] = {}

    def __call__(self, images: Tensor, layers: Sequence[int]) -> Tensor:
        key = images.numpy().tobytes()
        if key not in self._answers:
            self._answers[key] = self._backbone(images, layers)
        return self._answers[key]


@pytest.fixture(scope="module")
def frame() -> Frame:
    return load_video(CLIP).frames[4]


@pytest.fixture(scope="module")
def estimator(chair_model: Path) -> Estimator:
    made = Estimator(artifacts.load_model(chair_model), device="cpu")
    made.backbone = Memory(made.backbone)
    return made


def ends(kind: type) -> dict[str, tuple[Any, Any]]:
    """Both ends of the range of each number."""
    numbers = {}
    for field in dataclasses.fields(kind):
        low, high = field.metadata["low"], field.metadata["high"]
        if low is not None:
            as_type: type = int if isinstance(field.default, int) else float
            numbers[field.name] = as_type(low), as_type(SLOW.get(field.name, high))
    return numbers


def corners(kind: type, count: int) -> list[dict[str, Any]]:
    """Settings with every number at a random end of its range, all low and all high among them."""
    random = Random(0)
    numbers = ends(kind)
    drawn = [
        {name: random.choice(both) for name, both in numbers.items()} for _ in range(count)
    ]
    low, high = ({name: both[k] for name, both in numbers.items()} for k in (0, 1))
    return [low, high, *drawn]


def test_every_number_of_search_solver_and_tracking_has_a_range() -> None:
    for kind in (EstimatorConfig, TrackerConfig, FusionConfig):
        for field in dataclasses.fields(kind):
            if type(field.default) in (int, float):
                low, high = field.metadata["low"], field.metadata["high"]
                assert low <= field.default <= high, field.name


def test_the_object_is_found_with_each_number_at_each_end_of_its_range(
    estimator: Estimator, frame: Frame
) -> None:
    image = read_image(frame.image)
    blind = []
    numbers = ends(EstimatorConfig)
    del numbers["score_threshold"]  # has a test of its own
    for name, both in numbers.items():
        for value in both:
            given: dict[str, Any] = {"score_threshold": 0.0, name: value}
            estimator.config = EstimatorConfig(**given)
            found = estimator(image, frame.camera)
            if not found or found[0].score < LEAST:
                blind.append((name, value, [pose.score for pose in found]))
    assert blind == []


def test_an_object_that_fills_the_image_is_found_with_all_numbers_at_ends_of_their_ranges(
    estimator: Estimator, frame: Frame
) -> None:
    image = read_image(frame.image)
    estimator.config = EstimatorConfig(score_threshold=0.0)
    x0, y0, x1, y1 = (int(value) for value in estimator(image, frame.camera)[0].box)
    matrix = frame.camera.matrix.clone()
    matrix[:2, 2] -= torch.tensor([x0, y0])
    image, camera = image[y0:y1, x0:x1].contiguous(), Camera(matrix, x1 - x0, y1 - y0)
    for values in corners(EstimatorConfig, 12):
        estimator.config = EstimatorConfig(**{**values, "score_threshold": 0.0})
        found = estimator(image, camera)
        assert found, values
        assert bool(found[0].cam_from_canon.isfinite().all()), values


def test_the_largest_score_threshold_is_below_scores_that_poses_reach(
    estimator: Estimator,
) -> None:
    _, most = ends(EstimatorConfig)["score_threshold"]
    estimator.config = EstimatorConfig(
        score_threshold=most, correspondence_sigma_cells=10.0, second_look=False
    )
    learned = load_video(CLIP).frames[::2]
    assert any(estimator(read_image(one.image), one.camera) for one in learned)


def test_an_object_at_rest_is_tracked_with_all_numbers_at_ends_of_their_ranges() -> None:
    for k, values in enumerate(corners(FusionConfig, 10)):
        tracking = corners(TrackerConfig, 10)[k]
        tracker = Tracker(TrackerConfig(**tracking), FusionConfig(**values))
        for image in range(tracking["min_hits"]):
            (track,) = tracker.update([_sighting(image)], image * 100_000_000)
            assert bool(track.estimate.cam_from_canon.isfinite().all()), (tracking, values)
        assert track.state == TrackState.TRACKED, (tracking, values)
        assert track.number == 0


def _sighting(image: int) -> PoseEstimate:
    """An object in the camera that shakes by a hundredth of its size."""
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, 3] = torch.tensor([0.01 * (image % 2), 0.0, 3.0])
    size = torch.tensor([0.8, 0.4, 0.2], dtype=torch.float64)
    box = torch.zeros(4, dtype=torch.float64)
    covariance = 1e-4 * torch.eye(6, dtype=torch.float64)
    return PoseEstimate(
        "car", pose, 1.0, True, size, 0.9, covariance, Symmetry(), 40, 1.0, box
    )
