"""Which images are matched, and how the order of the film tells cameras that are turned around."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from synthetic import look_at
from uns_pose_ros.core.camera import assumed_camera
from uns_pose_ros.core.types import Frame, Video
from uns_pose_ros.io.colmap import SparseImage
from uns_pose_ros.reconstruction import structure_from_motion
from uns_pose_ros.reconstruction.colmap.image_pairs import (
    find_jump,
    match_neighbors,
    select_pairs,
)
from uns_pose_ros.reconstruction.colmap.sfm_attempt import Poses
from uns_pose_ros.reconstruction.colmap_mapper import Attempt, SfmConfig
from uns_pose_ros.reconstruction.structure_from_motion import find_poses


def orbit(azimuths: Sequence[float]) -> tuple[SparseImage, ...]:
    return tuple(
        SparseImage(f"{k:02d}.jpg", 1, torch.from_numpy(look_at(a, 20, 2.0)))
        for k, a in enumerate(azimuths)
    )


WALK = [15.0 * k for k in range(24)]
TURNED = [*WALK[:5], *(a + 180 for a in WALK[5:9]), *WALK[9:]]  # by what stands there twice


def test_a_turned_part_of_a_walk_is_a_jump_and_an_even_walk_is_none() -> None:
    jump = find_jump(orbit(TURNED))
    assert jump is not None and (jump.before, jump.after) in (
        ("04.jpg", "05.jpg"),
        ("08.jpg", "09.jpg"),
    )
    assert str(jump).startswith("the camera jumps by 1") and jump.degrees > 120
    assert find_jump(orbit(WALK)) is None
    assert find_jump(orbit([40.0 * k for k in range(9)])) is None, (
        "few photographs, far apart"
    )
    shuffled = torch.randperm(24, generator=torch.Generator().manual_seed(0)).tolist()
    assert find_jump(orbit([WALK[k] for k in shuffled])) is None, "in no order"
    assert find_jump(orbit(TURNED[4:6])) is None


def test_neighbors_alone_reach_no_image_on_the_other_side() -> None:
    for count in (8, 24, 40, 200):
        pairs = select_pairs(count, match_neighbors(SfmConfig(), count))
        assert max(j - i for i, j in pairs) <= max(2, round(0.2 * count))
        assert {(k, k + 1) for k in range(count - 1)} <= set(pairs)


class Mapper:
    """Stands in for the mapper: azimuths with matches of all images, and of neighbors."""

    def __init__(self, all_images: Sequence[float], neighbors: Sequence[float]) -> None:
        self.results = {"all": orbit(all_images), "neighbors": orbit(neighbors)}

    def __call__(self, task: Any, attempt: Attempt, work: Path) -> tuple[Poses, Any]:
        images = self.results["all" if task.config.all_pairs else "neighbors"]
        report = {"attempt": attempt.name, "registered": len(images)}
        points = torch.zeros(9, 3, dtype=torch.float64)
        facts = {"features": 500.0, "pairs": 20, "models": 1}
        return Poses(task.camera, images, points, report), facts


@pytest.mark.parametrize(
    ("all_images", "neighbors", "attempt"),
    [
        (TURNED, WALK, "neighbors"),
        (TURNED, WALK[:23], "plain"),  # fewer images: two walks, each in order
        (TURNED, TURNED, "plain"),  # the camera did jump
        (WALK, WALK, "plain"),
    ],
)
def test_where_the_camera_jumps_neighbors_decide_if_they_place_all_images_without_a_jump(
    all_images: list[float],
    neighbors: list[float],
    attempt: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(structure_from_motion, "run_attempt", Mapper(all_images, neighbors))
    camera = assumed_camera(320, 240)
    frames = tuple(Frame(f"{k:02d}.jpg", Path(f"{k:02d}.jpg"), camera) for k in range(24))
    found = find_poses(Video(Path("clip"), frames))
    assert found.report["attempt"] == attempt
    assert (find_jump(found.images) is None) == (
        attempt == "neighbors" or all_images is WALK
    )


def test_long_videos_match_neighbours_and_a_net_that_closes_the_loop() -> None:
    config = SfmConfig(all_pairs=4, overlap=2, net=5)
    assert len(select_pairs(4, config)) == 6
    pairs = select_pairs(11, config)
    assert {(0, 1), (0, 2), (8, 10), (0, 5), (0, 10), (5, 10)} <= set(pairs)
    assert len(pairs) == len(set(pairs)) == 10 + 9 + 3 and all(i < j for i, j in pairs)
