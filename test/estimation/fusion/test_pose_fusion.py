"""Poses of several images become one.

Flips are outvoted, noise shrinks, symmetric objects do not jump.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from streams import HALF_TURN, TURN, estimate, motions, noisy, orbit, pose
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import (
    angle_between,
    from_parts,
    nearest_equivalent,
    rotation_from_vector,
    vector_from_rotation,
)
from uns_pose_ros.core.types import PoseEstimate, PoseMode, Symmetry
from uns_pose_ros.estimation.fusion import pose_modes
from uns_pose_ros.estimation.fusion.fusion_config import FusionConfig
from uns_pose_ros.estimation.fusion.pose_fusion import fuse

OBJECT = pose((0.0, 0.0, 40.0), (0.03, -0.02, 0.05))  # world_from_canon
Z = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)


def error(found: PoseEstimate | None, truth: Tensor) -> float:
    assert found is not None
    return float(angle_between(found.cam_from_canon[:3, :3], truth[:3, :3]))


@pytest.mark.parametrize("flipped", range(5))
@pytest.mark.parametrize("step", [0.0, 12.0])
def test_a_flip_in_one_of_five_images_is_corrected_wherever_it_comes(
    flipped: int, step: float
) -> None:
    generator = torch.Generator().manual_seed(flipped)
    cameras = orbit(5, step)
    truths = [camera @ OBJECT for camera in cameras]
    seen = [
        estimate(noisy(truth @ HALF_TURN if k == flipped else truth, generator))
        for k, truth in enumerate(truths)
    ]
    assert error(seen[flipped], truths[flipped]) > 150
    assert error(fuse(seen, motions(cameras)), truths[-1]) < 15
    if step == 0:  # then the motion need not be known
        assert error(fuse(seen), truths[-1]) < 15


def test_a_later_sure_view_resolves_what_two_unsure_ones_had_wrong() -> None:
    truth, flipped = OBJECT, OBJECT @ HALF_TURN
    unsure = estimate(flipped, alternatives=(PoseMode(truth, -0.2),))
    sure = estimate(truth, alternatives=(PoseMode(flipped, -4.0),))
    assert error(fuse([unsure, unsure]), truth) > 150
    fused = fuse([unsure, unsure, sure])
    assert error(fused, truth) < 1e-6
    without = [estimate(one.cam_from_canon) for one in (unsure, unsure, sure)]
    assert error(fuse(without), truth) > 150  # two votes against one
    assert fused is not None
    assert error(estimate(fused.alternatives[0].cam_from_canon), flipped) < 1e-6
    assert fused.alternatives[0].log_weight < -1


def test_the_score_follows_the_chance_that_the_mode_is_right() -> None:
    """A score is quality times the chance of the mode.

    0.45 where two are equal is 0.9 once the other is ruled out.
    """
    unsure = estimate(OBJECT, 0.45, (PoseMode(OBJECT @ HALF_TURN, 0.0),))
    sure = estimate(OBJECT, 0.9, (PoseMode(OBJECT @ HALF_TURN, -9.0),))
    alone, fused = fuse([unsure]), fuse([sure, unsure])
    assert alone is not None and fused is not None
    assert alone.score == pytest.approx(0.45)
    assert 0.75 < fused.score <= 0.9


@pytest.mark.parametrize("step", [50.0, 90.0, 170.0])
def test_images_of_score_half_that_disagree_have_less_than_half_together(
    step: float,
) -> None:
    turned = [OBJECT @ pose((0.0, 0.0, step * k), (0.0, 0.0, 0.0)) for k in range(12)]
    for count in range(2, 13):
        fused = fuse([estimate(one, 0.5) for one in turned[:count]])
        assert fused is not None
        assert fused.score < 0.5
        assert sum(pose_modes.mode_scores(fused).tolist()) < 1


def test_images_that_agree_have_the_score_that_each_has_and_between_those_that_differ() -> (
    None
):
    for alternatives in ((), (PoseMode(OBJECT @ HALF_TURN, -1.0),)):
        fused = fuse([estimate(OBJECT, 0.5, alternatives)] * 20)
        assert fused is not None
        assert fused.score == pytest.approx(0.5, abs=1e-9)
    mixed = fuse([estimate(OBJECT, score) for score in (0.9, 0.3, 0.6)])
    assert mixed is not None
    assert 0.3 < mixed.score < 0.9


@pytest.mark.parametrize("score", [0.0, 0.02, 0.5, 0.97, 1.0])
@pytest.mark.parametrize("shares", [(), (0.0,), (-0.1, -0.2, -0.3), (-8.0,)])
def test_the_score_of_one_image_is_its_own(score: float, shares: tuple[float, ...]) -> None:
    others = tuple(
        PoseMode(OBJECT @ pose((0.0, 0.0, 80.0 * (k + 1)), (0.0, 0.0, 0.0)), share)
        for k, share in enumerate(shares)
    )
    seen = estimate(OBJECT, score, others)
    fused = fuse([seen, None])
    assert fused is not None
    assert fused.score == pytest.approx(score, abs=1e-3)
    scores = pose_modes.mode_scores(seen)
    assert float(scores[0]) == score
    assert scores.tolist() == sorted(scores.tolist(), reverse=True)
    assert float(scores.sum()) <= 1


def test_a_pose_that_the_newest_image_contradicts_is_no_sure_one() -> None:
    """45 degrees beside the image's own pose: the fused pose or the image is wrong."""
    beside = OBJECT @ pose((0.0, 0.0, 45.0), (0.0, 0.0, 0.0))
    still = [torch.eye(4, dtype=torch.float64)] * 4
    fused = fuse([estimate(OBJECT, 0.9)] * 4 + [estimate(beside, 0.9)], still)
    assert fused is not None
    assert error(fused, OBJECT) < 10
    assert fused.score < 0.8


def test_noise_of_independent_images_shrinks_and_the_covariance_says_by_how_much() -> None:
    generator = torch.Generator().manual_seed(1)
    cameras = orbit(9)
    truths = [camera @ OBJECT for camera in cameras]
    single, fused, sigma = [], [], []
    for _ in range(40):
        seen = [estimate(noisy(truth, generator)) for truth in truths]
        answer = fuse(
            seen, motions(cameras), config=FusionConfig(correlated_noise_share=0.0)
        )
        assert answer is not None and answer.covariance is not None
        single.append(error(seen[-1], truths[-1]) ** 2)
        fused.append(error(answer, truths[-1]) ** 2)
        sigma.append(float(answer.covariance[3:, 3:].trace()))
    rms = math.radians((sum(fused) / 40) ** 0.5)
    assert (sum(fused) / sum(single)) ** 0.5 == pytest.approx(
        1 / 3, abs=0.06
    )  # nine images: a third
    assert rms == pytest.approx((sum(sigma) / 40) ** 0.5, rel=0.25)


def test_the_error_that_images_have_in_common_stays_in_the_covariance() -> None:
    answer = fuse([estimate(OBJECT)] * 50, config=FusionConfig(correlated_noise_share=0.3))
    assert answer is not None and answer.covariance is not None
    assert float(answer.covariance[4, 4]) >= 0.3 * TURN**2
    assert float(answer.covariance[4, 4]) < 0.5 * TURN**2


def test_one_image_alone_is_answered_as_it_is() -> None:
    one = estimate(OBJECT, 0.47, (PoseMode(OBJECT @ HALF_TURN, -1.0),))
    alone = fuse([None, one])
    assert alone is not None and alone.covariance is not None and one.covariance is not None
    assert torch.allclose(alone.cam_from_canon, one.cam_from_canon, atol=1e-12)
    assert torch.allclose(alone.covariance, one.covariance, atol=1e-10)
    assert alone.score == pytest.approx(0.47)
    assert alone.alternatives[0].log_weight == pytest.approx(-1.0)
    assert fuse([None, None]) is None
    assert fuse([]) is None


def test_an_image_without_the_object_moves_its_pose_with_the_camera() -> None:
    cameras = orbit(3, 20.0)
    fused = fuse([estimate(cameras[0] @ OBJECT), None, None], motions(cameras))
    assert fused is not None
    assert torch.allclose(fused.cam_from_canon, cameras[2] @ OBJECT, atol=1e-9)


def test_where_the_scale_is_unknown_the_motion_turns_the_object_and_does_not_shift_it() -> (
    None
):
    cameras = orbit(2, 20.0)
    fused = fuse([estimate(cameras[0] @ OBJECT, metric=False), None], motions(cameras))
    assert fused is not None
    assert error(fused, cameras[1] @ OBJECT) < 1e-6
    assert torch.allclose(fused.cam_from_canon[:3, 3], (cameras[0] @ OBJECT)[:3, 3])


@pytest.mark.parametrize("order", [0, 2, 4])
def test_a_symmetric_object_does_not_jump_between_its_equal_poses(order: int) -> None:
    generator = torch.Generator().manual_seed(order)
    symmetry, seen = Symmetry(order, Z), []
    for k in range(12):
        turn = 77.0 * k if order == 0 else 360.0 / order * (k % order)
        seen.append(
            estimate(
                noisy(OBJECT, generator) @ pose((0.0, 0.0, turn), (0.0, 0.0, 0.0)),
                symmetry=symmetry,
            )
        )
    answers = [fuse(seen[: k + 1]) for k in range(12)]
    for before, now in itertools.pairwise(answers):
        assert before is not None
        assert error(now, before.cam_from_canon) < 25
        assert now is not None
        assert not now.alternatives  # equal poses are one mode


def test_an_object_that_was_turned_is_believed_after_some_images() -> None:
    seen = [estimate(OBJECT)] * 30 + [estimate(OBJECT @ HALF_TURN)] * 12
    assert error(fuse(seen[:31]), OBJECT) < 1
    assert error(fuse(seen), OBJECT @ HALF_TURN) < 5


def test_an_object_that_was_moved_is_followed_at_once() -> None:
    there = pose((0.0, 0.0, 40.0), (0.6, 0.0, 0.05))
    fused = fuse(
        [estimate(OBJECT)] * 10 + [estimate(there)],
        [torch.eye(4, dtype=torch.float64)] * 10,
        seconds=0.1,
    )
    assert fused is not None
    assert float((fused.cam_from_canon - there)[:3, 3].norm()) < 0.05


def test_a_flipped_image_still_says_where_the_object_is() -> None:
    there = pose((0.0, 0.0, 40.0), (0.3, 0.0, 0.05))
    fused = fuse([estimate(OBJECT)] * 5 + [estimate(there @ HALF_TURN)])
    assert fused is not None
    assert error(fused, OBJECT) < 1
    assert float((fused.cam_from_canon - there)[:3, 3].norm()) < 0.03


def test_a_camera_that_walks_unknown_ways_is_followed_and_a_flip_on_the_way_is_still_outvoted() -> (
    None
):
    cameras = orbit(8, 25.0)  # in steps of half a second
    truths = [camera @ OBJECT for camera in cameras]
    for flipped in (None, 7):
        seen = [
            estimate(truth @ HALF_TURN if k == flipped else truth)
            for k, truth in enumerate(truths)
        ]
        assert error(fuse(seen, seconds=0.5), truths[-1]) < (10 if flipped is None else 30)


def test_covariances_of_any_size_and_sign_do_no_harm() -> None:
    """A fit that leaves a direction open has them."""
    wild = torch.diag(
        torch.tensor([1e36, -1e34, 1e-30, 0.0, 1e20, -1.0], dtype=torch.float64)
    )
    bad = PoseEstimate(
        **{
            **vars(estimate(OBJECT)),
            "covariance": wild,
            "alternatives": (PoseMode(OBJECT @ HALF_TURN, -1.0, wild),),
        }
    )
    fused = fuse(
        [estimate(OBJECT), bad, bad, estimate(OBJECT)],
        [torch.eye(4, dtype=torch.float64)] * 3,
        seconds=0.1,
    )
    assert fused is not None and fused.covariance is not None
    assert error(fused, OBJECT) < 1
    assert bool((torch.linalg.eigvalsh(fused.covariance) > 0).all())


def test_a_wrong_number_of_motions_and_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="3 motions between 2 images"):
        fuse([None, None], [None] * 3)
    with pytest.raises(InvalidInput, match=r"evidence_decay 1\.5: 0 to 1 is valid"):
        FusionConfig(evidence_decay=1.5)


def test_what_images_give_without_covariance_goes_out_without() -> None:
    one = estimate(OBJECT)
    bare = PoseEstimate(**{**vars(one), "covariance": None})
    fused = fuse([bare, bare])
    assert fused is not None
    assert fused.covariance is None
    assert pose_modes.observe(bare, FusionConfig()).covariance.shape == (1, 6, 6)


def test_logarithm_and_exponential_of_rotations_cancel() -> None:
    vectors = torch.tensor(
        [[0.0, 0, 0], [1e-12, 0, 0], [0.3, -0.2, 0.1], [0, 0, 3.1], [-2.0, 1.0, 0.5]],
        dtype=torch.float64,
    )
    assert torch.allclose(
        vector_from_rotation(rotation_from_vector(vectors)), vectors, atol=1e-9
    )
    half = vector_from_rotation(HALF_TURN[:3, :3])
    assert float(half.norm()) == pytest.approx(math.pi)


@pytest.mark.parametrize("order", [0, 1, 3])
def test_the_nearest_equivalent_rotation_is_the_nearest_of_a_fine_search(
    order: int,
) -> None:
    a, b = (
        pose(angles, (0.0, 0.0, 0.0))[:3, :3]
        for angles in ((10.0, 50.0, -100.0), (-60.0, 5.0, 20.0))
    )
    axis = torch.tensor([1.0, 2.0, 2.0], dtype=torch.float64)
    steps = {0: 100000, 1: 1, 3: 3}[order]
    turns = torch.arange(steps, dtype=torch.float64) * (2 * math.pi / steps)
    searched = angle_between(a @ rotation_from_vector(turns[:, None] * axis / 3), b).min()
    found = nearest_equivalent(a[None], b[None], order, axis)
    assert float(angle_between(found[0], b)) == pytest.approx(float(searched), abs=1e-6)
    swing = a.T @ found[0]
    assert from_parts(swing, axis).isfinite().all()
    if order != 1:
        assert torch.allclose(swing @ axis, axis)


def test_a_pose_that_may_have_turned_meanwhile_is_taken_for_the_same_one_further_away() -> (
    None
):
    """60 degrees are two modes for a camera whose motion is known, one after a second of unknown
    motion.
    """
    seen = [estimate(OBJECT), estimate(OBJECT @ pose((0.0, 0.0, 60.0), (0.0, 0.0, 0.0)))]
    sure = fuse(seen, [torch.eye(4, dtype=torch.float64)], seconds=1.0)
    unsure = fuse(seen, seconds=1.0)
    assert sure is not None and len(sure.alternatives) == 1
    assert unsure is not None and len(unsure.alternatives) == 0
    assert error(unsure, seen[1].cam_from_canon) < 10
