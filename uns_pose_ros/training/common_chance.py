"""The chance that a pose is right, by its evidence: the same for all categories.

A model of few videos teaches little of when its poses are wrong: a few hundred views, of few
instances, by heads that learned from half of the videos. Some evidence moreover means another thing
there than in the world: the object of a view is seldom covered, so a template that much hides from
is a wrong pose. What the hypotheses of a crop tell means the same everywhere. So one regression on
held-out views of several categories serves all models; see docs/decisions/ for what it is worth for
categories that it has not seen. `benchmarks/common_chance.py` makes the numbers, without labels.
"""

from __future__ import annotations

import torch

from uns_pose_ros.estimation.score_calibration import Chance
from uns_pose_ros.estimation.solver.pose_evidence import EVIDENCE

RIGHT = 30.0  # degrees: a pose with a larger rotation error is wrong
# evidence: the least and the most that was seen of it, and nats for each unit
_WEIGHTS = {
    "likelihood": (-2.256, -1.341, 0.967),
    "mass": (-6.0, 3.278, 0.247),
    "modes": (-1.483, 0.0, 1.316),
    "coarse_rotation": (-13.593, -0.176, 0.068),
    "spread": (-2.325, 1.931, -0.395),
}
_BIAS = 3.453  # nats
MEANS_THE_SAME = tuple(_WEIGHTS)


def chance_of_right() -> Chance:
    """The chance that the pose of an object is right, that is less than `RIGHT` degrees off."""
    low, high, weight = torch.zeros(3, len(EVIDENCE), dtype=torch.float64)
    for name, numbers in _WEIGHTS.items():
        place = list(EVIDENCE).index(name)
        low[place], high[place], weight[place] = numbers
    return Chance(low, high, weight, _BIAS)
