"""What the other images do not support is cut away and asked again; what is right stays."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from synthetic import write_video
from uns_pose_ros.core.geometry import rotation_from_vector
from uns_pose_ros.core.types import Video
from uns_pose_ros.io.images import read_image, read_mask
from uns_pose_ros.io.video_folder import load_video
from uns_pose_ros.reconstruction.hull_of_others import (
    MaskFit,
    bad_masks,
    judge_masks,
    misfits,
    silhouettes_of_others,
)
from uns_pose_ros.reconstruction.mask_correction import (
    Answer,
    PartAsker,
    cut_unsupported,
    deep_points,
    mend_masks,
)
from uns_pose_ros.reconstruction.mask_voting import MaskConfig, mask_iou
from uns_pose_ros.reconstruction.segmentation import find_masks, summarize_masks

Masks = list[NDArray[np.bool_]]
SMALL = MaskConfig(resolution=32, side=96)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Video:
    folder = tmp_path_factory.mktemp("correction") / "clip"
    write_video(folder, seed=1, views=24, size=96)
    return load_video(folder)


def truth(video: Video) -> Masks:
    return [
        read_mask(frame.mask).numpy() for frame in video.frames if frame.mask is not None
    ]


def viewpoints(video: Video) -> tuple[Tensor, Tensor]:
    poses = [frame.cam_from_obj for frame in video.frames if frame.cam_from_obj is not None]
    return torch.stack([frame.camera.matrix for frame in video.frames]), torch.stack(poses)


def with_neighbors(masks: Masks, numbers: tuple[int, ...]) -> Masks:
    """Glue a thing that touches the object to some masks."""
    glued = [mask.copy() for mask in masks]
    for number in numbers:
        rows, columns = np.nonzero(glued[number])
        row, column = int(np.median(rows)), int(columns.max())
        glued[number][max(0, row - 14) : row + 14, column - 3 : column + 22] = True
    return glued


def test_a_neighbor_in_some_images_is_cut_away_and_the_other_masks_stay(
    video: Video,
) -> None:
    true, wrong = truth(video), (2, 10, 23)
    glued = with_neighbors(true, wrong)
    mended, changed = mend_masks(glued, *viewpoints(video), lambda *about: Answer(), SMALL)
    assert changed == list(wrong)
    for number in wrong:
        assert mask_iou(glued[number], true[number]) < 0.96
        assert mask_iou(mended[number], true[number]) > 0.95


def test_right_masks_stay_where_the_poses_are_wrong(video: Video) -> None:
    true = truth(video)
    matrices, poses = viewpoints(video)
    turned = poses.clone()
    for number in range(len(poses)):  # each camera sees another side than its pose says
        angle = torch.tensor([0.0, 0.0, 1.2 * (-1) ** number], dtype=torch.float64)
        turned[number, :3, :3] = poses[number, :3, :3] @ rotation_from_vector(angle)
    silhouettes = silhouettes_of_others(true, matrices, turned, SMALL.resolution)
    overlap = [mask_iou(one, other) for one, other in zip(true, silhouettes, strict=True)]
    assert np.median(overlap) < 0.8, "the poses are wrong"
    mended, changed = mend_masks(
        true, matrices, turned, lambda *about: Answer([~true[0]]), SMALL
    )
    assert not changed
    assert all(map(np.array_equal, mended, true))


def test_a_filled_hole_that_the_others_see_through_is_opened() -> None:
    ring = np.zeros((80, 80), bool)
    ring[20:60, 20:60] = True
    ring[32:48, 32:48] = False
    filled = ring.copy()
    filled[32:48, 32:48] = True
    assert mask_iou(cut_unsupported(filled, ring), ring) > 0.99


def test_what_the_network_answers_counts_only_if_it_fits_the_others_better(
    video: Video,
) -> None:
    true = truth(video)
    glued = with_neighbors(true, (5,))
    right, _ = mend_masks(
        glued,
        *viewpoints(video),
        lambda number, mask, other: Answer([~other, true[number]]),
        SMALL,
    )
    assert mask_iou(right[5], true[5]) > 0.98
    wrong, _ = mend_masks(
        glued,
        *viewpoints(video),
        lambda number, mask, other: Answer([~other]),
        SMALL,
    )
    assert mask_iou(wrong[5], true[5]) > 0.95, "cut by the hull"


def test_a_lost_part_that_the_others_show_comes_back(video: Video) -> None:
    true = truth(video)
    halved = [mask.copy() for mask in true]
    columns = np.flatnonzero(halved[4].any(0))
    halved[4][:, : int(columns.mean())] = False
    mended, changed = mend_masks(
        halved,
        *viewpoints(video),
        lambda number, mask, other: Answer([true[number]]),
        SMALL,
    )
    assert changed == [4] and mask_iou(mended[4], true[4]) > 0.98


def test_the_network_is_asked_with_points_on_the_object_and_negative_ones_beside_it(
    video: Video,
) -> None:
    true = truth(video)
    [glued] = with_neighbors([true[7]], (0,))
    asked = list[tuple[Tensor, Tensor]]()

    class Network:
        def embed(self, image: NDArray[np.uint8], side: int) -> Tensor:
            self.shape = image.shape[:2]
            assert side == 512
            return torch.zeros(1)

        def masks(
            self, seen: Tensor, points: Tensor, kinds: Tensor, height: int, width: int
        ) -> tuple[Tensor, Tensor]:
            assert (height, width) == self.shape
            asked.append((points, kinds))
            return torch.ones(4, height, width), torch.ones(4)

    reads = list[int]()

    def read(number: int) -> NDArray[np.uint8]:
        reads.append(number)
        return read_image(video.frames[number].image).numpy()

    asker = PartAsker(cache(Network), read)
    answer = asker.ask(7, glued, true[7])
    asker.ask(7, glued, true[7])
    assert reads == [7], "an image is encoded once"
    assert len(answer.objects) == 8 and answer.objects[0].shape == (96, 96)
    assert not answer.neighbors, "a mask of everything is no neighbor"
    kinds = asked[0][1].tolist()
    assert 0 in kinds and kinds[-2:] == [2, 3] and 0 not in asked[1][1].tolist()
    offset = asked[0][0][-2] - torch.tensor(
        [float(np.flatnonzero(true[7].any(axis)).min()) for axis in (0, 1)]
    )
    for (x, y), kind in zip((asked[0][0] - offset).round().long(), kinds, strict=True):
        assert kind > 1 or bool(true[7][y, x]) == (kind == 1)


def test_a_thing_in_front_hides_what_the_hull_shows_there(video: Video) -> None:
    true = truth(video)
    rows, columns = np.nonzero(true[6])
    jar = np.zeros_like(true[6])
    jar[int(np.median(rows)) :, int(np.median(columns)) :] = True
    visible = true[6] & ~jar
    masks = [*true[:6], true[6] | jar, *true[7:]]
    mended, changed = mend_masks(
        masks,
        *viewpoints(video),
        lambda number, mask, other: Answer([visible], [jar]) if number == 6 else Answer(),
        SMALL,
    )
    assert changed == [6] and mask_iou(mended[6], visible) > 0.98


def test_poses_that_are_inexact_for_all_do_not_condemn_all() -> None:
    fits = {str(k): MaskFit(0.7, 0.1 + 0.005 * k, 0.02) for k in range(12)}
    assert misfits(fits, 0.6, 0.05, 0.15) == []
    fits["bad"] = MaskFit(0.65, 0.4, 0.0)
    assert misfits(fits, 0.6, 0.05, 0.15) == ["bad"] and misfits({}, 1, 0, 0) == []


def test_all_bad_masks_of_a_video_are_named(video: Video) -> None:
    names = [frame.name for frame in video.frames]
    glued = with_neighbors(truth(video), (1, 11, 22))
    fits = judge_masks(dict(zip(names, glued, strict=True)), *viewpoints(video), 32)
    assert bad_masks(fits, SMALL) == [names[k] for k in (1, 11, 22)]


def test_masks_found_without_a_network_are_mended_and_counted(video: Video) -> None:
    true = truth(video)
    glued = with_neighbors(true, (3, 8))
    answers = {
        read_image(frame.image).numpy().tobytes(): mask
        for frame, mask in zip(video.frames, glued, strict=True)
    }

    def salience(image: NDArray[np.uint8]) -> NDArray[np.float32]:
        mask = answers.get(image.tobytes(), np.zeros(image.shape[:2], bool))
        return np.where(mask, 0.99, 0.01).astype(np.float32)

    found = find_masks(
        video, salience, MaskConfig(resolution=32, side=96, vote=0.1, needed=-2.9)
    )
    assert set(found.mended) >= {video.frames[3].name, video.frames[8].name}
    assert summarize_masks(found, SMALL)["mended"] == list(found.mended)
    assert min(map(mask_iou, found.masks.values(), true)) > 0.9


def test_points_are_deep_and_apart() -> None:
    mask = np.zeros((40, 80), bool)
    mask[10:30, 5:25] = mask[15:25, 60:70] = True
    first, second = deep_points(mask, 2)
    assert 13 <= first[0] <= 16 and 63 <= second[0] <= 66
    assert deep_points(np.zeros((5, 5), bool), 3) == []
