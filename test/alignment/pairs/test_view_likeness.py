"""Likeness of what two meshes show from the same side."""

from __future__ import annotations

import torch

from synthetic_meshes import feature_mesh
from uns_pose_ros.alignment.mesh_batch import build_mesh_batch
from uns_pose_ros.alignment.pairs.pair_config import PairConfig
from uns_pose_ros.alignment.pairs.view_likeness import view_likeness
from uns_pose_ros.core.geometry import invert

CONFIG = PairConfig()


def test_what_was_seen_from_one_side_only_says_nothing_of_the_other() -> None:
    front, _ = feature_mesh(0, azimuths=(-60.0, 60.0))
    back, pose = feature_mesh(1, azimuths=(120.0, 240.0))
    around, other = feature_mesh(2)
    shapes = build_mesh_batch({"front": front, "back": back, "around": around})
    canon_from_shape = torch.stack(
        [feature_mesh(0, azimuths=(-60.0, 60.0))[1], pose, other]
    )
    canon_from_shape = canon_from_shape @ torch.linalg.inv(shapes.shape_from_obj)
    overlaps = []
    for a, b in ((0, 1), (0, 2)):
        b_from_a = (invert(canon_from_shape[b]) @ canon_from_shape[a])[None, None]
        _, overlap = view_likeness(
            b_from_a,
            shapes.take(torch.tensor([a])),
            shapes.take(torch.tensor([b])),
            CONFIG.view_width,
        )
        overlaps.append(float(overlap))
    assert overlaps[0] < 0.3 < overlaps[1]
