"""Objects at rest: one pose in the fixed frame from all images of a recording."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from streams import HALF_TURN, estimate, noisy, orbit, pose
from uns_pose_ros.core.geometry import angle_between
from uns_pose_ros.core.types import PoseMode, Symmetry
from uns_pose_ros.training.adaptation.resting_objects import (
    DIVIDED,
    FEW,
    MOVING,
    STILL,
    RestingObject,
    Sighting,
    find_objects,
    fuse_sightings,
)

OBJECT = pose((10.0, -5.0, 70.0), (0.05, -0.03, 0.02))  # fixed_from_canon
SIZE = 0.2  # m


def sightings(
    count: int = 12,
    flipped: Sequence[int] = (),
    metric: bool = True,
    thing: Tensor = OBJECT,
    track: int = 0,
    symmetry: Symmetry | None = None,
    step: float = 12.0,
) -> list[Sighting]:
    """Noisy estimates of an object by a camera that walks around it."""
    generator = torch.Generator().manual_seed(track)
    rows = []
    for k, cam_from_fixed in enumerate(orbit(count, step)):
        seen = noisy(cam_from_fixed @ thing, generator)
        other = seen @ HALF_TURN
        if k in flipped:
            seen, other = other, seen
        if not metric:
            seen[:3, 3] /= SIZE
            other[:3, 3] /= SIZE
        found = estimate(
            seen,
            size=SIZE if metric else 1.0,
            metric=metric,
            alternatives=(PoseMode(other, -0.7),),
            symmetry=symmetry,
        )
        rows.append(Sighting(k, 10**8 * k, track, found, torch.linalg.inv(cam_from_fixed)))
    return rows


def error(found: RestingObject | str, thing: Tensor = OBJECT) -> tuple[float, float]:
    """Of the position, m, and of the rotation, degrees."""
    assert isinstance(found, RestingObject), found
    gap = (found.fixed_from_canon - thing)[:3, 3].norm()
    return float(gap), float(angle_between(found.fixed_from_canon[:3, :3], thing[:3, :3]))


@pytest.mark.parametrize("metric", [True, False], ids=["meters", "diameters"])
def test_noise_is_averaged_flips_are_outvoted_and_directions_give_meters(
    metric: bool,
) -> None:
    found = fuse_sightings(sightings(flipped=(2, 5, 6), metric=metric))
    shift, turn = error(found)
    assert shift < 0.015 and turn < 6
    assert isinstance(found, RestingObject)
    assert found.scale == pytest.approx(SIZE, rel=0.05)
    assert [one.image for one in found.sightings] == list(range(12))


def test_a_size_that_the_model_is_wrong_about_is_measured() -> None:
    larger = [
        replace(
            one,
            estimate=replace(
                one.estimate,
                scale=0.8 * SIZE,
                cam_from_canon=one.estimate.cam_from_canon
                * torch.tensor([[1, 1, 1, 0.8]] * 3 + [[1, 1, 1, 1]]).double(),
            ),
        )
        for one in sightings()
    ]
    found = fuse_sightings(larger)
    assert error(found)[0] < 0.015
    assert isinstance(found, RestingObject) and found.scale == pytest.approx(SIZE, rel=0.05)


def test_an_object_of_a_symmetric_category_may_be_seen_in_any_of_its_turns() -> None:
    found = fuse_sightings(
        sightings(flipped=(0, 2, 4, 6, 8, 10), symmetry=Symmetry(order=2))
    )
    assert isinstance(found, RestingObject)
    turned = found.fixed_from_canon[:3, :3]
    assert (
        min(
            float(angle_between(turned, OBJECT[:3, :3])),
            float(angle_between(turned, (OBJECT @ HALF_TURN)[:3, :3])),
        )
        < 6
    )


def test_what_gives_no_pose_is_named() -> None:
    assert fuse_sightings(sightings(5)) == FEW
    assert fuse_sightings(sightings(metric=False, step=0.1)) == STILL
    assert error(fuse_sightings(sightings(step=0.1)))[0] < 0.05  # meters are known
    assert fuse_sightings(sightings(flipped=range(0, 12, 2))) == DIVIDED
    moving = [
        replace(
            one, fixed_from_cam=pose((0, 0, 0), (0.2 * k, 0.0, 0.0)) @ one.fixed_from_cam
        )
        for k, one in enumerate(sightings())
    ]
    assert fuse_sightings(moving) == MOVING


def test_tracks_at_one_place_are_one_object_and_the_others_are_counted() -> None:
    elsewhere = pose((0.0, 0.0, 15.0), (0.4, 0.5, 0.0))
    second = [
        replace(one, image=one.image + 12, stamp=one.stamp + 10**10)
        for one in sightings(track=1)
    ]
    every = [*second, *sightings(), *sightings(thing=elsewhere, track=2)]
    every += sightings(3, track=3)
    objects, reasons = find_objects(every)
    assert sorted(len(thing.sightings) for thing in objects) == [12, 24]
    whole = next(thing for thing in objects if len(thing.sightings) == 24)
    assert [one.image for one in whole.sightings] == list(range(24))
    assert reasons == {FEW: 1}
    assert math.isclose(whole.scale, SIZE, rel_tol=0.05)
