"""Pairs of feature meshes whose poses are known."""

from __future__ import annotations

import pytest
import torch

from uns_pose_ros.alignment.mesh_batch import MeshBatch
from uns_pose_ros.alignment.pairs.pair_config import PairConfig
from uns_pose_ros.alignment.pairwise import align_pairs
from uns_pose_ros.core.geometry import angle_between, split_similarity

CONFIG = PairConfig()


def test_the_best_mode_of_a_pair_is_its_true_pose(
    shapes: MeshBatch, true_b_from_a: torch.Tensor
) -> None:
    modes = align_pairs(shapes, torch.tensor([[0, 1]]), CONFIG)
    rotation, translation, scale = split_similarity(modes.b_from_a[0, 0])
    true_rotation, true_translation, true_scale = split_similarity(true_b_from_a)
    assert float(angle_between(rotation, true_rotation)) < 5
    assert float((translation - true_translation).norm()) < 0.05
    assert float(scale / true_scale) == pytest.approx(1.0, abs=0.05)
    there = modes.energy[0].isfinite()  # of the modes that there are
    assert int(modes.likeness[0][there].argmax()) == 0


def test_a_pairs_modes_do_not_depend_on_its_company(shapes: MeshBatch) -> None:
    alone = align_pairs(shapes, torch.tensor([[0, 2]]), CONFIG)
    together = align_pairs(shapes, torch.tensor([[0, 1], [0, 2], [2, 1]]), CONFIG)
    for name, tensor in vars(alone).items():
        torch.testing.assert_close(vars(together)[name][1:2], tensor, msg=name)
