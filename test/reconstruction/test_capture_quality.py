"""How much of an object a camera has seen, and which poses two models share."""

from __future__ import annotations

import pytest
import torch

from uns_pose_ros.reconstruction.capture_quality import azimuth_coverage, consistent_frames


def test_coverage_is_what_the_largest_gap_leaves() -> None:
    from synthetic import look_at

    poses = [torch.from_numpy(look_at(a, 20, 2.0)) for a in range(0, 280, 20)]
    found = azimuth_coverage(poses)
    assert found is not None and found["covered_deg"] == pytest.approx(260, abs=1)
    assert found["largest_gap_deg"] == pytest.approx(100, abs=1)
    assert azimuth_coverage(poses[:2]) is None


def test_poses_that_two_models_give_differently_differ_from_those_that_they_share() -> None:
    from synthetic import look_at

    one = {f"{k:02d}": torch.from_numpy(look_at(20.0 * k, 20, 2.0)) for k in range(12)}
    turn = torch.eye(4, dtype=torch.float64)
    turn[:3, :3] = torch.tensor(
        [[0, -1.0, 0], [0, 0, -1.0], [1.0, 0, 0]], dtype=torch.float64
    )
    other = {name: pose @ turn for name, pose in one.items()}
    assert consistent_frames(one, other, 2.0) == sorted(one)
    wrong = torch.from_numpy(look_at(8.0, 0, 2.0)) @ torch.linalg.inv(
        torch.from_numpy(look_at(0.0, 0, 2.0))
    )
    other |= {name: wrong @ other[name] for name in ("03", "04", "05", "06")}
    del other["11"]
    assert consistent_frames(one, other, 2.0) == ["00", "01", "02", "07", "08", "09", "10"]
    assert consistent_frames(one, {}, 2.0) == []
