"""The benchmark of given alignments: which votes are wrong where a consensus is below them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
HALF_TURN = torch.diag(torch.tensor([-1.0, -1, 1, 1], dtype=torch.float64))


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import co3d_alignments

    return co3d_alignments


def poses_of(flipped: list[list[int]]) -> torch.Tensor:
    """Poses of four videos, all with the same label, against some references."""
    poses = torch.eye(4, dtype=torch.float64).repeat(len(flipped), 4, 1, 1)
    for frame, videos in enumerate(flipped):
        for video in videos:
            poses[frame, video] = HALF_TURN
    return poses


def test_the_votes_of_each_labeled_reference_are_rated(benchmark: Any) -> None:
    label = torch.eye(3, dtype=torch.float64).repeat(4, 1, 1)
    label[3] = torch.nan  # not labeled
    rated = benchmark.rate_votes(poses_of([[1, 3], []]), [0, 1], label)
    assert rated["wrong_votes"] == {"0": [1, 1, 2], "1": [0, 0, 2]}
    assert (rated["pairs"], rated["acc30"]) == (4, 75)
    assert rated["half_turn_aware"]["acc10"] == 100


def test_a_category_whose_consensus_is_below_its_votes_is_named_with_the_cause(
    benchmark: Any,
) -> None:
    # a, b and d see the others of d half turned, c does not
    poses = poses_of([[3], [3], [], [0, 1, 2]])
    eye = torch.eye(3, dtype=torch.float64)
    pack = {
        "mug/sequences": list("abcd"),
        "mug/references": list("abcd"),
        "mug/reference_from_obj_some": poses.numpy(),
        "mug/label_canon_from_obj": eye.repeat(4, 1, 1).numpy(),
    }
    result = benchmark.benchmark(pack, "some")
    assert result["acc30"] == 50 and result["half_turn_aware"]["acc30"] == 100
    votes = result["categories"]["mug"]["votes"]
    assert votes["wrong_votes"]["3"] == [3, 3, 3]
    assert benchmark.below_votes(result)[0].startswith(
        f"mug: consensus 50, votes {votes['acc30']:.0f} @30°; 5 of 12 votes are wrong, 5 of them "
    )
