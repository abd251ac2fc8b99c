"""Refined poses become estimates in the camera of the image."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from uns_pose_ros.core.geometry import (
    from_parts,
    project,
    random_rotations,
    rotation_from_vector,
    transform,
)
from uns_pose_ros.core.types import Camera, CategoryModel, PoseEstimate, PoseMode
from uns_pose_ros.estimation.config import EstimatorConfig
from uns_pose_ros.estimation.score_calibration import Chance, ScoreCalibration
from uns_pose_ros.estimation.solver.crop_observation import CropObservation
from uns_pose_ros.estimation.solver.pose_conversion import quality, to_estimates
from uns_pose_ros.estimation.solver.pose_evidence import EVIDENCE
from uns_pose_ros.estimation.solver.pose_hypotheses import (
    INDEPENDENT_CELLS,
    Correspondences,
    Template,
)
from uns_pose_ros.estimation.solver.pose_scoring import RefinedPoses

CAMERA = Camera(
    torch.tensor([[300.0, 0, 160], [0, 300, 120], [0, 0, 1]], dtype=torch.float64), 320, 240
)


def pyramid() -> CategoryModel:
    vertices = torch.tensor([[0.0, 0, 0.5], [0.3, 0, 0], [-0.3, 0.2, 0], [0, -0.2, -0.1]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3], [0, 3, 1], [1, 2, 3]])
    one = torch.nn.functional.normalize(torch.ones(4, 2))
    return CategoryModel("pyramid", vertices, faces, one, one[:1], {}, diameter=0.5)


def poses_of_four_crops() -> RefinedPoses:
    """The second crop has no valid pose, the third one has too few cells."""
    generator = torch.Generator().manual_seed(0)
    count, poses = 4, 3
    translation = torch.rand(count, poses, 3, generator=generator).double()
    known = torch.ones(count, dtype=torch.float64)
    return RefinedPoses(
        random_rotations(count * poses, generator).view(count, poses, 3, 3),
        translation + torch.tensor([0.0, 0, 2.0], dtype=torch.float64),
        torch.eye(6, dtype=torch.float64).expand(count, poses, 6, 6),
        torch.tensor(
            [
                [-1.0, -1.1, -1.2],
                [-torch.inf] * 3,
                [-1.0, -1.1, -1.2],
                [-1.0, -5, -torch.inf],
            ]
        ).double(),
        covered=0 * known,
        reach=known,
        inliers=torch.tensor([7.0, 0, 1, 9]).double(),
        cells=torch.tensor([20.0, 20, 1, 30]).double(),
        error=0.01 * known,
        cell=0.02 * known,
        evidence=torch.arange(4.0).double()[:, None].expand(-1, len(EVIDENCE)),
        spread=0.01 * torch.eye(3, dtype=torch.float64).expand(count, 2, 3, 3),
    )


def crops_turned_by(angles: list[float]) -> CropObservation:
    none = torch.zeros(len(angles), 0, 2)
    about_y = torch.tensor([[0.0, angle, 0.0] for angle in angles], dtype=torch.float64)
    return CropObservation(
        Correspondences(none, none, none.long(), torch.ones(len(angles))),
        torch.zeros(len(angles), 8, 8),
        torch.zeros(len(angles), 0),
        torch.eye(3).expand(len(angles), 3, 3),
        rotation_from_vector(about_y),
        0.8,
    )


def template_of(model: CategoryModel) -> Template:
    seen = torch.ones(1, 4, dtype=torch.bool)
    return Template(model.vertices, torch.zeros(1, 3), seen, torch.zeros(3))


def test_each_crop_gets_its_own_poses_and_none_where_no_pose_is_valid() -> None:
    model, modes = pyramid(), poses_of_four_crops()
    view = crops_turned_by([0.0, 0.1, 0.2, -0.3])
    template = template_of(model)
    estimates = to_estimates(model, template, modes, view, CAMERA, EstimatorConfig())
    assert [one is None for one in estimates] == [False, True, True, False]
    assert [len(one.alternatives) for one in estimates if one] == [2, 0]
    for k, estimate in ((0, estimates[0]), (3, estimates[3])):
        assert estimate is not None
        turn = from_parts(view.turn[k], torch.zeros(3, dtype=torch.float64))
        poses = turn @ from_parts(modes.rotation[k], 0.5 * modes.translation[k])
        found: list[PoseEstimate | PoseMode] = [estimate, *estimate.alternatives]
        for one, expected in zip(found, poses, strict=False):
            assert torch.allclose(one.cam_from_canon, expected)
        vertices = 0.5 * model.vertices.double()
        corners = project(CAMERA.matrix, transform(poses[0], vertices))
        assert torch.allclose(estimate.box, torch.cat([corners.amin(0), corners.amax(0)]))
        assert estimate.inliers == int(modes.inliers[k])
        assert estimate.reprojection_error == pytest.approx(3.0)
        assert estimate.evidence is not None and float(estimate.evidence[0]) == k
    assert estimates[0] is not None
    weights = [other.log_weight for other in estimates[0].alternatives]
    assert weights == pytest.approx([-0.1 * INDEPENDENT_CELLS, -0.2 * INDEPENDENT_CELLS])
    nowhere = replace(modes, cells=torch.zeros_like(modes.cells))
    assert (
        to_estimates(model, template, nowhere, view, CAMERA, EstimatorConfig())
        == [None] * 4
    )


def test_hypotheses_near_the_pose_widen_it_and_those_far_away_are_doubt() -> None:
    model = pyramid()
    near, far = (
        torch.diag(torch.tensor(diagonal, dtype=torch.float64))
        for diagonal in ([0.0, 0.0, 0.2], [0.5, 0.0, 0.0])
    )
    modes = replace(
        poses_of_four_crops(), spread=torch.stack([near, far]).expand(4, 2, 3, 3)
    )
    view = crops_turned_by([0.0, 0.1, 0.2, -0.3])
    zero = torch.zeros(len(EVIDENCE), dtype=torch.float64)
    even = Chance(zero, zero, zero, 0.0)
    spread = 0.01 * torch.eye(3, dtype=torch.float64)
    calibration = ScoreCalibration(
        even,
        even,
        spread,
        0 * spread,
        2.0,
        0.05,
        fit_share=9.0,
        near_share=1.0,
        far_share=0.5,
    )
    plain, known = (
        to_estimates(model, template_of(model), modes, view, CAMERA, EstimatorConfig(), of)
        for of in (None, calibration)
    )
    for before, after in zip(plain, known, strict=True):
        if before is None or after is None:
            assert before is after
            continue
        assert after.doubt is not None and after.covariance is not None
        assert after.hypothesis_spread is not None
        assert torch.equal(after.hypothesis_spread, modes.spread[0])
        turn = after.cam_from_canon[:3, :3]
        assert torch.allclose(after.doubt, turn @ (0.5 * far) @ turn.T)
        pairs: list[tuple[PoseEstimate | PoseMode, PoseEstimate | PoseMode]] = [
            (before, after),
            *zip(before.alternatives, after.alternatives, strict=True),
        ]
        for fit, one in pairs:
            assert fit.covariance is not None and one.covariance is not None
            turn = one.cam_from_canon[:3, :3]
            fixed = math.radians(3.0) ** 2 * torch.eye(3)  # the setting
            expected = 9 * (fit.covariance[3:, 3:] - fixed) + fixed
            expected = expected + turn @ (2 * spread + near) @ turn.T
            if one is after:
                expected = expected + after.doubt
            assert torch.allclose(one.covariance[3:, 3:], expected)
            assert torch.equal(one.covariance[:3, :3], fit.covariance[:3, :3])
            assert float(torch.linalg.eigvalsh(one.covariance).min()) > 0


def test_what_the_template_fills_of_its_region_is_in_the_score() -> None:
    explained, covered = (
        torch.tensor([0.81, 0.81, 0.81, 0.81]),
        torch.tensor([0.0, math.log(0.5), 0.0, 0.0]),
    )
    score = quality(
        explained, covered, torch.tensor([1.0, 1.0, 0.5, 1.7])
    )  # the root of what is explained
    assert score.tolist() == pytest.approx(
        [0.9, 0.45, 0.9 / 4, 0.9]
    )  # it never fills more than all
