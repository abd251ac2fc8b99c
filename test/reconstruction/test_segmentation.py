"""Masks made consistent over a video.

Against true masks, from a network whose mistakes are scripted.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from synthetic import write_video
from uns_pose_ros.core.camera import undistort
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Camera, Video
from uns_pose_ros.io.images import read_image, read_mask
from uns_pose_ros.io.video_folder import load_video
from uns_pose_ros.networks import pretrained_weights
from uns_pose_ros.networks.u2net import load_salience
from uns_pose_ros.reconstruction.hull_of_others import bad_masks, judge_masks
from uns_pose_ros.reconstruction.mask_voting import (
    MaskConfig,
    central_component,
    mask_iou,
)
from uns_pose_ros.reconstruction.segmentation import (
    distort_mask,
    find_masks,
    summarize_masks,
)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Video:
    folder = tmp_path_factory.mktemp("masks") / "clip"
    write_video(folder, seed=1, views=12, size=96)
    return load_video(folder)


def truth(video: Video) -> dict[str, NDArray[np.bool_]]:
    return {
        frame.name: read_mask(frame.mask).numpy()
        for frame in video.frames
        if frame.mask is not None
    }


class Scripted:
    """Knows the true masks.

    In every third image it takes a corner for the object as well, or half of the object away.
    """

    def __init__(self, video: Video) -> None:
        self.true = [
            (read_image(frame.image).numpy(), read_mask(frame.mask).numpy())
            for frame in video.frames
            if frame.mask
        ]
        self.calls = 0

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        index = self.calls
        self.calls += 1
        if index < len(self.true):
            mask = self.true[index][1].copy()
            if index % 3 == 1:
                mask[:20, :20] = True
            if index % 3 == 2:
                mask[:, :48] = False
            return np.where(mask, 0.98, 0.02).astype(np.float32)
        # the second look, at a part of an image: nothing is found there
        return np.full(image.shape[:2], 0.02, np.float32)


def test_what_single_images_miss_or_add_is_outvoted(video: Video) -> None:
    salience = Scripted(video)
    true = truth(video)
    single = {
        frame.name: salience(read_image(frame.image).numpy()) > 0.5
        for frame in video.frames
    }
    before = [mask_iou(single[name], true[name]) for name in true]
    found = find_masks(video, Scripted(video), MaskConfig(vote=1.5))
    after = [mask_iou(found.masks[name], true[name]) for name in true]
    assert np.mean(after) > np.mean(before) + 0.05 and min(after) > min(before) + 0.05


def test_right_masks_stay_as_they_are(video: Video) -> None:
    true = truth(video)
    pictures = {
        read_image(frame.image).numpy().tobytes(): true[frame.name]
        for frame in video.frames
    }

    def salience(image: NDArray[np.uint8]) -> NDArray[np.float32]:
        mask = pictures.get(image.tobytes())
        return (
            np.zeros(image.shape[:2], np.float32)
            if mask is None
            else mask.astype(np.float32)
        )

    found = find_masks(video, salience, MaskConfig(resolution=32, side=96))
    assert min(mask_iou(found.masks[name], true[name]) for name in true) > 0.9
    assert found.bad(MaskConfig()) == []
    assert min(fit.overlap for fit in found.fits.values()) > 0.6 and found.mended == ()
    assert summarize_masks(found, MaskConfig())["bad"] == []


def test_large_images_are_looked_at_small_and_get_masks_of_their_size(
    video: Video,
) -> None:
    shapes = set()

    def salience(image: NDArray[np.uint8]) -> NDArray[np.float32]:
        shapes.add(max(image.shape[:2]))
        bright = np.abs(image.astype(float) - image[:3].mean((0, 1))).max(-1) > 45
        return bright.astype(np.float32)

    found = find_masks(video, salience, MaskConfig(size=64, resolution=32, side=64))
    assert max(shapes) == 64
    assert {mask.shape for mask in found.masks.values()} == {(96, 96)}
    assert (
        np.mean([mask_iou(found.masks[name], mask) for name, mask in truth(video).items()])
        > 0.7
    )


def test_a_mask_that_does_not_fit_the_others_is_noticed(video: Video) -> None:
    masks = truth(video)
    wrong = video.frames[4].name
    masks[wrong] = np.roll(masks[wrong], 30, axis=1)
    matrices = torch.stack([frame.camera.matrix for frame in video.frames])
    poses = torch.stack(
        [frame.cam_from_obj for frame in video.frames if frame.cam_from_obj is not None]
    )
    fits = judge_masks(masks, matrices, poses)
    assert bad_masks(fits, MaskConfig()) == [wrong]
    assert max(fits, key=lambda name: fits[name].doubt) == wrong
    nothing = {name: np.zeros_like(mask) for name, mask in masks.items()}
    assert judge_masks(nothing, matrices, poses) == {}


def test_without_poses_the_part_in_the_middle_is_kept(video: Video) -> None:
    blind = replace(
        video, frames=tuple(replace(frame, cam_from_obj=None) for frame in video.frames)
    )
    found = find_masks(blind, Scripted(video))
    assert found.fits == {} and summarize_masks(found, MaskConfig())["fused"] is False
    assert all(
        cv2.connectedComponents(mask.astype(np.uint8))[0] <= 2
        for mask in found.masks.values()
    )


def test_a_mask_is_stored_as_the_camera_sees_it() -> None:
    matrix = torch.tensor([[60.0, 0, 39.5], [0, 60, 29.5], [0, 0, 1]]).double()
    camera = Camera(matrix, 80, 60, torch.tensor([0.8, 0, 0, 0]).double())
    seen = np.zeros((60, 80), bool)
    seen[20:45, 30:60] = True
    _, straight, _ = undistort(
        torch.zeros(60, 80, 3, dtype=torch.uint8), torch.from_numpy(seen), camera
    )
    assert straight is not None and mask_iou(straight.numpy(), seen) < 0.95
    assert mask_iou(distort_mask(straight.numpy(), camera), seen) > 0.95


def test_central_prefers_the_middle_to_a_larger_thing_at_the_border() -> None:
    mask = np.zeros((60, 80), bool)
    mask[:, :12] = True
    mask[25:40, 32:50] = True
    assert central_component(mask).sum() == 15 * 18 and central_component(mask)[30, 40]
    assert not central_component(np.zeros((5, 5), bool)).any()


def test_an_orbit_without_an_object_is_one_line(video: Video) -> None:
    with pytest.raises(
        InvalidInput,
        match="clip: no object in the middle of the orbit; keep it in the middle",
    ):
        find_masks(video, lambda image: np.zeros(image.shape[:2], np.float32))


def test_the_network_finds_the_truck() -> None:
    if not (pretrained_weights.cache_folder() / "u2netp.onnx").is_file():
        pytest.skip("the weights u2netp are not in the cache")
    pytest.importorskip("onnxruntime")
    from synthetic import look_at
    from textured import camera_of, picture

    image, mask = picture(look_at(40, 30, 1.9), camera_of(320), table=False)
    found = load_salience(threads=1)(image)
    assert found.shape == mask.shape and found.dtype == np.float32
    assert mask_iou(found > 0.5, mask) > 0.88  # 0.92 was found


def test_a_file_that_is_no_network_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "u2netp.onnx").write_bytes(b"no network")
    with pytest.raises(InvalidInput, match=r"u2netp\.onnx: not U2-Net-P in ONNX"):
        load_salience(tmp_path / "u2netp.onnx")
