"""Named frames follow the instance where the image shows it, and else the pose."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from uns_pose_ros.core.geometry import (
    from_parts,
    rotation_from_vector,
    sphere,
    vector_from_rotation,
)
from uns_pose_ros.core.named_frames import NamedFrame, PlacedFrame, equivalent_turns
from uns_pose_ros.core.types import CategoryModel, PoseEstimate, PoseMode, Symmetry
from uns_pose_ros.estimation.frame_placement import (
    carry_frames,
    place_frames,
    refit_frames,
)
from uns_pose_ros.estimation.fusion.pose_fusion import fuse
from uns_pose_ros.estimation.metric_scale import to_metres
from uns_pose_ros.estimation.solver.pose_hypotheses import Correspondences
from uns_pose_ros.estimation.tracker import Tracker, TrackState

TURN = rotation_from_vector(torch.tensor([0.4, -0.3, 0.2], dtype=torch.float64))
SHIFT = torch.tensor([0.2, -0.1, 3.0], dtype=torch.float64)
VERTICES = 0.4 * sphere(400)
TIP = torch.tensor([0.0, -0.4, 0.0], dtype=torch.float64)
UNIT = torch.eye(3, dtype=torch.float64)


def frame(follow: str = "surface", prefer: Tensor | None = None) -> NamedFrame:
    return NamedFrame("tip", TIP, UNIT, 0.1, follow, prefer)


def estimate(symmetry: Symmetry = Symmetry(), scale: float = 1.0) -> PoseEstimate:
    covariance = torch.diag(torch.tensor([1e-4, 1e-4, 1e-2, 1e-3, 1e-3, 1e-3])).double()
    covariance[:3, :3] *= scale**2
    return PoseEstimate(
        category="mug",
        cam_from_canon=from_parts(TURN, scale * SHIFT),
        scale=scale,
        metric=scale != 1.0,
        size=scale * torch.full((3,), 0.8, dtype=torch.float64),
        score=0.9,
        covariance=covariance,
        symmetry=symmetry,
        inliers=100,
        reprojection_error=1.0,
        box=torch.tensor([0.0, 0.0, 10.0, 10.0], dtype=torch.float64),
    )


def model(*frames: NamedFrame) -> CategoryModel:
    triangle = torch.tensor([[0, 1, 2]])
    features = torch.nn.functional.normalize(torch.ones(len(VERTICES), 2), dim=1)
    return CategoryModel(
        "mug", VERTICES, triangle, features, torch.eye(2), {}, frames=frames
    )


def cells(instance: Tensor, keep: Tensor | None = None) -> Correspondences:
    """Every vertex of an instance (V, 3) in a cell of its own, seen by a turned view."""
    points = (instance.double() @ TURN.T + SHIFT) @ VIEW
    tangents = (points[:, :2] / points[:, 2:]).float()
    index = torch.arange(len(instance))[:, None]
    if keep is not None:
        tangents, index = tangents[keep], index[keep]
    return Correspondences(
        tangents[None],
        torch.full((1, len(index), 1), 0.8),
        index[None],
        torch.tensor([0.02]),
    )


VIEW = rotation_from_vector(torch.tensor([0.05, 0.1, 0.0], dtype=torch.float64))


def place(
    observed: Correspondences, one: PoseEstimate, *frames: NamedFrame
) -> tuple[PlacedFrame, ...]:
    [placed] = place_frames(model(*frames), observed, VIEW[None], [one])
    assert placed is not None
    return placed.frames


def off(placed: PlacedFrame, canon: Tensor, scale: float = 1.0) -> float:
    """Distance from a placed frame to a point of the canonical frame, diameters."""
    true = TURN @ canon + SHIFT
    return float((placed.cam_from_frame[:3, 3] / scale - true).norm())


def longer(by: Tensor) -> Tensor:
    """An instance whose surface around the tip lies elsewhere."""
    near = (VERTICES.double() - TIP).norm(dim=1) < 0.25
    return VERTICES + near[:, None] * by.float()


@pytest.mark.parametrize("scale", [1.0, 0.12])
def test_a_frame_snaps_to_the_instances_own_surface(scale: float) -> None:
    by = torch.tensor([0.03, -0.08, 0.02], dtype=torch.float64)
    [carried] = carry_frames(estimate(scale=scale), [frame()])
    [snapped] = place(cells(longer(by)), estimate(scale=scale), frame())
    assert snapped.seen and not carried.seen
    assert off(carried, TIP + by, scale) == pytest.approx(float(by.norm()))
    assert off(snapped, TIP + by, scale) < 0.5 * float(by.norm())
    assert snapped.width == pytest.approx(0.1 * scale)
    torch.testing.assert_close(snapped.cam_from_frame[:3, :3], TURN)
    assert snapped.covariance is not None and carried.covariance is not None
    # what lies across the line of sight is known better than before, its depth is not
    sight = snapped.cam_from_frame[:3, 3] / snapped.cam_from_frame[:3, 3].norm()
    across = torch.linalg.svd(sight[None])[2][1:]
    error = across @ (snapped.cam_from_frame[:3, 3] / scale - TURN @ (TIP + by) - SHIFT)
    assert float(error.norm()) < 0.01
    before, after = (
        float((across @ c @ across.T).trace()) / scale**2
        for c in (carried.covariance, snapped.covariance)
    )
    assert after < 0.1 * before
    assert float(sight @ snapped.covariance @ sight) / scale**2 > 0.01


def test_an_instance_like_the_template_leaves_the_frame_where_it_is() -> None:
    [placed] = place(cells(VERTICES), estimate(), frame())
    assert placed.seen and off(placed, TIP) < 1e-3


def test_a_few_wrong_correspondences_do_not_move_a_frame() -> None:
    observed = cells(VERTICES)
    near = (VERTICES.double() - TIP).norm(dim=1) < 0.1
    wrong = near.nonzero()[::4, 0]
    observed.tangents[0, wrong] += torch.tensor([0.08, 0.0])
    [placed] = place(observed, estimate(), frame())
    assert off(placed, TIP) < 0.01


def test_a_frame_that_nothing_shows_is_carried_by_the_pose() -> None:
    away = (VERTICES.double() - TIP).norm(dim=1) > 0.4
    by = torch.tensor([0.0, -0.08, 0.0], dtype=torch.float64)
    [placed] = place(cells(longer(by), away), estimate(), frame())
    assert not placed.seen and off(placed, TIP) < 1e-9
    far = torch.tensor([0.0, -0.8, 0.0], dtype=torch.float64)
    [dock] = place(cells(longer(by)), estimate(), replace(frame(), position=far))
    assert not dock.seen and off(dock, far) < 1e-9


def test_a_rigid_frame_does_not_snap_and_has_the_covariance_of_the_pose_alone() -> None:
    by = torch.tensor([0.0, -0.08, 0.0], dtype=torch.float64)
    rigid, surface = place(
        cells(longer(by)), estimate(), frame("rigid"), replace(frame(), name="other")
    )
    assert not rigid.seen and surface.seen and off(rigid, TIP) < 1e-9
    loose = carry_frames(estimate(), [frame()])[0].covariance
    assert rigid.covariance is not None and loose is not None
    assert float(rigid.covariance.trace()) < float(loose.trace()) - 0.01


def test_a_pose_without_a_covariance_gives_frames_without_one() -> None:
    unsure = replace(estimate(), covariance=None)
    by = torch.tensor([0.0, -0.08, 0.0], dtype=torch.float64)
    [placed] = place(cells(longer(by)), unsure, frame())
    assert placed.covariance is None and placed.seen


@pytest.mark.parametrize(("order", "count"), [(2, 2), (6, 6), (0, 12), (100, 12)])
def test_a_symmetric_category_has_all_equivalent_frames(order: int, count: int) -> None:
    placed = carry_frames(estimate(Symmetry(order)), [frame()])
    assert [one.name for one in placed] == [f"tip/{k}" for k in range(count)]
    places = torch.stack([one.canon_from_frame[:3, 3] for one in placed])
    assert float(torch.pdist(places).min()) > 0.15
    torch.testing.assert_close(places[:, 2], torch.zeros(count, dtype=torch.float64))
    turns = equivalent_turns(order, torch.tensor([0.0, 0.0, 1.0]))
    step = vector_from_rotation(turns[1]).norm() / (2 * torch.pi / (order or count))
    assert float(step) == pytest.approx(round(float(step)))


@pytest.mark.parametrize("order", [2, 5, 0, 100])
def test_of_equivalent_frames_the_one_in_the_preferred_direction_is_given(
    order: int,
) -> None:
    nearest = torch.tensor([0.0, 0.0, -1.0], dtype=torch.float64)
    symmetric = estimate(Symmetry(order))
    [placed] = carry_frames(symmetric, [frame(prefer=nearest)])
    every = carry_frames(symmetric, [frame()])
    assert placed.name == "tip"
    depth = float(placed.cam_from_frame[2, 3])
    assert depth <= min(float(one.cam_from_frame[2, 3]) for one in every) + 1e-9
    # a frame on the axis is turned
    top = replace(frame(prefer=nearest), position=torch.tensor([0.0, 0.0, 0.4]).double())
    [turned] = carry_frames(symmetric, [top])
    others = carry_frames(symmetric, [replace(top, prefer=None)])
    x = float(turned.cam_from_frame[2, 0])
    assert x <= min(float(one.cam_from_frame[2, 0]) for one in others) + 1e-9


def test_frames_become_metric_with_their_estimate() -> None:
    [placed] = place(cells(VERTICES), estimate(), frame())
    one = replace(estimate(), frames=(placed,))
    [scaled] = to_metres(one, 0.2).frames
    assert off(scaled, TIP, 0.2) < 1e-3
    assert scaled.width == pytest.approx(0.02)
    assert scaled.covariance is not None and placed.covariance is not None
    torch.testing.assert_close(scaled.covariance, 0.04 * placed.covariance)


def test_a_seen_frame_stays_at_its_place_when_the_pose_is_refined_but_not_when_it_flips() -> (
    None
):
    by = torch.tensor([0.0, -0.08, 0.0], dtype=torch.float64)
    one = estimate()
    one = replace(one, frames=place(cells(longer(by)), one, frame()))
    little = rotation_from_vector(torch.tensor([0.0, 0.0, 0.1], dtype=torch.float64))
    refined = replace(one, cam_from_canon=from_parts(little @ TURN, SHIFT))
    [kept] = refit_frames(one, refined)
    assert kept.seen
    torch.testing.assert_close(
        kept.cam_from_frame[:3, 3], one.frames[0].cam_from_frame[:3, 3]
    )
    torch.testing.assert_close(kept.cam_from_frame[:3, :3], little @ TURN)
    half = rotation_from_vector(torch.tensor([0.0, 0.0, torch.pi], dtype=torch.float64))
    flipped = replace(one, cam_from_canon=from_parts(TURN @ half, SHIFT))
    [moved] = refit_frames(one, flipped)
    assert not moved.seen and off(moved, half @ TIP) < 1e-9


def test_tracks_have_the_frames_of_the_newest_image_and_carry_them_when_it_is_lost() -> (
    None
):
    one = estimate()
    one = replace(one, frames=place(cells(VERTICES), one, frame()))
    flipped = PoseMode(from_parts(TURN, SHIFT), -5.0, one.covariance)
    fused = fuse([one, replace(one, alternatives=(flipped,))])
    assert fused is not None and fused.frames[0].seen
    tracker = Tracker()
    [track] = tracker.update([one], 10**9)
    assert track.estimate.frames[0].seen
    tracker.update([], 2 * 10**9)
    [lost] = tracker.tracks
    assert lost.state == TrackState.LOST
    assert not lost.estimate.frames[0].seen and off(lost.estimate.frames[0], TIP) < 0.1
