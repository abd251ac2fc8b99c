import dataclasses

import numpy as np
import pytest
import torch

from uns_pose_ros.core.named_frames import NamedFrame
from uns_pose_ros.core.types import Camera, CategoryModel, PoseEstimate, Symmetry
from uns_pose_ros.estimation.frame_placement import carry_frames
from uns_pose_ros.visualization import drawing

CUBE = torch.tensor(
    [[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)]
)
FACES = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
TRIANGLES = torch.tensor([[f[0], f[k], f[k + 1]] for f in FACES for k in (1, 2)])


def camera(*distortion: float) -> Camera:
    matrix = torch.tensor(
        [[200.0, 0, 99.5], [0, 200, 79.5], [0, 0, 1]], dtype=torch.float64
    )
    return Camera(matrix, 200, 160, torch.tensor(distortion, dtype=torch.float64))


def model() -> CategoryModel:
    return CategoryModel("cube", CUBE, TRIANGLES, torch.ones(8, 1), torch.ones(1, 1), {})


def estimate(
    x: float, y: float, z: float, scale: float = 0.2, metric: bool = True
) -> PoseEstimate:
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, 3] = torch.tensor([x, y, z])
    size = torch.full((3,), scale, dtype=torch.float64)
    return PoseEstimate(
        "cube",
        pose,
        scale,
        metric,
        size,
        0.9,
        None,
        Symmetry(),
        9,
        1.0,
        torch.zeros(4, dtype=torch.float64),
    )


def changed_box(before: np.ndarray, after: np.ndarray) -> list[int]:
    """x0 y0 x1 y1 of what differs."""
    rows, columns = np.nonzero((before != after).any(-1))
    return [columns.min(), rows.min(), columns.max(), rows.max()]


def test_an_overlay_covers_the_object_and_leaves_the_given_image_alone() -> None:
    image = np.full((160, 200, 3), 90, np.uint8)
    canvas = drawing.draw_estimate(image, camera(), estimate(0, 0, 1), model())
    # the cube's near face, 0.2 wide at depth 0.9, reaches 22 px from the middle
    assert (image == 90).all() and canvas.shape == image.shape
    assert (canvas[60:100, 80:120] != 90).any(-1).all()
    assert (canvas[130:, :60] == 90).all()


def test_an_overlay_shows_named_frames() -> None:
    image = np.full((160, 200, 3), 90, np.uint8)
    position = torch.tensor([2.0, 0.0, 0.0], dtype=torch.float64)
    handle = NamedFrame("handle", position, torch.eye(3, dtype=torch.float64), 0.2)
    one = estimate(0, 0, 1)
    placed = carry_frames(one, [handle])
    bare = drawing.draw_estimate(image, camera(), one, model())
    canvas = drawing.draw_estimate(
        image, camera(), dataclasses.replace(one, frames=tuple(placed)), model()
    )
    x0, y0, x1, y1 = changed_box(bare, canvas)
    assert x0 <= 99.5 + 200 * 0.4 <= x1 and y0 <= 80 <= y1
    behind = dataclasses.replace(one, cam_from_canon=estimate(0, 0, -1).cam_from_canon)
    behind = dataclasses.replace(behind, frames=tuple(carry_frames(behind, [handle])))
    assert np.array_equal(drawing.draw_estimate(image, camera(), behind, model()), image)


def test_a_drawn_template_shows_named_frames_where_they_are() -> None:
    position = torch.tensor([0.0, 0.3, 0.2], dtype=torch.float64)
    frame = NamedFrame("rim", position, torch.eye(3, dtype=torch.float64))
    colors = np.full((8, 3), 200.0)
    bare, framed = (
        drawing.draw_mesh(CUBE, TRIANGLES, colors, 0.0, 0.0, span=2.0, frames=frames)
        for frames in ((), (frame,))
    )
    x0, y0, x1, y1 = changed_box(bare, framed)  # seen from +x: y to the right, z up
    assert x0 <= 99.5 + 30 <= x1 and y0 <= 99.5 - 20 <= y1
    assert x0 > 115 and y1 < 95


def test_an_overlay_follows_the_lens() -> None:
    image = np.zeros((160, 200, 3), np.uint8)
    low = estimate(0, 0.3, 1, scale=0.1)
    straight, bent = (
        drawing.draw_estimate(image, camera(*k), low, model())
        for k in ((), (-0.8, 0, 0, 0))
    )
    assert changed_box(image, straight)[3] == pytest.approx(79.5 + 200 * 0.35 / 0.95, abs=4)
    assert changed_box(image, bent)[3] < changed_box(image, straight)[3] - 5


def test_an_object_behind_the_camera_or_around_it_draws_nothing_wild() -> None:
    image = np.zeros((160, 200, 3), np.uint8)
    assert np.array_equal(
        drawing.draw_estimate(image, camera(), estimate(0, 0, -1), model()), image
    )
    assert (
        drawing.draw_estimate(image, camera(), estimate(0, 0, 0.05), model()).shape
        == image.shape
    )


@pytest.mark.parametrize(("depth", "drawn"), [(0.02, True), (0.01, False)])
def test_a_triangle_that_reaches_too_far_out_of_the_image_is_not_drawn(
    depth: float, drawn: bool
) -> None:
    corners = torch.tensor(
        [[0.0, -0.2, 1.0], [0.0, 0.2, 1.0], [1.0, 0.0, depth]]
    )  # 10100 px and 20100 px to the right
    mask = drawing.mesh_silhouette(
        corners, torch.tensor([[0, 1, 2]]), camera(), torch.eye(4)
    )
    assert mask.any() == drawn


def test_the_nearer_of_two_triangles_hides_the_farther_one() -> None:
    points = np.array(
        [[-1, -1, 1], [-1, 1, 1], [1, 0, 1], [-2, -2, 2], [-2, 2, 2], [2, 0, 2]], float
    )
    pixels = points[:, :2] / points[:, 2:] * 40 + 50
    red, blue = [200.0, 0, 0], [0, 0, 200.0]
    for triangles in ([[0, 1, 2], [3, 4, 5]], [[3, 4, 5], [0, 1, 2]]):
        canvas = np.zeros((100, 100, 3), np.uint8)
        drawing.paint_triangles(
            canvas, points, pixels, np.array(triangles), np.array([red] * 3 + [blue] * 3)
        )
        assert canvas[50, 40, 0] > 100 and canvas[50, 40, 2] == 0


def test_triangles_seen_from_inside_are_not_painted() -> None:
    points = np.array([[-1, -1, 1], [-1, 1, 1], [1, 0, 1]], float)
    canvas = np.zeros((100, 100, 3), np.uint8)
    drawing.paint_triangles(
        canvas,
        points,
        points[:, :2] * 40 + 50,
        np.array([[0, 2, 1]]),
        np.full((3, 3), 200.0),
    )
    assert not canvas.any()


@pytest.mark.parametrize(("azimuth", "side"), [(0, "right"), (180, "left")])
def test_a_mesh_seen_from_the_front_has_its_left_side_on_the_right(
    azimuth: float, side: str
) -> None:
    colors = np.where(
        CUBE[:, 1:2].numpy() > 0, [0.0, 250.0, 0.0], [250.0, 0.0, 250.0]
    )  # green on the left (+y)
    shrunk = CUBE * torch.tensor([0.5, 0.5, 0.5])
    canvas = drawing.draw_mesh(shrunk, TRIANGLES, colors, azimuth, 0, size=100)
    left, right = canvas[30:45, 30].mean(0), canvas[30:45, 70].mean(0)
    green = right if side == "right" else left
    assert green[1] > green[0] + 50


def test_an_outline_darkens_what_is_not_the_object() -> None:
    image = np.full((40, 40, 3), 200, np.uint8)
    mask = np.zeros((40, 40), bool)
    mask[10:30, 10:30] = True
    canvas = drawing.highlight_mask(image, mask)
    assert (
        canvas[20, 20].tolist() == [200] * 3
        and canvas[2, 2].tolist() == [100] * 3
        and canvas[10, 20, 2] < 60
    )


def test_an_image_is_fitted_into_a_square_without_stretching() -> None:
    canvas = drawing.fit_into_square(np.zeros((20, 40, 3), np.uint8), 100)
    rows, columns = np.nonzero((canvas == 0).all(-1))
    assert (
        canvas.shape == (100, 100, 3)
        and (rows.min(), rows.max()) == (25, 74)
        and (columns.min(), columns.max()) == (0, 99)
    )


@pytest.mark.parametrize("x", [-20.0, 80.0, 190.0])
@pytest.mark.parametrize("y", [2.0, 30.0, 58.0])
def test_text_stays_whole_inside_the_image(x: float, y: float) -> None:
    blank = np.full((60, 200, 3), 255, np.uint8)
    sides = []
    for at in ((80.0, 30.0), (x, y)):  # the first is far from every border
        canvas = blank.copy()
        drawing.write_text(canvas, "mug 90%", np.array(at))
        x0, y0, x1, y1 = changed_box(blank, canvas)
        sides.append((x1 - x0, y1 - y0))
    assert sides[0][0] > 30 and sides[0][1] > 8
    assert sides[1] == pytest.approx(sides[0], abs=1)
