"""What a model on a device knows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from uns_pose_ros.core.types import Symmetry
from uns_pose_ros.estimation.loaded_model import LoadedModel
from uns_pose_ros.estimation.solver.pose_evidence import EVIDENCE
from uns_pose_ros.io import artifacts

AXIS = torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64)


def calibration(evidence: list[str]) -> dict[str, Any]:
    numbers = [0.0] * len(evidence)
    chance = {"low": numbers, "high": numbers, "weight": numbers, "bias": 0.0}
    eye = torch.eye(3).tolist()
    return {
        "evidence": evidence,
        "right": chance,
        "there": chance,
        "right_spread": eye,
        "wrong_spread": eye,
        "factor": 1.0,
        "threshold": 0.05,
    }


@pytest.mark.parametrize(("order", "used"), [(1, 1), (4, 4), (0, 0), (3600, 0)])
def test_hypotheses_know_the_symmetry_of_the_model(
    chair_model: Path, order: int, used: int
) -> None:
    model = replace(artifacts.load_model(chair_model), symmetry=Symmetry(order, AXIS))
    names = list(EVIDENCE)
    older = [name for name in names if name != "spread"]
    for evidence, expected in ((names, used), (older, 1)):
        provenance = {**model.provenance, "calibration": calibration(evidence)}
        loaded = LoadedModel(
            replace(model, provenance=provenance), torch.device("cpu"), False
        )
        assert loaded.calibration is not None
        assert loaded.template.symmetry_order == expected
        assert torch.equal(loaded.template.symmetry_axis, AXIS.float())
