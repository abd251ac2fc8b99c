"""Boxes of instances from the outlines that presence maps show."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from uns_pose_ros.core.geometry import from_parts, rotation_from_vector
from uns_pose_ros.core.types import Camera, CategoryModel, PoseEstimate, Symmetry
from uns_pose_ros.estimation.shapes.box_fusion import fuse_box
from uns_pose_ros.estimation.shapes.instance_box import fit_boxes
from uns_pose_ros.estimation.shapes.shape_prior import ShapePrior

SIZE = 224  # px, side of the crop, which is the image
CELLS = 32
CAMERA = Camera(
    torch.tensor([[300.0, 0, 111.5], [0, 300, 111.5], [0, 0, 1]], dtype=torch.float64),
    SIZE,
    SIZE,
)
CORNERS = (np.indices((2, 2, 2)).reshape(3, 8).T).astype(float)
MEAN = np.array([-0.2, -0.25, -0.4, 0.2, 0.25, 0.4])
# seen obliquely from the front, so that all sides count
TURN = rotation_from_vector(torch.tensor([2.0, 0.6, 0.5], dtype=torch.float64))


def corners_of(sides: NDArray[np.float64]) -> NDArray[np.float64]:
    return sides[:3] + CORNERS * (sides[3:] - sides[:3])


def model_of(*instances: NDArray[np.float64]) -> CategoryModel:
    """A category of boxes with the given sides."""
    return CategoryModel(
        "box",
        torch.from_numpy(corners_of(MEAN)).float(),
        torch.zeros(0, 3, dtype=torch.int64),
        torch.eye(8),
        torch.eye(8)[:1],
        {},
        provenance={
            "instances": {
                f"clip_{k}": corners_of(one).tolist() for k, one in enumerate(instances)
            }
        },
    )


MODEL = model_of(MEAN, MEAN + 0.03 * np.array([1, -1, 1, -1, 1, -1]), MEAN - 0.02)


def prior_of(model: CategoryModel) -> ShapePrior:
    prior = ShapePrior.of(model)
    assert prior is not None
    return prior


PRIOR = prior_of(MODEL)


def estimate_of(distance: float = 2.2, spread: float = 1.0) -> PoseEstimate:
    pose = from_parts(TURN, torch.tensor([0.0, 0.0, distance], dtype=torch.float64))
    covariance = torch.eye(6, dtype=torch.float64) * math.radians(spread) ** 2
    return PoseEstimate(
        "box",
        pose,
        1.0,
        False,
        MODEL.extents,
        0.9,
        covariance,
        Symmetry(),
        9,
        1.0,
        torch.zeros(4, dtype=torch.float64),
    )


def presence_of(sides: NDArray[np.float64], estimate: PoseEstimate) -> torch.Tensor:
    """Presence (1, h, w) of a box at the pose, with the blur that a backbone's patches have."""
    pose = estimate.cam_from_canon.numpy()
    points = corners_of(sides) @ pose[:3, :3].T + pose[:3, 3]
    pixels = points @ CAMERA.matrix.numpy().T
    hull = cv2.convexHull((pixels[:, :2] / pixels[:, 2:]).astype(np.float32))[:, 0]
    fine = np.zeros((SIZE, SIZE), np.uint8)
    cv2.fillConvexPoly(fine, np.round(hull * 16).astype(np.int32), 1, shift=4)
    cell = SIZE // CELLS
    grown = cv2.dilate(fine, np.ones((cell, cell), np.uint8))  # half a cell on each side
    shares = grown.reshape(CELLS, cell, CELLS, cell).mean((1, 3))
    return torch.from_numpy(shares.astype(np.float32))[None]


def fit(
    presence: torch.Tensor, estimate: PoseEstimate, prior: ShapePrior | None = PRIOR
) -> PoseEstimate:
    grid_from_pixel = torch.tensor(
        [[2 / SIZE, 0, 1 / SIZE - 1], [0, 2 / SIZE, 1 / SIZE - 1], [0, 0, 1]],
        dtype=torch.float64,
    )
    eye = torch.eye(3, dtype=torch.float64)[None]
    grid = (grid_from_pixel @ CAMERA.matrix)[None].float()
    (fitted,) = fit_boxes(prior, presence, grid, eye, eye, SIZE, CAMERA, [estimate])
    assert fitted is not None and fitted.center is not None
    return fitted


def sides_of(estimate: PoseEstimate) -> NDArray[np.float64]:
    assert estimate.center is not None
    middle, half = estimate.center.numpy(), estimate.size.numpy() / 2
    return np.concatenate([middle - half, middle + half])


def test_the_prior_is_the_median_box_with_room_for_more_than_few_instances_show() -> None:
    assert PRIOR.mean == pytest.approx(MODEL.bounds.numpy().ravel())
    assert np.abs(PRIOR.mean - MEAN).max() < 0.021
    assert (np.sqrt(np.diagonal(PRIOR.covariance)) > 0.05).all()
    assert PRIOR.outlines.min() == 0 and PRIOR.outlines.max() == 1
    assert ShapePrior.of(replace(MODEL, provenance={})) is None


@pytest.mark.parametrize(
    "change", [(0, 0, -0.12, 0, 0, 0), (0, 0, 0, 0, 0, 0.1), (-0.06, 0, 0, 0.06, 0, 0)]
)
def test_a_side_that_reaches_farther_than_the_mean_is_seen_and_the_pose_stays(
    change: tuple[float, ...],
) -> None:
    estimate, true = estimate_of(), MEAN + np.array(change)
    fitted = fit(presence_of(true, estimate), estimate)
    before, after = np.abs(PRIOR.mean - true).max(), np.abs(sides_of(fitted) - true)
    assert after.max() < 0.6 * before
    assert torch.equal(fitted.cam_from_canon, estimate.cam_from_canon)
    assert fitted.size_sigma is not None and bool((fitted.size_sigma < 0.12).all())


def test_sizes_have_the_unit_of_the_estimate() -> None:
    estimate, true = estimate_of(), MEAN * 1.1
    plain = fit(presence_of(true, estimate), estimate)
    pose = estimate.cam_from_canon.clone()
    pose[:3, 3] *= 0.3
    metric = replace(estimate, cam_from_canon=pose, scale=0.3, metric=True)
    scaled = fit(presence_of(true, estimate), metric)
    assert scaled.center is not None and plain.center is not None
    assert scaled.size_sigma is not None and plain.size_sigma is not None
    assert torch.allclose(scaled.size, 0.3 * plain.size)
    assert torch.allclose(scaled.center, 0.3 * plain.center)
    assert torch.allclose(scaled.size_sigma, 0.3 * plain.size_sigma)


def test_where_nothing_is_seen_the_box_is_the_mean_one_and_another_object_is_no_part_of_it() -> (
    None
):
    estimate = estimate_of()
    empty = fit(torch.zeros(1, CELLS, CELLS), estimate)
    assert sides_of(empty) == pytest.approx(PRIOR.mean)
    shown = presence_of(MEAN, estimate)
    alone = sides_of(fit(shown, estimate))
    beside = shown.clone()
    beside[0, :, -3:] = 1.0
    assert sides_of(fit(beside, estimate)) == pytest.approx(alone)


def test_a_hidden_half_does_not_halve_the_box() -> None:
    estimate = estimate_of()
    shown = presence_of(MEAN, estimate)
    rows = torch.nonzero(shown[0].amax(1) > 0.5)[:, 0]
    shown[:, int(rows.float().mean()) :] = 0
    extents = fit(shown, estimate).size.numpy()
    assert (extents > 0.75 * (MEAN[3:] - MEAN[:3])).all()


def test_at_the_border_of_the_image_the_end_of_the_object_is_not_known() -> None:
    estimate = estimate_of()
    pose = estimate.cam_from_canon.clone()
    pose[0, 3] += 0.75  # to the right, so that a part leaves the image
    cut = replace(estimate, cam_from_canon=pose)
    extents = fit(presence_of(MEAN, cut), cut).size.numpy()
    assert extents == pytest.approx(MEAN[3:] - MEAN[:3], rel=0.1)


def test_a_rotation_that_is_hardly_known_tells_less_of_the_sides() -> None:
    true = MEAN + np.array([0, 0, -0.12, 0, 0, 0])
    sure, unsure = (estimate_of(spread=degrees) for degrees in (1.0, 40.0))
    shown = presence_of(true, sure)
    moved = [abs(sides_of(fit(shown, one))[2] - PRIOR.mean[2]) for one in (sure, unsure)]
    assert moved[1] < moved[0]


def test_without_a_prior_an_estimate_stays_as_it_is() -> None:
    estimate = estimate_of()
    grid = torch.eye(3)[None]
    eye = torch.eye(3, dtype=torch.float64)[None]
    shown = torch.ones(1, CELLS, CELLS)
    (same,) = fit_boxes(None, shown, grid, eye, eye, SIZE, CAMERA, [estimate])
    assert same is estimate


def test_over_a_stream_boxes_are_averaged_and_surer_ones_count_more() -> None:
    def with_box(side: float, sigma: float, scale: float = 1.0) -> PoseEstimate:
        three = torch.ones(3, dtype=torch.float64)
        return replace(
            estimate_of(),
            scale=scale,
            size=side * three,
            center=0.1 * side * three,
            size_sigma=sigma * three,
        )

    mean = fuse_box(with_box(1.0, 0.1), with_box(2.0, 0.1), 1)
    assert mean.size.tolist() == pytest.approx([1.5] * 3)
    assert mean.center is not None and mean.center.tolist() == pytest.approx([0.15] * 3)
    assert mean.size_sigma is not None and mean.size_sigma.tolist() == pytest.approx(
        [0.1] * 3
    )
    sure = fuse_box(with_box(1.0, 0.3), with_box(2.0, 0.1), 1)
    assert sure.size.tolist() == pytest.approx([1.9] * 3)
    late = fuse_box(with_box(1.0, 0.1), with_box(2.0, 0.1), 500)
    assert late.size.tolist() == pytest.approx([1.1] * 3)
    # the first box was in diameters, the second one is in units half as long
    other = fuse_box(with_box(1.0, 0.1), with_box(0.5, 0.05, 0.5), 1)
    assert other.size.tolist() == pytest.approx([0.5] * 3)
    bare = replace(with_box(2.0, 0.1), center=None)
    assert fuse_box(with_box(1.0, 0.1), bare, 1) is bare
