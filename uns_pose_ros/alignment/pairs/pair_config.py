"""How two feature meshes are aligned: the settings of all steps."""

from __future__ import annotations

from dataclasses import dataclass, field

from uns_pose_ros.alignment.mesh_batch import ShapeConfig


@dataclass(frozen=True)
class PairConfig:
    """How two feature meshes are aligned."""

    shapes: ShapeConfig = field(default_factory=ShapeConfig)
    alpha: float = 0.2  # weight of appearance against geometry in the energy (published)
    # diameters, length over which a broken cycle loses its weight (published)
    tau: float = 0.9
    # similarities from four correspondences each, half drawn in either direction
    hypotheses: int = 1000
    screening: int = 128  # vertices on which all hypotheses are scored first
    kept: int = 200  # hypotheses that are scored on all vertices and form the modes
    # number of these that are tried again after a half turn about each principal axis
    turned: int = 50
    # degrees between two views' directions from which they no longer show the same side
    view_width: float = 30.0
    # energy above the best hypothesis at which a hypothesis weighs 1/e in the mean of its mode
    temperature: float = 0.01
    mode_width: float = 15.0  # degrees, kernel of a mode
    mode_distance: float = 45.0  # degrees between two modes, at least
    modes: int = 6  # for each pair, at most
