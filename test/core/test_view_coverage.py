"""Where views look, which are new and which azimuths are missing.

With the picture that shows it.
"""

from __future__ import annotations

import numpy as np
import pytest

from camera_ring import CENTRE, view
from uns_pose_ros.capture.guidance import (
    HERE,
    MISSING,
    SEEN,
    UNKNOWN,
    Coverage,
    draw_guidance,
)
from uns_pose_ros.core.view_coverage import SECTORS, ViewCoverage, gaps, way_to_gap


def orbit(azimuths: list[float]) -> ViewCoverage:
    return ViewCoverage(view(azimuth) for azimuth in azimuths)


def is_new(kept: ViewCoverage, seen: np.ndarray) -> bool:
    return kept.is_new(seen, angle=8.0, step=0.1, zoom=0.3)


def test_the_centre_is_where_the_optical_axes_meet() -> None:
    found = orbit([0, 20, 40]).center
    assert found is not None
    assert np.allclose(found, CENTRE, atol=1e-9)


def test_a_camera_that_does_not_quite_aim_at_the_object_still_finds_its_centre() -> None:
    rng = np.random.default_rng(0)
    found = ViewCoverage(
        view(10 * k, aim=CENTRE + rng.normal(0, 0.05, 3)) for k in range(12)
    ).center
    assert found is not None
    assert np.linalg.norm(found - CENTRE) < 0.05


@pytest.mark.parametrize("azimuths", [[], [0], [0, 30], [0, 1, 2, 3]])
def test_too_few_and_too_parallel_views_have_no_centre(azimuths: list[float]) -> None:
    kept = orbit(azimuths)
    assert kept.center is None
    assert kept.covered() is None
    assert kept.azimuth(view(0)) is None


def test_axes_that_meet_behind_the_cameras_have_no_centre() -> None:
    away = [view(azimuth, elevation=0.0) for azimuth in (0, 20, 40)]
    for pose in away:
        pose[[0, 2]] *= -1  # turned about the camera's own y axis
    assert ViewCoverage(away).center is None


def test_a_view_is_new_by_its_angle_to_all_kept_or_by_its_distance() -> None:
    kept = orbit([0, 20, 40])
    assert not is_new(kept, view(20))
    assert not is_new(kept, view(47))
    assert is_new(kept, view(49))
    assert is_new(kept, view(20, elevation=29))
    assert not is_new(kept, view(20, distance=1.25))
    assert is_new(kept, view(20, distance=1.35))
    assert is_new(kept, view(20, distance=1 / 1.35))
    assert not is_new(
        kept, view(20, aim=CENTRE + [0, 0, 0.3])
    )  # turned on the spot: nothing new is seen


def test_before_the_centre_is_known_a_turn_or_a_step_makes_a_view_new() -> None:
    assert is_new(ViewCoverage(), view(0))
    kept = orbit([0])
    assert not is_new(kept, view(5))
    assert is_new(kept, view(9))
    beside = view(0)
    beside[0, 3] += 0.09
    assert not is_new(kept, beside)
    beside[0, 3] += 0.02
    assert is_new(kept, beside)


def test_azimuths_grow_to_the_right_of_somebody_who_faces_the_object() -> None:
    kept = orbit([0, 20, 40])
    for azimuth in (0.0, 90.0, 250.0, 359.0):
        assert (
            kept.azimuth(view(azimuth)) == pytest.approx(azimuth, abs=1e-6)
            or azimuth == 0.0
        )
    there = np.append(np.linalg.inv(view(10))[:3, 3], 1.0)
    assert (view(0) @ there)[0] > 0


def test_covered_sectors_are_those_with_a_kept_view() -> None:
    covered = orbit([7, 22, 37, 352, 97]).covered()
    assert covered is not None
    assert np.nonzero(covered)[0].tolist() == [0, 1, 2, 6, 23]
    low, high = orbit([7, 22, 37]).elevations() or (0, 0)
    assert (low, high) == pytest.approx((20, 20))


@pytest.mark.parametrize(
    ("seen", "missing"),
    [
        ([], [(0.0, 360.0)]),
        (range(24), []),
        ([0, 1, 2], [(45.0, 360.0)]),
        ([1, 2], [(45.0, 375.0)]),
        ([0, 12], [(15.0, 180.0), (195.0, 360.0)]),
        ([5, 7], [(90.0, 105.0), (120.0, 435.0)]),
    ],
)
def test_gaps_are_runs_of_sectors_without_a_view(
    seen: list[int], missing: list[tuple[float, float]]
) -> None:
    covered = np.zeros(SECTORS, bool)
    covered[list(seen)] = True
    assert gaps(covered) == missing


def test_the_way_to_the_next_gap_is_the_shorter_one() -> None:
    covered = np.ones(SECTORS, bool)
    assert way_to_gap(covered, 10.0) is None
    covered[23] = False  # its middle: 352.5
    assert way_to_gap(covered, 10.0) == pytest.approx(-17.5)
    covered[1] = False  # its middle: 22.5
    assert way_to_gap(covered, 10.0) == pytest.approx(12.5)


def test_coverage_in_words() -> None:
    covered = np.ones(SECTORS, bool)
    covered[2:8] = False
    coverage = Coverage(30, covered, 0.0, (10.0, 30.0))
    facts = {
        "coverage": "75 %",
        "missing azimuths": "30..120 deg",
        "elevations": "10..30 deg",
    }
    assert coverage.facts() == facts
    assert coverage.advice() == "75 %: next gap 38 deg to the right"
    assert Coverage(30, covered, 125.0, (10.0, 30.0)).advice() == "75 %: go on, left"
    assert Coverage(30, covered, None, (10.0, 30.0)).advice() == "75 % of the azimuths"
    assert (
        "another height" in Coverage(30, np.ones(SECTORS, bool), 0.0, (10.0, 30.0)).advice()
    )
    unknown = Coverage.of(ViewCoverage(), 3, None)
    assert unknown.facts()["coverage"] == unknown.facts()["missing azimuths"] == "unknown"
    assert unknown.advice() == "coverage unknown"


def ring_colours(coverage: Coverage) -> list[tuple[int, ...]]:
    """Colours of the ring at the right, the top, the left and near its bottom, of a picture of 600
    x 400 px.
    """
    picture = draw_guidance(np.zeros((400, 600, 3), np.uint8), coverage, [])
    radius, (x, y) = (
        56,
        (600 - 83, 400 - 83),
    )  # 0.16 of the height, and 1.3 radii from the corner
    angles = np.radians(
        [7.5, 97.5, 187.5, 292.5]
    )  # counter-clockwise from the right, as if from above
    return [
        tuple(
            picture[round(y - radius * np.sin(a)), round(x + radius * np.cos(a))].tolist()
        )
        for a in angles
    ]


def test_the_ring_has_the_camera_at_its_bottom_and_the_right_on_its_right() -> None:
    covered = np.zeros(SECTORS, bool)
    covered[6:12] = True  # azimuths 90 to 180: from a camera at 90 that is the lower right
    coverage = Coverage(9, covered, 90.0, (10.0, 30.0))
    assert ring_colours(coverage) == [MISSING, MISSING, MISSING, SEEN]
    picture = draw_guidance(np.zeros((400, 600, 3), np.uint8), coverage, ["recording"])
    assert (picture[300:] == HERE).all(-1).any()
    assert (picture[:30, :100] == 255).any()  # the line of text


def test_an_unknown_coverage_is_a_grey_ring() -> None:
    assert ring_colours(Coverage(9, None, None, None)) == [UNKNOWN] * 4
