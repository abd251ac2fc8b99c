"""Features of an attempt: images are enlarged where they have too few."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from textured import camera_of, write_textured
from uns_pose_ros.core.types import Video
from uns_pose_ros.io.video_folder import load_video
from uns_pose_ros.reconstruction.colmap import sfm_attempt
from uns_pose_ros.reconstruction.colmap_mapper import Attempt, SfmConfig
from uns_pose_ros.reconstruction.structure_from_motion import find_poses


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Video:
    pytest.importorskip("pycolmap")
    folder = tmp_path_factory.mktemp("attempt") / "walk"
    write_textured(folder)
    video = load_video(folder, need_masks=False, need_poses=False)
    known = tuple(replace(frame, camera=camera_of(256)) for frame in video.frames[:9])
    return replace(video, frames=known)


def recorded(
    options: Callable[[Attempt, SfmConfig, bool], Any], calls: list[bool]
) -> Callable[[Attempt, SfmConfig, bool], Any]:
    def extraction_options(attempt: Attempt, config: SfmConfig, doubled: bool) -> Any:
        calls.append(doubled)
        return options(attempt, config, doubled)

    return extraction_options


@pytest.mark.parametrize(("kept", "doubled"), [(2000, True), (100, False)])
def test_images_are_enlarged_only_where_they_have_fewer_features_than_are_kept(
    walk: Video, monkeypatch: pytest.MonkeyPatch, kept: int, doubled: bool
) -> None:
    calls = list[bool]()
    monkeypatch.setattr(
        sfm_attempt,
        "extraction_options",
        recorded(sfm_attempt.extraction_options, calls),
    )
    found = find_poses(walk, "given", config=SfmConfig(threads=2, features=kept))
    assert calls[0] is False and set(calls[1:]) == {doubled}
    assert len(found.images) == 9 and found.report["attempt"] == "plain"
