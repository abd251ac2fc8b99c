"""A bag with several cameras: the results of each, and fused as the fusion node does."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import invert
from uns_pose_ros.core.left_out import LeftOut
from uns_pose_ros.core.types import CategoryModel, PoseEstimate, PoseMode, Progress
from uns_pose_ros.estimation.cameras.camera_fusion import (
    CameraFusion,
    CameraFusionConfig,
    CameraView,
    is_recent,
    transform_estimate,
)
from uns_pose_ros.estimation.config import EstimatorConfig
from uns_pose_ros.estimation.estimator import Estimator
from uns_pose_ros.evaluation.bag_config import BagConfig
from uns_pose_ros.evaluation.bag_figures import (
    FrameResult,
    fit_truth_from_canon,
    summarize_bag,
)
from uns_pose_ros.evaluation.rosbag_evaluation import FrameCallback, estimate_bag_frames

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class CameraResults:
    """What the images of a bag show."""

    # of the only camera, or fused; a fused result is in the camera of its newest image
    frames: list[FrameResult]
    cameras: dict[str, list[FrameResult]]  # by image topic; empty where there is one camera

    @property
    def images(self) -> list[FrameResult]:
        """The results of single images."""
        return list(itertools.chain(*self.cameras.values())) or self.frames

    def fit_truth(self, model: CategoryModel, config: BagConfig) -> Tensor:
        """truth_from_canon (4, 4): fitted to the images if that is wanted, else the identity."""
        if not config.fit:
            return torch.eye(4, dtype=torch.float64)
        return fit_truth_from_canon(self.images, model)

    def in_fixed_frame(self, fixed_frame: str) -> list[FrameResult]:
        """The frames with all poses in the fixed frame, if they are fused.

        Args:
            fixed_frame: Its name.
        """
        if not self.cameras:
            return self.frames
        return [_move(result, fixed_frame) for result in self.frames]


def estimate_bag(
    path: Path,
    estimator: Estimator,
    config: BagConfig,
    progress: Progress,
    keep: FrameCallback = lambda result, image, camera: None,
) -> CameraResults:
    """Estimate the images of a bag: those of one camera, or those of several, and fuse them.

    Args:
        path: A rosbag2 recording.
        estimator: The estimator.
        config: Which messages are read.
        progress: Is called with the step, the images done and all images.
        keep: Is called with each result of one camera, its image and its camera.

    Raises:
        InvalidInput: The bag cannot be used.
    """
    if not config.image_topics:
        frames = estimate_bag_frames(path, estimator, config, progress, keep)
        return CameraResults(frames, {})
    cameras = {
        topic: estimate_bag_frames(
            path, estimator, replace(config, image_topics=(), image_topic=topic), progress
        )
        for topic in config.image_topics
    }
    matching = CameraFusionConfig(max_difference=config.max_difference)
    frames, left_out = fuse_cameras(cameras, matching)
    for line in left_out.lines():
        _log.warning("%s: not fused: %s", path, line)
    if not frames:
        raise InvalidInput(
            f"{path}: no image can be fused ({'; '.join(left_out.lines())}); the transforms from "
            f"{config.fixed_frame} to the frames of the images must be on TF"
        )
    return CameraResults(frames, cameras)


def fuse_cameras(
    cameras: Mapping[str, Sequence[FrameResult]],
    config: CameraFusionConfig = CameraFusionConfig(),
) -> tuple[list[FrameResult], LeftOut]:
    """Fuse the results of several cameras at the stamp of each image.

    Args:
        cameras: The results by camera, with `fixed_from_cam`.
        config: How they are matched.

    Returns:
        A result for each stamp, in the camera of its newest image and with the truth of it, and
        what is left out.
    """
    fusion, left_out = CameraFusion(config), LeftOut()
    newest: dict[str, FrameResult] = {}
    fused = list[FrameResult]()
    before: FrameResult | None = None
    events = sorted(
        (
            (result.stamp, camera, result)
            for camera in cameras
            for result in cameras[camera]
        ),
        key=lambda event: event[:2],
    )
    for stamp, group in itertools.groupby(events, lambda event: event[0]):
        for _, camera, result in group:
            if result.fixed_from_cam is None:
                left_out.add(f"images of {camera} without a transform to the fixed frame")
                continue
            unknown = sum(not estimate.metric for estimate in result.estimates)
            for _ in range(unknown):
                left_out.add(f"estimates of {camera} without a size in meters")
            newest[camera] = result
        views = [
            _view(camera, result)
            for camera, result in newest.items()
            if is_recent(result.stamp, stamp, config)
        ]
        last = [result for result in newest.values() if result.stamp == stamp]
        if not last:
            continue
        result = _best_known(last)
        objects = fusion.update(views)
        fixed_from_cam = result.fixed_from_cam
        assert fixed_from_cam is not None
        known = sorted(objects, key=lambda each: -each.estimate.score)
        motion = None
        if before is not None and before.fixed_from_cam is not None:
            motion = invert(fixed_from_cam) @ before.fixed_from_cam
        before = replace(
            result,
            estimates=tuple(
                transform_estimate(each.estimate, invert(fixed_from_cam)) for each in known
            ),
            tracks=tuple(each.number for each in known),
            seconds=max(entry.seconds for entry in last),
            motion=motion,
        )
        fused.append(before)
    return fused, left_out


def _best_known(results: Sequence[FrameResult]) -> FrameResult:
    """Of images of one stamp, the first that shows the truth, else the first."""
    return next((result for result in results if result.truth is not None), results[0])


def _view(camera: str, result: FrameResult) -> CameraView:
    """What the fusion node gets of an image."""
    assert result.fixed_from_cam is not None
    kept = [k for k, estimate in enumerate(result.estimates) if estimate.metric]
    return CameraView(
        camera,
        result.stamp,
        result.fixed_from_cam,
        tuple(_as_sent(result.estimates[k]) for k in kept),
        tuple(result.tracks[k] for k in kept),
    )


def _as_sent(estimate: PoseEstimate) -> PoseEstimate:
    """An estimate as a detection has it: without its doubt and its named frames."""
    modes = [
        PoseMode(m.cam_from_canon, m.log_weight, m.covariance)
        for m in estimate.alternatives
    ]
    return replace(estimate, doubt=None, frames=(), alternatives=tuple(modes))


def _move(result: FrameResult, fixed_frame: str) -> FrameResult:
    assert result.fixed_from_cam is not None
    return replace(
        result,
        frame=fixed_frame,
        estimates=tuple(
            transform_estimate(estimate, result.fixed_from_cam)
            for estimate in result.estimates
        ),
    )


def evaluate_bag(
    model: CategoryModel,
    bag: Path,
    config: BagConfig = BagConfig(),
    estimator: EstimatorConfig = EstimatorConfig(),
    device: str = "auto",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Estimate every image of a recorded bag and measure the result.

    Args:
        model: The category's model.
        bag: A rosbag2 recording, a .mcap or .db3 file or a folder.
        config: Which topics are read, and what is known of the object's pose.
        estimator: Settings of the estimator.
        device: auto, cpu, cuda or cuda:N.
        progress: Is called with the step, the images done and all images.

    Returns:
        The figures of `uns-pose evaluate bag --json -` without its frames.

    Raises:
        InvalidInput: The bag cannot be used.
    """
    find = Estimator(model, device=device, config=estimator)
    results = estimate_bag(bag, find, config, progress or (lambda step, done, total: None))
    return summarize_results(results, model, results.fit_truth(model, config))


def summarize_results(
    results: CameraResults, model: CategoryModel, truth_from_canon: Tensor
) -> dict[str, Any]:
    """The figures of a bag; of several cameras: fused, and those of each under `cameras`."""
    record = summarize_bag(results.frames, model, truth_from_canon)
    if results.cameras:
        record["cameras"] = {
            topic: summarize_bag(frames, model, truth_from_canon)
            for topic, frames in results.cameras.items()
        }
    return record
