"""The command line.

Help, JSON, exit codes, and that every command calls its stage with what was asked for.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from small_category import ALIGN_WORDS, RECONSTRUCT_WORDS
from source_files import checks, save_photograph
from uns_pose_ros.cli import main, model_commands
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Camera, CategoryModel, PoseEstimate, Symmetry
from uns_pose_ros.io import artifacts
from uns_pose_ros.networks import pretrained_weights, weight_catalog

ACCURACIES = {"acc30", "acc15", "acc10", "median_deg"}


def run(*words: object) -> int:
    return main.main([str(word) for word in words])


@pytest.fixture
def model(trucks: Path) -> Path:
    """A model folder in `trucks`, trained on clip_01 and clip_02 in the labels' frame.

    Its network is empty.
    """
    labels = json.loads((trucks / "labels.json").read_text())
    poses = {
        name: [[*row, 0.0] for row in labels[name]["canon_from_obj"]] + [[0.0, 0, 0, 1]]
        for name in ("clip_01", "clip_02")
    }
    triangle = torch.tensor([[0, 1, 2]])
    artifacts.save_model(
        CategoryModel(
            "truck",
            torch.eye(3),
            triangle,
            torch.eye(3),
            torch.eye(3),
            {},
            provenance={"canon_from_obj": poses},
        ),
        trucks / "model",
    )
    return trucks / "model"


class OneInTheMiddle:
    """An estimator that finds one object, always in the same pose, and nothing in images without
    any color.
    """

    best_rejected: float | None = None

    def describe_nothing(self) -> str:
        return "nothing found"

    def without_threshold(self, image: Tensor, camera: Camera) -> list[PoseEstimate]:
        return self(image, camera)

    def __init__(self, model: CategoryModel, device: str, config: object) -> None:
        self.models = (model,)
        self.cameras: list[Camera] = []

    def __call__(self, image: Tensor, camera: Camera) -> list[PoseEstimate]:
        if not bool(image.any()):
            return []
        pose = torch.eye(4, dtype=torch.float64)
        pose[2, 3] = 3
        size, box = torch.ones(3, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
        return [
            PoseEstimate(
                "truck", pose, 1.0, False, size, 0.75, None, Symmetry(), 12, 1.5, box
            )
        ]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_commands, "Estimator", OneInTheMiddle)


def test_help_lists_every_command_without_importing_torch() -> None:
    code = (
        "import sys; from uns_pose_ros.cli.main import main; main(['--help']); "
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(f"  {command}" in done.stdout for command in main.COMMANDS)


@pytest.mark.parametrize("name", main.COMMANDS)
def test_every_command_has_a_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run(*name.split(), "--help")
    assert end.value.code == main.DONE
    assert f"usage: uns-pose {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "a command is needed"),
        (["algin", "mug"], "'algin' is no command"),
        (
            ["evaluate", "poses"],
            "'evaluate poses' is no command; evaluate alignment, evaluate pose, evaluate bag, "
            "evaluate dataset are valid",
        ),
        (["align"], "no category named: uns-pose align CATEGORY"),
    ],
)
def test_an_unknown_command_gives_the_valid_ones(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words) == main.BAD_INPUT
    out, err = capsys.readouterr()
    assert said in err and "valid" in err
    assert not out


@pytest.mark.parametrize(
    "words",
    [["train"], ["align", "mug", "--sed", "3"], ["align", "mug", "--seed", "three"]],
)
def test_bad_usage_ends_with_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run(*words)
    assert end.value.code == main.BAD_INPUT


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["train", "mug", "--views", "5"], "--train.views"),
        (["train", "mug", "--views=5"], "--train.views"),
        (
            ["estimate", "m", "i.jpg", "--score-threshold=0.1"],
            "--estimator.score-threshold",
        ),
        (["align", "mug", "--vidoes=clip_*"], "--videos"),
    ],
)
def test_an_option_without_its_group_or_with_a_typing_error_gives_the_one_that_is_meant(
    words: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main.main(words)
    assert f"{meant} " in capsys.readouterr().err


def test_a_value_may_stand_behind_a_sign_of_equality() -> None:
    given = [
        "align",
        "mug",
        "--front=-x",
        "--up",
        "-y",
        "--json=-",
        "--seed=3",
        "--videos=",
    ]
    assert main._joined(given) == [
        *["align", "mug", "--front=-x", "--up=-y", "--json=-", "--seed", "3", "--videos="]
    ]


def test_a_fault_of_ours_is_not_disguised_as_bad_input(
    trucks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: Path) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(artifacts, "load_alignment", broken)
    with pytest.raises(
        RuntimeError, match="a fault"
    ):  # Python ends with 1 and the traceback
        run("evaluate", "alignment", trucks, "--labels", trucks / "labels.json")


def test_ctrl_c_ends_with_one_line(
    trucks: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(artifacts, "load_alignment", interrupted)
    assert (
        run("evaluate", "alignment", trucks, "--labels", trucks / "labels.json")
        == main.INTERRUPTED
    )
    assert capsys.readouterr().err.splitlines() == [
        "uns-pose evaluate alignment: stopped; what was finished is kept, the same command goes on"
    ]


@pytest.mark.parametrize("words", [["--help"], ["align", "--help"], ["doctor"]])
def test_a_reader_that_has_read_enough_is_no_fault(words: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    code = "import sys; from uns_pose_ros.cli.main import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (main.DONE, "")


def test_a_missing_extra_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in (
        "reporting.category_report",
        "reporting.report_builder",
        "cli.report_command",
    ):
        monkeypatch.delitem(sys.modules, f"uns_pose_ros.{module}", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert run("report", "mug") == main.BAD_INPUT
    assert (
        "matplotlib" in (err := capsys.readouterr().err) and "uns_pose_ros[pipeline]" in err
    )


def test_reconstruct_and_align_skip_what_is_done_and_say_so_as_json(
    trucks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (trucks / "clip_02" / "mesh.ply").unlink()
    assert run("reconstruct", trucks, *RECONSTRUCT_WORDS, "--json", "-") == main.DONE
    made = {
        name: video["made"]
        for name, video in json.loads(capsys.readouterr().out)["videos"].items()
    }
    assert made == {"clip_01": False, "clip_02": True, "clip_03": False}
    assert (
        run("align", trucks, *ALIGN_WORDS, "--videos", "clip_01,clip_03", "--json", "-")
        == main.DONE
    )
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert result["made"] and list(result["videos"]) == ["clip_01", "clip_03"]
    assert set(result["videos"]["clip_01"]) == {"confidence", "residual_deg", "kept"}
    assert not err  # progress is for terminals


def test_align_prints_a_table(trucks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("align", trucks, *ALIGN_WORDS) == main.DONE
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["video", "confidence", "residual", "°", "kept"]
    assert [line.split()[0] for line in lines[1:4]] == ["clip_01", "clip_02", "clip_03"]


def test_evaluate_alignment_writes_exactly_the_promised_keys(
    trucks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = trucks / "out.json"
    assert (
        run(
            "evaluate",
            "alignment",
            trucks,
            "--labels",
            trucks / "labels.json",
            "--json",
            out,
        )
        == main.DONE
    )
    result = json.loads(out.read_text())
    assert set(result) == ACCURACIES | {"videos", "pairs", "symmetry_aware", "seconds"}
    assert set(result["symmetry_aware"]) == ACCURACIES
    assert (result["videos"], result["pairs"], result["acc30"]) == (3, 3, 100)
    assert result["seconds"] > 0
    assert "3 videos, 3 pairs" in capsys.readouterr().out


def test_evaluate_pose_writes_exactly_the_promised_keys_for_the_videos_not_trained_on(
    model: Path, scripted: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "evaluate",
        "pose",
        model,
        model.parent,
        "--labels",
        model.parent / "labels.json",
        "--json",
        "-",
    ]
    assert run(*words) == main.DONE
    result = json.loads(capsys.readouterr().out)
    assert set(result) == ACCURACIES | {
        "images",
        "estimated",
        "answered",
        "symmetry_aware",
        "auroc",
        "wrong",
        "coverage95",
        "seconds_per_image",
        "shift_diameters",
        "aside_diameters",
        "score",
        "by",
        "iou3d",
    }
    assert (result["images"], result["estimated"]) == (8, 8)  # clip_03
    assert result["iou3d"]["images"] == 8 and 0 < result["iou3d"]["mean"] <= 1
    assert sum(row["images"] for row in result["by"]["elevation"]) == 8
    assert sum(row["count"] for row in result["score"]) == 8
    assert run(*words, "--plot", tmp_path / "poses.png") == main.DONE
    assert cv2.imread(str(tmp_path / "poses.png")) is not None
    capsys.readouterr()
    assert run(*words, "--plot", tmp_path / "poses.txt") == main.BAD_INPUT
    assert "a name that ends with .png" in capsys.readouterr().err
    assert run(*words, "--videos", "clip_0[13]") == main.DONE
    assert json.loads(capsys.readouterr().out)["images"] == 16


def test_estimate_gives_each_image_its_estimates_and_overlays(
    model: Path, scripted: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen, black, camera = (
        model.parent / "clip_03/images/000000.jpg",
        tmp_path / "black.png",
        tmp_path / "K.json",
    )
    cv2.imwrite(str(black), torch.zeros(96, 96, 3, dtype=torch.uint8).numpy())
    camera.write_text(
        '{"K": [150, 0, 48, 0, 150, 48, 0, 0, 1], "D": [], "width": 96, "height": 96}'
    )
    words = [
        "estimate",
        model,
        seen,
        black,
        "--camera",
        camera,
        "--overlay",
        tmp_path / "drawn",
        "--json",
        "-",
    ]
    assert run(*words) == main.DONE
    result = json.loads(capsys.readouterr().out)
    (estimate,) = result["images"][0]["estimates"]
    assert estimate["cam_from_canon"][2] == [0, 0, 1, 3]
    assert (
        estimate["category"],
        estimate["score"],
        estimate["metric"],
        estimate["inliers"],
    ) == ("truck", 0.75, False, 12)
    assert result["images"][1]["image"] == str(black)
    assert result["images"][1]["estimates"] == []
    drawn = cv2.imread(str(tmp_path / "drawn" / "000000.png"))
    assert drawn is not None and (drawn != cv2.imread(str(seen))).any()


def test_estimate_and_view_see_every_orientation_as_the_upright_image(
    tmp_path: Path,
) -> None:
    upright = checks(9)
    camera = tmp_path / "K.json"
    camera.write_text('{"K": [50, 0, 32, 0, 50, 24, 0, 0, 1], "width": 64, "height": 48}')
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # how the camera stored it
    for orientation, method in back.items():
        path = tmp_path / f"{orientation}.jpg"
        stored = Image.fromarray(upright).transpose(Image.Transpose(method))
        save_photograph(path, np.asarray(stored), orientation, focal_35=26)
        [loaded] = model_commands.load_images([path], None)
        assert np.abs(loaded.image.numpy().astype(int) - upright).mean() < 10
        assert loaded.source == "exif" and loaded.camera.width == 64
        assert float(loaded.camera.matrix[0, 0]) == pytest.approx(26 * 80 / 43.267)
        [given] = model_commands.load_images([path], camera)
        assert given.source == "given" and float(given.camera.matrix[0, 0]) == 50
    camera.write_text('{"K": [50, 0, 24, 0, 50, 32, 0, 0, 1], "width": 48, "height": 64}')
    with pytest.raises(InvalidInput, match="64 x 48 px after it was turned upright by its"):
        list(model_commands.load_images([tmp_path / "6.jpg"], camera))


def test_estimate_takes_a_folder_in_natural_order_and_says_where_each_camera_is_from(
    model: Path, scripted: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in (1, 2, 10):
        focal = None if number == 2 else 60000 if number == 10 else 26
        save_photograph(folder / f"frame{number}.JPG", checks(number), focal_35=focal)
    (folder / "notes.txt").write_text("no image")
    assert run("estimate", model, folder, "--json", tmp_path / "out.json") == main.DONE
    out, err = capsys.readouterr()
    result = json.loads((tmp_path / "out.json").read_text())
    names = [Path(record["image"]).name for record in result["images"]]
    assert names == ["frame1.JPG", "frame2.JPG", "frame10.JPG"]
    sources = [record["camera"] for record in result["images"]]
    assert sources == ["exif", "assumed", "assumed"]
    assert result["camera"] == "assumed and exif" and "assumed for 2 of 3 images" in out
    assert "left out: files that are no images: 1 (notes.txt)" in err
    assert "frame10.JPG" in err and "cannot be the focal length" in err


def test_estimate_says_that_it_assumed_a_camera(
    model: Path, scripted: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("estimate", model, model.parent / "clip_03/images/000000.jpg") == main.DONE
    out = capsys.readouterr().out
    assert "truck, score 0.75" in out and "60° was assumed" in out


def test_report_writes_one_page_even_before_training(
    trucks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("report", trucks, "--json", "-") == main.DONE
    result = json.loads(capsys.readouterr().out)
    page = Path(result["report"]).read_text()
    assert result["accuracies"]["alignment"]["pairs"] == 3
    # meshes, viewpoints and frames of the videos, correspondences, frames with their labels
    images = 3 + 3 * (1 + 3) + 2 + 3 * 6
    assert "Not trained yet." in page
    assert page.count("data:image/") == images


def test_weights_and_doctor_tell_what_is_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("weights", "--json", "-") == main.DONE
    listed = json.loads(capsys.readouterr().out)
    assert set(weight_catalog.NAMES) <= set(listed)
    assert all(one["intact"] for one in listed.values())
    assert run("doctor", "--json", "-") == main.DONE
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["torch"] == torch.__version__
    assert not found["missing_packages"]["estimate"] and not found["missing_weights"]


def test_weights_are_taken_from_a_file_without_saying_which_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = pretrained_weights.find("u2netp")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert run("weights", "--source", given, "--json", "-") == main.DONE
    state = {
        name: one["intact"] for name, one in json.loads(capsys.readouterr().out).items()
    }
    assert state == {"dinov2_vits14": False, "u2netp": True}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_sigterm_and_a_closed_terminal_end_a_command_as_ctrl_c_does(
    number: signal.Signals,
    trucks: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cleaned = []

    def stopped(path: Path) -> None:
        try:
            os.kill(os.getpid(), number)
            time.sleep(60)
        finally:
            os.kill(os.getpid(), number)  # whoever is impatient does not end the clean-up
            cleaned.append(path)

    monkeypatch.setattr(artifacts, "load_alignment", stopped)
    before = signal.getsignal(number)
    ended = run("evaluate", "alignment", trucks, "--labels", trucks / "labels.json")
    assert ended == 128 + number and len(cleaned) == 1
    assert signal.getsignal(number) is before
    assert capsys.readouterr().err.splitlines() == [
        "uns-pose evaluate alignment: stopped; what was finished is kept, the same command goes on"
    ]


def test_a_full_disk_behind_stdout_is_one_line() -> None:
    code = "import sys; from uns_pose_ros.cli.main import main; sys.exit(main())"
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code, "--help"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    said = "uns-pose: the output cannot be written (No space left on device)\n"
    assert (done.returncode, done.stderr) == (main.BAD_INPUT, said)


def test_a_file_that_may_not_be_read_is_one_line(
    trucks: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(artifacts, "load_alignment", refused)
    ended = run("evaluate", "alignment", trucks, "--labels", trucks / "labels.json")
    assert ended == main.BAD_INPUT
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{trucks}/alignment.json: cannot be read or written (Permission denied)" in line
