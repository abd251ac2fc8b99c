"""Which pairs of videos are aligned."""

from __future__ import annotations

import torch

from synthetic_meshes import feature_mesh
from uns_pose_ros.alignment.category.align_config import AlignConfig
from uns_pose_ros.alignment.category.video_pairs import choose_pairs
from uns_pose_ros.alignment.mesh_batch import build_mesh_batch

CONFIG = AlignConfig()


def test_many_videos_cost_pairs_in_proportion() -> None:
    mesh, _ = feature_mesh(0, views=6)
    one = build_mesh_batch({"video": mesh})
    counts = {}
    for videos in (10, 30, 60):
        pairs = choose_pairs(
            one.take(torch.zeros(videos, dtype=torch.int64)), videos, CONFIG
        )
        assert bool((pairs[:, 0] < pairs[:, 1]).all()) and len(pairs.unique(dim=0)) == len(
            pairs
        )
        counts[videos] = len(pairs)
    k = CONFIG.references
    assert counts == {
        n: n * (n - 1) // 2 if n == 10 else k * (n - k) + k * (k - 1) // 2 for n in counts
    }
