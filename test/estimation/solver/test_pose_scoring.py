"""What the solver makes of the presence under a projected template."""

from __future__ import annotations

import math

import pytest
import torch

from uns_pose_ros.estimation.solver.crop_observation import CropObservation
from uns_pose_ros.estimation.solver.pose_hypotheses import Correspondences
from uns_pose_ros.estimation.solver.pose_refinement import Projection
from uns_pose_ros.estimation.solver.pose_scoring import silhouette_coverage


def test_what_is_hidden_costs_less_than_a_template_that_lies_beside_its_object() -> None:
    presence = torch.full((1, 8, 8), 0.9)
    presence[:, :, 4:] = 0.0  # something covers the right half
    presence[:, :2] = 0.45  # the rim of the object
    none = torch.zeros(1, 0, 2)
    view = CropObservation(
        Correspondences(none, none, none.long(), torch.ones(1)),
        presence,
        torch.zeros(1, 0),
        torch.eye(3)[None],
        torch.eye(3, dtype=torch.float64)[None],
        1.0,
    )
    # half of the first template is hidden, all of the second lies on the rim
    on_both_halves = torch.tensor([[-0.6, -0.4, 0.4, 0.6], [0.4, 0.2, 0.4, 0.2]])
    on_the_rim = torch.tensor([[-0.6, -0.5, -0.4, -0.3], [-0.9, -0.9, -0.9, -0.9]])
    tangents = torch.stack([on_both_halves, on_the_rim])[:, :, None]
    everywhere = torch.ones(2, 1, 1, 4, dtype=torch.bool)
    seen = Projection(tangents, torch.ones(2, 1, 1, 4), everywhere)
    covered, shown, reach = silhouette_coverage(view, seen, 0.5)
    assert covered[:, 0].tolist() == pytest.approx([math.log(0.1) / 2, math.log(0.55)])
    assert covered[0] < covered[1]
    assert shown[:, 0].tolist() == pytest.approx([-0.25, -0.5])
    assert reach[:, 0].tolist() == pytest.approx([0.6, 0.15])
