"""Bad masks are named before the training, and the command that is printed mends them."""

from __future__ import annotations

import io
import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from synthetic import write_video
from uns_pose_ros.cli.main import main
from uns_pose_ros.cli.pipeline import run_command
from uns_pose_ros.core.types import Alignment, Camera, Symmetry
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.images import read_image, read_mask
from uns_pose_ros.io.video_folder import load_video
from uns_pose_ros.networks import mobile_sam
from uns_pose_ros.pipeline.poses_and_masks import mask_preparation
from uns_pose_ros.reconstruction.mask_voting import mask_iou
from uns_pose_ros.reporting.mask_review import (
    ReviewedVideo,
    _in_image,
    review_masks,
    review_record,
    review_text,
    write_review,
)

BAD = ("000000.jpg", "000011.jpg", "000022.jpg")


@pytest.fixture(scope="module")
def reviewed_category(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos with masks; a neighbor is glued to three masks of the second. For reading only."""
    folder = tmp_path_factory.mktemp("masks") / "mug"
    write_video(folder / "clip_01", seed=1, views=24, size=96)
    shutil.copytree(folder / "clip_01", folder / "clip_02")
    for name in BAD:
        path = folder / "clip_02" / "masks" / f"{name}.png"
        mask = read_mask(path).numpy()
        rows, columns = np.nonzero(mask)
        row, column = int(np.median(rows)), int(columns.max())
        mask[max(0, row - 14) : row + 14, column - 3 : column + 22] = True
        cv2.imwrite(str(path), mask.astype(np.uint8) * 255)
    return folder


@pytest.fixture(scope="module")
def doubtful(reviewed_category: Path) -> list[ReviewedVideo]:
    """The review of the second video."""
    return review_masks([reviewed_category / "clip_02"], None)


@pytest.fixture
def category(reviewed_category: Path, tmp_path: Path) -> Path:
    """A copy of the test's own."""
    return Path(shutil.copytree(reviewed_category, tmp_path / "mug"))


def aligned(confidence: tuple[float, float], kept: tuple[bool, bool]) -> Alignment:
    return Alignment(
        ("clip_01", "clip_02"),
        torch.eye(4).double().repeat(2, 1, 1),
        torch.tensor(confidence).double(),
        torch.tensor(kept),
        torch.zeros(2).double(),
        Symmetry(),
    )


class Oracle:
    """Answers with the true mask of a whole image where all points fit it."""

    def __init__(self, folder: Path, true: dict[str, NDArray[np.bool_]]) -> None:
        self.images = {
            name: read_image(folder / "images" / name).numpy().tobytes() for name in true
        }
        self.true = list(true.values())

    def embed(self, image: NDArray[np.uint8], side: int = 1024) -> Tensor:
        known = list(self.images.values())
        return torch.tensor(
            known.index(image.tobytes()) if image.tobytes() in known else -1
        )

    def masks(
        self, seen: Tensor, points: Tensor, kinds: Tensor, height: int, width: int
    ) -> tuple[Tensor, Tensor]:
        if int(seen) < 0:
            return torch.full((4, height, width), -6.0), torch.ones(4)
        mask = torch.from_numpy(self.true[int(seen)])
        for (x, y), kind in zip(points.round().long(), kinds, strict=True):
            if int(kind) < 2 and bool(mask[y, x]) != bool(kind):
                mask = ~mask
                break
        return (12 * mask.float() - 6).repeat(4, 1, 1), torch.ones(4)


def test_bad_masks_are_named_and_the_command_as_printed_mends_them(
    category: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = category / "clip_02"
    true = {
        f.name: read_mask(category / "clip_01" / "masks" / f"{f.name}.png").numpy()
        for f in load_video(folder).frames
    }
    folders = [category / "clip_01", folder]
    reviewed = review_masks(folders, aligned((0.9, 0.29), (True, True)))
    assert [video.doubtful for video in reviewed] == [False, True]
    assert list(reviewed[1].bad) == list(BAD)
    assert "3 of 24 masks do not fit the others" in reviewed[1].finding
    assert "confidence 0.29, trained on all the same" in reviewed[1].finding

    weights = folder / "sparse" / "cameras.txt"
    monkeypatch.setattr(mask_preparation.pretrained_weights, "find", lambda name: weights)
    monkeypatch.setattr(mobile_sam, "load_sam", lambda: Oracle(folder, true))
    for command in reviewed[1].remedy.split(" && "):
        program, *words = shlex.split(command)
        if program == "mv":
            shutil.move(words[0], words[1])
        elif words[0] == "mask":
            assert "--background" in words and words[-1] in BAD
            assert main(words) == 0
        else:
            assert words == ["weights", "mobile_sam"]
    overlap = {
        name: mask_iou(read_mask(folder / "masks" / f"{name}.png").numpy(), mask)
        for name, mask in true.items()
    }
    assert min(overlap[name] for name in BAD) > 0.95
    assert np.mean(list(overlap.values())) > 0.95
    [again] = review_masks([folder], None)
    assert not again.doubtful


def test_the_page_holds_every_mask_with_the_most_doubtful_first(category: Path) -> None:
    folders = [category / "clip_01", category / "clip_02"]
    reviewed = review_masks(folders, aligned((0.9, 0.9), (True, True)))
    page = write_review(category, reviewed)
    text = page.read_text()
    assert text.count("<figure") == 48 and text.count("data-doubt=") == 48
    order = [part.split("'")[0] for part in text.split("data-name='")[1:]]
    doubts = [float(part.split("'")[0]) for part in text.split("data-doubt='")[1:]]
    assert doubts == sorted(doubts, reverse=True)
    assert order[0] in {f"clip_02/{name}" for name in BAD}
    assert text.count("<figcaption class='bad'>") == len(BAD)
    assert "sort by doubt" in text and "mug: before the training" in text
    assert "uns-pose mask" in text
    said = review_text(reviewed, page)
    assert said.splitlines()[-1] == f"all masks and the alignment: {page}"
    assert list(review_record(reviewed)) == ["clip_02"]


def test_a_video_that_is_left_out_is_named_although_its_masks_fit(category: Path) -> None:
    [video] = review_masks([category / "clip_01"], aligned((0.05, 0.9), (False, True)))
    assert video.finding == "clip_01: confidence 0.05, left out of the training"
    assert video.doubtful and video.remedy == ""
    said = review_text([video], category / "masks.html")
    assert "its masks and poses look right (24 of 24 images" in said
    assert "the alignment itself is unsure: film more instances (2 there" in said
    assert "uns-pose mask" not in said
    text = write_review(category, [video]).read_text()
    assert "the alignment itself is unsure" in text and "uns-pose mask" not in text


def test_poses_of_another_video_are_named_in_place_of_the_masks(tmp_path: Path) -> None:
    folder = tmp_path / "mug" / "clip_01"
    write_video(folder, seed=1, views=8, size=64)
    lines = (folder / "sparse" / "images.txt").read_text().splitlines()
    poses = [line.split() for line in lines if line.endswith(".jpg")]
    names = [words[9] for words in poses]
    mixed = [[*words[:9], names[(3 * k) % 8]] for k, words in enumerate(poses)]
    (folder / "sparse" / "images.txt").write_text(
        "".join(" ".join(words) + "\n\n" for words in mixed)
    )
    [video] = review_masks([folder], None)
    assert video.doubtful and "its camera poses are doubtful (" in str(video.causes[0])
    said = review_text([video], tmp_path / "masks.html")
    assert said.index("camera poses are doubtful") < said.index("look whether sparse/")
    record = artifacts.plain(review_record([video]))
    assert record["clip_01"]["causes"][0]["what"].startswith("its camera")


def test_points_are_where_the_lens_shows_them() -> None:
    matrix = torch.tensor([[60.0, 0, 39.5], [0, 60, 29.5], [0, 0, 1]]).double()
    straight = Camera(matrix, 80, 60)
    assert _in_image([[50.0, 30.0]], straight) == [[50.0, 30.0]]
    bent = replace(straight, distortion=torch.tensor([0.4, 0, 0, 0]).double())
    [[x, y]] = _in_image([[69.5, 29.5]], bent)
    assert x == pytest.approx(39.5 + 30 * (1 + 0.4 * 0.25)) and y == pytest.approx(29.5)
    assert _in_image([[79.0, 29.5]], bent) == [], "beyond the image's edge"


@pytest.mark.parametrize(
    ("terminal", "answer", "trains"),
    [(False, "", True), (True, "y\n", True), (True, "\n", False), (True, "", False)],
)
def test_only_a_terminal_is_asked_whether_to_train(
    doubtful: list[ReviewedVideo],
    monkeypatch: pytest.MonkeyPatch,
    terminal: bool,
    answer: str,
    trains: bool,
) -> None:
    typed = io.StringIO(answer)
    typed.isatty = lambda: terminal  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stdin", typed)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    assert run_command._wants_training(doubtful) is trains
    assert run_command._wants_training([]) is True


def test_run_until_align_stops_before_the_training_with_page_and_remedy(
    category: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    alignment = aligned((0.9, 0.29), (True, True))
    stage, axes = run_command.alignment_stage, run_command.frame_axes
    made = run_command.reconstruction_stage
    monkeypatch.setattr(made, "reconstruct", lambda *a: {"clip_01": True})
    monkeypatch.setattr(stage, "align", lambda *a, **k: (alignment, True))
    monkeypatch.setattr(stage, "draw_alignment", lambda *a: None)
    monkeypatch.setattr(
        run_command.training_stage, "train", lambda *a: pytest.fail("trained")
    )
    monkeypatch.setattr(axes, "name_axes", lambda *a: (alignment, False))
    monkeypatch.setattr(axes, "axes_as_computed", lambda *a: None)
    monkeypatch.setattr(axes, "describe_axes", lambda *a: "z up")
    assert main(["run", str(category), "--until", "align"]) == 0
    said = capsys.readouterr()
    assert f"uns-pose mask {category}/clip_02 --points" in said.err
    assert "confidence 0.29, trained on all the same" in said.err
    assert f"next: uns-pose run {category}" in said.out
    assert (category / "masks.html").is_file()


def test_videos_that_are_left_out_are_mended_before_the_training() -> None:
    both, one = aligned((0.9, 0.8), (True, True)), aligned((0.9, 0.1), (True, False))
    assert run_command.next_step(Path("mug"), both) == "next: uns-pose run mug"
    first, last = run_command.next_step(Path("mug"), one).splitlines()
    assert "1 of 2 videos are left out" in first and "mend" in first
    assert last == "next: uns-pose run mug"
