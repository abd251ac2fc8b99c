"""How the videos of a category are brought to one canonical frame: the settings of all steps."""

from __future__ import annotations

from dataclasses import dataclass, field

from uns_pose_ros.alignment.pairs.pair_config import PairConfig
from uns_pose_ros.alignment.rotation_synchronization import ConsensusConfig
from uns_pose_ros.alignment.symmetry import SymmetryConfig
from uns_pose_ros.alignment.upright_refinement import UprightConfig


@dataclass(frozen=True)
class AlignConfig:
    """How the videos of a category are brought to one canonical frame."""

    pair: PairConfig = field(default_factory=PairConfig)
    consensus: ConsensusConfig = field(default_factory=ConsensusConfig)
    symmetry: SymmetryConfig = field(default_factory=SymmetryConfig)
    upright: UprightConfig = field(default_factory=UprightConfig)
    all_pairs_up_to: int = 24  # videos; if more, they are aligned to references only
    references: int = 5  # number of references then
    # cosine; a mode whose likeness is this much lower weighs 1/e as a vote
    likeness_scale: float = 0.08
    least_confidence: float = 0.15  # a video below it is an outlier and is left out
