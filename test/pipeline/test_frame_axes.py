"""A trained model is turned to new axes without training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from small_model import CLIP, one_triangle
from uns_pose_ros.alignment.canonical_axes import AxisNames, frame_of, reorient
from uns_pose_ros.core.geometry import angle_between
from uns_pose_ros.core.types import Alignment, CategoryModel, Symmetry
from uns_pose_ros.estimation.config import EstimatorConfig
from uns_pose_ros.estimation.estimator import Estimator
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.images import read_image
from uns_pose_ros.io.video_folder import load_video
from uns_pose_ros.pipeline import frame_axes, training_stage
from uns_pose_ros.training import category_training

TURN = frame_of(torch.tensor([0.3, -0.9, 0.2]), torch.tensor([0.1, 0.2, 0.9]))


def alignment_of(model: CategoryModel) -> Alignment:
    poses = model.training_poses
    ones = torch.ones(len(poses), dtype=torch.float64)
    return Alignment(
        tuple(poses), torch.stack(list(poses.values())), ones, ones > 0, 0 * ones
    )


def test_a_turned_model_gives_the_same_poses_up_to_the_turn(chair_model: Path) -> None:
    model = artifacts.load_model(chair_model)
    points = model.vertices.double()[::9]
    shapes = {"instances": {"clip_01": points.tolist()}}
    model = replace(model, provenance={**model.provenance, **shapes})
    alignment = reorient(alignment_of(model), TURN)
    turned = frame_axes.turn_model(model, alignment)
    assert turned is not None
    assert torch.allclose(turned.instances["clip_01"], points @ TURN.T)
    for name, pose in turned.training_poses.items():
        torch.testing.assert_close(
            pose, alignment.canon_from_obj[alignment.videos.index(name)]
        )
    # a second look is cut around the pose: the last digits of a pose move its pixels
    config = EstimatorConfig(score_threshold=0.0, second_look=False)
    old, new = (Estimator(one, device="cpu", config=config) for one in (model, turned))
    angles, shifts = [], []
    for frame in load_video(CLIP).frames[:6:2]:
        image = read_image(frame.image)
        before, after = old(image, frame.camera), new(image, frame.camera)
        expected = before[0].cam_from_canon[:3, :3] @ TURN.T
        angles.append(float(angle_between(after[0].cam_from_canon[:3, :3], expected)))
        shift = after[0].cam_from_canon[:3, 3] - before[0].cam_from_canon[:3, 3]
        shifts.append(float(shift.norm()))
    assert max(angles) < 0.05, angles
    assert max(shifts) < 0.001, shifts


def test_a_model_is_not_turned_where_the_alignment_differs_by_more_than_one_turn(
    chair_model: Path,
) -> None:
    model = artifacts.load_model(chair_model)
    alignment = alignment_of(model)
    moved = alignment.canon_from_obj.clone()
    moved[0, 0, 3] += 0.01
    other = Alignment(
        alignment.videos, moved, alignment.confidence, alignment.kept, alignment.residual
    )
    assert frame_axes.turn_model(model, other) is None
    left_out = Alignment(
        alignment.videos,
        alignment.canon_from_obj,
        alignment.confidence,
        ~alignment.kept,
        alignment.residual,
    )
    assert frame_axes.turn_model(model, left_out) is None


def test_train_turns_a_model_to_new_axes_and_trains_after_another_alignment(
    trucks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = []

    def train(
        category: str, videos: Any, meshes: Any, alignment: Alignment, *_: Any
    ) -> CategoryModel:
        trained.append(category)
        poses = dict(zip(alignment.videos, alignment.canon_from_obj.tolist(), strict=True))
        return one_triangle(
            category,
            symmetry=Symmetry(2),
            provenance={"canon_from_obj": poses, "mirror": torch.eye(4).tolist()},
        )

    monkeypatch.setattr(category_training, "train_model", train)
    assert training_stage.train(trucks)[1] and len(trained) == 1
    frame_axes.name_axes(trucks, AxisNames("y", "x"))
    model, made = training_stage.train(trucks)
    assert made and len(trained) == 1
    expected = torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    torch.testing.assert_close(model.vertices, expected.T)
    torch.testing.assert_close(model.symmetry.axis, expected.double()[:, 2])
    assert training_stage.train(trucks)[1] is False and len(trained) == 1

    path = trucks / frame_axes.ALIGNMENT
    alignment, provenance = artifacts.load_alignment(path), artifacts.provenance_of(path)
    alignment.canon_from_obj[0, :3, 3] += 0.05
    artifacts.save_alignment(alignment, path, provenance or {})
    assert training_stage.train(trucks)[1] and len(trained) == 2
