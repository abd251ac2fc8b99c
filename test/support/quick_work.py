"""The commands of the pipeline with stand-ins for all heavy work; what they write is real."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import torch

from uns_pose_ros.alignment import category_alignment
from uns_pose_ros.cli import export_command, model_commands
from uns_pose_ros.core.camera import assumed_camera
from uns_pose_ros.core.types import (
    Alignment,
    CategoryModel,
    FeatureMesh,
    PoseEstimate,
    Symmetry,
    Video,
)
from uns_pose_ros.io.colmap import SparseImage
from uns_pose_ros.networks import pretrained_weights, u2net
from uns_pose_ros.pipeline import alignment_stage, reconstruction_stage, training_stage
from uns_pose_ros.pipeline.poses_and_masks import (
    mask_check,
    mask_preparation,
    pose_preparation,
)
from uns_pose_ros.reconstruction import feature_mesh, structure_from_motion
from uns_pose_ros.reconstruction.colmap.sfm_attempt import Poses
from uns_pose_ros.reconstruction.hull_of_others import MaskFit
from uns_pose_ros.reconstruction.segmentation import Masks
from uns_pose_ros.reporting import report_builder
from uns_pose_ros.training import category_training

CLIPS = ("clip_01", "clip_02")
_TRIANGLE = torch.tensor([[0, 1, 2]])


def write_quick_images(folder: Path) -> None:
    """Three images of 16 x 12 px."""
    folder.mkdir(parents=True)
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 255, (12, 16, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{number:06d}.png"), pixels)


def write_quick_category(folder: Path, clips: int = 2) -> None:
    """Videos of images alone."""
    for name in CLIPS[:clips]:
        write_quick_images(folder / name / "images")


def stand_in(patch: Callable[[Any, str, Any], None], folder: Path) -> None:
    """Replace everything that computes by something that takes no time.

    Args:
        patch: sets an attribute of a module.
        folder: for a file that stands for pretrained weights.
    """
    patch(time, "perf_counter", lambda: 0.0)  # else no two runs write the same bytes
    weights = folder / "weights"
    weights.write_bytes(b"weights")
    patch(pretrained_weights, "find", lambda name: weights)
    patch(pose_preparation.capture_quality, "is_turntable", lambda images: False)
    patch(structure_from_motion, "find_poses", _find_poses)
    patch(u2net, "load_salience", lambda: None)
    patch(mask_preparation.masking, "find_masks", _find_masks)
    patch(mask_check, "check_masks", lambda video, masks: [])
    patch(reconstruction_stage, "load_stage_backbone", lambda device: None)
    patch(training_stage, "load_stage_backbone", lambda device: None)
    patch(feature_mesh, "build_feature_mesh", lambda *_: _mesh())
    patch(category_alignment, "align_videos", _align)
    patch(alignment_stage, "average_features", lambda mesh: None)
    patch(alignment_stage, "render_alignment", lambda *_: np.zeros((8, 8, 3), np.uint8))
    patch(training_stage, "plot_training", lambda curve: _Figure())
    patch(category_training, "train_model", _train)
    patch(report_builder, "_try_model", lambda *_: report_builder._Trial())
    patch(report_builder, "_summarize_videos", lambda *_: [])
    patch(report_builder, "preview_labels", lambda *_: None)
    patch(model_commands, "Estimator", OneInTheMiddle)
    patch(export_command, "load_backbone", lambda device: None)
    patch(
        export_command,
        "LoadedModel",
        lambda *_, **__: SimpleNamespace(crop_size=28, layers=(9,)),
    )
    patch(export_command, "backbone_graph", lambda *_: b"graph")


class OneInTheMiddle:
    """An estimator that finds one object in every image."""

    def __init__(self, model: Any, device: str, config: object) -> None:
        self.models = (model,)
        self.best_rejected = None

    def __call__(self, image: Any, camera: Any) -> list[PoseEstimate]:
        pose = torch.eye(4, dtype=torch.float64)
        pose[2, 3] = 3
        size, box = torch.ones(3, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
        return [
            PoseEstimate("mug", pose, 1.0, False, size, 0.7, None, Symmetry(), 12, 1.5, box)
        ]


class _Figure:
    def savefig(self, path: Path, **_: Any) -> None:
        path.write_bytes(b"figure")


def _find_poses(video: Video, *_: Any) -> Poses:
    images = []
    for number, frame in enumerate(video.frames):
        pose = torch.eye(4, dtype=torch.float64)
        pose[0, 3] = number
        images.append(SparseImage(frame.name, 1, pose))
    report = {"registered": len(images), "registered_fraction": 1.0}
    return Poses(assumed_camera(16, 12), tuple(images), torch.zeros(1, 3).double(), report)


def _find_masks(video: Video, *_: Any, place_again: bool) -> Masks:
    shown = np.zeros((12, 16), bool)
    shown[4:8, 4:12] = True
    names = [frame.name for frame in video.frames]
    return Masks(dict.fromkeys(names, shown), dict.fromkeys(names, MaskFit(1.0, 0.0, 0.0)))


def _mesh() -> FeatureMesh:
    third = torch.full((1, 384), 384**-0.5, dtype=torch.float16)
    zero = torch.zeros(1, dtype=torch.int64)
    return FeatureMesh(
        torch.eye(3), _TRIANGLE, third, zero, zero.clone(), torch.eye(4)[None]
    )


def _align(meshes: dict[str, FeatureMesh], *_: Any) -> Alignment:
    count = len(meshes)
    ones = torch.ones(count, dtype=torch.float64)
    poses = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    return Alignment(tuple(meshes), poses, ones, ones.bool(), 0 * ones)


def _train(category: str, videos: dict[str, Video], *rest: Any) -> CategoryModel:
    checkpoint, watch = rest[-3], rest[-1]
    numbers = checkpoint.array("numbers", (4,), torch.float32)
    done = checkpoint.read_note("numbers") or 0
    numbers[done:] = torch.arange(4.0)[done:]
    checkpoint.write_note("numbers", 4)
    state = checkpoint.load() or ({"sum": torch.zeros(1)}, {"step": 0})
    total = state[0]["sum"]
    for step in range(state[1]["step"], 2):
        total = total + numbers.sum()
        checkpoint.save({"sum": total}, {"step": step + 1})
        watch({"step": [step]})
    poses = {name: torch.eye(4).tolist() for name in videos}
    return CategoryModel(
        category,
        torch.eye(3),
        _TRIANGLE,
        torch.eye(3),
        torch.eye(3),
        {"total": total},
        provenance={"canon_from_obj": poses, "network": {}},
    )
