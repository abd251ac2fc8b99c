"""Poses from images alone, against the poses that the images were rendered from."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from pose_errors import errors
from textured import camera_of, write_textured
from uns_pose_ros.core.camera import assumed_camera
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Frame, Video
from uns_pose_ros.io.images import read_image
from uns_pose_ros.io.video_folder import load_video
from uns_pose_ros.reconstruction import structure_from_motion
from uns_pose_ros.reconstruction.capture_quality import consistent_frames, is_turntable
from uns_pose_ros.reconstruction.colmap import sfm_attempt
from uns_pose_ros.reconstruction.colmap.feature_images import prepare_images
from uns_pose_ros.reconstruction.colmap_mapper import ColmapMapper, MappedModel, SfmConfig
from uns_pose_ros.reconstruction.structure_from_motion import find_poses

CONFIG = SfmConfig(threads=2)


def known(video: Video, size: int = 256) -> Video:
    return replace(
        video,
        frames=tuple(replace(frame, camera=camera_of(size)) for frame in video.frames),
    )


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> tuple[Video, dict[str, np.ndarray]]:
    pytest.importorskip("pycolmap")
    folder = tmp_path_factory.mktemp("sfm") / "walk"
    truth = write_textured(folder)
    return load_video(folder, need_masks=False, need_poses=False), truth


def test_a_walk_around_an_object_on_a_patterned_floor_is_recovered(
    walk: tuple[Video, dict[str, np.ndarray]],
) -> None:
    video, truth = walk
    found = find_poses(known(video), "given", config=CONFIG)
    assert (
        len(found.images) == found.report["registered"] == 14
        and found.report["attempt"] == "plain"
    )
    turn, place = errors(found.images, truth)
    assert turn < 0.5 and place < 0.02
    assert torch.equal(found.camera.matrix, camera_of(256).matrix), (
        "a known camera is not touched"
    )
    assert found.report["coverage"]["covered_deg"] == pytest.approx(130, abs=3)
    assert len(found.points) > 100


def test_an_unknown_focal_length_is_found_with_the_poses(
    walk: tuple[Video, dict[str, np.ndarray]],
) -> None:
    video, truth = walk
    assert float(video.frames[0].camera.matrix[0, 0]) == pytest.approx(221.7, abs=0.1), (
        "60 degrees are assumed"
    )
    found = find_poses(video, "guessed", config=CONFIG)
    assert float(found.camera.matrix[0, 0]) == pytest.approx(256, rel=0.04)
    assert errors(found.images, truth)[0] < 1.0


def grey(video: Video) -> list[np.ndarray]:
    return [
        cv2.cvtColor(read_image(frame.image).numpy(), cv2.COLOR_RGB2GRAY)
        for frame in video.frames
    ]


def test_on_a_turntable_the_background_is_noticed_and_masked_away(
    tmp_path: Path, walk: tuple[Video, dict[str, np.ndarray]]
) -> None:
    truth = write_textured(tmp_path / "table", table=True)
    video = load_video(tmp_path / "table", need_masks=False, need_poses=False)
    assert is_turntable(grey(video)) and not is_turntable(grey(walk[0]))
    found = find_poses(known(video), "given", tmp_path / "table" / "truth", CONFIG)
    assert len(found.images) >= 13 and errors(found.images, truth)[0] < 3.0


def frames(folder: Path, pictures: list[np.ndarray]) -> Video:
    (folder / "images").mkdir(parents=True)
    listed = []
    for k, image in enumerate(pictures):
        path = folder / "images" / f"{k}.png"
        cv2.imwrite(str(path), image)
        listed.append(
            Frame(path.name, path, assumed_camera(image.shape[1], image.shape[0]))
        )
    return Video(folder, tuple(listed))


def test_a_video_that_fails_says_why_and_what_to_film_differently(tmp_path: Path) -> None:
    pytest.importorskip("pycolmap")
    blank = frames(tmp_path / "blank", [np.full((96, 128), 128, np.uint8)] * 4)
    with pytest.raises(
        InvalidInput,
        match=r"blank: 0 of 4 frames got a pose; an image has 0 features, .*pattern",
    ):
        find_poses(blank, config=CONFIG)
    rng = np.random.default_rng(0)
    strangers = [
        cv2.resize(rng.integers(0, 255, (60, 80), np.uint8), (320, 240)).astype(np.uint8)
        for _ in range(4)
    ]
    with pytest.raises(
        InvalidInput,
        match=r"strangers: 0 of 4 .*; 0 pairs of images show the same things: walk slower",
    ):
        find_poses(frames(tmp_path / "strangers", strangers), config=CONFIG)


def test_images_of_several_sizes_are_one_line(tmp_path: Path) -> None:
    video = frames(
        tmp_path / "odd", [np.zeros((96, 128), np.uint8), np.zeros((96, 120), np.uint8)]
    )
    with pytest.raises(
        InvalidInput, match=r"1\.png: 120 x 96 px, the first image has 128 x 96"
    ):
        find_poses(video)


def test_what_two_mappers_disagree_on_is_added_again_to_what_they_agree_on(
    walk: tuple[Video, dict[str, np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A global mapper that turns three images by 20 degrees, as matches of bricks do, changes
    nothing in the end.
    """
    import pycolmap

    video, truth = walk
    before = pycolmap.global_mapping

    def misled(*given: Any) -> dict[int, Any]:
        models = dict(before(*given))
        for model in models.values():
            for image in model.images.values():
                if image.has_pose and image.name in (
                    "000002.jpg",
                    "000003.jpg",
                    "000004.jpg",
                ):
                    pose = image.frame.rig_from_world
                    turn = pycolmap.Rotation3d(np.array([0, np.radians(20.0), 0]))
                    image.frame.rig_from_world = pycolmap.Rigid3d(
                        turn * pose.rotation, pose.translation
                    )
        return models

    monkeypatch.setattr(pycolmap, "global_mapping", misled)
    monkeypatch.setattr(
        structure_from_motion,
        "ATTEMPTS",
        (replace(structure_from_motion.ATTEMPTS[0], use_global_mapper=True),),
    )
    found = find_poses(known(video), "given", config=CONFIG)
    assert len(found.images) == found.report["agreed"] == 14
    assert "doubt" not in found.report
    assert errors(found.images, truth)[0] < 0.5
    poses = {image.name: image.cam_from_obj for image in found.images}
    assert (
        len(
            consistent_frames(
                poses, {name: torch.from_numpy(pose) for name, pose in truth.items()}, 1.5
            )
        )
        == 14
    )


def test_poses_that_another_way_to_compute_them_contradicts_are_doubted(
    walk: tuple[Video, dict[str, np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = ColmapMapper.map_images

    def contradicted(mapper: ColmapMapper) -> list[MappedModel]:
        return [replace(mapped, agreed=3) for mapped in before(mapper)]

    monkeypatch.setattr(ColmapMapper, "map_images", contradicted)
    some = replace(walk[0], frames=known(walk[0]).frames[:6])
    found = find_poses(some, "given", config=CONFIG)
    assert found.report["doubt"] == "two ways to compute them agree on 3 of 6 images"
    assert found.report["agreed"] == 3 and "read_px" not in found.report


def test_features_of_large_images_are_read_in_shrunk_copies(
    walk: tuple[Video, dict[str, np.ndarray]],
) -> None:
    video, truth = walk
    small = replace(CONFIG, size=192)
    some = replace(video, frames=video.frames[:9])
    given = find_poses(known(some), "given", config=small)
    assert errors(given.images, truth)[0] < 0.5 and given.report["read_px"] == 192
    assert torch.equal(given.camera.matrix, camera_of(256).matrix)
    guessed = find_poses(some, "guessed", config=small)
    focal = float(guessed.camera.matrix[0, 0])
    assert focal == pytest.approx(256, rel=0.05) and guessed.camera.width == 256
    assert guessed.report["focal_px"] == pytest.approx(focal, abs=0.01)
    assert guessed.report["focal_start_px"] == pytest.approx(221.7, abs=0.1)
    seen = np.concatenate(list(given.seen.values()))[:, :2]
    assert seen[:, 0].max() > 200, "in px of the video"


def test_masks_are_shrunk_with_the_images_and_small_images_are_read_where_they_are(
    tmp_path: Path,
) -> None:
    video = frames(tmp_path / "clip", [np.full((60, 80), 90, np.uint8)] * 3)
    masks = tmp_path / "masks"
    masks.mkdir()
    mask = np.zeros((60, 80), np.uint8)
    mask[:, 40:] = 255
    cv2.imwrite(str(masks / "0.png.png"), mask)
    camera = video.frames[0].camera
    there = prepare_images(video, camera, masks, 80, tmp_path / "copies")
    assert there.images == video.folder / "images" and there.masks == masks
    assert there.enlargement == 1.0 and not (tmp_path / "copies").exists()
    copies = prepare_images(video, camera, masks, 40, tmp_path / "copies")
    assert copies.enlargement == 2.0 and copies.masks is not None
    assert read_image(copies.images / "2.png").shape == (30, 40, 3)
    shrunk = cv2.imread(str(copies.masks / "0.png.png"), cv2.IMREAD_GRAYSCALE)
    assert np.array_equal(np.asarray(shrunk), mask[::2, ::2])
    assert sorted(path.name for path in copies.masks.iterdir()) == ["0.png.png"]
    points = np.array([[-0.5, -0.5, 2.0], [39.5, 29.5, 3.0]])
    enlarged = copies.enlarge_pixels({"a": points})["a"]
    assert np.allclose(enlarged, [[-0.5, -0.5, 2.0], [79.5, 59.5, 3.0]])


def test_a_relaxed_attempt_says_why_it_starts_and_each_step_how_far_it_is(
    walk: tuple[Video, dict[str, np.ndarray]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(sfm_attempt, "_IMAGES_PER_CORE", 3)
    monkeypatch.setattr(sfm_attempt, "_PAIRS_AT_A_TIME", 12)
    plain = structure_from_motion.ATTEMPTS[0]  # the relaxed one takes longer
    again = replace(plain, name="relaxed", relative_seconds=5.0)
    monkeypatch.setattr(structure_from_motion, "ATTEMPTS", (plain, again))
    shown: list[tuple[str, int, int]] = []
    some = replace(walk[0], frames=known(walk[0]).frames[:8])
    strict = replace(CONFIG, error=0.0)  # px: no result is good enough

    def show(what: str, done: int, total: int) -> None:
        shown.append((what, done, total))

    with caplog.at_level("INFO", "uns_pose_ros"):
        find_poses(some, "given", config=strict, progress=show)
    (line,) = [r.getMessage() for r in caplog.records if "attempt starts" in r.getMessage()]
    assert re.search(
        r"walk: the poses leave errors of 0\.\d\d px, 0\.0 px is good; a relaxed attempt "
        r"starts, about 5 times as long as the plain one \(0:0\d:\d\d h\)$",
        line,
    )
    for attempt in ("plain", "relaxed"):
        assert [s[1:] for s in shown if s[0] == f"walk: features ({attempt})"] == [
            (0, 8),
            (6, 8),
            (8, 8),
        ]
        matches = [s[1:] for s in shown if s[0] == f"walk: matches ({attempt})"]
        assert matches == [(0, 28), (12, 28), (24, 28), (28, 28)]
        poses = [s[1] for s in shown if s[0] == f"walk: poses ({attempt})"]
        assert poses[0] == 0 and poses[-1] == 8 and len(poses) > 4


def test_a_video_with_few_poses_says_their_number_before_a_relaxed_attempt(
    walk: tuple[Video, dict[str, np.ndarray]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    nothing = (None, {"features": 5.0, "pairs": 0, "models": 0})
    monkeypatch.setattr(structure_from_motion, "run_attempt", lambda *_: nothing)
    with caplog.at_level("INFO", "uns_pose_ros"), pytest.raises(InvalidInput):
        find_poses(known(walk[0]), "given", config=CONFIG)
    assert "walk: 0 of 14 frames got a pose; a relaxed attempt starts" in caplog.text
