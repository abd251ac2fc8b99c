"""The chance that a pose is right: what is fitted, and what the package has of it."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch

from uns_pose_ros.estimation.solver.pose_evidence import EVIDENCE
from uns_pose_ros.evaluation.metrics import auroc
from uns_pose_ros.training.common_chance import MEANS_THE_SAME, RIGHT, chance_of_right
from uns_pose_ros.training.score_training import HeldOut

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
MASS = list(EVIDENCE).index("mass")
COVERED = list(EVIDENCE).index("covered")


@pytest.fixture(scope="module", autouse=True)
def benchmarks() -> None:
    """The scripts of the benchmarks can be imported."""
    sys.path.insert(0, str(BENCHMARKS))


def held_out(seed: int, share: float = 0.2, count: int = 400) -> HeldOut:
    """Views of which a share are wrong: their hypotheses lie apart, and they are covered less."""
    generator = torch.Generator().manual_seed(seed)
    evidence = torch.randn(count, len(EVIDENCE), generator=generator).double()
    wrong = torch.rand(count, generator=generator) < share
    evidence[:, MASS] += torch.where(wrong, -1.0, 2.0)
    evidence[:, COVERED] -= torch.where(wrong, 10.0, 0.0)
    error = torch.zeros(count, 3, dtype=torch.float64)
    error[:, 2] = torch.deg2rad(torch.where(wrong, 90.0, 5.0)).double()
    none = torch.zeros(count, 3, 3, dtype=torch.float64)
    return HeldOut(evidence, error, none, none[:, None].expand(-1, 2, 3, 3), [])


def test_the_chance_is_how_often_such_poses_are_right() -> None:
    from common_chance import fit_common

    one = held_out(0, count=2000)
    chance = fit_common([one])(one.evidence)
    right = one.error.norm(dim=1) < math.radians(RIGHT)
    for low, high in ((0.0, 0.3), (0.3, 0.7), (0.7, 1.01)):
        some = (chance >= low) & (chance < high)
        gap = chance[some].mean() - right[some].double().mean()
        assert float(gap.abs()) < 0.12


def test_how_much_is_covered_counts_for_nothing() -> None:
    from common_chance import fit_common

    for chance in (fit_common([held_out(1), held_out(2)]), chance_of_right()):
        counted = [name for name, w in zip(EVIDENCE, chance.weight, strict=True) if w]
        assert set(counted) <= set(MEANS_THE_SAME) and "mass" in counted


def test_the_figures_name_categories_and_what_the_others_teach_of_them() -> None:
    from common_chance import figures

    told = figures({"mugs": held_out(3), "shoes": held_out(4, 0.4)})
    assert set(told["weights"]) == set(MEANS_THE_SAME)
    shoes = told["categories"]["shoes"]
    assert shoes["views"] == 400 and 35 < shoes["wrong_percent"] < 45
    assert min(shoes[key] for key in ("own", "others", "common")) > 0.9
    assert told["weights"]["mass"][2] > 0.3


def test_evidence_never_counts_against_its_meaning() -> None:
    from common_chance import fit_chance

    one = held_out(5)
    upside_down = one.evidence.clone()
    upside_down[:, MASS] *= -1
    right = one.error.norm(dim=1) < math.radians(RIGHT)
    signs = torch.tensor([float(sign) for sign in EVIDENCE.values()])
    chance = fit_chance(upside_down, right[None])
    assert float(chance.weight[MASS]) == 0
    for fitted in (chance, chance_of_right()):
        assert bool((fitted.weight * signs >= 0).all())


def test_what_grows_with_the_error_is_learned_where_few_poses_are_wrong() -> None:
    from common_chance import fit_chance

    generator = torch.Generator().manual_seed(3)
    trust = []
    for _ in range(6):
        evidence = torch.randn(1200, len(EVIDENCE), generator=generator).double()
        noise = torch.randn(1200, generator=generator).double()
        error = 3 * (0.8 * noise - evidence[:, MASS] - 0.5 * evidence[:, MASS + 1]).exp()
        below = error < torch.tensor([30.0, 3.0, 6.0, 12.0])[:, None]
        several = fit_chance(evidence[:200], below[:, :200])(evidence[200:])
        one = fit_chance(evidence[:200], below[:1, :200])(evidence[200:])
        scores = [
            auroc(list(zip(chance.tolist(), error[200:].tolist(), strict=True)))
            for chance in (several, one)
        ]
        trust.append([score or 0.0 for score in scores])
    several, one = torch.tensor(trust).mean(0).tolist()
    assert several > one + 0.02
