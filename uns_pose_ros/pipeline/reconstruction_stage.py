"""The stage that reconstructs the videos of a category folder.

A stage stores its provenance in its artifact: settings, hashes of all files it read, version and
seed. It is skipped only if all of them are the same now. An artifact appears whole or not at all.
Therefore, a killed stage runs again; `reconstruct` continues with the first unfinished video.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from uns_pose_ros.core.device import choose_device, choose_precision
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Progress
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.video_folder import list_videos, load_video
from uns_pose_ros.io.writing.target_lock import lock_target
from uns_pose_ros.networks import pretrained_weights
from uns_pose_ros.networks.dinov2 import DinoV2, load_backbone
from uns_pose_ros.pipeline import preparation
from uns_pose_ros.pipeline.earlier_choices import choose_surfaces
from uns_pose_ros.pipeline.poses_and_masks import mask_check
from uns_pose_ros.pipeline.provenance import (
    FileCache,
    is_current,
    stage_provenance,
    video_inputs,
)
from uns_pose_ros.pipeline.stage_progress import prefix_progress
from uns_pose_ros.reconstruction import feature_mesh
from uns_pose_ros.reconstruction.colmap_mapper import SfmConfig
from uns_pose_ros.reconstruction.feature_mesh import ReconstructConfig, Surface
from uns_pose_ros.reconstruction.mask_voting import MaskConfig

BACKBONE = "dinov2_vits14"


def reconstruct(
    category: Path,
    patterns: str | None = None,
    config: ReconstructConfig = ReconstructConfig(),
    device: str = "auto",
    progress: Progress | None = None,
    sfm: SfmConfig = SfmConfig(),
    masks: MaskConfig = MaskConfig(),
    files: FileCache | None = None,
    surface: Surface | None = None,
) -> dict[str, bool]:
    """Give every video of a category its mesh.ply and features.safetensors.

    Missing camera poses and masks are found first. All videos are checked before the first mesh.

    Args:
        category: folder with one subfolder for each video.
        patterns: shell patterns of the videos, comma separated; None: all.
        config: settings of the reconstruction.
        device: auto, cpu, cuda or cuda:N.
        progress: is called with the step, the videos done and all videos.
        sfm: settings of the camera poses.
        masks: settings of the masks.
        files: hashes that this run has computed already.
        surface: hull, or alpha: an alpha shape of the points, see `build_feature_mesh`; None: that
            of the meshes that are there, at first hulls.

    Returns:
        For each video, whether its mesh was made now.

    Raises:
        InvalidInput: a video cannot be used; the message names the first.
    """
    files = files or FileCache()
    folders = list_videos(category, patterns)
    preparation.prepare_videos(folders, sfm, masks, progress, files)
    backbone_hash = files.hash(pretrained_weights.find(BACKBONE))
    surfaces = choose_surfaces(folders, surface)
    wanted = {
        folder: stage_provenance(
            "reconstruct",
            _mesh_settings(config, surfaces[folder]),
            video_inputs(folder, files),
            seed=None,
            backbone=backbone_hash,
        )
        for folder in folders
    }
    missing = [
        folder
        for folder in folders
        if not is_current(folder / artifacts.FEATURES, wanted[folder])
    ]
    videos = {folder: load_video(folder) for folder in missing}
    if videos:
        backbone = load_stage_backbone(device)
    for folder, video in videos.items():
        with lock_target(folder):
            if video_inputs(folder, files) != wanted[folder]["inputs"]:
                raise InvalidInput(
                    f"{folder}: another process has changed images, masks or poses meanwhile; "
                    "run it again"
                )
            mask_check.check_masks(video, masks)
            start = time.perf_counter()
            mesh = feature_mesh.build_feature_mesh(
                video,
                backbone,
                config,
                prefix_progress(progress, "reconstruct "),
                surfaces[folder],
            )
            artifacts.save_feature_mesh(
                mesh,
                folder,
                {**wanted[folder], "seconds": round(time.perf_counter() - start, 2)},
            )
    return {folder.name: folder in videos for folder in folders}


def _mesh_settings(config: ReconstructConfig, surface: Surface) -> dict[str, Any]:
    """The settings of a mesh; those of hulls are as before there was a choice."""
    settings: dict[str, Any] = artifacts.plain(config)
    return settings if surface == "hull" else {**settings, "surface": surface}


def load_stage_backbone(device: str) -> DinoV2:
    """Load the backbone in the precision of the estimator on this machine."""
    return load_backbone(device=device, precision=choose_precision(choose_device(device)))
