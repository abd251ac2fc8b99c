"""A stage is skipped when nothing that it depends on has changed, and only then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import uns_pose_ros
from small_category import ALIGN, RECONSTRUCT
from uns_pose_ros.alignment import category_alignment
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import CategoryModel, FeatureMesh, TaughtObject, Video
from uns_pose_ros.evaluation import rotation_labels
from uns_pose_ros.io import artifacts
from uns_pose_ros.pipeline import (
    alignment_stage,
    reconstruction_stage,
    stage_progress,
    training_stage,
)
from uns_pose_ros.reconstruction import feature_mesh
from uns_pose_ros.training import category_training
from uns_pose_ros.training.training_views import TrainConfig

MADE_NONE = {"clip_01": False, "clip_02": False, "clip_03": False}


class Counted:
    """Stands for a function and remembers what it was called with."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.calls: list[tuple[Any, ...]] = []

    def __call__(self, *arguments: Any) -> Any:
        self.calls.append(arguments)
        return self.function(*arguments)


@pytest.fixture
def reconstructions(monkeypatch: pytest.MonkeyPatch) -> Counted:
    """The videos that are reconstructed: nothing is computed, each gets the same one triangle."""
    third = torch.full((1, 384), 384**-0.5, dtype=torch.float16)
    vertex, view = torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
    mesh = FeatureMesh(
        torch.eye(3), torch.tensor([[0, 1, 2]]), third, vertex, view, torch.eye(4)[None]
    )
    counted = Counted(lambda *_: mesh)
    monkeypatch.setattr(feature_mesh, "build_feature_mesh", counted)
    return counted


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Counted:
    """The trainings: nothing is computed, the model is one triangle."""

    def train(
        category: str, videos: Any, meshes: Any, alignment: Any, *_: Any
    ) -> CategoryModel:
        poses = {name: torch.eye(4).tolist() for name in videos}
        triangle = torch.tensor([[0, 1, 2]])
        return CategoryModel(
            category,
            torch.eye(3),
            triangle,
            torch.eye(3),
            torch.eye(3),
            {},
            provenance={"canon_from_obj": poses},
        )

    counted = Counted(train)
    monkeypatch.setattr(category_training, "train_model", counted)
    return counted


def names(calls: Counted) -> list[str]:
    return [call[0].name for call in calls.calls]


def test_stages_with_the_same_settings_and_files_are_skipped(
    trucks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("was run again")

    monkeypatch.setattr(feature_mesh, "build_feature_mesh", refuse)
    monkeypatch.setattr(category_alignment, "align_videos", refuse)
    assert reconstruction_stage.reconstruct(trucks, config=RECONSTRUCT) == MADE_NONE
    alignment, made = alignment_stage.align(trucks, config=ALIGN, device="cpu")
    assert not made
    assert alignment.videos == tuple(MADE_NONE)


def test_another_setting_makes_every_mesh_anew(
    trucks: Path, reconstructions: Counted
) -> None:
    reconstruction_stage.reconstruct(trucks, config=replace(RECONSTRUCT, margin=0.2))
    assert names(reconstructions) == ["clip_01", "clip_02", "clip_03"]


def test_another_version_makes_every_mesh_anew(
    trucks: Path, reconstructions: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uns_pose_ros, "__version__", "99")
    reconstruction_stage.reconstruct(trucks, config=RECONSTRUCT)
    assert len(reconstructions.calls) == 3


@pytest.mark.parametrize(
    "file", ["masks/000001.jpg.png", "sparse/images.txt", "images/000001.jpg", "video.json"]
)
def test_a_changed_file_makes_the_mesh_of_its_video_anew(
    trucks: Path, reconstructions: Counted, file: str
) -> None:
    source, target = trucks / "clip_01" / file, trucks / "clip_02" / file
    if file == "video.json":
        target.write_text('{"metric": true}')
    else:
        target.write_bytes(source.read_bytes())
    assert reconstruction_stage.reconstruct(trucks, config=RECONSTRUCT) == {
        **MADE_NONE,
        "clip_02": True,
    }
    assert names(reconstructions) == ["clip_02"]


@pytest.mark.parametrize("file", [artifacts.MESH, artifacts.FEATURES])
@pytest.mark.parametrize(
    "damage",
    [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:-100])],
)
def test_a_missing_or_torn_artifact_is_made_anew(
    trucks: Path, reconstructions: Counted, file: str, damage: Callable[[Path], Any]
) -> None:
    damage(trucks / "clip_03" / file)
    reconstruction_stage.reconstruct(trucks, config=RECONSTRUCT)
    assert names(reconstructions) == ["clip_03"]


def test_a_killed_reconstruction_goes_on_with_the_video_it_did_not_finish(
    trucks: Path, reconstructions: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in [*trucks.glob("*/mesh.ply"), *trucks.glob("*/features.safetensors")]:
        path.unlink()
    save = artifacts.save_feature_mesh

    def killed_in_the_second(mesh: FeatureMesh, folder: Path, provenance: Any) -> None:
        if folder.name == "clip_02":
            raise KeyboardInterrupt
        save(mesh, folder, provenance)

    with monkeypatch.context() as patch:
        patch.setattr(artifacts, "save_feature_mesh", killed_in_the_second)
        with pytest.raises(KeyboardInterrupt):
            reconstruction_stage.reconstruct(trucks, config=RECONSTRUCT)
    reconstructions.calls.clear()
    assert reconstruction_stage.reconstruct(trucks, config=RECONSTRUCT) == {
        "clip_01": False,
        "clip_02": True,
        "clip_03": True,
    }
    assert names(reconstructions) == ["clip_02", "clip_03"]


def test_no_video_is_worked_on_before_all_are_checked(
    trucks: Path, reconstructions: Counted
) -> None:
    (trucks / "clip_01" / artifacts.MESH).unlink()
    (trucks / "clip_03" / "sparse" / "images.txt").unlink()
    with pytest.raises(InvalidInput, match="clip_03"):
        reconstruction_stage.reconstruct(trucks, config=RECONSTRUCT)
    assert not reconstructions.calls


def test_another_seed_or_choice_of_videos_aligns_anew(trucks: Path) -> None:
    assert alignment_stage.align(trucks, config=ALIGN, seed=1)[1]
    assert not alignment_stage.align(trucks, config=ALIGN, seed=1)[1]
    alignment, made = alignment_stage.align(trucks, "clip_0[12]", ALIGN, seed=1)
    assert made
    assert alignment.videos == ("clip_01", "clip_02")


def test_a_video_is_added_and_what_was_aligned_stays(
    trucks: Path, trainings: Counted
) -> None:
    before, _ = alignment_stage.align(trucks, "clip_0[12]", ALIGN)
    after, added = alignment_stage.add_to_alignment(trucks, config=ALIGN)
    assert added and after.videos == ("clip_01", "clip_02", "clip_03")
    assert torch.equal(after.canon_from_obj[:2], before.canon_from_obj)
    labels = rotation_labels.load_labels(trucks / "labels.json", after.videos)
    assert rotation_labels.evaluate_alignment(after, labels)["acc15"] == 100
    assert not alignment_stage.add_to_alignment(trucks, config=ALIGN)[1]
    assert not alignment_stage.align(trucks, config=ALIGN)[1]  # all are in it
    assert training_stage.train(trucks)[1]


def test_meshes_of_files_that_have_changed_are_not_aligned(trucks: Path) -> None:
    (trucks / "clip_02" / "images" / "000003.jpg").unlink()
    with pytest.raises(InvalidInput, match="clip_02: images, masks or poses have changed"):
        alignment_stage.align(trucks, config=ALIGN)


def test_a_model_is_trained_once_and_says_what_it_was_made_of(
    trucks: Path, trainings: Counted
) -> None:
    model, made = training_stage.train(trucks, seed=3)
    assert made
    assert (model.provenance["stage"], model.provenance["seed"]) == ("train", 3)
    inputs = model.provenance["inputs"]
    assert isinstance(inputs, dict)
    assert set(inputs) == {"alignment.json", "clip_01", "clip_02", "clip_03"}
    again, made = training_stage.train(trucks, seed=3)
    assert not made
    assert again.provenance == artifacts.plain(model.provenance)
    assert len(trainings.calls) == 1
    assert (
        training_stage.train(trucks, seed=4)[1]
        and training_stage.train(trucks, config=TrainConfig(steps=3), seed=4)[1]
    )


def test_a_new_model_without_what_recordings_have_taught_is_said(
    trucks: Path, trainings: Counted, caplog: pytest.LogCaptureFixture
) -> None:
    model, _ = training_stage.train(trucks)
    taught = TaughtObject({}, torch.zeros(384), torch.zeros(1))
    artifacts.save_model(replace(model, taught=(taught,)), trucks / "model")
    assert not training_stage.train(trucks)[1] and not caplog.messages
    assert training_stage.train(trucks, seed=5)[1]
    assert any("taught the model before of 1 object(s)" in line for line in caplog.messages)


def test_what_aligning_and_training_took_is_known_afterwards(
    trucks: Path, trainings: Counted
) -> None:
    assert stage_progress.stage_seconds(trucks, None).keys() == {"align"}
    model, _ = training_stage.train(trucks)
    spent = stage_progress.stage_seconds(trucks, model)
    assert spent.keys() == {"align", "train"}
    assert spent["align"] > 0
    (trucks / "alignment.json").unlink()
    assert stage_progress.stage_seconds(trucks, model).keys() == {"train"}


def test_pictures_without_the_object_are_read_small_and_another_one_trains_anew(
    trucks: Path, trainings: Counted
) -> None:
    rooms = trucks.parent / "rooms"
    (rooms / "kitchen" / "masks").mkdir(parents=True)
    for path, shape in (
        ("hall.jpg", (30, 40, 3)),
        ("kitchen/1.png", (1024, 600, 3)),
        ("kitchen/masks/1.png", (9, 9, 3)),
    ):
        cv2.imwrite(str(rooms / path), np.full(shape, 90, np.uint8))
    assert (
        training_stage.train(trucks, backgrounds=rooms)[1]
        and not training_stage.train(trucks, backgrounds=rooms)[1]
    )
    assert sorted(picture.shape for picture in trainings.calls[0][8]) == [
        (30, 40, 3),
        (512, 300, 3),
    ]
    cv2.imwrite(str(rooms / "stairs.jpg"), np.zeros((20, 20, 3), np.uint8))
    assert training_stage.train(trucks, backgrounds=rooms)[1]
    with pytest.raises(InvalidInput, match=r"masks: no image \(.jpg, .jpeg, "):
        training_stage.train(trucks, backgrounds=rooms / "kitchen" / "masks")


def test_a_video_that_is_not_aligned_is_trained_on_only_by_mistake(
    trucks: Path, trainings: Counted
) -> None:
    alignment_stage.align(trucks, "clip_0[12]", ALIGN)
    with pytest.raises(InvalidInput, match=r"clip_03 not aligned, only clip_01, clip_02"):
        training_stage.train(trucks, "clip_03")
    training_stage.train(trucks)
    assert list(trainings.calls[0][1]) == ["clip_01", "clip_02"]


def test_a_mesh_made_anew_must_be_aligned_again(
    trucks: Path, reconstructions: Counted, trainings: Counted
) -> None:
    (trucks / "clip_01" / artifacts.MESH).unlink()
    reconstruction_stage.reconstruct(trucks, config=RECONSTRUCT)
    with pytest.raises(InvalidInput, match="clip_01 have changed since they were aligned"):
        training_stage.train(trucks)
    assert not trainings.calls


def test_another_surface_is_made_anew_and_meshes_of_hulls_keep_their_record(
    trucks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    surfaces: list[str] = []

    def build(video: Video, backbone: Any, config: Any, progress: Any, surface: str) -> Any:
        surfaces.append(surface)
        return artifacts.load_feature_mesh(video.folder)

    monkeypatch.setattr(reconstruction_stage, "load_stage_backbone", lambda device: None)
    monkeypatch.setattr(feature_mesh, "build_feature_mesh", build)
    made = [
        reconstruction_stage.reconstruct(trucks, "clip_01", RECONSTRUCT, surface=surface)[
            "clip_01"
        ]
        for surface in ("hull", "alpha", "alpha", "hull")
    ]
    assert made == [False, True, False, True]
    assert surfaces == ["alpha", "hull"]


def test_an_alpha_shape_without_points_is_refused_by_the_name_of_the_video(
    trucks: Path,
) -> None:
    with pytest.raises(InvalidInput, match="clip_02: 0 points of structure from motion"):
        reconstruction_stage.reconstruct(
            trucks, "clip_02", RECONSTRUCT, "cpu", surface="alpha"
        )
