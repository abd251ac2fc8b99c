"""The paper's chain on miniatures of CO3D and PASCAL3D+; what computes is replaced."""

from __future__ import annotations

import gzip
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import quick_work
from mini_datasets import KnowsColors, estimate_of, write_pascal3d
from source_files import write_co3d
from uns_pose_ros.alignment import published_alignment
from uns_pose_ros.cli import main
from uns_pose_ros.cli.evaluate import dataset_command
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import rotation_from_vector
from uns_pose_ros.core.types import Alignment
from uns_pose_ros.pipeline import reproduction
from uns_pose_ros.training import category_training

SEQUENCES = ("101_1_2", "102_1_2", "103_1_2", "104_1_2")


def write_co3d_cars(root: Path) -> None:
    """Four sequences of cars; the last one has the best cameras."""
    source, _, _ = write_co3d(root / "one", "ndc_isotropic")
    with gzip.open(source.parent / "frame_annotations.jgz", "rt") as file:
        text = file.read().replace("truck/", "car/")
    frames = [one for one in json.loads(text) if one["sequence_name"] == source.name]
    listed = list[Any]()
    for name in SEQUENCES:
        shutil.copytree(source, root / "car" / name)
        listed += json.loads(json.dumps(frames).replace(source.name, name))
    ranked = [
        {"sequence_name": name, "category": "car", "viewpoint_quality_score": score}
        for name, score in zip(SEQUENCES, (0.1, None, 0.5, 0.9), strict=True)
    ]
    for file_name, items in (("frame", listed), ("sequence", ranked)):
        path = root / "car" / f"{file_name}_annotations.jgz"
        with gzip.open(path, "wt") as file:
            json.dump(items, file)


def align_to(meshes: dict[str, Any], reference: str, *_: Any) -> Alignment:
    """An alignment that depends on the reference, so that no model fits two of them."""
    alignment = quick_work._align(meshes)
    angle = torch.tensor([0, 0, 0.1 * int(reference[:3])], dtype=torch.float64)
    alignment.canon_from_obj[0, :3, :3] = rotation_from_vector(angle)
    return alignment


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command; everything that computes takes no time."""
    write_co3d_cars(tmp_path / "co3d")
    write_pascal3d(tmp_path / "pascal")
    eye = {"canon_from_obj": torch.eye(3).tolist()}
    labels = {"car": {name: eye for name in SEQUENCES[:2]}}
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    quick_work.stand_in(monkeypatch.setattr, tmp_path)
    monkeypatch.setattr(published_alignment, "align_to_reference", align_to)
    monkeypatch.setattr(dataset_command, "Estimator", KnowsColors)
    known = {10 * k: [estimate_of("car", torch.eye(3))] for k in range(4)}
    monkeypatch.setattr(KnowsColors, "known", known)
    given = {"co3d": "co3d", "pascal3d": "pascal", "labels": "labels.json", "into": "out"}
    return [
        *("reproduce", "paper", "--videos", "3"),
        *(
            word
            for key, path in given.items()
            for word in (f"--{key}", str(tmp_path / path))
        ),
    ]


def test_the_plan_says_what_it_takes_before_anything_starts(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main([*words, "--plan"]) == main.DONE
    said = capsys.readouterr().out
    # three imports, one reconstruct, and three commands for two references and the consensus
    assert "1 categories, 3 videos, 13 steps, 13 of them left" in said and "GB" in said
    assert not (tmp_path / "out" / "videos").exists()


def test_a_stopped_chain_goes_on_and_gives_the_table(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    train, trained = category_training.train_model, list[int]()

    def stop_at_the_second(*arguments: Any) -> Any:
        trained.append(1)
        if len(trained) == 2:
            raise KeyboardInterrupt
        model, alignment = train(*arguments), arguments[3]
        poses = zip(alignment.videos, alignment.canon_from_obj.tolist(), strict=True)
        return replace(
            model, provenance={**model.provenance, "canon_from_obj": dict(poses)}
        )

    monkeypatch.setattr(category_training, "train_model", stop_at_the_second)
    assert main.main(words) == main.INTERRUPTED
    videos = tmp_path / "out" / "videos" / "car"
    # the references, then the best cameras
    names = sorted(path.name for path in videos.iterdir() if (path / "images").is_dir())
    assert names == ["101_1_2", "102_1_2", "104_1_2"]
    first = tmp_path / "out" / "results" / "car_101_1_2.json"
    before = first.stat().st_mtime_ns
    made = {path: path.stat().st_mtime_ns for path in videos.glob("*/video.json")}
    capsys.readouterr()
    assert main.main([*words, "--json", "-"]) == main.DONE
    record = json.loads(capsys.readouterr().out)
    assert len(trained) == 4  # two before, one of them stopped, and two after
    assert first.stat().st_mtime_ns == before
    assert {path: path.stat().st_mtime_ns for path in made} == made
    assert list(record["categories"]["car"]) == ["101_1_2", "102_1_2", "consensus"]
    assert record["steps"] == 13
    assert record["detected"]["published_std"]["acc30"] == 0
    assert main.main(words) == main.DONE  # nothing is left but the table
    assert "references, as published" in capsys.readouterr().out
    assert len(trained) == 4


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({}, "is needed"),
        ({"boat": {"a": {}}}, "'boat' is no category in"),
        ({"car": {}}, "labels of car: one for each reference is needed"),
        ({"car": {"999_1_2": {}}}, "999_1_2 is no sequence with images"),
        ({"car": {"101_1_2": {"canon_from_obj": 3}}}, "has no 3x3 rotation"),
    ],
)
def test_labels_that_do_not_fit_are_refused_before_anything_starts(
    words: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    labels: dict[str, Any],
    said: str,
) -> None:
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    assert main.main(words) == main.BAD_INPUT
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_a_disk_without_space_is_said_before_anything_starts(tmp_path: Path) -> None:
    plan = reproduction.PaperPlan((), {}, 3, 1.0, 1e18)
    with pytest.raises(InvalidInput, match="GB are free, .* GB are needed"):
        reproduction.check_disk(plan, tmp_path)
