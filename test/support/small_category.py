"""Three toy trucks, reconstructed and aligned in seconds.

Settings far below the defaults, which these simple shapes allow.
"""

from __future__ import annotations

from pathlib import Path

from synthetic import write_category
from uns_pose_ros.alignment.category.align_config import AlignConfig
from uns_pose_ros.alignment.pairs.pair_config import PairConfig
from uns_pose_ros.pipeline import alignment_stage, reconstruction_stage
from uns_pose_ros.reconstruction.feature_mesh import ReconstructConfig
from uns_pose_ros.reconstruction.visual_hull import HullConfig

SEEDS = {"clip_01": 1, "clip_02": 2, "clip_03": 3}
RECONSTRUCT = ReconstructConfig(hull=HullConfig(resolution=32, vertices=150), size=112)
ALIGN = AlignConfig(pair=PairConfig(hypotheses=300))
# the same as words of the command line
RECONSTRUCT_WORDS = (
    "--reconstruct.size=112",
    "--reconstruct.hull.resolution=32",
    "--reconstruct.hull.vertices=150",
)
ALIGN_WORDS = ("--align.pair.hypotheses=300",)


def write_aligned_trucks(folder: Path) -> Path:
    """A category folder with videos of eight frames, labels.json, meshes and alignment.json."""
    write_category(folder, SEEDS, views=8, size=96)
    reconstruction_stage.reconstruct(folder, config=RECONSTRUCT)
    alignment_stage.align(folder, config=ALIGN)
    return folder
