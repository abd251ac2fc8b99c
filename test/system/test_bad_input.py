"""What people give by mistake.

One clear line on stderr that names it, exit code 2, nothing on stdout.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from small_category import ALIGN_WORDS, RECONSTRUCT_WORDS
from uns_pose_ros.cli import main
from uns_pose_ros.core.types import CategoryModel
from uns_pose_ros.io import artifacts

Refused = Callable[..., str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Runs a command that must refuse its input.

    Gives the one line that it says besides warnings and what it says of its steps.
    """

    def run(*words: object) -> str:
        assert main.main([str(word) for word in words]) == main.BAD_INPUT
        out, err = capsys.readouterr()
        besides = ("uns-pose: WARNING: ", "uns-pose: INFO: ")
        (line,) = [line for line in err.splitlines() if not line.startswith(besides)]
        assert not out
        return str(line)

    return run


@pytest.fixture
def model(trucks: Path) -> Path:
    """A model folder in `trucks` whose network is empty."""
    triangle = torch.tensor([[0, 1, 2]])
    poses = {"clip_01": torch.eye(4).tolist()}
    empty = CategoryModel(
        "truck",
        torch.eye(3),
        triangle,
        torch.eye(3),
        torch.eye(3),
        {},
        provenance={"canon_from_obj": poses},
    )
    artifacts.save_model(empty, trucks / "model")
    return trucks / "model"


def spoil(path: Path) -> Path:
    """Cut a file in half."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


def test_missing_masks_without_the_network_that_finds_them(
    trucks: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (trucks / "clip_02" / "masks").rename(trucks / "clip_02" / "mask")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    line = refused("reconstruct", trucks, *RECONSTRUCT_WORDS)
    assert "weights u2netp are not in" in line and "`uns-pose weights` fetches them" in line


def test_a_video_with_two_frames(trucks: Path, refused: Refused) -> None:
    for image in sorted((trucks / "clip_02" / "images").iterdir())[2:]:
        image.unlink()
    line = refused("run", trucks, *RECONSTRUCT_WORDS)
    assert f"{trucks}/clip_02" in line and "2 " in line and "3 needed" in line


def test_a_corrupt_photograph(
    model: Path, tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uns_pose_ros.cli.model_commands.Estimator", lambda *_, **__: None)
    image = spoil(model.parent / "clip_01" / "images" / "000000.jpg")
    assert f"{image}: the image is broken" in refused("estimate", model, image)
    text = tmp_path / "notes.txt"
    text.write_text("no image")
    assert f"{text}: the image is broken or of unknown format" in refused(
        "estimate", model, text
    )
    assert f"{tmp_path}/no.jpg: the image is not there" in refused(
        "estimate", model, tmp_path / "no.jpg"
    )


def test_a_video_of_corrupt_images(trucks: Path, refused: Refused) -> None:
    for image in (trucks / "clip_01" / "images").iterdir():
        spoil(image)
    line = refused("reconstruct", trucks, *RECONSTRUCT_WORDS)
    assert f"{trucks}/clip_01" in line and "broken" in line


def test_one_corrupt_image_of_a_video_is_named_and_left_out(
    trucks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = spoil(trucks / "clip_01" / "images" / "000004.jpg")
    assert main.main(["reconstruct", str(trucks), *RECONSTRUCT_WORDS]) == main.DONE
    lines = capsys.readouterr().err.splitlines()
    (warning,) = [line for line in lines if "masks do not fit" not in line]
    assert str(image) in warning and "broken" in warning and "left out" in warning


def test_a_label_for_an_unknown_video(trucks: Path, model: Path, refused: Refused) -> None:
    path = trucks / "labels.json"
    labels = json.loads(path.read_text())
    path.write_text(json.dumps({**labels, "clip_07": labels["clip_01"]}))
    for command in (["alignment", trucks], ["pose", model, trucks]):
        line = refused("evaluate", *command, "--labels", path)
        assert (
            "labels for unknown videos: clip_07; there are clip_01, clip_02, clip_03"
            in line
        )


def test_a_label_that_is_no_rotation(trucks: Path, refused: Refused) -> None:
    path = trucks / "labels.json"
    path.write_text('{"clip_02": {"canon_from_obj": [[1, 0, 0], [0, 1, 0], [0, 0, 2]]}}')
    assert f"{path}: the label of clip_02 has no 3x3 rotation" in refused(
        "evaluate", "alignment", trucks, "--labels", path
    )


def test_one_video_only(trucks: Path, refused: Refused) -> None:
    line = refused("align", trucks, *ALIGN_WORDS, "--videos", "clip_03")
    assert "one video (clip_03), at least 2 are needed" in line


def test_a_camera_file_that_is_not_calibrated(
    model: Path, tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uns_pose_ros.cli.model_commands.Estimator", lambda *_, **__: None)
    image, path = model.parent / "clip_01" / "images" / "000000.jpg", tmp_path / "K.json"
    path.write_text(
        '{"K": [0, 0, 0, 0, 0, 0, 0, 0, 0], "D": [], "width": 96, "height": 96}'
    )
    assert f"{path}: uncalibrated camera: focal lengths 0, 0 px" in refused(
        "estimate", model, image, "--camera", path
    )
    path.write_text('{"K": [150, 0, 48, 0, 150, 48, 0, 0, 1], "height": 96}')
    line = refused("estimate", model, image, "--camera", path)
    assert f"{path}: not a camera" in line and "missing required field `width`" in line
    path.write_text('{"K": [150, 0, 48, 0, 150, 48, 0, 0, 1], "width": 640, "height": 480}')
    assert f"96 x 96 px, the camera in {path} has 640 x 480" in refused(
        "estimate", model, image, "--camera", path
    )


def test_a_video_whose_camera_is_not_calibrated(trucks: Path, refused: Refused) -> None:
    cameras = trucks / "clip_01" / "sparse" / "cameras.txt"
    cameras.write_text("1 PINHOLE 96 96 0 0 48 48\n")
    line = refused("reconstruct", trucks, *RECONSTRUCT_WORDS)
    assert str(cameras.parent) in line and "uncalibrated camera" in line


def test_a_video_without_camera_poses(trucks: Path, refused: Refused) -> None:
    (trucks / "clip_01" / "sparse").rename(trucks / "clip_01" / "dense")
    line = refused("reconstruct", trucks, *RECONSTRUCT_WORDS)
    assert f"{trucks}/clip_01: 0 of 8 frames got a pose" in line and "pattern" in line


def test_a_video_without_camera_poses_and_no_structure_from_motion(
    trucks: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    (trucks / "clip_01" / "sparse").rename(trucks / "clip_01" / "dense")
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    line = refused("reconstruct", trucks, *RECONSTRUCT_WORDS)
    assert "the Python package pycolmap is missing" in line and "uns_pose_ros[sfm]" in line


def test_a_category_that_is_not_there_or_empty(tmp_path: Path, refused: Refused) -> None:
    assert f"{tmp_path}/mug: no such folder" in refused("run", tmp_path / "mug")
    assert f"{tmp_path}: no videos; each video is a subfolder with images/" in refused(
        "run", tmp_path
    )


def test_a_step_that_was_left_out_is_named(trucks: Path, refused: Refused) -> None:
    (trucks / "alignment.json").unlink()
    (trucks / "clip_01" / "features.safetensors").unlink()
    for command in (
        ["train", trucks],
        ["report", trucks],
        ["evaluate", "alignment", trucks, "--labels", trucks / "labels.json"],
    ):
        assert "`uns-pose align" in refused(*command)
    assert "`uns-pose reconstruct" in refused("align", trucks)
    assert "`uns-pose train" in refused(
        "estimate", trucks, trucks / "clip_01" / "images" / "000000.jpg"
    )


def test_weights_that_were_not_fetched(
    trucks: Path, tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert "`uns-pose weights` fetches them" in refused("reconstruct", trucks)


def test_a_file_that_holds_no_weights(
    trucks: Path, tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert "does not hold the weights" in refused(
        "weights", "--source", trucks / "clip_01" / "features.safetensors"
    )
    assert (
        "weights 'yolo' are unknown: dinov2_vits14, u2netp, mobile_sam are valid"
        in refused("weights", "yolo")
    )


def test_a_device_that_is_not_here(trucks: Path, refused: Refused) -> None:
    (trucks / "clip_01" / "mesh.ply").unlink()
    assert "device 'gpu' is unknown: auto, cpu, cuda or cuda:N" in refused(
        "reconstruct", trucks, *RECONSTRUCT_WORDS, "--device", "gpu"
    )
