"""The alignment protocols on CO3D, on poses that are known."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from known_colors import centered_model, estimate_of, write_colored
from uns_pose_ros.core.camera import assumed_camera
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import from_parts, random_rotations, rotation_from_vector
from uns_pose_ros.core.types import Alignment, Camera, Frame, PoseEstimate, Symmetry, Video
from uns_pose_ros.evaluation.co3d_alignment import (
    evaluate_pairs,
    evaluate_six_frames,
    mean_of_most,
)

NAMES = ("a", "b", "c", "d")
ZERO = torch.zeros(3, dtype=torch.float64)
Z = torch.tensor([0.0, 0, 1], dtype=torch.float64)


def turn(axis: Tensor, degrees: float) -> Tensor:
    return rotation_from_vector(axis * math.radians(degrees))


def rotations(count: int, seed: int = 0) -> Tensor:
    return random_rotations(count, torch.Generator().manual_seed(seed))


def test_pairs_are_ordered_and_their_spread_is_over_the_references() -> None:
    labels = rotations(4)
    spoiled = labels.clone()
    spoiled[3] = turn(Z, 180) @ labels[3]
    ones = torch.ones(4, dtype=torch.float64)
    poses = from_parts(spoiled, torch.zeros(4, 3, dtype=torch.float64), ones)
    alignment = Alignment(NAMES, poses, ones, ones.bool(), ones, Symmetry(2))
    figures = evaluate_pairs(alignment, dict(zip(NAMES, labels, strict=True)))
    assert (figures["videos"], figures["pairs"]) == (4, 12)
    assert figures["acc30"] == pytest.approx(50)  # six pairs have the fourth video in them
    # three references have 2 of 3 pairs, the fourth has none
    mean, share = 50.0, 200 / 3
    spread = math.sqrt((3 * (share - mean) ** 2 + mean**2) / 4)
    assert figures["std"]["acc30"] == pytest.approx(spread, abs=1e-4)
    assert figures["symmetry_aware"]["acc30"] == 100
    with pytest.raises(InvalidInput, match="1 aligned videos have labels, 2 needed"):
        evaluate_pairs(alignment, {"a": labels[0]})


def test_the_mean_of_most_leaves_a_flip_out_and_takes_equals_of_a_symmetry_for_one() -> (
    None
):
    base = rotations(1)[0]
    votes = torch.stack([turn(Z, angle) @ base for angle in (-4, 0, 4, 180)])
    torch.testing.assert_close(mean_of_most(votes, Symmetry()), base)
    halves = torch.stack([turn(Z, angle) @ base for angle in (-4, 176, 4)])
    mean = mean_of_most(halves, Symmetry(2))
    off = torch.stack([mean @ base.T, turn(Z, 180) @ mean @ base.T])
    eye = torch.eye(3, dtype=torch.float64)
    assert float((off - eye).abs().amax((1, 2)).min()) < 0.1


class Videos:
    """Videos whose images tell an estimator what it knows."""

    def __init__(self, folder: Path, obj_from_canon: Tensor) -> None:
        self.poses: dict[int, Tensor] = {}
        self.videos = []
        camera = assumed_camera(96, 64)
        for number, rotation in enumerate(obj_from_canon):
            frames = []
            for k, cam_from_obj in enumerate(rotations(7, seed=number + 5)):
                color = 10 * number + k
                path = folder / NAMES[number] / "images" / f"{k}.png"
                write_colored(path, color)
                pose = from_parts(cam_from_obj, ZERO + Z)
                frames.append(Frame(path.name, path, camera, cam_from_obj=pose))
                self.poses[color] = cam_from_obj @ rotation
            self.videos.append(Video(folder / NAMES[number], tuple(frames)))

    def __call__(self, image: Tensor, camera: Camera) -> list[PoseEstimate]:
        pose = self.poses.get(int(image[0, 0, 0]))
        return [] if pose is None else [estimate_of("car", pose)]


def test_five_frames_are_joined_by_the_motion_of_the_camera(tmp_path: Path) -> None:
    labels = rotations(3)
    known = Videos(tmp_path, labels.mT)
    by_name = dict(zip(NAMES, labels, strict=False))
    model = centered_model("car")
    figures = evaluate_six_frames(known, model, known.videos, by_name)
    assert (figures["videos"], figures["pairs"]) == (3, 6)
    assert figures["acc10"] == 100 and figures["median_deg"] < 1e-4
    # one of the five frames is flipped, and one has no estimate; both are outvoted
    known.poses[10] = known.poses[10] @ turn(Z, 180)
    del known.poses[16]
    figures = evaluate_six_frames(known, model, known.videos, by_name)
    assert figures["acc10"] == 100
    # the frame in the middle is that of the reference: two of six pairs have it
    known.poses[13] = known.poses[13] @ turn(Z, 90)
    figures = evaluate_six_frames(known, model, known.videos, by_name)
    assert figures["acc30"] == pytest.approx(100 * 4 / 6)
    for color in range(20, 27):
        known.poses.pop(color)
    figures = evaluate_six_frames(known, model, known.videos, by_name)
    # of the two pairs without the third video, one has the flipped reference
    assert figures["acc30"] == pytest.approx(100 / 6)
    with pytest.raises(
        InvalidInput, match="1 labeled videos that the model was not trained"
    ):
        evaluate_six_frames(known, model, known.videos[:1], by_name)
