"""Every data set through the command line: a miniature of each, from its files to the table."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from known_colors import KnowsColors, centered_model, estimate_of, write_colored
from mini_boxes import REAL275, ROPE_CAMERA, know_boxed, write_nocs, write_ropes
from mini_objectron import PORTRAIT, write_objectron
from mini_views import know_views, write_imagenet3d, write_objectnet3d, write_pascal3d
from source_files import write_co3d
from uns_pose_ros.capture.import_source import import_video
from uns_pose_ros.capture.video_writer import ImportConfig
from uns_pose_ros.cli import main
from uns_pose_ros.cli.evaluate import co3d_figures, dataset_command
from uns_pose_ros.core.geometry import from_parts, random_rotations
from uns_pose_ros.core.types import Alignment, CategoryModel
from uns_pose_ros.datasets import matlab_records
from uns_pose_ros.datasets.view_angles import pose_from_angles
from uns_pose_ros.io import artifacts


def run(*words: object) -> int:
    return main.main(["evaluate", "dataset", *(str(word) for word in words)])


def give(
    patch: pytest.MonkeyPatch, model: CategoryModel, known: dict[int, list[Any]]
) -> None:
    """Let the command load this model, and estimate what is known of each color."""
    patch.setattr(artifacts, "load_model", lambda folder: model)
    patch.setattr(KnowsColors, "known", known)
    patch.setattr(dataset_command, "Estimator", KnowsColors)


def result_of(capsys: pytest.CaptureFixture[str], *words: object) -> Any:
    assert run(*words, "--model", "folder", "--json", "-") == main.DONE
    return json.loads(capsys.readouterr().out)


def check_right(record: Any, category: str, objects: int) -> None:
    """All objects are right to less than a degree, in both rows."""
    figures = record["categories"][category]
    for row in ("detected", "true_crop"):
        assert figures[row]["objects"] == objects
        assert figures[row]["acc10"] == 100
        assert figures[row]["median_deg"] < 0.1


def test_pascal3d_from_its_files_to_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pascal3d(tmp_path)
    give(monkeypatch, centered_model("car"), know_views())
    record = result_of(capsys, "pascal3d", tmp_path)
    check_right(record, "car", 4)
    assert record["categories"]["car"]["tie"] == "the model's axes"
    assert record["paper_mean"]["detected"] is None
    assert run("pascal3d", tmp_path, "--model", "folder") == main.DONE
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines[1:3]] == [
        ["car", "detected", "4"],
        ["car", "true", "crop"],
    ]


@pytest.mark.parametrize(
    ("name", "write"),
    [("objectnet3d", write_objectnet3d), ("imagenet3d", write_imagenet3d)],
)
def test_successors_of_pascal3d_from_their_files_to_the_table(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    write: Callable[[Path], None],
) -> None:
    write(tmp_path)
    give(monkeypatch, centered_model("car"), know_views())
    check_right(result_of(capsys, name, tmp_path), "car", 4)


def check_boxes(record: Any, category: str) -> None:
    """All objects and their boxes are right, in both rows."""
    for row in ("detected", "true_crop"):
        boxes = record["categories"][category][row]["boxes"]
        assert boxes["iou_mean"] > 99.9
        assert (boxes["ap25"], boxes["ap50"]) == (100, 100)
        assert boxes["size_error_pct"] < 0.1
    boxes = record["categories"][category]["detected"]["boxes"]
    assert [boxes[key] for key in ("ap5deg5cm", "ap10deg5cm", "ap10deg10pct")] == [100] * 3
    assert boxes["translation_m"] < 1e-6


def test_nocs_from_its_files_to_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_nocs(tmp_path)
    give(monkeypatch, centered_model("mug"), know_boxed("mug", REAL275))
    record = result_of(capsys, "nocs", tmp_path)
    check_right(record, "mug", 2)
    check_boxes(record, "mug")
    assert record["categories"]["mug"]["symmetric"]  # a handle is hidden
    assert run("nocs", tmp_path, "--model", "folder") == main.DONE
    assert "3D IoU %" in capsys.readouterr().out


def test_objectron_from_its_films_to_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_objectron(tmp_path)
    give(monkeypatch, centered_model("shoe"), know_boxed("shoe", PORTRAIT))
    record = result_of(capsys, "objectron", tmp_path)
    check_right(record, "shoe", 4)
    check_boxes(record, "shoe")


def test_ropes_from_its_files_to_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_ropes(tmp_path)
    give(monkeypatch, centered_model("bowl"), know_boxed("bowl", ROPE_CAMERA))
    record = result_of(capsys, "ropes", tmp_path)
    check_right(record, "bowl", 2)
    check_boxes(record, "bowl")
    assert record["categories"]["bowl"]["symmetric"]


def write_aligned_co3d(root: Path) -> dict[int, list[Any]]:
    """Three sequences of CO3D, imported, labeled and aligned; what each image shows, by color."""
    known, labels, names = {}, {}, ("101_1_2", "102_1_2", "103_1_2")
    canon_from_obj = random_rotations(3, torch.Generator().manual_seed(4))
    for number, name in enumerate(names):
        source, truth, _ = write_co3d(root / f"co3d{number}", "ndc_isotropic")
        for k, image in enumerate(sorted((source / "images").iterdir())):
            color = 10 * (number + 1) + k
            write_colored(image, color, (48, 32))
            rotation = truth[image.name][:3, :3] @ canon_from_obj[number].T.numpy()
            known[color] = [estimate_of("truck", rotation)]
        video = root / "truck" / name
        import_video(source, video, ImportConfig(frames=10))
        labels[name] = {"canon_from_obj": canon_from_obj[number].tolist()}
    (root / "truck" / "labels.json").write_text(json.dumps(labels))
    ones = torch.ones(3, dtype=torch.float64)
    poses = from_parts(canon_from_obj, torch.zeros(3, 3, dtype=torch.float64), ones)
    alignment = Alignment(names, poses, ones, ones.bool(), 0 * ones)
    artifacts.save_alignment(alignment, root / "truck" / "alignment.json", {})
    return known


def test_co3d_from_its_sequences_to_the_table_of_pairs_and_six_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = write_aligned_co3d(tmp_path)
    give(monkeypatch, centered_model("truck"), known)
    monkeypatch.setattr(co3d_figures, "Estimator", KnowsColors)
    record = result_of(capsys, "co3d-alignment", tmp_path)
    for kind in ("pairs", "six_frames"):
        figures = record["categories"]["truck"][kind]
        assert (figures["videos"], figures["pairs"], figures["acc10"]) == (3, 6, 100)
        assert record[f"mean_{kind}"]["acc30"] == 100
    assert run("co3d-alignment", tmp_path / "truck") == main.DONE
    assert capsys.readouterr().out.splitlines()[1].split()[:4] == [
        "truck",
        "pairs",
        "3",
        "6",
    ]
    for words, said in (
        (["co3d-alignment", tmp_path, "--fit"], "--fit: co3d-alignment has no such option"),
        (["co3d-alignment", tmp_path / "co3d0"], "no alignment.json in it or in its"),
    ):
        assert run(*words) == main.BAD_INPUT
        assert said in capsys.readouterr().err
    give(monkeypatch, centered_model("boat"), known)
    assert run("co3d-alignment", tmp_path, "--model", "m") == main.BAD_INPUT
    assert "--model of boat: no such category" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", ["mirrored", "radians", "camera"])
def test_a_wrong_convention_of_the_reader_shows_in_the_figures(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    wrong: str,
) -> None:
    def spoiled(azimuth: float, elevation: float, theta: float, distance: float) -> Any:
        if wrong == "mirrored":
            azimuth = -azimuth
        if wrong == "radians":
            azimuth, elevation = azimuth / 57.3, elevation / 57.3
        pose = pose_from_angles(azimuth, elevation, theta, distance)
        if wrong == "camera":  # y up and z back, as in OpenGL
            flip = torch.diag(torch.tensor([1.0, -1, -1], dtype=torch.float64))
            pose[:3, :3] = flip @ pose[:3, :3]
        return pose

    write_pascal3d(tmp_path)
    monkeypatch.setattr(matlab_records, "pose_from_angles", spoiled)
    give(monkeypatch, centered_model("car"), know_views())
    figures = result_of(capsys, "pascal3d", tmp_path)["categories"]["car"]
    assert figures["true_crop"]["acc30"] < 75


def test_a_frame_that_is_arbitrary_is_tied_by_labels_or_by_a_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pascal3d(tmp_path)
    turned = [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    pose = [[*row, 0.0] for row in turned] + [[0.0, 0, 0, 1]]
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps({"clip_01": {"canon_from_obj": torch.eye(3).tolist()}}))
    model = centered_model("car", provenance={"canon_from_obj": {"clip_01": pose}})
    known = know_views()
    for estimates in known.values():  # its frame is turned by 90 degrees about up
        (estimate,) = estimates
        estimate.cam_from_canon[:3, :3] @= torch.tensor(turned, dtype=torch.float64).T
    give(monkeypatch, model, known)
    plain = result_of(capsys, "pascal3d", tmp_path)
    assert plain["categories"]["car"]["detected"]["acc30"] == 0
    check_right(result_of(capsys, "pascal3d", tmp_path, "--labels", labels), "car", 4)
    fitted = result_of(capsys, "pascal3d", tmp_path, "--fit")
    check_right(fitted, "car", 4)
    assert "fitted on the evaluated images" in fitted["categories"]["car"]["tie"]


def test_names_of_other_data_sets_are_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pascal3d(tmp_path)
    give(monkeypatch, centered_model("limousine"), know_views("limousine"))
    assert run("pascal3d", tmp_path, "--model", "folder") == main.BAD_INPUT
    assert "no category 'limousine'; aeroplane" in capsys.readouterr().err
    record = result_of(capsys, "pascal3d", tmp_path, "--category", "car", "--most", 2)
    check_right(record, "car", 2)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["imagenet", "HERE"], "'imagenet' is no data set; pascal3d"),
        (
            ["pascal3d", "HERE/none", "--model", "m"],
            "no folder; the folder of the data set",
        ),
        (["pascal3d", "HERE"], "--model FOLDER is needed"),
        (
            ["pascal3d", "HERE", "--model", "m", "--split", "test"],
            "pascal3d has val and train",
        ),
        (["pascal3d", "HERE", "--model", "a", "b", "--category", "car"], "of one model"),
        (["pascal3d", "HERE", "--model", "m", "--fit", "--labels", "l"], "one of them"),
        (["pascal3d", "HERE", "--model", "m", "--most", "0"], "1 or more is valid"),
        (["pascal3d", "HERE", "--model", "a", "b"], "a second model of car"),
        (["pascal3d", "HERE", "--model", "m"], "Image_sets/car_imagenet_val.txt"),
    ],
)
def test_a_command_that_cannot_be_is_refused_by_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    said: str,
) -> None:
    give(monkeypatch, centered_model("car"), {})
    words = [word.replace("HERE", str(tmp_path)) for word in words]
    assert run(*words) == main.BAD_INPUT
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
