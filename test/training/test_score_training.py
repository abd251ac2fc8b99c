"""The score and the covariance that held-out views teach."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from uns_pose_ros.core.geometry import rotation_from_vector
from uns_pose_ros.estimation.score_calibration import ScoreCalibration
from uns_pose_ros.estimation.solver.pose_evidence import EVIDENCE
from uns_pose_ros.evaluation.metrics import auroc
from uns_pose_ros.training.score_training import (
    HeldOut,
    calibrate,
    conformal_factor,
    fit_shares,
)

MASS, MODES, OUTSIDE, LIKENESS, LIKELIHOOD, COARSE, SPREAD = (
    list(EVIDENCE).index(name)
    for name in (
        "mass",
        "modes",
        "outside",
        "likeness",
        "likelihood",
        "coarse_rotation",
        "spread",
    )
)
REGION = 7.815


@pytest.fixture
def held_out() -> HeldOut:
    """700 views, a fifth of them with poses that are half a turn about z off; 200 scenes.

    Nothing covers an object so much that it looks like a scene.
    """
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    wrong = torch.arange(700) % 5 == 0
    evidence = normal(700, len(EVIDENCE))
    evidence[:, MASS] += torch.where(wrong, -4.0, 2.0)
    evidence[:, LIKELIHOOD] = 0.1 * evidence[:, LIKELIHOOD] - torch.where(wrong, 2.1, 1.5)
    evidence[:, MODES] = -0.2 * evidence[:, MODES].abs() - torch.where(wrong, 1.0, 0.0)
    evidence[:, COARSE] -= 2.0
    evidence[:, SPREAD] = 0.5 * evidence[:, SPREAD] - torch.where(wrong, -1.0, 1.8)
    evidence[:, OUTSIDE] = 0.02 * normal(700).abs()
    evidence[:, LIKENESS] = 5 + evidence[:, LIKENESS].clamp(-2, 2)
    error = normal(700, 3) * torch.tensor([0.05, 0.05, 0.1], dtype=torch.float64)
    error[wrong, 2] += 3.0
    scenes = []
    for k in range(200):
        poses = normal(k % 3, len(EVIDENCE))
        poses[:, MASS] -= 2
        poses[:, LIKENESS] = poses[:, LIKENESS].clamp_max(2) - 2
        poses[:, OUTSIDE] = 0.3 + 0.1 * poses[:, OUTSIDE].abs()
        scenes.append(poses)
    fit = torch.eye(3, dtype=torch.float64).mul(0.01**2).expand(700, 3, 3)
    apart = normal(700, 2, 3, 1) * torch.tensor([[0.02], [0.3]])[:, None]
    return HeldOut(evidence, error, fit, apart @ apart.mT, scenes)


def learn(held_out: HeldOut) -> ScoreCalibration:
    calibration = calibrate(held_out)
    assert calibration is not None
    return calibration


def test_the_score_tells_right_poses_from_wrong_ones_and_from_backgrounds(
    held_out: HeldOut,
) -> None:
    calibration = learn(held_out)
    score = calibration.score(held_out.evidence)
    degrees = torch.rad2deg(held_out.error.norm(dim=1))
    trust = auroc(list(zip(score.tolist(), degrees.tolist(), strict=True)))
    assert trust is not None
    assert trust > 0.95
    best = [calibration.score(scene).max() for scene in held_out.false if len(scene)]
    assert not any(float(one) > calibration.threshold for one in best)
    # a wrong pose is a poor one and an answer: the region says so
    assert bool((score > calibration.threshold).all())
    wrong = degrees > 30
    assert float(score[wrong].median()) < 0.3 < float(score[~wrong].median())


def test_one_scene_that_looks_like_the_object_does_not_silence_a_model(
    held_out: HeldOut,
) -> None:
    alike = held_out.evidence[held_out.error.norm(dim=1) < 0.5].mean(0)[None]
    few = learn(replace(held_out, false=[alike, alike, *held_out.false[2:]]))
    assert float(few.score(alike)) > 0.6
    assert bool((few.score(held_out.evidence) > few.threshold).all())
    # where all scenes look like it, half of the objects have an answer
    none = learn(replace(held_out, false=[alike + 1] * 200))
    answered = (none.score(held_out.evidence) > none.threshold).double().mean()
    assert 0.4 < float(answered) < 0.75


def test_an_answer_that_looks_little_like_the_category_is_not_a_poor_pose(
    held_out: HeldOut,
) -> None:
    calibration = learn(held_out)
    before = replace(calibration, odds=1.0)
    poses = held_out.evidence.mean(0).repeat(200, 1)
    poses[:, LIKENESS] = torch.linspace(-3, 5, 200)
    score, product = calibration.score(poses), before.score(poses)
    # the same regions have an answer, and what is less like the category has no higher score
    answered = product >= calibration.threshold
    assert torch.equal(score >= calibration.threshold, answered)
    assert torch.equal(score[~answered], product[~answered])
    assert bool((score.diff() >= 0).all()) and float(score.max()) <= 1
    # where it is as like an object as a scene, the product is half and the score whole
    there = calibration.there(poses)
    middle = int((there - 0.5).abs().argmin())
    assert float(product[middle]) == pytest.approx(0.5 * float(product[-1]), rel=0.1)
    assert float(score[middle]) == pytest.approx(float(score[-1]), rel=0.002)
    # one in fifty answers is no object: even the one that is least like it has no more doubt
    assert float(score[answered].min()) >= 0.97 * float(score[-1])


def test_without_scenes_an_object_must_look_like_one(held_out: HeldOut) -> None:
    calibration = learn(replace(held_out, false=[]))
    poses = held_out.evidence[:2].clone()
    poses[:, LIKENESS] = torch.tensor([0.0, 5.0])
    unlike, like = calibration.score(poses).tolist()
    assert unlike < calibration.threshold < like


def test_the_region_holds_in_95_percent_and_is_wide_where_poses_are_wrong(
    held_out: HeldOut,
) -> None:
    calibration = learn(held_out)
    chance = calibration.right(held_out.evidence)
    near, far = held_out.hypothesis_spread.unbind(1)
    covariance = calibration.spread(near) + calibration.doubt(held_out.evidence, far)
    covariance += calibration.fit_share * held_out.fit
    solved = torch.linalg.solve(covariance, held_out.error[..., None])[..., 0]
    inside = (held_out.error * solved).sum(1) <= REGION
    assert 0.94 <= float(inside.double().mean()) <= 0.97
    spread = covariance.diagonal(dim1=1, dim2=2).sqrt()
    assert float(spread[chance < 0.2, 2].mean()) > 1.0  # yaw is not tilt
    assert float(spread[chance < 0.2, :2].mean()) < 0.8
    assert float(spread[chance > 0.95, 2].mean()) < 0.8


def test_evidence_beyond_what_was_seen_counts_as_the_most_that_was_seen(
    held_out: HeldOut,
) -> None:
    calibration = learn(held_out)
    most = torch.maximum(calibration.right.high, calibration.there.high)[None]
    assert torch.equal(calibration.score(most), calibration.score(most + 100))


def test_without_a_right_pose_there_is_no_calibration(held_out: HeldOut) -> None:
    assert calibrate(replace(held_out, error=torch.full_like(held_out.error, 1.0))) is None


def test_a_model_whose_held_out_poses_are_all_right_doubts_by_the_common_chance(
    held_out: HeldOut,
) -> None:
    right = held_out.error.norm(dim=1) < 0.5
    views = replace(
        held_out,
        evidence=held_out.evidence[right],
        error=held_out.error[right],
        fit=held_out.fit[right],
        hypothesis_spread=held_out.hypothesis_spread[right],
    )
    calibration = learn(views)
    # it has seen no wrong pose, and knows one all the same
    degrees = torch.rad2deg(held_out.error.norm(dim=1))
    score = calibration.score(held_out.evidence)
    trust = auroc(list(zip(score.tolist(), degrees.tolist(), strict=True)))
    assert trust is not None and trust > 0.95
    doubt = calibration.doubt(held_out.evidence, held_out.hypothesis_spread[:, 1])
    wide = doubt.diagonal(dim1=1, dim2=2).mean(1).sqrt()
    assert float(wide[~right].median()) > 0.6 > 0.3 > float(wide[right].median())


def test_a_calibration_is_read_as_it_was_written_and_turns_with_its_model(
    held_out: HeldOut,
) -> None:
    calibration = learn(held_out)
    record = calibration.to_record()
    turn = rotation_from_vector(torch.tensor([0.3, -1.0, 0.5], dtype=torch.float64))
    again = ScoreCalibration.from_record(record, turn)
    assert again is not None
    assert torch.equal(again.score(held_out.evidence), calibration.score(held_out.evidence))
    none = torch.zeros_like(held_out.fit)
    doubt = calibration.doubt(held_out.evidence, none)
    assert torch.allclose(again.doubt(held_out.evidence, none), turn @ doubt @ turn.T)
    for name in ("fit_share", "near_share", "far_share", "odds"):
        assert getattr(again, name) == getattr(calibration, name) > 0
    spread = calibration.spread(none[0])
    assert torch.allclose(again.spread(none[0]), turn @ spread @ turn.T)
    older = {
        "evidence": record["evidence"][1:],
        **{
            name: {
                key: numbers if key == "bias" else numbers[1:]
                for key, numbers in record[name].items()
            }
            for name in ("right", "there")
        },
    }
    for name in ("fit_share", "near_share", "far_share", "odds"):
        del record[name]
    read = ScoreCalibration.from_record({**record, **older}, turn)
    assert read is not None
    assert (read.fit_share, read.near_share, read.far_share) == (1.0, 0.0, 0.0)
    assert read.odds == 1.0
    assert float(read.right.weight[0]) == 0
    assert torch.equal(read.right.weight[1:], again.right.weight[1:])
    other = {**record, "evidence": ["something else"]}
    assert ScoreCalibration.from_record(other, turn) is None
    assert ScoreCalibration.from_record(None, turn) is None


def test_the_shares_of_covariances_are_those_of_the_errors() -> None:
    generator = torch.Generator().manual_seed(1)
    wide = torch.rand(1500, generator=generator).double() ** 2
    parts = torch.zeros(4, 1500, 3, 3, dtype=torch.float64)
    parts[0] = 0.01 * torch.eye(3)
    parts[1, :, 2, 2] = wide
    parts[2, :, 0, 0] = wide.flip(0)  # no error has it; nothing has the last one
    known = 0.02 * torch.eye(3, dtype=torch.float64).expand(1500, 3, 3)
    variance = known + 2 * parts[0] + 0.3 * parts[1]
    error = torch.randn(1500, 3, generator=generator).double()
    error = error * variance.diagonal(dim1=1, dim2=2).sqrt()
    shares = fit_shares(parts, error, known)
    assert abs(float(shares[0]) - 2) < 0.4
    assert abs(float(shares[1]) - 0.3) < 0.05
    assert float(shares[2]) < 0.02
    assert abs(float(shares[3]) - 1) < 0.01


@pytest.mark.parametrize("share", [0.02, 0.08, 0.2])
def test_wrong_poses_do_not_widen_the_covariance_of_right_ones(
    held_out: HeldOut, share: float
) -> None:
    """What tells them from right ones is weak, and the hypotheses tell nothing."""
    wrong = torch.arange(700) < share * 700
    generator = torch.Generator().manual_seed(4)
    error = 0.1 * torch.randn(700, 3, generator=generator).double()
    error[wrong, 2] += 3.0
    evidence = held_out.evidence.clone()
    evidence[:, MASS] = torch.randn(700, generator=generator) - 1.0 * wrong
    calibration = learn(replace(held_out, error=error, evidence=evidence))
    near, far = held_out.hypothesis_spread.unbind(1)
    spread = calibration.spread(near) + calibration.fit_share * held_out.fit
    size = spread[~wrong].diagonal(dim1=1, dim2=2).mean().sqrt()
    assert 0.08 < float(size) < 0.13
    whole = spread + calibration.doubt(evidence, far)
    for covariance, some in ((spread, ~wrong), (whole, torch.ones_like(wrong))):
        solved = torch.linalg.solve(covariance[some], error[some][..., None])[..., 0]
        inside = ((error[some] * solved).sum(1) <= REGION).double().mean()
        assert float(inside) >= 0.95


def test_a_factor_is_never_zero() -> None:
    some = torch.eye(3, dtype=torch.float64).expand(20, 3, 3)
    assert conformal_factor(some, torch.zeros(20, 3, dtype=torch.float64)) > 0
    # 20 errors of one length and one that is longer
    error = torch.zeros(20, 3, dtype=torch.float64)
    error[:, 0] = 2.0
    error[0, 0] = 9.0
    assert conformal_factor(some, error) == pytest.approx(4 / REGION)
    assert conformal_factor(some, error, 0.25 * some) == pytest.approx(4 / REGION - 0.25)
