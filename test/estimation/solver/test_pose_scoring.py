"""What the solver makes of the cells and the presence under a projected template."""

from __future__ import annotations

import math

import pytest
import torch

from uns_pose_ros.estimation.solver.crop_observation import CropObservation
from uns_pose_ros.estimation.solver.pose_hypotheses import Correspondences
from uns_pose_ros.estimation.solver.pose_refinement import Projection
from uns_pose_ros.estimation.solver.pose_scoring import find_inliers, silhouette_coverage


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


def test_cells_that_project_onto_their_vertices_are_inliers_and_give_the_error() -> None:
    vertices = torch.tensor([[[0.0, 0.1, 0.2], [0.0, 0.0, 0.0]]])  # (1, 2, 3) tangents
    correspondences = Correspondences(
        torch.tensor([[[0.0, 0.03], [0.1, 0.01], [0.5, 0.0], [0.2, 0.02]]]),
        torch.full((1, 4, 1), 0.8),
        torch.tensor([[[0], [1], [2], [2]]]),
        torch.full((1,), 0.1),
    )
    fit = torch.tensor([[[0.7], [0.6], [0.0], [0.5]]])
    inlier, error = find_inliers(correspondences, fit, vertices)
    assert inlier.tolist() == [[True, True, False, True]]
    assert error.tolist() == pytest.approx([0.02])
    nothing, unknown = find_inliers(correspondences, torch.zeros_like(fit), vertices)
    assert not nothing.any() and unknown.isnan().all()
