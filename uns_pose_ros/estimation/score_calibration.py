"""The score and the uncertainty of a pose, as held-out views of trainings taught them.

Two logistic regressions on the numbers of `pose_evidence` give the probabilities that a crop shows
an object of the category, and that the pose of an object is right, that is less than 30 degrees
off. Their product decides whether a region has an answer; an object that is there keeps `FLOOR`
where its pose is in doubt, so that a threshold can tell objects from everything else. Most answers
are objects, also those that are little like the others: the score of an answer is the product with
odds for the object.

The covariance of the rotation is a sum, with shares under which the errors of held-out views are
most likely. If a pose is right, it is that of right poses, about the axes of the canonical frame,
that of the fit, and how far the hypotheses near the pose lie apart: where a handle is hidden, they
differ by their turn about the axis of the cup. The doubt comes in addition: that of wrong poses, by
the chance of the second regression, and how far away all other hypotheses are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from uns_pose_ros.estimation.solver.pose_evidence import EVIDENCE

FLOOR = 0.1  # score of an object that is certainly there and of whose pose nothing is known
REGION = 7.815  # chi square of 3 degrees of freedom that 95 % stay below


@dataclass(frozen=True, eq=False)
class Chance:
    """A logistic regression on evidence (B, F)."""

    low: Tensor  # (F,) float64, evidence below counts as this
    high: Tensor  # (F,) float64, evidence above counts as this
    weight: Tensor  # (F,) float64, nats for each unit
    bias: float  # nats

    def __call__(self, evidence: Tensor) -> Tensor:
        """Compute probabilities (B,)."""
        inside = torch.minimum(torch.maximum(evidence, self.low), self.high)
        return torch.sigmoid(inside @ self.weight + self.bias)

    def to_record(self) -> dict[str, Any]:
        """Convert to JSON types."""
        return {
            "low": self.low.tolist(),
            "high": self.high.tolist(),
            "weight": self.weight.tolist(),
            "bias": self.bias,
        }

    @staticmethod
    def from_record(record: Mapping[str, Any], known: Sequence[str]) -> Chance:
        """Read what `to_record` wrote, for the known names of the evidence."""
        low, high, weight = torch.zeros(3, len(EVIDENCE), dtype=torch.float64)
        places = [list(EVIDENCE).index(name) for name in known]
        for tensor, name in ((low, "low"), (high, "high"), (weight, "weight")):
            tensor[places] = torch.tensor(record[name], dtype=torch.float64)
        return Chance(low, high, weight, float(record["bias"]))


@dataclass(frozen=True, eq=False)
class ScoreCalibration:
    """The calibration of a model."""

    right: Chance  # of the pose of an object
    there: Chance  # of an object
    # (3, 3) float64, rad^2, second moments of the rotation between a pose and the truth, about the
    # canonical axes, times their shares in the covariance
    right_spread: Tensor
    wrong_spread: Tensor
    factor: float  # of both
    threshold: float  # score above which few scenes without an object have a pose
    floor: float = FLOOR  # 0: of models whose threshold asks for a good pose
    fit_share: float = 1.0  # of the rotation's covariance that the fit has
    # of both parts of `PoseEstimate.hypothesis_spread`
    near_share: float = 0.0
    far_share: float = 0.0
    odds: float = 1.0  # that an answer is an object; 1: of models that did not know of it

    def score(self, evidence: Tensor) -> Tensor:
        """Compute scores (B,) from evidence (B, F)."""
        chance = self.floor + (1 - self.floor) * self.right(evidence)
        there = self.there(evidence)
        alone = chance * there
        answer = chance * self.odds * there / (1 + (self.odds - 1) * there)
        return torch.where(alone < self.threshold, alone, answer)

    def spread(self, near: Tensor) -> Tensor:
        """Compute covariances (..., 3, 3), rad^2, of right poses, about the canonical axes.

        That of the fit comes in addition.

        Args:
            near: (..., 3, 3) first part of `PoseEstimate.hypothesis_spread`.
        """
        return self.factor * self.right_spread + self.near_share * near

    def doubt(self, evidence: Tensor, far: Tensor) -> Tensor:
        """Compute covariances (B, 3, 3), rad^2, that other poses add to those of right ones.

        Args:
            evidence: (B, F).
            far: (B, 3, 3) second part of `PoseEstimate.hypothesis_spread`.
        """
        wrong = 1 - self.right(evidence)
        known = self.factor * wrong[:, None, None] * self.wrong_spread
        return known + self.far_share * far

    def weigh_fit(self, covariance: Tensor) -> Tensor:
        """Scale the rotation in covariances (K, 6, 6) of the fit by `fit_share`."""
        size = torch.ones(6, dtype=torch.float64)
        size[3:] = self.fit_share**0.5
        return covariance * size * size[:, None]

    def to_record(self) -> dict[str, Any]:
        """Convert to JSON types."""
        return {
            "evidence": list(EVIDENCE),
            "right": self.right.to_record(),
            "there": self.there.to_record(),
            "right_spread": self.right_spread.tolist(),
            "wrong_spread": self.wrong_spread.tolist(),
            "factor": self.factor,
            "threshold": self.threshold,
            "floor": self.floor,
            "fit_share": self.fit_share,
            "near_share": self.near_share,
            "far_share": self.far_share,
            "odds": self.odds,
        }

    @staticmethod
    def from_record(
        record: Mapping[str, Any] | None, turn: Tensor
    ) -> ScoreCalibration | None:
        """Read the calibration of a model.

        Args:
            record: As `to_record` wrote it.
            turn: (3, 3) rotation of the canonical frame since the training.

        Returns:
            The calibration; None if there is none, or one for evidence that is not known. What it
            does not know of has no weight.
        """
        known = [] if record is None else list(record["evidence"])
        if record is None or not set(known) <= set(EVIDENCE):
            return None
        right, wrong = (
            turn @ torch.tensor(record[name], dtype=torch.float64) @ turn.T
            for name in ("right_spread", "wrong_spread")
        )
        return ScoreCalibration(
            Chance.from_record(record["right"], known),
            Chance.from_record(record["there"], known),
            right,
            wrong,
            float(record["factor"]),
            float(record["threshold"]),
            float(record.get("floor", 0.0)),
            float(record.get("fit_share", 1.0)),
            float(record.get("near_share", 0.0)),
            float(record.get("far_share", 0.0)),
            float(record.get("odds", 1.0)),
        )
