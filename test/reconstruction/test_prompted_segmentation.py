"""Points in one image become masks of all.

What is given, how it is followed, and what MobileSAM itself answers.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from synthetic import write_video
from uns_pose_ros.cli.main import main
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Camera, Video
from uns_pose_ros.io.artifacts import read_json
from uns_pose_ros.io.images import read_image, read_mask
from uns_pose_ros.io.video_folder import load_video
from uns_pose_ros.networks import mobile_sam
from uns_pose_ros.pipeline.poses_and_masks import mask_preparation
from uns_pose_ros.pipeline.poses_and_masks.mask_preparation import ensure_masks
from uns_pose_ros.reconstruction.mask_voting import MaskConfig, mask_iou
from uns_pose_ros.reconstruction.prompted_segmentation import (
    FILE,
    PromptedSegmenter,
    Prompts,
    read_prompts,
    write_prompts,
)
from uns_pose_ros.reconstruction.segmentation import find_masks
from weight_cache import cached

SMALL = MaskConfig(resolution=32, side=96)
MIDDLE = Prompts(((48.0, 48.0),), frame="000005.jpg")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Video:
    folder = tmp_path_factory.mktemp("prompts") / "clip"
    write_video(folder, seed=1, views=24, size=96)
    return load_video(folder)


def truth(video: Video) -> list[NDArray[np.bool_]]:
    return [
        read_mask(frame.mask).numpy() for frame in video.frames if frame.mask is not None
    ]


class Oracle:
    """Knows the true mask of every image and answers with it where most points are on the
    object, else with the rest.
    """

    def __init__(self, video: Video, blind: tuple[int, ...] = ()) -> None:
        self.true, self.blind = truth(video), blind
        self.pictures = [read_image(frame.image).numpy() for frame in video.frames]
        self.embedded, self.asked = list[int](), list[tuple[Tensor, Tensor]]()

    def embed(self, image: NDArray[np.uint8], side: int = 1024) -> Tensor:
        numbers = [
            k for k, picture in enumerate(self.pictures) if np.array_equal(picture, image)
        ]
        if not numbers:
            return torch.tensor(-1)  # a part of an image
        [number] = numbers
        self.embedded.append(number)
        return torch.tensor(number)

    def masks(
        self, seen: Tensor, points: Tensor, kinds: Tensor, height: int, width: int
    ) -> tuple[Tensor, Tensor]:
        if int(seen) < 0:
            return torch.full((4, height, width), -6.0), torch.ones(4)
        self.asked.append((points, kinds))
        mask = torch.from_numpy(self.true[int(seen)])
        inside = [
            bool(mask[int(y), int(x)])
            for (x, y), kind in zip(points.round(), kinds, strict=True)
            if kind == 1
        ]
        if 2 * sum(inside) <= len(inside) or int(seen) in self.blind:
            mask = ~mask
        left = mask.clone()
        left[:, width // 2 :] = False
        doubtless = left if len(points) == 1 else mask
        return 12 * torch.stack([doubtless, left, mask, left]).float() - 6, torch.tensor(
            [0.5, 0.6, 0.9, 0.2]
        )


def fits(video: Video, oracle: Oracle, config: MaskConfig = SMALL) -> list[float]:
    found = find_masks(
        video, PromptedSegmenter(MIDDLE, oracle, config), config
    ).masks.values()
    return [mask_iou(one, other) for one, other in zip(found, truth(video), strict=True)]


def test_one_point_in_one_image_is_enough_for_all_and_each_is_looked_at_once(
    video: Video,
) -> None:
    oracle = Oracle(video)
    assert min(fits(video, oracle)) > 0.95
    assert oracle.embedded == [*range(5, 24), 4, 3, 2, 1, 0], (
        "from the image that was pointed at"
    )
    points, kinds = oracle.asked[0]
    assert (points.tolist(), kinds.tolist()) == ([[48.0, 48.0]], [1])
    mask = truth(video)[5]
    points, kinds = oracle.asked[1]
    assert kinds.tolist()[-2:] == [2, 3] and set(kinds.tolist()[:-2]) == {1}, (
        "points deep in the last mask and its box"
    )
    assert (
        np.abs(
            points[-2:].numpy()
            - [[f(np.flatnonzero(mask.any(k))) for k in (0, 1)] for f in (min, max)]
        ).max()
        < 25
    )


def test_images_in_which_the_network_sees_something_else_follow_the_vote_of_the_others(
    video: Video,
) -> None:
    found = fits(video, Oracle(video, blind=(8, 9)))
    assert min(found[:8] + found[10:]) > 0.9
    assert min(found[8:10]) > 0.5


def test_without_poses_the_object_is_followed_from_image_to_image(
    tmp_path: Path,
) -> None:
    write_video(tmp_path / "clip", seed=1, views=72, size=64)
    video = load_video(tmp_path / "clip")
    ring = tuple(replace(frame, cam_from_obj=None) for frame in video.frames[1::2])
    rows, columns = np.nonzero(truth(video)[1])
    middle = Prompts(((float(np.median(columns)), float(np.median(rows))),))
    found = find_masks(
        replace(video, frames=ring), PromptedSegmenter(middle, Oracle(video)), SMALL
    )
    fit = [
        mask_iou(found.masks[frame.name], mask)
        for frame, mask in zip(ring, truth(video)[1::2], strict=True)
    ]
    assert np.mean(fit) > 0.95 and min(fit) > 0.5
    assert found.fits == {}


def test_points_are_where_the_camera_would_see_them_without_distortion_in_a_smaller_image(
    video: Video,
) -> None:
    camera = video.frames[0].camera
    bent = Camera(
        camera.matrix,
        camera.width,
        camera.height,
        torch.tensor([0.4, 0, 0, 0], dtype=torch.float64),
    )
    half = Camera(camera.matrix / 2, 48, 48)
    prompts = Prompts(((80.0, 60.0),), ((47.5, 47.5),))
    points, kinds = PromptedSegmenter(prompts, Oracle(video))._prompt_points(
        replace(video.frames[0], camera=bent), half
    )
    assert kinds.tolist() == [1, 0]
    x, y = (
        (float(v) - float(c)) / 153.6
        for v, c in zip((points[0] + 0.5) * 2 - 0.5, (47.5, 47.5), strict=True)
    )
    factor = 1 + 0.4 * (x * x + y * y)
    assert [153.6 * v * factor + 47.5 for v in (x, y)] == pytest.approx([80, 60], abs=0.05)
    assert points[1].tolist() == pytest.approx([23.5, 23.5])


@pytest.mark.parametrize(
    ("prompts", "reason"),
    [
        (
            Prompts(((96.0, 3.0),)),
            r"000000\.jpg: the points \[\[96\.0, 3\.0\]\] are not all in the image of 96 x 96 px",
        ),
        (
            Prompts(((3.0, 3.0),), frame="7.jpg"),
            r"no usable image is called '7\.jpg'; there are 000000\.jpg",
        ),
    ],
)
def test_points_that_are_nowhere_are_one_line(
    video: Video, prompts: Prompts, reason: str
) -> None:
    with pytest.raises(InvalidInput, match=reason):
        find_masks(video, PromptedSegmenter(prompts, Oracle(video)), SMALL)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        '{"points": []}',
        '{"points": [[1]]}',
        '{"points": [["a", 2]]}',
        '{"points": [[1, NaN]]}',
    ],
)
def test_a_file_that_holds_no_prompts_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(InvalidInput, match=r"prompts\.json: ") as caught:
        read_prompts(tmp_path)
    assert len(str(caught.value).splitlines()) == 1


def test_prompts_are_kept_and_masks_follow_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, used = tmp_path / "mug" / "clip", list[str]()
    write_video(folder, seed=1, views=24, size=96)
    oracle = Oracle(load_video(folder))
    for path in (folder / "masks").iterdir():
        path.unlink()
    (folder / "masks").rmdir()

    def find(name: str) -> Path:
        used.append(name)
        return folder / "sparse" / "cameras.txt"

    def salience(image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """A disc in the middle."""
        row, column = np.mgrid[: image.shape[0], : image.shape[1]]
        near = np.hypot(row - image.shape[0] / 2, column - image.shape[1] / 2) < 0.2 * min(
            image.shape[:2]
        )
        return np.where(near, 0.95, 0.05).astype(np.float32)

    def make() -> bool:
        return ensure_masks(folder, lambda: salience, SMALL, None, lambda: oracle)

    monkeypatch.setattr(mask_preparation.pretrained_weights, "find", find)
    prompts = Prompts(((48.0, 48.0),), ((1.0, 2.0),), "000005.jpg")
    write_prompts(folder, prompts)
    assert read_prompts(folder) == prompts
    assert make() and not make() and set(used) == {"mobile_sam"}
    found = [
        mask_iou(read_mask(folder / "masks" / f"{k:06d}.jpg.png").numpy(), mask)
        for k, mask in enumerate(oracle.true)
    ]
    assert min(found) > 0.95
    write_prompts(folder, MIDDLE)
    assert make(), "other prompts"
    (folder / FILE).unlink()
    assert make() and used[-1] == "u2netp"
    assert (
        mask_iou(read_mask(folder / "masks" / "000000.jpg.png").numpy(), oracle.true[0])
        < 0.9
    )


def test_the_command_takes_points_of_one_video_and_says_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        write_video(tmp_path / "mug" / name, seed=1, views=3, size=64)
    for path in (tmp_path / "mug" / "b" / "masks").iterdir():
        path.unlink()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def said(*words: str) -> str:
        assert main(["mask", str(tmp_path / "mug"), *words]) == 2
        return capsys.readouterr().err

    assert "2 are named: --videos NAME names it" in said("--points", "3", "4")
    assert "given and are never touched" in said("--videos", "a", "--points", "3", "4")
    assert "go with --points" in said("--videos", "b", "--background", "3", "4")
    words = (
        "--videos",
        "b",
        "--points",
        "3",
        "4",
        "5",
        "6",
        "--background",
        "7",
        "8",
        "--frame",
        "000001.jpg",
    )
    assert "`uns-pose weights mobile_sam` fetches them" in said(*words)
    record = read_json(tmp_path / "mug" / "b" / FILE)
    assert record == {
        "points": [[3, 4], [5, 6]],
        "background": [[7, 8]],
        "frame": "000001.jpg",
    }


def test_attention_within_windows_has_one_bias_an_offset() -> None:
    """Against a slow twin that numbers offsets as they come, as the authors do."""
    numbers: dict[Any, int] = {}
    places = [(row, column) for row in range(3) for column in range(3)]
    expected = [
        [numbers.setdefault((abs(a - c), abs(b - d)), len(numbers)) for c, d in places]
        for a, b in places
    ]
    assert mobile_sam._WindowAttention(8, 2, 3).offset.tolist() == expected


def test_a_block_does_not_look_beyond_its_windows() -> None:
    torch.manual_seed(0)
    block = mobile_sam._Block(8, 2, 4).eval()
    block.local_conv = torch.nn.Identity()  # type: ignore[assignment]
    picture = torch.randn(1, 8, 6, 9)
    other = picture.clone()
    other[..., :4, 4:8] += 1
    with torch.inference_mode():
        changed = (block(picture) - block(other)).abs().amax((0, 1)) > 1e-6
    assert changed[:4, 4:8].all() and int(changed.sum()) == 16


def test_mobile_sam_finds_the_truck_that_a_point_is_on(tmp_path: Path) -> None:
    model = mobile_sam.load_sam(cached("mobile_sam.safetensors"))
    write_video(tmp_path / "clip", seed=1, views=3, size=192)
    video = load_video(tmp_path / "clip")
    picture, mask = read_image(video.frames[0].image).numpy(), truth(video)[0]
    rows, columns = np.nonzero(mask)
    points = torch.tensor([[float(np.median(columns)), float(np.median(rows))]])
    logits, expected = model.masks(
        model.embed(picture), points, torch.tensor([1]), 192, 192
    )
    assert logits.shape == (4, 192, 192) and expected.shape == (4,)
    assert max(mask_iou(one.numpy() > 0, mask) for one in logits) > 0.8
