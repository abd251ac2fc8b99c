"""Depth at an object refines its pose, and does no harm where it does not fit."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from labeled_category import box_mesh
from streams import estimate, pose
from synthetic import truck
from uns_pose_ros.core.geometry import (
    angle_between,
    from_parts,
    project,
    rotation_from_vector,
    transform,
)
from uns_pose_ros.core.named_frames import NamedFrame
from uns_pose_ros.core.ray_casting import cast_rays
from uns_pose_ros.core.types import Camera, CategoryModel, PoseEstimate, PoseMode
from uns_pose_ros.estimation.depth.depth_refinement import (
    CONTRADICTS,
    NO_FIT,
    REFINED,
    TOO_FEW,
    use_depth,
)
from uns_pose_ros.estimation.frame_placement import carry_frames
from uns_pose_ros.estimation.metric_scale import scale_from_depth

CAMERA = Camera(
    torch.tensor([[120.0, 0, 47.5], [0, 120, 35.5], [0, 0, 1]]).double(), 96, 72
)
SIZE = 0.3  # m, diameter of the truck that is seen
TRUE = pose((-115.0, 20.0, 30.0), (0.03, -0.02, 0.8))
WALL = 1.4  # m


def model(seed: int = 0, diameter: float | None = SIZE) -> CategoryModel:
    """A template of the boxes of a truck, one of another shape for every seed."""
    vertices, triangles = box_mesh(truck(np.random.default_rng(seed)))
    low, high = vertices.min(0), vertices.max(0)
    vertices = (vertices - (low + high) / 2) / np.linalg.norm(high - low)
    unit = torch.nn.functional.normalize(torch.ones(len(vertices), 4), dim=1)
    corners = torch.from_numpy(vertices).float()
    faces = torch.from_numpy(np.asarray(triangles, np.int64))
    return CategoryModel("truck", corners, faces, unit, unit[:1], {}, diameter=diameter)


def render(shape: CategoryModel, true: Tensor = TRUE, size: float = SIZE) -> np.ndarray:
    """Depth (H, W) m of an object before a wall."""
    shown = project(CAMERA.matrix, transform(true, size * shape.vertices.double()))
    low, high = shown.amin(0).floor().long() - 1, shown.amax(0).ceil().long() + 1
    columns, rows = (
        torch.arange(int(a), int(b) + 1) for a, b in zip(low, high, strict=True)
    )
    pixels = torch.cartesian_prod(rows, columns).flip(1)
    pixels = torch.cat([pixels, torch.ones(len(pixels), 1)], 1).double()
    rays = pixels @ torch.linalg.inv(CAMERA.matrix).T @ true[:3, :3] / size
    origin = -true[:3, :3].T @ true[:3, 3] / size
    depth, _, _ = cast_rays(origin.float(), rays.float(), shape.vertices, shape.triangles)
    image = torch.full((CAMERA.height, CAMERA.width), WALL)
    image[rows[:, None], columns] = depth.clamp_max(WALL).reshape(len(rows), len(columns))
    return image.numpy()


def guess(
    shape: CategoryModel,
    turn: tuple[float, float, float] = (0.0, 0.0, 0.0),
    nearer: float = 1.0,
    size: float = SIZE,
    **details: Any,
) -> PoseEstimate:
    """The true pose, turned (degrees) and as an object of `size` m would lie, `nearer` times."""
    vector = torch.deg2rad(torch.tensor(turn, dtype=torch.float64))
    position = TRUE[:3, 3] * size / SIZE * nearer
    wrong = from_parts(rotation_from_vector(vector) @ TRUE[:3, :3], position)
    pixels = project(CAMERA.matrix, transform(wrong, size * shape.vertices.double()))
    sigma = [0.01 * size, 0.01 * size, 0.15 * size, *[math.radians(8)] * 3]
    found = estimate(wrong, size=size, category="truck", **details)
    return replace(
        found,
        box=torch.cat([pixels.amin(0), pixels.amax(0)]),
        size=shape.extents.double() * size,
        covariance=torch.diag(torch.tensor(sigma, dtype=torch.float64).square()),
    )


def error(found: PoseEstimate) -> tuple[float, float]:
    """Of the position, m, and of the rotation, degrees."""
    gap = found.cam_from_canon[:3, 3] - TRUE[:3, 3]
    turn = angle_between(found.cam_from_canon[:3, :3], TRUE[:3, :3])
    return float(gap.norm()), float(turn)


def test_depth_finds_the_size_and_the_distance_that_an_image_cannot_tell() -> None:
    shape = model()
    for size in (0.8 * SIZE, 1.25 * SIZE):
        before = guess(shape, size=size)
        found = use_depth(before, shape, CAMERA, render(shape))
        assert found.depth_use == REFINED and found.metric
        assert found.scale == pytest.approx(SIZE, rel=0.02)
        assert error(before)[0] > 0.15 and error(found)[0] < 0.01
        assert found.size.tolist() == pytest.approx(
            (shape.extents.double() * found.scale).tolist()
        )


def test_a_wrong_distance_and_a_wrong_rotation_become_smaller() -> None:
    shape = model()
    for turn in ((6.0, 0.0, 0.0), (0.0, -6.0, 0.0), (4.0, 4.0, -4.0)):
        before = guess(shape, turn, nearer=0.94)
        found = use_depth(before, shape, CAMERA, render(shape))
        assert found.depth_use == REFINED
        assert error(found)[0] < 0.3 * error(before)[0]
        assert error(found)[1] < 0.7 * error(before)[1]


def test_an_instance_of_another_shape_is_not_turned_away_by_its_depth() -> None:
    """The mean over five other trucks: the position is far better, the rotation no worse."""
    shape, before, after = model(), [], []
    for seed in range(1, 6):
        first = guess(shape, (3.0, -3.0, 2.0), size=0.85 * SIZE)
        found = use_depth(first, shape, CAMERA, render(model(seed)))
        assert found.depth_use == REFINED
        before.append(error(first))
        after.append(error(found))
    (shift, turn), (shift_after, turn_after) = np.mean(before, 0), np.mean(after, 0)
    assert shift_after < 0.25 * shift and turn_after < turn


def test_a_model_without_a_size_gets_meters_and_a_better_pose() -> None:
    shape = model(diameter=None)
    first = guess(shape, (5.0, 0.0, 0.0), nearer=1.06, size=1.0, metric=False)
    depth = render(shape)
    scaled = scale_from_depth(first, shape, CAMERA, depth)
    found = use_depth(first, shape, CAMERA, depth)
    assert found.metric and found.depth_use == REFINED
    assert error(found)[0] < 0.005 and error(found)[1] < 0.7 * error(scaled)[1]
    plain = use_depth(first, shape, CAMERA, depth, refine=False)
    assert torch.equal(plain.cam_from_canon, scaled.cam_from_canon) and not plain.depth_use


def test_noise_holes_and_a_hand_before_the_object_are_outvoted() -> None:
    shape, generator = model(), np.random.default_rng(0)
    depth = render(shape)
    depth[:, 58:] = np.minimum(depth[:, 58:], 0.45)  # a hand before a third of it
    depth[::2, ::3] = np.nan
    depth += generator.normal(0, 0.006, depth.shape).astype(np.float32)
    found = use_depth(guess(shape, size=0.85 * SIZE), shape, CAMERA, depth)
    assert found.depth_use == REFINED and error(found)[0] < 0.02


def test_depth_that_does_not_fit_leaves_the_pose_as_it_was_and_says_why() -> None:
    shape, first = model(), guess(model(), (4.0, 0.0, 0.0), nearer=0.95)
    nothing = np.full((72, 96), np.nan, np.float32)
    scattered = np.random.default_rng(0).uniform(0.2, 3, (72, 96)).astype(np.float32)
    far, near = 3.0 * render(shape), render(shape)
    near[:, :] = np.where(near < WALL, 0.3 * near, near)
    for depth, reason in (
        (nothing, TOO_FEW),
        (np.where(np.arange(96) % 40 == 0, render(shape), np.nan), TOO_FEW),
        (scattered, NO_FIT),
        (far, CONTRADICTS),
        (near, CONTRADICTS),
    ):
        found = use_depth(first, shape, CAMERA, depth.astype(np.float32))
        assert found.depth_use == reason
        assert torch.equal(found.cam_from_canon, first.cam_from_canon)
        assert found.scale == first.scale
    outside = replace(first, box=torch.tensor([500.0, 0, 600, 90]).double())
    assert use_depth(outside, shape, CAMERA, render(shape)).depth_use == TOO_FEW


def test_a_plane_says_nothing_of_the_rotation_in_it() -> None:
    """A plate seen from above: its tilt is measured, its turn in its plane stays as it was."""
    corners = torch.tensor(
        [[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.01, 0.01)]
    )
    truck_like = model()
    faces = torch.from_numpy(np.asarray(box_mesh([plate_box()])[1], np.int64))
    plate = replace(
        truck_like,
        vertices=torch.from_numpy(box_mesh([plate_box()])[0]).float(),
        triangles=faces,
        vertex_features=truck_like.vertex_features[:1].expand(len(corners), -1),
    )
    level = pose((180.0, 0.0, 0.0), (0.0, 0.0, 0.8))
    depth = render(plate, level)
    turned = from_parts(
        rotation_from_vector(torch.tensor([0.07, 0.0, 0.1]).double()) @ level[:3, :3],
        level[:3, 3],
    )
    first = replace(
        guess(plate), cam_from_canon=turned, box=torch.tensor([20.0, 10, 75, 62]).double()
    )
    found = use_depth(first, plate, CAMERA, depth)
    assert found.depth_use == REFINED
    normal = found.cam_from_canon[:3, :3] @ torch.tensor([0.0, 0, 1]).double()
    assert math.degrees(math.acos(min(1.0, -float(normal[2])))) < 2.0
    left = found.cam_from_canon[:3, :3] @ torch.tensor([1.0, 0, 0]).double()
    assert math.degrees(math.atan2(float(left[1]), float(left[0]))) == pytest.approx(
        math.degrees(0.1), abs=1.0
    )
    assert first.covariance is not None and found.covariance is not None
    before, after = first.covariance.diagonal(), found.covariance.diagonal()
    assert float(after[3]) < 0.5 * float(before[3])
    assert float(after[5]) == pytest.approx(float(before[5]), rel=0.05)


def plate_box() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    low, high = np.array([-0.5, -0.5, -0.01]), np.array([0.5, 0.5, 0.01])
    return low, high, np.zeros(3)


def test_alternatives_named_frames_and_doubt_follow_the_new_scale() -> None:
    shape = model()
    tip = NamedFrame("tip", torch.tensor([0.4, 0.0, 0.0]).double(), torch.eye(3).double())
    first = guess(shape, size=0.8 * SIZE)
    turned = from_parts(-first.cam_from_canon[:3, :3], first.cam_from_canon[:3, 3])
    doubt = torch.eye(3, dtype=torch.float64)
    assert first.covariance is not None
    covariance = first.covariance.clone()
    covariance[3:, 3:] += doubt
    first = replace(
        first,
        alternatives=(PoseMode(turned, -1.0, first.covariance),),
        doubt=doubt,
        covariance=covariance,
    )
    first = replace(first, frames=tuple(carry_frames(first, [tip])))
    found = use_depth(first, shape, CAMERA, render(shape))
    factor = found.scale / first.scale
    other = found.alternatives[0]
    assert other.cam_from_canon[:3, 3].tolist() == pytest.approx(
        (factor * turned[:3, 3]).tolist()
    )
    expected = transform(found.cam_from_canon, found.scale * tip.position[None])[0]
    assert found.frames[0].cam_from_frame[:3, 3].tolist() == pytest.approx(
        expected.tolist()
    )
    assert found.covariance is not None
    assert float(found.covariance[3, 3]) > 1.0  # the doubt stays
    assert float(found.covariance[2, 2]) < float((0.05 * SIZE) ** 2)
