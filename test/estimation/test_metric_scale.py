"""Sizes in metres: given, or measured by depth where the object is."""

from __future__ import annotations

import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from streams import estimate, pose
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import project, transform
from uns_pose_ros.core.types import Camera, CategoryModel, PoseEstimate, PoseMode
from uns_pose_ros.estimation.metric_scale import (
    check_depth,
    scale_from_depth,
    to_known_diameter,
    to_metres,
)

CAMERA = Camera(
    torch.tensor([[300.0, 0, 160], [0, 300, 120], [0, 0, 1]], dtype=torch.float64), 320, 240
)
HALF = 0.3  # of the cube's sides, in the model's units; one of them is UNIT m
UNIT = 0.25
FRONT, WALL = (
    (3 - HALF) * UNIT,
    2.0,
)  # m, depth of the cube's front side and of what is behind it


def cube() -> CategoryModel:
    corners = torch.tensor(
        [[x, y, z] for x in (-HALF, HALF) for y in (-HALF, HALF) for z in (-HALF, HALF)]
    )
    sides = [
        (0, 1, 3, 2),
        (4, 6, 7, 5),
        (0, 4, 5, 1),
        (2, 3, 7, 6),
        (0, 2, 6, 4),
        (1, 5, 7, 3),
    ]
    triangles = torch.tensor(
        [corner for a, b, c, d in sides for corner in ((a, b, c), (a, c, d))]
    )
    unit = torch.nn.functional.normalize(torch.ones(8, 4), dim=1)
    return CategoryModel("cube", corners, triangles, unit, unit[:1], {})


def seen(x: float = 0.0, z: float = 3.0, camera: Camera = CAMERA) -> PoseEstimate:
    """A cube in the model's units, seen from the front."""
    found = estimate(pose((0.0, 0.0, 0.0), (x, 0.0, z)), size=1.0, metric=False)
    pixels = project(
        camera.matrix, transform(found.cam_from_canon, cube().vertices.double())
    )
    box = torch.cat([pixels.amin(0), pixels.amax(0)])
    return PoseEstimate(
        **{
            **vars(found),
            "box": box,
            "size": torch.full((3,), 2 * HALF, dtype=torch.float64),
        }
    )


def picture() -> np.ndarray:
    """Depth (240, 320) m of a cube of 0.15 m before a wall."""
    depth = np.full((240, 320), WALL, np.float32)
    low, high = (
        project(CAMERA.matrix, torch.tensor([[s * HALF, s * HALF, 3 - HALF]]).double())[0]
        for s in (-1, 1)
    )
    (x0, y0), (x1, y1) = low.round().long().tolist(), high.round().long().tolist()
    depth[y0 : y1 + 1, x0 : x1 + 1] = FRONT
    return depth


def test_depth_gives_the_scale_of_pose_size_and_covariance() -> None:
    found = scale_from_depth(seen(), cube(), CAMERA, picture())
    assert found.metric
    assert found.scale == pytest.approx(UNIT, rel=1e-4)
    assert found.cam_from_canon[:3, 3].tolist() == pytest.approx([0, 0, 3 * UNIT], rel=1e-4)
    assert found.size.tolist() == pytest.approx([2 * HALF * UNIT] * 3, rel=1e-4)
    before = seen().covariance
    assert before is not None and found.covariance is not None
    assert torch.allclose(found.covariance[:3, :3], before[:3, :3] * UNIT**2, rtol=1e-3)
    assert torch.equal(found.covariance[3:, 3:], before[3:, 3:])


def test_an_estimated_distance_that_is_wrong_does_not_matter() -> None:
    for z in (2.6, 3.4):
        found = scale_from_depth(seen(z=z), cube(), CAMERA, picture())
        front = float(found.cam_from_canon[2, 3]) - HALF * found.scale
        assert front == pytest.approx(FRONT, rel=1e-3)


def test_what_is_before_the_object_or_has_no_depth_is_outvoted() -> None:
    depth = picture()
    depth[:, 170:] = 0.3  # a hand before the right third
    depth[::2, ::2] = np.nan
    depth[100:110] = np.inf
    depth += np.random.default_rng(0).normal(0, 0.005, depth.shape).astype(np.float32)
    assert scale_from_depth(seen(), cube(), CAMERA, depth).scale == pytest.approx(
        UNIT, rel=0.01
    )


def test_without_depth_that_agrees_the_scale_stays_unknown() -> None:
    nothing, scattered = (
        np.full((240, 320), np.nan, np.float32),
        np.random.default_rng(0).uniform(0.1, 100, (240, 320)),
    )
    outside = seen(x=50.0)
    for found in (
        scale_from_depth(seen(), cube(), CAMERA, nothing),
        scale_from_depth(seen(), cube(), CAMERA, scattered.astype(np.float32)),
        scale_from_depth(outside, cube(), CAMERA, picture()),
    ):
        assert not found.metric
        assert found.scale == 1.0


def test_a_size_that_the_model_knows_is_not_measured_again() -> None:
    known = estimate(pose((0.0, 0.0, 0.0), (0.0, 0.0, 0.9)))
    assert scale_from_depth(known, cube(), CAMERA, picture()) is known


def test_depth_is_read_where_the_lens_shows_the_object() -> None:
    lens = Camera(
        CAMERA.matrix, 320, 240, torch.tensor([-0.6, 0.2, 0.0, 0.0], dtype=torch.float64)
    )
    side = np.linspace(-HALF, HALF, 120)
    points = np.array([(x + 1.2, y, 3 - HALF) for x in side for y in side])
    shown = cv2.projectPoints(
        points, np.zeros(3), np.zeros(3), lens.matrix.numpy(), lens.distortion.numpy()
    )[0][:, 0]
    depth = np.full((240, 320), np.nan, np.float32)
    columns, rows = shown.round().astype(int).T
    depth[rows, columns] = FRONT
    found = scale_from_depth(seen(x=1.2, camera=lens), cube(), lens, depth)
    assert found.scale == pytest.approx(UNIT, rel=1e-3)
    straight = project(lens.matrix, torch.from_numpy(points)).numpy()
    assert np.abs(straight - shown).max() > 10  # px, that the lens moves the cube


def test_diameters_become_metres_and_metres_stay() -> None:
    covariance = torch.eye(6, dtype=torch.float64)
    covariance[0, 3] = covariance[3, 0] = 0.5
    turned = pose((0.0, 0.0, 180.0), (0.5, 0.0, 3.0))
    found = PoseEstimate(
        **{
            **vars(seen()),
            "covariance": covariance,
            "alternatives": (PoseMode(turned, -1.0, covariance),),
        }
    )
    scaled = to_metres(found, 0.25)
    assert scaled.cam_from_canon[:3, 3].tolist() == [0, 0, 0.75]
    assert scaled.size.tolist() == pytest.approx([0.15] * 3)
    assert (scaled.scale, scaled.metric) == (0.25, True)
    for known in (scaled.covariance, scaled.alternatives[0].covariance):
        assert known is not None
        assert known.diagonal().tolist() == [0.0625] * 3 + [1.0] * 3
        assert float(known[0, 3]) == 0.125
    assert scaled.alternatives[0].cam_from_canon[:3, 3].tolist() == [0.125, 0, 0.75]
    assert to_metres(scaled, 7.0) is scaled


def test_the_known_diameter_is_that_of_the_whole_object_where_the_model_knows_its_instances() -> (
    None
):
    corners = [[0.0, 0.0, -0.3], [0.3, 0.4, 0.9]]  # the diagonal is 1.3
    provenance = {"instances": {"a": corners, "b": corners}}
    whole = replace(cube(), provenance=provenance)
    box = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    one = replace(seen(), center=box, size_sigma=box / 10, category=whole.category)
    (scaled,) = to_known_diameter([one], [whole], 2.6)
    assert scaled.metric and scaled.scale == pytest.approx(2.0)
    assert scaled.center is not None and scaled.size_sigma is not None
    assert scaled.center.tolist() == pytest.approx([0.2, 0.4, 0.6])
    assert scaled.size_sigma.tolist() == pytest.approx([0.02, 0.04, 0.06])
    (before,) = to_known_diameter([one], [cube()], 2.6)
    assert before.scale == pytest.approx(2.6)


@pytest.mark.parametrize("shape", [(24, 32), (320, 240), (240, 320, 1), (240,)])
def test_depth_of_another_size_than_the_image_is_refused(shape: tuple[int, ...]) -> None:
    check_depth((240, 320), (240, 320, 3))
    reason = f"depth of shape {shape}: that of the image, (240, 320), is valid"
    with pytest.raises(InvalidInput, match=re.escape(reason)):
        check_depth(shape, (240, 320, 3))


@pytest.mark.parametrize(("rim", "known"), [(2.0, False), (12.0, True)])
def test_depth_that_shows_only_along_the_outline_is_not_believed(
    rim: float, known: bool
) -> None:
    """Rays are 2.8 px apart.

    Of those at the outline, where another instance may end earlier, none counts.
    """
    x0, y0, x1, y1 = seen().box.tolist()
    rows, columns = np.mgrid[:240, :320]
    inner = (
        (columns > x0 + rim) & (columns < x1 - rim) & (rows > y0 + rim) & (rows < y1 - rim)
    )
    depth = np.where(inner, np.nan, picture()).astype(np.float32)
    assert scale_from_depth(seen(), cube(), CAMERA, depth).metric == known
