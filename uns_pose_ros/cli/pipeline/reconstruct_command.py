"""The command `uns-pose reconstruct`, and what it prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from tyro.conf import arg

from uns_pose_ros.cli.arguments import Category, Device, Json, Videos
from uns_pose_ros.cli.console import emit, progress_bar
from uns_pose_ros.pipeline import reconstruction_stage
from uns_pose_ros.reconstruction.colmap_mapper import SfmConfig
from uns_pose_ros.reconstruction.feature_mesh import ReconstructConfig, Surface
from uns_pose_ros.reconstruction.mask_voting import MaskConfig


def reconstruct_command(
    category: Category,
    videos: Videos = None,
    device: Device = "auto",
    surface: Annotated[
        Surface | None,
        arg(
            help="hull: of the masks; alpha: alpha shape of the points in sparse/, as published; "
            "without: that of the meshes there, at first hull"
        ),
    ] = None,
    json: Json = None,
    reconstruct: ReconstructConfig = ReconstructConfig(),
    sfm: SfmConfig = SfmConfig(),
    mask: MaskConfig = MaskConfig(),
) -> None:
    """Make mesh.ply and features.safetensors of each video.

    The command finds camera poses where a video has no sparse/ and masks where it has no masks/. It
    skips what is done already.
    """
    with progress_bar() as progress:
        made = reconstruction_stage.reconstruct(
            category,
            videos,
            reconstruct,
            device,
            progress,
            sfm,
            mask,
            surface=surface,
        )
    emit(
        {"videos": {name: {"made": new} for name, new in made.items()}},
        reconstructed_text(made),
        json,
    )


def reconstructed_text(made: Mapping[str, bool]) -> str:
    """How many videos were reconstructed now; by name, whether a video was."""
    new = sum(made.values())
    return f"{new} of {len(made)} videos reconstructed, {len(made) - new} were done already"
