"""Videos of pictures alone become videos with poses and masks; what was given is never touched."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pose_errors import errors
from small_category import RECONSTRUCT
from synthetic import write_video
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.colmap import read_sparse, write_sparse
from uns_pose_ros.io.images import read_image, read_mask
from uns_pose_ros.io.video_folder import load_video
from uns_pose_ros.networks import u2net
from uns_pose_ros.pipeline import reconstruction_stage
from uns_pose_ros.pipeline.poses_and_masks.mask_preparation import ensure_masks
from uns_pose_ros.pipeline.poses_and_masks.pose_preparation import ensure_poses
from uns_pose_ros.pipeline.preparation import prepare_videos
from uns_pose_ros.pipeline.provenance import MADE, FileCache, video_inputs
from uns_pose_ros.reconstruction.mask_voting import MaskConfig, mask_iou
from walks import CONFIG, write_walk

MASKS = MaskConfig(resolution=32, side=96)


class Oracle:
    """A network that knows the true mask of every image, and sees nothing in parts of one."""

    def __init__(self, folder: Path) -> None:
        self.true = {
            read_image(path).numpy().tobytes(): read_mask(
                folder / "truth" / f"{path.name}.png"
            ).numpy()
            for path in (folder / "images").iterdir()
        }

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        mask = self.true.get(image.tobytes())
        return (
            np.zeros(image.shape[:2], np.float32)
            if mask is None
            else mask.astype(np.float32)
        )


def test_pictures_alone_become_a_mesh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pycolmap")
    folder = tmp_path / "truck" / "clip_01"
    truth = write_walk(folder, views=10)
    monkeypatch.setattr(u2net, "load_salience", lambda: Oracle(folder))
    assert reconstruction_stage.reconstruct(
        tmp_path / "truck", config=RECONSTRUCT, sfm=CONFIG, masks=MASKS
    ) == {"clip_01": True}
    sparse = read_sparse(folder / "sparse")
    assert len(sparse.images) == 10 and errors(sparse.images, truth)[0] < 1.0
    paths = [
        [folder / kind / f"{name}.png" for kind in ("masks", "truth")] for name in truth
    ]
    found = [
        mask_iou(read_mask(ours).numpy(), read_mask(true).numpy()) for ours, true in paths
    ]
    assert np.mean(found) > 0.9
    record = json.loads((folder / "video.json").read_text())
    assert (
        record["poses"]["registered_fraction"] == 1.0
        and record["poses"]["turntable"] is False
    )
    assert record["masks"]["fused"] is True and record["masks"]["bad"] == []
    mesh = artifacts.load_feature_mesh(folder)
    assert len(mesh.vertices) > 50
    assert reconstruction_stage.reconstruct(
        tmp_path / "truck", config=RECONSTRUCT, sfm=CONFIG, masks=MASKS
    ) == {"clip_01": False}, "all of it is there"


def test_poses_are_found_again_when_a_picture_changes_and_masks_follow(
    tmp_path: Path,
) -> None:
    pytest.importorskip("pycolmap")
    folder = tmp_path / "clip"
    write_walk(folder, views=9)
    assert ensure_poses(folder, CONFIG) and not ensure_poses(folder, CONFIG)
    assert ensure_masks(folder, lambda: Oracle(folder), MASKS) and not ensure_masks(
        folder, lambda: Oracle(folder), MASKS
    )
    (folder / "images" / "000008.jpg").unlink()
    assert ensure_poses(folder, CONFIG) and len(read_sparse(folder / "sparse").images) == 8
    assert (
        ensure_masks(folder, lambda: Oracle(folder), MASKS)
        and len(list((folder / "masks").glob("*.png"))) == 8
    )
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_given_poses_and_masks_are_never_touched(tmp_path: Path) -> None:
    write_video(tmp_path / "clip", seed=1, views=5, size=48)
    before = video_inputs(tmp_path / "clip", FileCache())
    assert prepare_videos([tmp_path / "clip"]) == {"clip": []}
    assert video_inputs(tmp_path / "clip", FileCache()) == before


def test_cameras_are_placed_again_in_computed_poses_and_never_in_given_ones(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "clip"
    write_video(folder, seed=1, views=24, size=96)
    (folder / "masks").rename(folder / "truth")
    model = read_sparse(folder / "sparse")
    images = list(model.images)
    beside = images[4].cam_from_obj.clone()
    beside[0, 3] += 0.5 * beside[:3, 3].norm()
    images[4] = replace(images[4], cam_from_obj=beside)
    write_sparse(folder / "sparse", model.cameras, images, model.points)
    shutil.copytree(folder, tmp_path / "given")
    artifacts.write_json(
        folder / "sparse" / MADE,
        {"provenance": {"stage": "sfm"}, "report": {"calibration": "guessed"}},
    )
    for video in (folder, tmp_path / "given"):
        load = partial(Oracle, video)
        assert ensure_masks(video, load, MASKS)
        assert not ensure_masks(video, load, MASKS), "it is current"
    name = images[4].name
    true, found = model.images[4].cam_from_obj, read_sparse(folder / "sparse").images
    assert (found[4].cam_from_obj - true)[:3, 3].norm() < 0.1 * true[:3, 3].norm()
    assert all(
        torch.allclose(found[k].cam_from_obj, images[k].cam_from_obj, atol=1e-9)
        for k in range(24)
        if k != 4
    )
    record = json.loads((folder / "video.json").read_text())
    assert record["poses"] == {"calibration": "guessed", "placed": [name]}
    assert (
        f"{folder}: in 1 images the object is not where the camera poses say" in caplog.text
    )
    given = read_sparse(tmp_path / "given" / "sparse").images
    assert torch.allclose(given[4].cam_from_obj, beside, atol=1e-9)


def test_a_turntable_is_solved_with_masks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pycolmap")
    folder = tmp_path / "clip"
    truth = write_walk(folder, table=True)
    monkeypatch.setattr(u2net, "load_salience", lambda: Oracle(folder))
    assert ensure_poses(folder, CONFIG)
    assert json.loads((folder / "video.json").read_text())["poses"]["turntable"] is True
    assert errors(read_sparse(folder / "sparse").images, truth)[0] < 3


def test_a_killed_preparation_leaves_nothing_that_counts(tmp_path: Path) -> None:
    write_video(tmp_path / "clip", seed=1, views=5, size=48)
    folder = tmp_path / "clip"
    shutil.move(folder / "masks", folder / "truth")
    (folder / ".masks.making").mkdir()  # as a killed process leaves it
    (folder / ".masks.making" / "000000.jpg.png").write_bytes(b"half")
    assert ensure_masks(folder, lambda: Oracle(folder), MASKS)
    assert len(load_video(folder).frames) == 5 and not (folder / ".masks.making").exists()


def test_one_video_that_fails_does_not_keep_the_others_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pycolmap")
    for name in ("clip_01", "clip_02"):
        write_video(tmp_path / name, seed=1, views=5, size=48)
        shutil.move(tmp_path / name / "masks", tmp_path / name / "truth")
    shutil.rmtree(
        tmp_path / "clip_01" / "sparse"
    )  # bare trucks, far apart: nothing to hold on to
    monkeypatch.setattr(u2net, "load_salience", lambda: Oracle(tmp_path / "clip_02"))
    with pytest.raises(
        InvalidInput, match="clip_01: 0 of 5 frames got a pose; an image has .* features"
    ):
        prepare_videos([tmp_path / "clip_01", tmp_path / "clip_02"], CONFIG)
    assert (tmp_path / "clip_02" / "masks" / MADE).exists()
    assert not (tmp_path / "clip_01" / "sparse").exists()
