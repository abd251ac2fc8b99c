"""Category-level 3D pose without labels, CAD models or depth, as a ROS 2 package.

The names in `__all__` are the public API. Each is imported when it is first used, so that
`import uns_pose_ros` needs no torch.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uns_pose_ros.capture.import_source import import_video
    from uns_pose_ros.core.errors import InvalidInput
    from uns_pose_ros.core.types import (
        Alignment,
        Camera,
        CategoryModel,
        FeatureMesh,
        PoseEstimate,
        Symmetry,
        Video,
    )
    from uns_pose_ros.estimation.config import EstimatorConfig
    from uns_pose_ros.estimation.estimator import Estimator
    from uns_pose_ros.estimation.fusion.fusion_config import FusionConfig
    from uns_pose_ros.estimation.fusion.pose_fusion import fuse
    from uns_pose_ros.estimation.tracker import Tracker, TrackerConfig
    from uns_pose_ros.evaluation.bag_cameras import evaluate_bag
    from uns_pose_ros.io.artifacts import load_alignment, load_model
    from uns_pose_ros.io.video_folder import load_video
    from uns_pose_ros.pipeline.alignment_stage import align
    from uns_pose_ros.pipeline.reconstruction_stage import reconstruct
    from uns_pose_ros.pipeline.training_stage import train
    from uns_pose_ros.training.training_views import TrainConfig

# Waiting threads spin for microseconds and then sleep: on a processor that other programs use too,
# longer spinning made an estimate 15 times slower. PyTorch reads these when it is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

__version__ = "0.1.0"

_HOMES = {
    "Alignment": "core.types",
    "Camera": "core.types",
    "CategoryModel": "core.types",
    "Estimator": "estimation.estimator",
    "EstimatorConfig": "estimation.config",
    "FeatureMesh": "core.types",
    "FusionConfig": "estimation.fusion.fusion_config",
    "InvalidInput": "core.errors",
    "PoseEstimate": "core.types",
    "Symmetry": "core.types",
    "Tracker": "estimation.tracker",
    "TrackerConfig": "estimation.tracker",
    "TrainConfig": "training.training_views",
    "Video": "core.types",
    "align": "pipeline.alignment_stage",
    "evaluate_bag": "evaluation.bag_cameras",
    "fuse": "estimation.fusion.pose_fusion",
    "import_video": "capture.import_source",
    "load_alignment": "io.artifacts",
    "load_model": "io.artifacts",
    "load_video": "io.video_folder",
    "reconstruct": "pipeline.reconstruction_stage",
    "train": "pipeline.training_stage",
}

__all__ = [
    "Alignment",
    "Camera",
    "CategoryModel",
    "Estimator",
    "EstimatorConfig",
    "FeatureMesh",
    "FusionConfig",
    "InvalidInput",
    "PoseEstimate",
    "Symmetry",
    "Tracker",
    "TrackerConfig",
    "TrainConfig",
    "Video",
    "__version__",
    "align",
    "evaluate_bag",
    "fuse",
    "import_video",
    "load_alignment",
    "load_model",
    "load_video",
    "reconstruct",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its module when it is first used (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names and what is loaded."""
    return sorted({*globals(), *__all__})
